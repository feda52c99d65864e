"""Says whether two curves of each of several tasks change at the same checkpoints.

Levels say nothing: a loss and a distance both fall with time. So changes from
checkpoint to checkpoint are compared, by Spearman's correlation; and sudden falls of
the loss by whether the other curve falls in the same interval. What comes by chance is
found by moving the other curve's changes along the run, all tasks together, by every
number of checkpoints: tasks of one run share its course.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zsg_core.stats import curves

Floats = NDArray[np.float64]
FEWEST_CHANGES = 8  # fewer moves say too little of chance


@dataclass(frozen=True)
class SharedChanges:
    """How far changes go together: the mean over tasks of Spearman's correlation, and
    the share of the tasks' sudden falls in whose interval the other curve falls.

    `..._by_chance`: the share of moves along the run that have at least as much. None
    where there is no number: no curve changes, or nothing falls suddenly.
    """

    correlation: float | None
    correlation_by_chance: float | None
    sudden_falls: int
    shared_falls: float | None
    shared_falls_by_chance: float | None


def compare_changes(
    steps: Sequence[int], tasks: Sequence[str], losses: Floats, others: Floats
) -> SharedChanges:
    """How far the changes of `losses` and `others`, both (steps, tasks), go together.

    ValueError for fewer than FEWEST_CHANGES + 1 steps.
    """
    if len(steps) <= FEWEST_CHANGES:
        raise ValueError(f"{len(steps)} checkpoints: at least {FEWEST_CHANGES + 1}")
    other_changes = np.diff(others, axis=0)
    loss_ranks = _rank(np.diff(losses, axis=0))
    other_ranks = _rank(other_changes)
    sudden = _find_sudden(steps, tasks, losses)
    correlations = []
    shares = []
    for shift in range(len(other_changes)):
        correlations.append(_correlate(loss_ranks, np.roll(other_ranks, shift, axis=0)))
        falls = np.roll(other_changes < 0, shift, axis=0)[sudden]
        shares.append(float(falls.mean()) if len(falls) else np.nan)
    return SharedChanges(
        *_hold_against_chance(correlations),
        int(sudden.sum()),
        *_hold_against_chance(shares),
    )


def _find_sudden(
    steps: Sequence[int], tasks: Sequence[str], losses: Floats
) -> NDArray[np.bool_]:
    """Where (steps − 1, tasks) the loss of a task falls suddenly."""
    sudden = np.zeros((len(steps) - 1, len(tasks)), np.bool_)
    row_of = {step: row for row, step in enumerate(steps)}
    column_of = {task: column for column, task in enumerate(tasks)}
    for drop in curves.find_sudden_drops(steps, tasks, losses):
        if drop.is_sudden:
            sudden[row_of[drop.start], column_of[drop.task]] = True
    return sudden


def _correlate(first: Floats, second: Floats) -> float:
    """The mean over columns of the correlation of centred ranks; NaN where no column
    has one."""
    products = (first * second).sum(axis=0)
    lengths = np.sqrt((first**2).sum(axis=0) * (second**2).sum(axis=0))
    has_length = lengths > 0
    if not has_length.any():
        return np.nan
    return float(np.mean(products[has_length] / lengths[has_length]))


def _rank(table: Floats) -> Floats:
    """The centred ranks within each column; ties share their mean."""
    above = np.sign(table[:, None, :] - table[None, :, :])
    return above.sum(axis=1) / 2


def _hold_against_chance(found: Sequence[float]) -> tuple[float | None, float | None]:
    """The first value, and the share of all that are at least as high."""
    values = np.asarray(found, np.float64)
    if not np.isfinite(values).all():
        return None, None
    return float(values[0]), float(np.mean(values >= values[0] - 1e-12))
