"""Estimates effects and their errors from runs on several held-out tasks, with several
splits and seeds.

An effect's variance is that of two-way clusters (Cameron, Gelbach and Miller 2011),

    V = V(tasks) + V(replicates) − V(tasks in replicates),  at least V(tasks) and V(replicates),

where replicates are splits if there are at least two, else runs within the split. Each
V is bootstrapped: of n clusters n − 1 are drawn and weigh n / (n − 1) each, which makes
it unbiased for means of few clusters (Rao and Wu 1988). Runs that share a test set
share the draws, so differences are paired. The interval is value ± t √V, with
Satterthwaite's degrees of freedom, and never narrower than that over splits alone,
value ± t √V(replicates): of two or three splits Satterthwaite's approximation is too
bold. So one more split narrows it, and nothing changes at a number of splits. A copied
run or split adds nothing: its V is 0, and that of the tasks stays.

Clusters of unequal weight w count as (Σw)² / Σw² (Kish 1965): two large tasks of many
small ones have the degrees of freedom of little more than two.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from zsg_core.stats import curves, student
from zsg_core.stats.curves import Interval

# the fewest splits that stand for all others; of fewer it is also told what these ones say
SPLITS = 4
# how often an effect that is none lies beyond an interval, on either side
TAIL = 0.025
# the share of draws that must have an effect, or its interval is not known
DRAWN = 0.95

Floats = NDArray[np.float64]
Key = tuple[str, ...]
# level → means (draws, values) ↦ (draws, effects)
Effects = Callable[[Mapping[str, Floats]], Floats]


@dataclass(frozen=True)
class RunTable:
    """What of one run is looked at: a table (values, units), and the units' weights in
    a mean over them.

    `counts` are (units,), or (values, units) where a unit has not all of the values;
    one that weighs 0 may be NaN.
    """

    level: str
    split: str
    seed: str
    units: Sequence[str]
    table: Floats
    counts: Floats


@dataclass(frozen=True)
class EffectEstimate:
    """An effect with its interval, of 95 % unless another tail was asked for, and where
    its error comes from.

    `interval` is over tasks and splits; of a single split over its tasks and seeds, as
    nothing is known of others. So is `on_these` of fewer than SPLITS: it takes splits
    for alike, and says what holds if they are; None from there on. What could not be
    computed is NaN.
    """

    value: float
    interval: Interval
    on_these: Interval | None
    over_tasks: float  # standard errors
    over_replicates: float  # of splits, or of seeds; 0 where there are none
    by_seeds: Interval | None  # what the interval would be if only seeds were counted
    by_tasks: Interval  # the same of tasks
    is_over_splits: bool = False  # whether `interval` is
    # the errors of which the widest makes `interval`, each with its degrees of freedom
    errors: Sequence[tuple[float, float]] = ()

    def compute_p(self, null: float) -> tuple[float, float]:
        """How often, if the effect were `null`, a value at least as high, and one at
        least as low, would come: the one-sided p-values that agree with `interval`."""
        distance = self.value - null
        above = [_compute_p(distance, error, free) for error, free in self.errors]
        below = [_compute_p(-distance, error, free) for error, free in self.errors]
        return max(above, default=math.nan), max(below, default=math.nan)


@dataclass(frozen=True)
class _Clusters:
    """What is drawn: names in strata, within each of which draws are made; and which
    one a value is in."""

    strata: Sequence[Sequence[Key]]
    cluster_of: Callable[[RunTable, str], Key]

    @property
    def is_drawn(self) -> bool:
        """Whether there is a stratum of more than one name."""
        return any(len(stratum) > 1 for stratum in self.strata)

    def free(self, cells: Sequence[RunTable]) -> float:
        """Degrees of freedom: of a stratum's names, (Σw)² / Σw² − 1."""
        weight = dict.fromkeys(
            (name for stratum in self.strata for name in stratum), 0.0
        )
        for cell, shares in zip(cells, _compute_unit_shares(cells), strict=True):
            for unit, share in zip(cell.units, shares.tolist(), strict=True):
                weight[self.cluster_of(cell, unit)] += share
        return sum(
            max(count_effective_clusters([weight[name] for name in stratum]) - 1, 0.0)
            for stratum in self.strata
        )

    def draws(self) -> Iterator[Floats]:
        """Weights (draws, names): of the n names of a stratum n − 1 are drawn, for n /
        (n − 1) each."""
        rng, size = np.random.default_rng(0), sum(map(len, self.strata))
        at_once = max(1, curves.AT_ONCE // size)
        for start in range(0, curves.REPEATS, at_once):
            count = min(at_once, curves.REPEATS - start)
            yield np.concatenate(
                [_draw_weights(rng, len(stratum), count) for stratum in self.strata],
                axis=1,
            )

    def columns(self, cell: RunTable) -> list[int]:
        """The column in `draws` of each unit of a run."""
        return [self._column[self.cluster_of(cell, unit)] for unit in cell.units]

    @cached_property
    def _column(self) -> dict[Key, int]:
        return {
            name: column
            for column, name in enumerate(
                name for stratum in self.strata for name in stratum
            )
        }


def _draw_weights(rng: np.random.Generator, n: int, count: int) -> Floats:
    if n == 1:
        return np.ones((count, 1))
    return np.asarray(
        rng.multinomial(n - 1, np.full(n, 1 / n), size=count) * (n / (n - 1)),
        np.float64,
    )


def count_effective_clusters(weights: Sequence[float]) -> float:
    """How many clusters of equal weight know as much of a mean as these: (Σw)² / Σw²; 0 of none."""
    squares = sum(weight * weight for weight in weights)
    return sum(weights) ** 2 / squares if squares > 0 else 0.0


def count_effective_tasks(cells: Sequence[RunTable]) -> float:
    """How many tasks of equal weight know as much as these, each of which weighs what
    it has in the mean."""
    return _make_task_clusters(cells).free(cells) + 1


@dataclass(frozen=True)
class _ClusterVariance:
    """What one kind of clusters adds to the error: the variance of each effect, and its
    degrees of freedom."""

    variance: Floats
    free: float


@dataclass(frozen=True)
class _EffectStudy:
    """Which effects are asked for, of which runs."""

    cells: Sequence[RunTable]
    levels: Sequence[str]
    effects: Effects

    @cached_property
    def value(self) -> Floats:
        """The effects themselves (effects,)."""
        return self.effects(compute_level_means(self.cells, self.levels))[0]

    def bootstrap(self, clusters: _Clusters) -> Floats:
        """The variance (effects,) of each effect over draws of the clusters; 0 where
        nothing is drawn."""
        if not clusters.is_drawn:
            return np.zeros(len(self.value))
        drawn = np.concatenate(
            [
                self.effects(
                    compute_level_means(self.cells, self.levels, clusters, weights)
                )
                for weights in clusters.draws()
            ]
        )
        return np.array([_compute_variance(column) for column in drawn.T], np.float64)

    def bootstrap_shared(
        self, replicates: _Clusters, of_tasks: _ClusterVariance
    ) -> Floats:
        """The variance over tasks in replicates; that of tasks where no replicate is
        drawn."""
        if not replicates.is_drawn:
            return of_tasks.variance
        both = _make_clusters(
            self.cells, lambda cell, unit: (*replicates.cluster_of(cell, unit), unit)
        )
        return self.bootstrap(both)


def estimate_effects(
    cells: Sequence[RunTable],
    levels: Sequence[str],
    effects: Effects,
    tail: float = TAIL,
) -> list[EffectEstimate]:
    """Every effect that `effects` makes of the levels' means. `tail`: what intervals leave
    out on either side."""
    study = _EffectStudy(cells, levels, effects)
    value = study.value
    run, names = _make_run_key(cells), sorted({(cell.split,) for cell in cells})
    tasks = _make_task_clusters(cells)
    seeds = _Clusters(_make_strata(cells, run), lambda cell, _: run(cell))
    splits = _Clusters([names], lambda cell, _: (cell.split,))
    of_tasks, of_seeds, of_splits = (
        _ClusterVariance(study.bootstrap(clusters), clusters.free(cells))
        for clusters in (tasks, seeds, splits)
    )

    def errors_over(
        replicates: _Clusters,
        of_replicates: _ClusterVariance,
        at_least: _ClusterVariance | None = None,
    ) -> list[list[_Error]]:
        shared = study.bootstrap_shared(replicates, of_tasks)
        return _compute_errors(of_tasks, of_replicates, shared, at_least)

    is_over_splits = len(names) > 1
    if is_over_splits:
        errors = errors_over(splits, of_splits, at_least=of_splits)
    else:
        errors = errors_over(seeds, of_seeds)
    intervals = _compute_intervals(value, errors, tail)
    on_these: Sequence[Interval | None] = [None] * len(value)
    if not is_over_splits:
        on_these = intervals
    elif len(names) < SPLITS:
        on_these = _compute_intervals(value, errors_over(seeds, of_seeds), tail)
    of_replicates = of_splits if is_over_splits else of_seeds
    return [
        EffectEstimate(
            value=float(value[index]),
            interval=intervals[index],
            on_these=on_these[index],
            over_tasks=float(np.sqrt(of_tasks.variance[index])),
            over_replicates=float(np.sqrt(of_replicates.variance[index])),
            by_seeds=(
                _compute_interval(
                    value[index],
                    _Error(of_seeds.variance[index], of_seeds.free),
                    tail,
                )
                if seeds.is_drawn
                else None
            ),
            by_tasks=_compute_interval(
                value[index], _Error(of_tasks.variance[index], of_tasks.free), tail
            ),
            is_over_splits=is_over_splits,
            errors=[error.as_pair for error in errors[index]],
        )
        for index in range(len(value))
    ]


@dataclass(frozen=True)
class _Error:
    """The variance of an effect, and its degrees of freedom."""

    variance: float
    free: float

    @property
    def whole_free(self) -> int:
        """The degrees of freedom that are looked up: 11 may come out as 10.999…, and of
        a variance that is too large for a number nothing does."""
        if not math.isfinite(self.free):
            return 1
        return max(math.floor(self.free + 1e-6), 1)

    @property
    def as_pair(self) -> tuple[float, float]:
        """The standard error, and the degrees of freedom that count."""
        return float(np.sqrt(self.variance)), self.whole_free


def _compute_errors(
    of_tasks: _ClusterVariance,
    of_replicates: _ClusterVariance,
    shared: Floats,
    at_least: _ClusterVariance | None = None,
) -> list[list[_Error]]:
    """Of each effect its error by its two kinds of clusters; and `at_least`, than which
    no interval may be narrower."""
    errors: list[list[_Error]] = []
    for index, of_both in enumerate(shared):
        task, replicate = of_tasks.variance[index], of_replicates.variance[index]
        whole = float(np.max([task + replicate - of_both, task, replicate]))
        denominator = task**2 / max(of_tasks.free, 1) + replicate**2 / max(
            of_replicates.free, 1
        )
        free = whole**2 / denominator if denominator > 0 else of_tasks.free
        errors.append([_Error(whole, free)])
        if at_least:
            errors[-1].append(_Error(at_least.variance[index], at_least.free))
    return errors


def _compute_intervals(
    value: Floats, errors: Sequence[Sequence[_Error]], tail: float
) -> list[Interval]:
    """The interval of each effect, as wide as that by its widest error."""
    intervals: list[Interval] = []
    for number, its_errors in zip(value, errors, strict=True):
        by_error = [_compute_interval(number, error, tail) for error in its_errors]
        low, high = by_error[0]
        for narrowest in by_error[1:]:
            low, high = min(low, narrowest[0]), max(high, narrowest[1])
        intervals.append((low, high))
    return intervals


def _compute_variance(drawn: Floats) -> float:
    """The variance of the draws of an effect; NaN where too many of them have none."""
    finite = drawn[np.isfinite(drawn)]
    return float(np.var(finite)) if len(finite) >= DRAWN * len(drawn) else np.nan


def compute_level_means(
    cells: Sequence[RunTable],
    levels: Sequence[str],
    clusters: _Clusters | None = None,
    drawn: Floats | None = None,
) -> dict[str, Floats]:
    """Of each level (draws, values) the mean over its units, in which every split
    weighs alike, and so its runs.

    NaN for a value of which a run has nothing.
    """
    means = {}
    for level in levels:
        tables = [cell for cell in cells if cell.level == level]
        weights = None
        if clusters is not None and drawn is not None:
            columns = [column for cell in tables for column in clusters.columns(cell)]
            weights = drawn[:, columns]
        means[level] = _compute_level_mean(tables, weights)
    return means


def _compute_level_mean(tables: Sequence[RunTable], weights: Floats | None) -> Floats:
    """The mean (draws, values) of a level's runs; `weights` (draws, units of all runs)
    are those of a draw, None: all alike."""
    runs = Counter(table.split for table in tables)
    base = np.concatenate(
        [_compute_shares(table) / runs[table.split] for table in tables], axis=1
    )
    values = np.concatenate([table.table for table in tables], axis=1)
    weighed = base * np.where(base > 0, values, 0)
    if weights is None:
        weights = np.ones((1, base.shape[1]))
    total, sums = weights @ base.T, weights @ weighed.T
    has_value = np.stack([_compute_shares(table).any(axis=1) for table in tables]).all(
        axis=0
    )
    return np.divide(
        sums, total, out=np.full(sums.shape, np.nan), where=(total > 0) & has_value
    )


def _compute_shares(cell: RunTable) -> Floats:
    """The weights (values, units) of a run's units in its means, those of a value 1 in
    sum; 0 where it has none."""
    counts = np.broadcast_to(np.asarray(cell.counts, np.float64), cell.table.shape)
    total = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)


