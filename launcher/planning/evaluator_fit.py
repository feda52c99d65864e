"""Decides whether the model of an evaluate job fits its GPUs, and finds the smallest
change that makes it fit. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from zsg_core.metrics.metrics import MT_BENCH, TEST_SET
from zsg_core.suites import Suite
from zsg_core.training.estimate import GB
from zsg_core.training.evaluation_memory import EvaluationLoad

# tokens of a benchmark's question with its template: HumanEval's longest has some 400
PROMPT_TOKENS = 1024
EVALUATES = "would be evaluated in vain: its evaluate job"
FEW = 8  # answers at once: a GPU is not busy with fewer


@dataclass(frozen=True, kw_only=True)
class EvaluatorGpus:
    """What an evaluate job is given: `count` GPUs of `memory_gb`, of `most` on a node."""

    count: int
    most: int
    name: str
    memory_gb: float

    @property
    def memory(self) -> float:
        """Bytes of one."""
        return self.memory_gb * GB


def bound_row(suites: Iterable[Suite], max_length: int, positions: int) -> int:
    """The most tokens of a prompt with its answer that suites ask for, within the
    positions of the model."""
    rows = [_bound_suite(suite, max_length) for suite in suites]
    return min(positions, max(rows, default=max_length))


def _bound_suite(suite: Suite, max_length: int) -> int:
    """The same of one suite. Test items are asked within the run's max_length; what is
    looked at inside the model has no answer; MT-Bench asks twice."""
    most_new = int(suite.how.get("max_new_tokens", 0))
    if suite.name == TEST_SET or not most_new:
        return max_length + most_new
    turns = 2 if suite.name == MT_BENCH else 1
    return PROMPT_TOKENS + turns * most_new


def bound_sampled_row(how: Mapping[str, Any], positions: int) -> int:
    """The same of a model's own answers: longer questions are passed over."""
    return (
        positions if how["max_new_tokens"] < positions else int(how["max_new_tokens"])
    )


def bound_made_row(most_tokens: int, max_length: int, positions: int) -> int:
    """The same of what a maker of data asks: its instructions with a text of the data,
    and with a reply that an earlier round gave, then the reply. A longer prompt may be
    asked all the same, where the GPU has room; plan cannot know of each."""
    return min(positions, PROMPT_TOKENS + max_length + 2 * most_tokens)


def explain_misfit(
    load: EvaluationLoad, gpus: EvaluatorGpus, job: str = EVALUATES
) -> str | None:
    """Why an evaluate job, or another `job` that has a model answer, does not fit and
    what would make it fit; None if it fits."""
    if load.fits(gpus.count, gpus.memory):
        return None
    need_gb = load.need(gpus.count) / GB
    return (
        f"{job} needs {need_gb:.1f} GB on"
        f" {_count(gpus.count)}, but {gpus.name} has {gpus.memory_gb:g} GB:"
        f" {_describe_parts(load, gpus.count)}. {_advise(load, gpus)}"
    )


def _advise(load: EvaluationLoad, gpus: EvaluatorGpus) -> str:
    """What would make an evaluate job fit."""
    count = _find_fitting_count(load, gpus)
    if count is None:
        return (
            f"Not even all {gpus.most} GPUs of a node fit; it takes GPUs with more memory, or"
            " fewer max_new_tokens, or no metric of answers (checkpoints.metrics)"
        )
    need_gb = load.need(count) / GB
    return (
        f"The smallest change that fits: evaluate.gpus: {count} in the profile"
        f" ({need_gb:.1f} GB on the fullest)"
    )


def _find_fitting_count(load: EvaluationLoad, gpus: EvaluatorGpus) -> int | None:
    """The fewest GPUs, beyond those that there are, that have room; None where none on
    a node have."""
    for count in range(gpus.count + 1, gpus.most + 1):
        if load.fits(count, gpus.memory):
            return count
    return None


def describe_fit(load: EvaluationLoad, gpus: EvaluatorGpus) -> str:
    """What an evaluate job that fits takes, and how many answers it makes at once."""
    need_gb = load.need(gpus.count) / GB
    rows = load.rows_at_once(gpus.count, gpus.memory)
    return (
        f"evaluators: {need_gb:.1f} of {gpus.memory_gb:g} GB on {_count(gpus.count)} at least:"
        f" {_describe_parts(load, gpus.count)}; {rows} at once{_describe_faster(load, gpus)}"
    )


def _describe_faster(load: EvaluationLoad, gpus: EvaluatorGpus) -> str:
    """How many answers one GPU more would make at once, where those are few."""
    rows = load.rows_at_once(gpus.count, gpus.memory)
    if rows >= FEW or gpus.count == gpus.most:
        return ""
    count = gpus.count + 1
    rows = load.rows_at_once(count, gpus.memory)
    return f", {rows} with evaluate.gpus: {count} in the profile"


def _describe_parts(load: EvaluationLoad, count: int) -> str:
    """What the fullest of so many GPUs holds."""
    fullest = max(
        load.spread(count),
        key=lambda part: part.held + load.row_need(part),
    )
    billions = load.shape.parameters / 1e9
    weights_gb = fullest.weights / GB
    row_gb = load.row_need(fullest) / GB
    beside = ""
    if fullest.beside:
        beside_gb = fullest.beside / GB
        beside = f", {beside_gb:.1f} GB a reward model"
    return (
        f"{weights_gb:.1f} GB weights ({billions:.2f} billion parameters in {load.precision})"
        f"{beside} and {row_gb:.1f} GB one answer with its prompt, {load.row} tokens"
    )


def _count(gpus: int) -> str:
    """What is told of, in words."""
    if gpus == 1:
        return "a GPU"
    return f"the fullest of {gpus} GPUs"
