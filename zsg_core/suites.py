"""Decides what evaluators take of a run's checkpoints: which items are answered, how,
and which keys are of them.

A suite is a set of items with one way of answering them, or what is looked at inside
the model. What the user supplies for it enters by the digest of its content, so that a
key of metrics never is of two files; nothing of it enters a run's recipe. What zsg
itself has come to do otherwise enters, too, so that values of an older zsg are told
from its own: `stops`, the texts at which an answer is over; `ends`, the tokens at which
it is beside the tokenizer's end of sequence, as a base's generation_config.json names
them; `asked`, how a test item's prompt is made; `flexible` and `program`, how answers to
GSM8K and HumanEval are read;
`prompt`, after what options are compared; `words`, how the words of what is rewarded
become tokens; `drawn`, by what a token is drawn; `reasoning`, between which texts a
model thinks before its answer, which is no part of it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from zsg_core.data import prompts
from zsg_core.digest import content_id
from zsg_core.metrics import human_eval, metrics
from zsg_core.metrics.keys import HARNESS, INSIDE, is_answers, is_harness
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
from zsg_core.metrics.pairs import WIN_RATE
from zsg_core.metrics.reasoning import Marks
from zsg_core.settings.checkpoints import CheckpointSettings
from zsg_core.settings.lm_eval import BY_RUN
from zsg_core.settings.suites import JudgeSettings

PROMPTS = "judge_prompts"
BASELINE = "baseline"  # answers that a model's are compared with
# the template that adds nothing to a prompt, so that an answer goes on from it
PLAIN = "plain"

# Where answers to a benchmark are over beside the template's next turn. GSM8K's are
# those of lm-evaluation-harness.
_STOPS = {GSM8K: ("Question:", "</s>", "<|im_end|>")}
# an older zsg cut a test item's prompt by its own answer's tokens
_ASKED = {"asked": "without its answer"}
# an older zsg gave one option a blank that it took from another
_RANKED = {"prompt": "the same tokens"}
# an older zsg drew by a stream of numbers on the CPU, which took longer than the model
BY_NUMBER = "one number for each token"
_DRAWN = {"drawn": BY_NUMBER}
# between which texts a model thinks, which an older zsg scored, too
REASONING = "reasoning"
WHOLE = "whole"
NUCLEUS = "nucleus"  # of `decoding`
# The names of all that zsg itself has come to do otherwise: a way without them is an older zsg's.
_DEFINED = (key for metric in METRICS.values() for key in metric.definition)
SINCE = frozenset({"stops", "ends", REASONING, *_ASKED, *_RANKED, *_DRAWN, *_DEFINED})


def is_older_way(way: Mapping[str, object], now: Mapping[str, object]) -> bool:
    """Whether `way` is `now` as some older zsg took it: the same, but for what zsg has
    come to do otherwise since."""
    expected = {
        name: value for name, value in now.items() if name not in SINCE or name in way
    }
    return way != now and way == expected


def find_marks(how: Mapping[str, Any]) -> Marks | None:
    """Between which texts a model that answered in this way thinks; None where that is a
    part of its answers."""
    marks = how.get(REASONING)
    return None if marks is None else (marks[0], marks[1])


class SuiteFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file or folder that the user supplies: where it lies, and the digest of its content.
    `facts`: what else is known of it before it is read, of tasks of the harness."""

    path: str
    digest: str
    facts: dict[str, Any] = {}


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

    def find_definition(self, key: str) -> dict[str, Any]:
        """All that decides the values of a key."""
        return self.how | self.scored_by.get(key, {})

    @property
    def marks(self) -> Marks | None:
        """Between which texts its model thinks; None where that is a part of its answers."""
        return find_marks(self.how)

    @property
    def metrics(self) -> list[str]:
        """The metrics of answers that its keys are of, but for answers that are only
        kept. What is taken inside the model is of no answer."""
        if self.name == INSIDE:
            return []
        return [
            metrics.find_metric(key)
            for key in self.keys
            if not is_answers(key) and not is_harness(key)
        ]


def select_suites(
    settings: CheckpointSettings,
    files: Mapping[str, SuiteFile],
    template: str = "zsg",
    ends: Sequence[int] = (),
    reasoning: Marks | None = None,
) -> tuple[Suite, ...]:
    """The suites of which keys are asked for. `files`: those that `find_needed_files` names;
    `template`: the run's, by its name; `ends`: token ids at which its model says that an
    answer is over, beside its tokenizer's end of sequence; `reasoning`: the pair of tokens
    that its tokenizer has for what is thought before an answer."""
    marks = _choose_marks(settings.reasoning, reasoning)
    of_answers = [
        _make_suite(
            name, settings, files, _list_ways_to_end(name, template, ends) | marks
        )
        for name in SUITES
        if settings.keys(name)
    ]
    if settings.harness_tasks:
        of_answers.append(_make_harness_suite(settings, files, template, ends))
    definitions = {
        key: _define_inside(key, definition, template)
        for key, definition in settings.inside.items()
    }
    if not definitions:
        return tuple(of_answers)
    inside = Suite(name=INSIDE, keys=tuple(definitions), how={}, scored_by=definitions)
    return (*of_answers, inside)


