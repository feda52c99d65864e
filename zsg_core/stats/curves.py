"""Statistics of learning curves: the area under one, intervals of what it ends at,
where a task falls suddenly."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

REPEATS = 2000  # resamples of a bootstrap
LEVEL = 0.95
AT_ONCE = 1 << 22  # weights drawn together: 32 MB
# The 97.5 % quantiles of Student's t for 1 to 30 degrees of freedom.
T975 = (
    12.706,
    4.303,
    3.182,
    2.776,
    2.571,
    2.447,
    2.365,
    2.306,
    2.262,
    2.228,
    2.201,
    2.179,
    2.160,
    2.145,
    2.131,
    2.120,
    2.110,
    2.101,
    2.093,
    2.086,
    2.080,
    2.074,
    2.069,
    2.064,
    2.060,
    2.056,
    2.052,
    2.048,
    2.045,
    2.042,
)
Z975 = 1.959964

Interval = tuple[float, float]


def compute_area(steps: Sequence[float], values: ArrayLike) -> NDArray[np.float64]:
    """The area under each column of `values` (S, …) over `steps` (S), divided by the
    span: a loss in its own unit.

    By the trapezoidal rule, A = Σ (s[i+1] − s[i]) (v[i] + v[i+1]) / 2 / (s[S−1] −
    s[0]). It is linear, so the area under a mean curve is the mean of the areas. Of one
    step it is that step's value. Where values are infinite or overflow, so is the area,
    or it is no number. ValueError unless steps rise.
    """
    positions, curve = np.asarray(steps, np.float64), np.asarray(values, np.float64)
    if len(positions) == 0 or np.any(np.diff(positions) <= 0):
        raise ValueError("steps must be at least one, and rise")
    if len(positions) == 1:
        return curve[0].copy()
    with np.errstate(over="ignore", invalid="ignore"):
        middles = (curve[:-1] + curve[1:]) / 2
        area = np.tensordot(np.diff(positions), middles, axes=1)
        return area / (positions[-1] - positions[0])


def compute_t_interval(values: Sequence[float]) -> Interval | None:
    """The 95 % interval of the mean of n replicates, m ± t(0.975, n − 1) s / √n; None
    for fewer than two.

    Student (1908). Beyond 30 degrees of freedom t ≈ z + (z³ + z) / 4(n − 1), right to
    three decimals (Abramowitz and Stegun 26.7.5).
    """
    count = len(values)
    if count < 2:
        return None
    free = count - 1
    t = T975[free - 1] if free <= len(T975) else Z975 + (Z975**3 + Z975) / (4 * free)
    mean, reach = float(np.mean(values)), t * float(np.std(values, ddof=1)) / count**0.5
    return mean - reach, mean + reach


def bootstrap_intervals(
    values: ArrayLike,
    clusters: Sequence[str] | None = None,
    weights: ArrayLike | None = None,
    seed: int = 0,
) -> NDArray[np.float64]:
    """The 95 % percentile intervals (2, G) of the means of the columns of `values` (M items, G).

    With `weights` (M, G), those of items in the mean: see zsg_core.metrics.means.
    Without, all weigh alike.

    Items are drawn with replacement, REPEATS times, the same draws for each column
    (Efron and Tibshirani 1993, chapter 13). With `clusters`, the name of each item's
    cluster, whole clusters are drawn: items of one task are alike, so their number
    overstates what is known (Davison and Hinkley 1997, section 3.8). What is not finite
    is left out. NaN where there are fewer than two to draw from.
    """
    table = np.asarray(values, np.float64)
    names = range(len(table)) if clusters is None else clusters
    cluster_index = {name: number for number, name in enumerate(dict.fromkeys(names))}
    cluster_of_item = np.array([cluster_index[name] for name in names], np.intp)
    if len(cluster_index) < 2:
        return np.full((2, table.shape[1]), np.nan)
    finite = np.isfinite(table)
    finite = (
        finite.astype(np.float64)
        if weights is None
        else np.where(finite, np.asarray(weights, np.float64), 0)
    )
    weighted = np.where(finite > 0, table, 0) * finite
    # What a draw of a cluster adds: its sum and its count, for every column.
    sums, counts = (np.zeros((len(cluster_index), table.shape[1])) for _ in range(2))
    np.add.at(sums, cluster_of_item, weighted)
    np.add.at(counts, cluster_of_item, finite)
    rng, means = np.random.default_rng(seed), []
    for drawn in _split_count(REPEATS, max(1, AT_ONCE // len(cluster_index))):
        weights = rng.multinomial(
            len(cluster_index),
            np.full(len(cluster_index), 1 / len(cluster_index)),
            size=drawn,
        ).astype(np.float64)
        total = weights @ counts
        means.append(
            np.divide(
                weights @ sums, total, out=np.full_like(total, np.nan), where=total > 0
            )
        )
    is_known, intervals = finite.any(axis=0), np.full((2, table.shape[1]), np.nan)
    intervals[:, is_known] = np.nanquantile(
        np.concatenate(means)[:, is_known], ((1 - LEVEL) / 2, (1 + LEVEL) / 2), axis=0
    )
    return intervals


def _split_count(count: int, size: int) -> list[int]:
    return [min(size, count - start) for start in range(0, count, size)]


@dataclass(frozen=True)
class Drop:
    """The fall of one task between two neighbouring checkpoints."""

    task: str
    start: int
    end: int
    size: float  # by how much the task's loss falls
    shared: float  # what all tasks fall between the same two checkpoints, on average
    # the median change of the task between its other neighbouring checkpoints, without sign
    usual: float

    @property
    def own(self) -> float:
        """What the task falls beyond all tasks."""
        return self.size - self.shared

    @property
    def times_usual(self) -> float:
        """How many times the task's usual change the fall is."""
        return self.size / self.usual if self.usual else math.inf

    @property
    def is_sudden(self) -> bool:
        """Whether the fall is more than three times the task's usual change."""
        return self.times_usual > 3


