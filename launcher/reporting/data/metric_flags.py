"""Says of a metric's curve why it is likely to come of something broken, not of a bad
model: by its values alone, each reason in words."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from jobs.contract.item_losses import ItemLosses
from zsg_core.metrics import means
from zsg_core.metrics.means import LOSS
from zsg_core.metrics.scoring import standard_error

FEWEST_SAME = 3  # checkpoints whose values are the same before that is odd
FEWEST_ZERO = 2
AT_CHANCE = 2.0  # standard errors within which a score is that of a guess


def explain_broken(key: str, values: Mapping[int, float]) -> str | None:
    """Why the values of a run, by step, are likely to be broken; None where they are
    not, or where there is none.

    The first of these that holds is told: values that are no numbers, values that are
    all 0 or all the same, and a loss that ends higher than it began.
    """
    in_order = [values[step] for step in sorted(values)]
    finite = [value for value in in_order if math.isfinite(value)]
    if not in_order:
        return None
    reason = _explain_no_numbers(len(finite), len(in_order))
    if reason is None:
        reason = _explain_constant(finite)
    if reason is None and key.partition("/")[0] == LOSS:
        reason = _explain_rise(finite)
    return reason


def _explain_no_numbers(finite: int, count: int) -> str | None:
    """What is told where some of `count` values are not finite."""
    if not finite:
        return f"no value of {count} is a number"
    if finite < count:
        return f"{count - finite} of {count} values are no numbers"
    return None


def _explain_constant(values: Sequence[float]) -> str | None:
    """What is told where all values are 0, or all are the same."""
    count = len(values)
    if count >= FEWEST_ZERO and not any(values):
        return f"exactly 0 at all {count} checkpoints"
    if count >= FEWEST_SAME and len(set(values)) == 1:
        return f"the same, {values[0]:.4g}, at all {count} checkpoints"
    return None


def _explain_rise(losses: Sequence[float]) -> str | None:
    """What is told of a loss that ends higher than it began."""
    first = losses[0]
    last = losses[-1]
    if last > first:
        return f"ends higher, {last:.4g}, than it began, {first:.4g}"
    return None


def explain_chance(key: str, items: ItemLosses, chance: float) -> str | None:
    """Why the last score of a run is that of a guess; None where it is not, or where its
    error is not known. `chance`: what a guess would have, above 0."""
    if not items.steps:
        return None
    last = items.losses[-1].astype(np.float64)
    over_items = means.is_over_items(key)
    [score] = means.compute_means(last[:, None], items.tasks, over_items=over_items)
    error = standard_error(_part_by_task(last, items.tasks))
    if error is None or not abs(score - chance) <= AT_CHANCE * error:
        return None
    return f"at chance: {score:.4g} where a guess has {chance:g} (± {error:.2g})"


def _part_by_task(values: np.ndarray, tasks: Sequence[str]) -> list[list[float]]:
    """The finite values of each task."""
    by_task: dict[str, list[float]] = {}
    for value, task in zip(values.tolist(), tasks, strict=True):
        if math.isfinite(value):
            by_task.setdefault(task, []).append(value)
    return list(by_task.values())


def explain_all_same(curves: Sequence[Mapping[int, float]]) -> str | None:
    """Why the curves of several points of a grid are likely to be of one model: they are
    the same after step 0. None where they differ, or are too few to tell."""
    later: list[dict[int, float]] = []
    for values in curves:
        after = {step: value for step, value in values.items() if step > 0}
        if len(after) < FEWEST_ZERO:
            return None
        later.append(after)
    if len(later) < 2 or any(values != later[0] for values in later):
        return None
    return f"exactly the same in all {len(later)} points of the grid"