def _compute_unit_shares(cells: Sequence[RunTable]) -> list[Floats]:
    """The weight (units,) of each run's units in the mean of its level, taken over
    values; a split's runs share it."""
    runs = Counter((cell.level, cell.split) for cell in cells)
    return [
        _compute_shares(cell).mean(axis=0) / runs[cell.level, cell.split]
        for cell in cells
    ]


def _compute_interval(value: float, error: _Error, tail: float) -> Interval:
    reach = _t_quantile(error.whole_free, tail) * float(np.sqrt(error.variance))
    return float(value) - reach, float(value) + reach


def _t_quantile(free: int, tail: float) -> float:
    """Where a tail of Student's t begins; that of 2.5 % as `curves.compute_t_interval`
    has it."""
    if tail != TAIL:
        return student.compute_quantile(tail, free)
    if free <= len(curves.T975):
        return curves.T975[free - 1]
    return curves.Z975 + (curves.Z975**3 + curves.Z975) / (4 * free)


def _compute_p(distance: float, error: float, free: float) -> float:
    """How often a value lies at least so far above nothing; 1 where it is none."""
    if not math.isfinite(distance) or not math.isfinite(error):
        return 1.0
    if error <= 0:
        return 0.0 if distance > 0 else 1.0
    return student.compute_tail(distance / error, free)