def _choose_marks(
    chosen: Literal["whole"] | list[str] | None, of_tokenizer: Marks | None
) -> dict[str, Any]:
    """Between which texts a model thinks, where what it thinks is no part of its answers;
    empty where it is, or where nobody says that it thinks."""
    if chosen == WHOLE:
        return {}
    marks = of_tokenizer if chosen is None else chosen
    return {} if marks is None else {REASONING: list(marks)}


def _make_harness_suite(
    settings: CheckpointSettings,
    files: Mapping[str, SuiteFile],
    template: str,
    ends: Sequence[int],
) -> Suite:
    """The suite of tasks of lm-evaluation-harness. Each key has the digest and the
    version of its own task, so that a changed task touches no other."""
    lm_eval, keys = settings.lm_eval, settings.harness_tasks
    how = {**lm_eval.how, "harness": files[HARNESS].digest}
    if lm_eval.chat == BY_RUN:
        how["template"] = template
    if ends:
        how["ends"] = list(ends)
    used = {name: file for name, file in files.items() if is_harness(name)}
    definitions: dict[str, dict[str, Any]] = {}
    for key, task in keys.items():
        of_task = list_task_folders(used, task)
        digests = [folder.digest for folder in of_task]
        facts = of_task[0].facts if of_task else {}
        definitions[key] = {
            "task": task,
            "task_version": facts.get("version", ""),
            "task_digest": content_id(digests),
        }
        if code := list_task_code(used, task):
            definitions[key]["task_code"] = content_id([file.facts for file in code])
    return Suite(
        name=HARNESS, keys=tuple(keys), how=how, scored_by=definitions, files=used
    )


def name_task_folder(task: str, number: int) -> str:
    """What the files of a suite call one of the folders in which a task's files are."""
    return f"{HARNESS}/{task}#{number}"


def list_task_folders(files: Mapping[str, SuiteFile], task: str) -> list[SuiteFile]:
    """The folders in which the files of a task of lm-evaluation-harness are."""
    folders: list[SuiteFile] = []
    while (name := name_task_folder(task, len(folders))) in files:
        folders.append(files[name])
    return folders


def name_task_code(task: str, number: int) -> str:
    """What the files of a suite call one of the plugins whose functions a task names."""
    return f"{HARNESS}/{task}#code{number}"


def list_task_code(files: Mapping[str, SuiteFile], task: str) -> list[SuiteFile]:
    """The plugins whose functions a task of lm-evaluation-harness names: where each lies
    for the user, and the SHA-256 of its bytes; `facts`: with those of what it imports."""
    code: list[SuiteFile] = []
    while (name := name_task_code(task, len(code))) in files:
        code.append(files[name])
    return code


def _define_inside(
    key: str, definition: dict[str, Any], template: str
) -> dict[str, Any]:
    """What decides the values of a key that is taken inside the model.

    In other templates than `plain` an answer begins with a piece or a blank of its own,
    so prompts were always the same.
    """
    is_new = template == PLAIN and key.partition("/")[0] == RANK_ACCURACY
    return definition | _RANKED if is_new else definition


def find_needed_files(settings: CheckpointSettings) -> dict[str, tuple[str, str]]:
    """What the user must supply for the suites that are asked for: name → (the setting
    that says where, its value)."""
    needed = {}
    for name in SUITES:
        benchmark = None if name == TEST_SET else settings.suites.find_benchmark(name)
        if benchmark is not None and settings.keys(name):
            needed[name] = (f"checkpoints.suites.{name}.path", benchmark.path)
    mt_bench = settings.suites.mt_bench
    if mt_bench and mt_bench.judge and settings.keys(MT_BENCH):
        needed[PROMPTS] = (
            "checkpoints.suites.mt_bench.judge.prompts",
            mt_bench.judge.prompts,
        )
    if mt_bench and mt_bench.judge and mt_bench.baseline is not None:
        needed[BASELINE] = ("checkpoints.suites.mt_bench.baseline", mt_bench.baseline)
    if settings.reward_model is not None:
        needed[REWARD] = ("checkpoints.reward_model", settings.reward_model)
    return needed


