"""Decides what evaluators take of a run's checkpoints: which items are answered, how, and which keys are of them.

A suite is a set of items with one way of answering them, or what is looked at inside the model. What the user supplies
for it enters by the digest of its content, so that a key of metrics never is of two files; nothing of it enters a run's
recipe.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from zsg_core.scores import metrics
from zsg_core.scores.keys import INSIDE, is_answers
from zsg_core.scores.metrics import HUMANEVAL, MT_BENCH, REWARD, SUITES, TEST_SET
from zsg_core.settings.checkpoints import CheckpointSettings

PROMPTS = "judge_prompts"


class File(msgspec.Struct, frozen=True):
    """A file or folder that the user supplies: where it lies, and the digest of its content."""

    path: str
    digest: str


class Suite(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted of one set of items, or inside the model; job.json holds it as it is.

    `how` is all that decides the answers. `scored_by` is, by metric, what else decides a score: which judge, which
    reward model. `files` are where `how` and `scored_by` have digests of; `judge` is how a judge is reached.
    """

    name: str
    keys: tuple[str, ...]
    how: dict[str, Any]
    scored_by: dict[str, dict[str, Any]] = {}
    files: dict[str, File] = {}
    judge: dict[str, Any] | None = None
    runs_code: bool = False

    def way(self, key: str) -> dict[str, Any]:
        """All that decides the values of a key."""
        return self.how | self.scored_by.get(key, {})

    @property
    def metrics(self) -> list[str]:
        """The metrics that its keys are of, but for answers that are only kept."""
        return [metrics.of_key(key) for key in self.keys if not is_answers(key)]


def wanted(asked: CheckpointSettings, files: Mapping[str, File]) -> tuple[Suite, ...]:
    """The suites of which keys are asked for. `files`: those that `needs` names."""
    of_answers = [_suite(name, asked, files) for name in SUITES if asked.keys(name)]
    ways = asked.inside
    inside = [Suite(name=INSIDE, keys=tuple(ways), how={}, scored_by=ways)] if ways else []
    return (*of_answers, *inside)


def needs(asked: CheckpointSettings) -> dict[str, tuple[str, str]]:
    """What the user must supply for the suites that are asked for: name → (the setting that says where, its value)."""
    found = {}
    for name in SUITES:
        own = None if name == TEST_SET else asked.suites.of(name)
        if own is not None and asked.keys(name):
            found[name] = (f"checkpoints.suites.{name}.path", own.path)
    mt_bench = asked.suites.mt_bench
    if mt_bench and mt_bench.judge and asked.keys(MT_BENCH):
        found[PROMPTS] = ("checkpoints.suites.mt_bench.judge.prompts", mt_bench.judge.prompts)
    if asked.reward_model is not None:
        found[REWARD] = ("checkpoints.reward_model", asked.reward_model)
    return found


def key_variables(suites: Iterable[Suite]) -> list[str]:
    """The environment variables that hold the keys of the suites' judges."""
    return list(dict.fromkeys(str(one.judge["key_env"]) for one in suites if one.judge and one.judge["key_env"]))


def _suite(name: str, asked: CheckpointSettings, files: Mapping[str, File]) -> Suite:
    keys, suites = tuple(asked.keys(name)), asked.suites
    if name == TEST_SET:
        rewarded = [key for key in keys if metrics.of_key(key) == REWARD]
        by = {key: {"reward_model": files[REWARD].digest} for key in rewarded}
        return Suite(name=name, keys=keys, how=asked.generation.how, scored_by=by, files=_of(files, *by and [REWARD]))
    own = suites.of(name)
    assert own is not None, "settings without the suite of a metric are refused"
    how, held = {**own.how, "file": files[name].digest}, _of(files, name)
    if name == HUMANEVAL:
        assert suites.humaneval is not None
        return Suite(name=name, keys=keys, how=how, files=held, runs_code=bool(suites.humaneval.allow_code_execution))
    judge = suites.mt_bench.judge if name == MT_BENCH and suites.mt_bench else None
    if judge is None:
        return Suite(name=name, keys=keys, how=how, files=held)
    by = {key: {"judge": judge.model, "judge_prompts": files[PROMPTS].digest} for key in keys}
    reached = judge.model_dump(mode="json", include={"base_url", "model", "key_env"})
    return Suite(name=name, keys=keys, how=how, scored_by=by, files=_of(files, name, PROMPTS), judge=reached)


def _of(files: Mapping[str, File], *names: str) -> dict[str, File]:
    return {name: files[name] for name in names}