def _make_run_key(cells: Sequence[RunTable]) -> Callable[[RunTable], Key]:
    """What a run is drawn by: its seed at all levels together where each has the same
    seeds, else its own level's."""
    seeds: dict[str, dict[str, set[str]]] = {}
    for cell in cells:
        seeds.setdefault(cell.split, {}).setdefault(cell.level, set()).add(cell.seed)
    if all(
        level_seeds == next(iter(levels.values()))
        for levels in seeds.values()
        for level_seeds in levels.values()
    ):
        return lambda cell: (cell.split, cell.seed)
    return lambda cell: (cell.split, cell.level, cell.seed)


def _make_strata(
    cells: Sequence[RunTable], run: Callable[[RunTable], Key]
) -> list[list[Key]]:
    strata: dict[Key, set[Key]] = {}
    for cell in cells:
        strata.setdefault(run(cell)[:-1], set()).add(run(cell))
    return [sorted(stratum) for _, stratum in sorted(strata.items())]


def _make_task_clusters(cells: Sequence[RunTable]) -> _Clusters:
    return _make_clusters(cells, lambda _, unit: (unit,))


def _make_clusters(
    cells: Sequence[RunTable], cluster_of: Callable[[RunTable, str], Key]
) -> _Clusters:
    return _Clusters(
        [sorted({cluster_of(cell, unit) for cell in cells for unit in cell.units})],
        cluster_of,
    )