def list_key_variables(suites: Iterable[Suite]) -> list[str]:
    """The environment variables that hold the keys of the suites' judges."""
    variables = [suite.judge["key_env"] for suite in suites if suite.judge]
    return list(dict.fromkeys(str(name) for name in variables if name))


def list_stop_texts(name: str, template: str) -> list[str]:
    """The texts at which an answer to a suite is over: where the template's next turn
    begins, and the suite's own.

    HumanEval's are of completions (Chen et al. 2021), which answers are under template
    plain alone: under any other the model is asked for the whole program, and its first
    line is one of them.
    """
    is_completion = name == HUMANEVAL and template == PLAIN
    stops = human_eval.STOPS if is_completion else _STOPS.get(name, ())
    turn = prompts.next_turn(template)
    return [*([turn] if turn else []), *stops]


def _list_ways_to_end(name: str, template: str, ends: Sequence[int]) -> dict[str, Any]:
    """Where an answer to a suite is over, beside the end of sequence."""
    until: dict[str, Any] = {"stops": list_stop_texts(name, template)}
    # absent where there are none, as in the ways of before, so that those stay the same
    return until | ({"ends": list(ends)} if ends else {})


def _make_suite(
    name: str,
    settings: CheckpointSettings,
    files: Mapping[str, SuiteFile],
    until: Mapping[str, Any],
) -> Suite:
    """A suite of answers: the run's own test items, or a benchmark. `until`: where an
    answer is over."""
    keys = tuple(settings.keys(name))
    definitions = _collect_definitions(keys)
    if name == TEST_SET:
        how = {**_mark_draws(settings.generation.how), **until, **_ASKED}
        definitions |= settings.define_text_scores(keys)
        return _make_test_set_suite(keys, how, definitions, files)
    benchmark = settings.suites.find_benchmark(name)
    assert benchmark is not None, "settings without the suite of a metric are refused"
    suite = Suite(
        name=name,
        keys=keys,
        how={**_mark_draws(benchmark.how), **until, "file": files[name].digest},
        scored_by=definitions,
        files=_pick_files(files, name),
    )
    humaneval, mt_bench = settings.suites.humaneval, settings.suites.mt_bench
    if name == HUMANEVAL and humaneval is not None:
        runs_code = bool(humaneval.allow_code_execution)
        return msgspec.structs.replace(suite, runs_code=runs_code)
    if name == MT_BENCH and mt_bench is not None and mt_bench.judge is not None:
        return _add_judge(suite, mt_bench.judge, files)
    return suite


def _mark_draws(how: Mapping[str, object]) -> dict[str, Any]:
    """A way of answering, with by what tokens are drawn where they are."""
    is_drawn = how["decoding"] == NUCLEUS
    return {**how, **_DRAWN} if is_drawn else dict(how)


def _collect_definitions(keys: Iterable[str]) -> dict[str, dict[str, Any]]:
    """By key, what zsg itself has come to do otherwise in its metric."""
    definitions = {
        key: METRICS[metrics.find_metric(key)].definition
        for key in keys
        if not is_answers(key)
    }
    return {key: dict(value) for key, value in definitions.items() if value}


def _make_test_set_suite(
    keys: tuple[str, ...],
    how: dict[str, Any],
    definitions: dict[str, dict[str, Any]],
    files: Mapping[str, SuiteFile],
) -> Suite:
    """The suite of the run's own test items; keys of reward have the model that rewards."""
    rewarded = [key for key in keys if metrics.find_metric(key) == REWARD]
    rewards = {
        key: {"reward_model": files[REWARD].digest, **definitions[key]}
        for key in rewarded
    }
    return Suite(
        name=TEST_SET,
        keys=keys,
        how=how,
        scored_by=definitions | rewards,
        files=_pick_files(files, *rewarded and [REWARD]),
    )


def _add_judge(
    suite: Suite, judge: JudgeSettings, files: Mapping[str, SuiteFile]
) -> Suite:
    """MT-Bench with the judge that rates its answers."""
    rated_by = {"judge": judge.model, "judge_prompts": files[PROMPTS].digest}
    scored_by = {key: dict(rated_by) for key in suite.keys}
    names = [MT_BENCH, PROMPTS]
    if BASELINE in files:
        names.append(BASELINE)
        for key in suite.keys:
            if metrics.find_metric(key) == WIN_RATE:
                scored_by[key]["baseline"] = files[BASELINE].digest
    return msgspec.structs.replace(
        suite,
        scored_by=scored_by,
        files=_pick_files(files, *names),
        judge=judge.reached,
    )


def _pick_files(files: Mapping[str, SuiteFile], *names: str) -> dict[str, SuiteFile]:
    return {name: files[name] for name in names}
