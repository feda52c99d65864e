"""Estimates effects and their errors from runs on several held-out tasks, with several splits and seeds.

An effect's variance is that of two-way clusters (Cameron, Gelbach and Miller 2011),

    V = V(tasks) + V(replicates) − V(tasks in replicates),  at least V(tasks) and V(replicates),

where replicates are splits if there are at least SPLITS, else runs within a split. Each V is bootstrapped: of n
clusters n − 1 are drawn and weigh n / (n − 1) each, which makes it unbiased for means of few clusters (Rao and Wu
1988). Runs that share a test set share the draws, so differences are paired. The interval is value ± t √V, with
Satterthwaite's degrees of freedom. A copied run or split adds nothing: its V is 0, and that of the tasks stays.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from zsg_core import curves
from zsg_core.curves import Interval

SPLITS = 4  # the fewest splits that stand for all others; of fewer the tasks are pooled

Floats = NDArray[np.float64]
Key = tuple[str, ...]
Effects = Callable[[Mapping[str, Floats]], Floats]  # level → means (draws, values) ↦ (draws, effects)


@dataclass(frozen=True)
class Cell:
    """What of one run is looked at: a table (values, units), and the units' weights in a mean over them."""

    level: str
    split: str
    seed: str
    units: Sequence[str]
    table: Floats
    counts: Floats


@dataclass(frozen=True)
class Estimate:
    """An effect with its 95 % interval, and where its error comes from."""

    value: float
    interval: Interval
    over_tasks: float  # standard errors
    over_replicates: float  # of splits, or of seeds; 0 where there are none
    by_seeds: Interval | None  # what the interval would be if only seeds were counted


@dataclass(frozen=True)
class _Clusters:
    """What is drawn: names in strata, within each of which draws are made; and which one a value is in."""

    strata: Sequence[Sequence[Key]]
    of: Callable[[Cell, str], Key]

    @property
    def free(self) -> int:
        """Degrees of freedom."""
        return sum(len(stratum) - 1 for stratum in self.strata)

    def draws(self) -> Iterator[Floats]:
        """Weights (draws, names): of the n names of a stratum n − 1 are drawn, for n / (n − 1) each."""
        rng, size = np.random.default_rng(0), sum(map(len, self.strata))
        at_once = max(1, curves.AT_ONCE // size)
        for start in range(0, curves.REPEATS, at_once):
            count = min(at_once, curves.REPEATS - start)
            yield np.concatenate([_drawn(rng, len(stratum), count) for stratum in self.strata], axis=1)

    def places(self, cell: Cell) -> list[int]:
        """The column in `draws` of each unit of a run."""
        return [self._place[self.of(cell, unit)] for unit in cell.units]

    @cached_property
    def _place(self) -> dict[Key, int]:
        return {name: place for place, name in enumerate(name for stratum in self.strata for name in stratum)}


def _drawn(rng: np.random.Generator, n: int, count: int) -> Floats:
    if n == 1:
        return np.ones((count, 1))
    return np.asarray(rng.multinomial(n - 1, np.full(n, 1 / n), size=count) * (n / (n - 1)), np.float64)


def estimate(cells: Sequence[Cell], levels: Sequence[str], effects: Effects) -> list[Estimate]:
    """Every effect that `effects` makes of the levels' means."""

    def variance(clusters: _Clusters) -> Floats:
        if not clusters.free:
            return np.zeros(len(value))
        drawn = np.concatenate([effects(means(cells, levels, clusters, weights)) for weights in clusters.draws()])
        return np.array([np.var(column[np.isfinite(column)]) for column in drawn.T], np.float64)

    value = effects(means(cells, levels))[0]
    run, splits = _run_name(cells), sorted({(cell.split,) for cell in cells})
    seeds = _Clusters(_by_split(cells, run), lambda cell, _: run(cell))
    replicates = _Clusters([splits], lambda cell, _: (cell.split,)) if len(splits) >= SPLITS else seeds
    tasks = _clusters(cells, lambda _, unit: (unit,))
    both = _clusters(cells, lambda cell, unit: (*replicates.of(cell, unit), unit))
    over_tasks, over_runs, over_seeds = variance(tasks), variance(replicates), variance(seeds)
    over_both = variance(both) if replicates.free else over_tasks
    made = []
    for number, task, of_runs, of_seeds, shared in zip(
        value, over_tasks, over_runs, over_seeds, over_both, strict=True
    ):
        whole = max(task + of_runs - shared, task, of_runs)
        parts = task**2 / max(tasks.free, 1) + of_runs**2 / max(replicates.free, 1)
        interval = _interval(number, whole, whole**2 / parts if parts > 0 else tasks.free)
        by_seeds = _interval(number, of_seeds, seeds.free) if seeds.free else None
        made.append(Estimate(float(number), interval, float(np.sqrt(task)), float(np.sqrt(of_runs)), by_seeds))
    return made


def means(
    cells: Sequence[Cell], levels: Sequence[str], clusters: _Clusters | None = None, drawn: Floats | None = None
) -> dict[str, Floats]:
    """Of each level (draws, values) the mean over test items, in which every split weighs alike, and so its runs."""
    made = {}
    for level in levels:
        own = [cell for cell in cells if cell.level == level]
        runs = Counter(cell.split for cell in own)
        base = np.concatenate([cell.counts / cell.counts.sum() / runs[cell.split] for cell in own])
        weights = base[None, :]
        if clusters is not None and drawn is not None:
            weights = base * drawn[:, [place for cell in own for place in clusters.places(cell)]]
        total = weights.sum(axis=1, keepdims=True)
        sums = weights @ np.concatenate([cell.table for cell in own], axis=1).T
        made[level] = np.divide(sums, total, out=np.full(sums.shape, np.nan), where=total > 0)
    return made


def _interval(value: float, variance: float, free: float) -> Interval:
    reach = _t(max(math.floor(free + 1e-6), 1)) * float(np.sqrt(variance))  # 11 may come out as 10.999…
    return float(value) - reach, float(value) + reach


def _t(free: int) -> float:
    """The 97.5 % quantile of Student's t, as `curves.t_interval` has it."""
    if free <= len(curves.T975):
        return curves.T975[free - 1]
    return curves.Z975 + (curves.Z975**3 + curves.Z975) / (4 * free)


def _run_name(cells: Sequence[Cell]) -> Callable[[Cell], Key]:
    """What a run is drawn by: its seed at all levels together where each has the same seeds, else its own level's."""
    seeds: dict[str, dict[str, set[str]]] = {}
    for cell in cells:
        seeds.setdefault(cell.split, {}).setdefault(cell.level, set()).add(cell.seed)
    if all(own == next(iter(levels.values())) for levels in seeds.values() for own in levels.values()):
        return lambda cell: (cell.split, cell.seed)
    return lambda cell: (cell.split, cell.level, cell.seed)


def _by_split(cells: Sequence[Cell], run: Callable[[Cell], Key]) -> list[list[Key]]:
    strata: dict[Key, set[Key]] = {}
    for cell in cells:
        strata.setdefault(run(cell)[:-1], set()).add(run(cell))
    return [sorted(stratum) for _, stratum in sorted(strata.items())]


def _clusters(cells: Sequence[Cell], of: Callable[[Cell, str], Key]) -> _Clusters:
    return _Clusters([sorted({of(cell, unit) for cell in cells for unit in cell.units})], of)
