"""Says in a few words how metrics were taken, where two values of one metric may differ by
it: sacreBLEU's signature, and version, shots and template of a benchmark."""

from collections.abc import Iterable, Mapping
from typing import Any

from jobs.contract.exit_record import replace_unset
from jobs.contract.journal_rows import AnswersKept, InsideTaken, Row, find_events
from zsg_core.metrics.keys import is_harness, is_standard_error

# templates by the setting `chat` of the harness
_TEMPLATES = {"none": "no template", "model": "the model's own chat template"}


def describe_ways(rows: Iterable[Row]) -> dict[str, str]:
    """By key, how it was taken, of the keys of which there is something to say; `rows`
    of all writers of a run's journals. Of several ways the newest."""
    ways: dict[str, str] = {}
    for row in rows:
        for _, inside in find_events([row], InsideTaken):
            for key, settings in inside.ways.items():
                if is_harness(key) and not is_standard_error(key):
                    ways[key] = _describe_benchmark(settings)
        for _, answers in find_events([row], AnswersKept):
            libraries = replace_unset(answers.libraries, {})
            for key, settings in replace_unset(answers.scored_by, {}).items():
                if "signature" in settings and key in answers.keys:
                    ways[key] = _spell_signature(settings, libraries)
    return ways


def _describe_benchmark(settings: Mapping[str, Any]) -> str:
    """A task of lm-evaluation-harness: its version, and how its items are asked."""
    shots = settings.get("num_fewshot")
    words = [
        f"task {settings.get('task')} of version {settings.get('task_version') or '?'}",
        f"lm_eval {settings.get('harness')}",
        "as many shots as the task says" if shots is None else f"{shots} shots",
        _describe_template(settings),
    ]
    if settings.get("limit") is not None:
        words.append(f"limit {settings['limit']}")
    if digest := settings.get("task_digest"):
        words.append(f"files {digest}")
    return ", ".join(words)


def _describe_template(settings: Mapping[str, Any]) -> str:
    """In which template the items are asked."""
    chat = str(settings.get("chat", "none"))
    if chat == "run":
        return f"the run's template {settings.get('template')}"
    return _TEMPLATES.get(chat, f"template {chat}")


def _spell_signature(settings: Mapping[str, Any], libraries: Mapping[str, str]) -> str:
    """sacreBLEU's signature, with the version where it is known: values of before it was
    journalled have none."""
    signature = str(settings["signature"])
    version = libraries.get("sacrebleu")
    return signature if version is None else f"{signature}|version:{version}"