def find_sudden_drops(
    steps: Sequence[int], tasks: Sequence[str], losses: ArrayLike
) -> list[Drop]:
    """Each task's largest fall between neighbouring checkpoints beyond what all tasks
    fall there, largest first.

    `losses` (S, T) are the tasks' mean losses. Everything falls in the beginning, so a
    fall is ranked by what it has over the mean of the tasks in the same interval; it is
    called sudden at three times the task's own usual change, as are the drops of single
    tasks in figure 2 of the ZSG paper. A task that never falls more than the others is
    left out.
    """
    falls = -np.diff(np.asarray(losses, np.float64), axis=0)
    if not falls.size:
        return []
    counts = np.isfinite(falls).sum(axis=1)
    shared = np.divide(
        np.nansum(falls, axis=1),
        counts,
        out=np.full(len(falls), np.nan),
        where=counts > 0,
    )
    # where all rise, none falls
    excess = np.where(falls > 0, falls - shared[:, None], -np.inf)
    excess[np.isnan(excess)] = -np.inf
    steepest, columns = excess.argmax(axis=0), np.arange(len(tasks))
    other_changes = np.abs(falls)
    other_changes[steepest, columns] = np.nan
    usual = np.full(len(tasks), np.nan)
    is_known = np.isfinite(other_changes).any(axis=0)
    usual[is_known] = np.nanmedian(other_changes[:, is_known], axis=0)
    drops = [
        Drop(
            task,
            steps[s],
            steps[s + 1],
            float(falls[s, t]),
            float(shared[s]),
            float(usual[t]),
        )
        for t, (task, s) in enumerate(zip(tasks, steepest.tolist(), strict=True))
        if excess[s, t] > 0
    ]
    return sorted(drops, key=lambda drop: -drop.own)
