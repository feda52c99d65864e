"""Decides what evaluators take of a run's checkpoints: which items are answered, how,
and which keys are of them.

A suite is a set of items with one way of answering them, or what is looked at inside
the model. What the user supplies for it enters by the digest of its content, so that a
key of metrics never is of two files; nothing of it enters a run's recipe. What zsg
itself has come to do otherwise enters, too, so that values of an older zsg are told
from its own: `stops`, the texts at which an answer is over; `asked`, how a test item's
prompt is made; `flexible` and `program`, how answers to GSM8K and HumanEval are read;
`prompt`, after what options are compared; `words`, how the words of what is rewarded
become tokens.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from zsg_core.data import prompts
from zsg_core.metrics import human_eval, metrics
from zsg_core.metrics.keys import INSIDE, is_answers
from zsg_core.metrics.metrics import (
    GSM8K,
    HUMANEVAL,
    METRICS,
    MT_BENCH,
    RANK_ACCURACY,
    REWARD,
    SUITES,
    TEST_SET,
)
from zsg_core.settings.checkpoints import CheckpointSettings

PROMPTS = "judge_prompts"
# the template that adds nothing to a prompt, so that an answer goes on from it
PLAIN = "plain"

# Where answers to a benchmark are over beside the template's next turn. GSM8K's are
# those of lm-evaluation-harness.
_STOPS = {GSM8K: ("Question:", "</s>", "<|im_end|>")}
# an older zsg cut a test item's prompt by its own answer's tokens
_ASKED = {"asked": "without its answer"}
# an older zsg gave one option a blank that it took from another
_RANKED = {"prompt": "the same tokens"}
# The names of all that zsg itself has come to do otherwise: a way without them is an older zsg's.
_DEFINED = (key for metric in METRICS.values() for key in metric.definition)
SINCE = frozenset({"stops", *_ASKED, *_RANKED, *_DEFINED})


class SuiteFile(msgspec.Struct, frozen=True):
    """A file or folder that the user supplies: where it lies, and the digest of its content."""

    path: str
    digest: str


class Suite(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted of one set of items, or inside the model; job.json holds it as it is.

    `how` is all that decides the answers. `scored_by` is, by metric, what else decides
    a score: which judge, which reward model. `files` are where `how` and `scored_by`
    have digests of; `judge` is how a judge is reached.
    """

    name: str
    keys: tuple[str, ...]
    how: dict[str, Any]
    scored_by: dict[str, dict[str, Any]] = {}
    files: dict[str, SuiteFile] = {}
    judge: dict[str, Any] | None = None
    runs_code: bool = False

    def way(self, key: str) -> dict[str, Any]:
        """All that decides the values of a key."""
        return self.how | self.scored_by.get(key, {})

    @property
    def metrics(self) -> list[str]:
        """The metrics that its keys are of, but for answers that are only kept."""
        return [metrics.find_metric(key) for key in self.keys if not is_answers(key)]


def select_suites(
    asked: CheckpointSettings, files: Mapping[str, SuiteFile], template: str = "zsg"
) -> tuple[Suite, ...]:
    """The suites of which keys are asked for. `files`: those that `find_needed_files` names;
    `template`: the run's, by its name."""
    of_answers = [
        _suite(name, asked, files, template) for name in SUITES if asked.keys(name)
    ]
    # In other templates an answer begins with a piece or a blank of its own, so prompts
    # were always the same.
    is_new = template == PLAIN
    ways = {
        key: way | _RANKED if is_new and key.partition("/")[0] == RANK_ACCURACY else way
        for key, way in asked.inside.items()
    }
    inside = (
        [Suite(name=INSIDE, keys=tuple(ways), how={}, scored_by=ways)] if ways else []
    )
    return (*of_answers, *inside)


def find_needed_files(asked: CheckpointSettings) -> dict[str, tuple[str, str]]:
    """What the user must supply for the suites that are asked for: name → (the setting
    that says where, its value)."""
    found = {}
    for name in SUITES:
        own = None if name == TEST_SET else asked.suites.of(name)
        if own is not None and asked.keys(name):
            found[name] = (f"checkpoints.suites.{name}.path", own.path)
    mt_bench = asked.suites.mt_bench
    if mt_bench and mt_bench.judge and asked.keys(MT_BENCH):
        found[PROMPTS] = (
            "checkpoints.suites.mt_bench.judge.prompts",
            mt_bench.judge.prompts,
        )
    if asked.reward_model is not None:
        found[REWARD] = ("checkpoints.reward_model", asked.reward_model)
    return found


def list_key_variables(suites: Iterable[Suite]) -> list[str]:
    """The environment variables that hold the keys of the suites' judges."""
    return list(
        dict.fromkeys(
            str(one.judge["key_env"])
            for one in suites
            if one.judge and one.judge["key_env"]
        )
    )


def list_stop_texts(name: str, template: str) -> list[str]:
    """The texts at which an answer to a suite is over: where the template's next turn
    begins, and the suite's own.

    HumanEval's are of completions (Chen et al. 2021), which answers are under template
    plain alone: under any other the model is asked for the whole program, and its first
    line is one of them.
    """
    own = (
        human_eval.STOPS
        if name == HUMANEVAL and template == PLAIN
        else _STOPS.get(name, ())
    )
    turn = prompts.next_turn(template)
    return [*([turn] if turn else []), *own]


def _suite(
    name: str, asked: CheckpointSettings, files: Mapping[str, SuiteFile], template: str
) -> Suite:
    keys, suites = tuple(asked.keys(name)), asked.suites
    until = {"stops": list_stop_texts(name, template)}
    scored = {
        key: dict(definition)
        for key in keys
        if not is_answers(key)
        and (definition := METRICS[metrics.find_metric(key)].definition)
    }
    if name == TEST_SET:
        rewarded = [key for key in keys if metrics.find_metric(key) == REWARD]
        by = scored | {
            key: {"reward_model": files[REWARD].digest, **scored[key]}
            for key in rewarded
        }
        how = asked.generation.how | until | _ASKED
        return Suite(
            name=name,
            keys=keys,
            how=how,
            scored_by=by,
            files=_of(files, *rewarded and [REWARD]),
        )
    own = suites.of(name)
    assert own is not None, "settings without the suite of a metric are refused"
    how, held = {**own.how, **until, "file": files[name].digest}, _of(files, name)
    if name == HUMANEVAL:
        assert suites.humaneval is not None
        runs_code = bool(suites.humaneval.allow_code_execution)
        return Suite(
            name=name,
            keys=keys,
            how=how,
            scored_by=scored,
            files=held,
            runs_code=runs_code,
        )
    judge = suites.mt_bench.judge if name == MT_BENCH and suites.mt_bench else None
    if judge is None:
        return Suite(name=name, keys=keys, how=how, scored_by=scored, files=held)
    by = {
        key: {"judge": judge.model, "judge_prompts": files[PROMPTS].digest}
        for key in keys
    }
    reached = judge.model_dump(mode="json", include={"base_url", "model", "key_env"})
    return Suite(
        name=name,
        keys=keys,
        how=how,
        scored_by=by,
        files=_of(files, name, PROMPTS),
        judge=reached,
    )


def _of(files: Mapping[str, SuiteFile], *names: str) -> dict[str, SuiteFile]:
    return {name: files[name] for name in names}
