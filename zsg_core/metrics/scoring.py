"""Makes scores of a checkpoint out of scores of its answers: per item, per task, their
mean, how sure it is."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np

ByItem = dict[str, float]  # item id → score; an item that could not be scored is absent


class Answered(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One text that a model generated for an item. Several samples of an item have the same id.

    `prompt` is what the model saw, and `references` are the answers that would be
    right, where some were published.
    """

    id: str
    task: str
    prompt: str
    references: tuple[str, ...] = ()
    answer: str


class OptionLosses(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a model makes of each of the options of an item.

    `losses`: by option, −log p(option | prompt) in nats, summed over its `tokens`, as
    the run's own loss reads them; `right`: which of them is the answer.
    """

    id: str
    task: str
    prompt: str
    options: tuple[str, ...]
    losses: tuple[float, ...]
    tokens: tuple[int, ...]
    right: int


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint's answers are worth, by metric key. A metric of which no item
    has a score is in `flags` only.

    `flags` are sentences: scores that are all exactly 0 or answers that are all equal,
    both of which are likely to come from a broken run rather than a bad model, and
    items without a score.
    """

    values: dict[str, float]  # the unweighted mean over tasks of their items' mean
    error: dict[str, float]  # the standard error of that; absent of a single item
    by_task: dict[str, dict[str, float]]
    by_item: dict[str, ByItem]
    flags: list[str]


def mean_by_item(scored: Iterable[tuple[str, float]]) -> ByItem:
    """(item id, score) of every sample → the mean of each item's samples, in the order
    in which items first come."""
    samples: dict[str, list[float]] = defaultdict(list)
    for item, score in scored:
        samples[item].append(score)
    return {item: float(np.mean(scores)) for item, scores in samples.items()}


def aggregate_scores(
    by_metric: Mapping[str, ByItem], answers: Sequence[Answered]
) -> Scores:
    """The scores of a checkpoint, whose items are those of `answers`; ValueError for a
    score of any other item.

    A score that is not finite is none: the item is left out of every mean and counted in `flags`.
    """
    tasks = {answered.id: answered.task for answered in answers}
    values, error, by_task, by_item, flags = {}, {}, {}, {}, _flags_of_answers(answers)
    for metric, scored in by_metric.items():
        if strange := scored.keys() - tasks.keys():
            raise ValueError(
                f"{metric}: scored {min(strange)!r}, of which there is no answer"
            )
        finite_scores = {
            item: float(score) for item, score in scored.items() if math.isfinite(score)
        }
        flags += _flags_of_scores(metric, list(finite_scores.values()), len(tasks))
        if not finite_scores:
            continue
        of_task: dict[str, list[float]] = defaultdict(list)
        for item, score in finite_scores.items():
            of_task[tasks[item]].append(score)
        by_item[metric] = finite_scores
        by_task[metric] = {
            task: float(np.mean(scores)) for task, scores in of_task.items()
        }
        values[metric] = float(np.mean(list(by_task[metric].values())))
        if (spread := standard_error(list(of_task.values()))) is not None:
            error[metric] = spread
    return Scores(
        values=values, error=error, by_task=by_task, by_item=by_item, flags=flags
    )


def standard_error(by_task: Sequence[Sequence[float]]) -> float | None:
    """The standard error of the mean over tasks of their items' means; None where there
    is but one item.

    Tasks are drawn, so it is that of T task means, s / √T: items of a task are alike,
    and counting each would overstate what is known (Miller 2024, "Adding Error Bars to
    Evals", section 2.2). Of a single task it is that of its items.
    """
    drawn = (
        by_task[0]
        if len(by_task) == 1
        else [float(np.mean(scores)) for scores in by_task]
    )
    return float(np.std(drawn, ddof=1)) / len(drawn) ** 0.5 if len(drawn) > 1 else None


def _flags_of_answers(answers: Sequence[Answered]) -> list[str]:
    prompts, texts = (
        {answered.prompt for answered in answers},
        {answered.answer for answered in answers},
    )
    if len(prompts) < 2 or len(texts) > 1:
        return []
    return [
        f"likely broken: all {len(answers)} answers are {_shown(answers[0].answer)}"
    ]


def _flags_of_scores(metric: str, scores: Sequence[float], items: int) -> list[str]:
    flags = []
    if len(scores) < items:
        flags.append(f"{metric}: {items - len(scores)} of {items} items have no score")
    if scores and not any(scores):
        flags.append(
            f"likely broken: {metric} is exactly 0 for all {len(scores)} items"
        )
    return flags


def _shown(answer: str) -> str:
    return (
        "empty"
        if not answer
        else repr(answer if len(answer) <= 40 else answer[:40] + "…")
    )
