"""Measures what a run's own course leaves open of the value that its curve ends at, and of
the area under it.

A run lies now above, now below its course, in all its test tasks at once. An interval
over tasks does not know of it, and of one split and one seed there is no other run that
would tell. The checkpoints tell: an effect, such as the one level less the other, is
taken at each of them, and how far it lies from the line between its neighbours is
measured. So what the levels' curves have in common, a bend or a swing, does not count.
Of what is measured, the part is taken off that tasks swing each for itself: the interval
over tasks has it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zsg_core.stats import curves, wobble
from zsg_core.stats.effects import Floats, RunTable, compute_level_means

END = "end"

# values of each level (draws, levels) ↦ effects (draws, effects); linear
Compare = Callable[[Floats], Floats]


@dataclass(frozen=True)
class RunCourse:
    """The runs' tables at the checkpoints that all of them have, and what is compared of
    them: `curve_value`, end or area."""

    steps: Sequence[int]
    cells: Sequence[RunTable]
    levels: Sequence[str]
    curve_value: str

    def compute_errors(self, compare: Compare) -> list[float]:
        """The standard error of each effect by the runs' own courses."""
        means = compute_level_means(self.cells, self.levels)
        ends = np.stack([means[level][0] for level in self.levels], axis=1)
        at_steps = compare(ends).T
        swings = wobble.compute_typical_swing(self.steps, at_steps)
        of_tasks = np.median(self._compute_task_variances(compare), axis=1)
        errors = np.sqrt(np.maximum(swings**2 - of_tasks, 0.0))
        return (errors * self._compute_share()).tolist()

    def _compute_share(self) -> float:
        """The error of what is compared, of errors of 1 at each checkpoint."""
        if self.curve_value == END:
            return 1.0
        each_step = np.eye(len(self.steps))
        weights = curves.compute_area(self.steps, each_step)
        return float(np.sqrt(np.sum(weights**2)))

    def _compute_task_variances(self, compare: Compare) -> Floats:
        """The variance (effects, S − 2) that the swings of single tasks give to that of
        the effects: Σ (w (u − ū))² / (1 − Σ w²), where u are the swings of a task's
        effects, and w its weight. A task of several splits counts once."""
        by_split: dict[str, list[RunTable]] = {}
        for cell in self.cells:
            by_split.setdefault(cell.split, []).append(cell)
        names = sorted({unit for cell in self.cells for unit in cell.units})
        column_of = {name: column for column, name in enumerate(names)}
        apart: Floats = np.zeros(0)
        weights: Floats = np.zeros(0)
        for of_split in by_split.values():
            columns = [column_of[unit] for unit in of_split[0].units]
            of_tasks = self._weigh_task_swings(of_split, compare)
            if not apart.size:
                shape = (of_tasks.weights.shape[0], len(names), len(self.steps) - 2)
                apart = np.zeros(shape)
                weights = np.zeros(shape)
            weights[:, columns] += of_tasks.weights / len(by_split)
            apart[:, columns] += of_tasks.apart / len(by_split)
        variances = (apart**2).sum(axis=1)
        remainder = 1 - (weights**2).sum(axis=1)
        return np.divide(
            variances, remainder, out=np.zeros(remainder.shape), where=remainder > 1e-9
        )

    def _weigh_task_swings(
        self, of_split: Sequence[RunTable], compare: Compare
    ) -> "_TaskSwings":
        """The weights w of the tasks of one split, and w (u − ū)."""
        tables = [_average_seeds(of_split, level) for level in self.levels]
        values = np.stack(tables, axis=2)
        rows = values.reshape(-1, len(self.levels))
        effects = compare(rows).reshape(*values.shape[:2], -1)
        by_unit = effects.transpose(2, 1, 0)
        swings = wobble.compute_swings(self.steps, by_unit.reshape(-1, len(self.steps)))
        swings = swings.reshape(*by_unit.shape[:2], -1)
        weights = _weigh_swings(of_split[0], np.isfinite(swings))
        swings_or_zero = np.where(weights > 0, swings, 0.0)
        mean = (weights * swings_or_zero).sum(axis=1, keepdims=True)
        return _TaskSwings(weights, weights * (swings_or_zero - mean))


@dataclass(frozen=True)
class _TaskSwings:
    """Of each (effects, units, S − 2) what a task weighs, and how far its swing lies from
    the mean, as it weighs."""

    weights: Floats
    apart: Floats


def _average_seeds(of_split: Sequence[RunTable], level: str) -> Floats:
    """The mean (S, units) of a level's runs of one split."""
    tables = [cell.table for cell in of_split if cell.level == level]
    return np.mean(tables, axis=0)


def _weigh_swings(cell: RunTable, is_known: NDArray[np.bool_]) -> Floats:
    """The weights (effects, units, S − 2) of the units' swings, 1 in sum; 0 of one that
    is not known."""
    counts = np.broadcast_to(np.asarray(cell.counts, np.float64), cell.table.shape)
    weights = np.where(is_known, counts.T[None, :, 1:-1], 0.0)
    total = weights.sum(axis=1, keepdims=True)
    return np.divide(weights, total, out=np.zeros(weights.shape), where=total > 0)
