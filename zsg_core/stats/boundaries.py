"""Says how far a study must be from nothing at each look, so that all looks together are
wrong no more often than one would be.

The error rate is spent over the looks (Lan and DeMets, Biometrika 1983): at the share t of
all held-out splits the function f(t) has been spent, f(1) being all of it. At look k a
claim is decided where its one-sided p-value is below the tail of that look. Tails, not
values of z: with a handful of splits z would be wrong three times as often as it says, and
looking at 2.5 % each time more than twice.

The tails are calibrated for means of few replicates, whose t has one degree of freedom less
than there are. Of splits that share tasks they are, if anything, too careful.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from zsg_core.settings.looks import OBRIEN_FLEMING, POCOCK
from zsg_core.stats import student

Floats = NDArray[np.float64]

# points of a density, and how far below nothing it is followed, in standard deviations
POINTS = 1201
LOWEST = 9.0
# studies without an effect by which tails are calibrated; each counts as its mirror, too
STUDIES = 400_000
AT_ONCE = 100_000
SEED = 20_261_130
MOST_Z = 40.0

_NORMAL = NormalDist()


@dataclass(frozen=True)
class Look:
    """A look at a study. `splits`: how many it is of; `share`: of all; `spent`: how much
    of a tail's error rate is spent by then; `bound`: the z-value that would be needed of
    many replicates; `tail`: the one-sided p-value below which a claim is decided."""

    splits: int
    share: float
    spent: float
    bound: float
    tail: float

    @property
    def t_bound(self) -> float:
        """The t-value that is needed with a degree of freedom less than splits."""
        return student.compute_quantile(self.tail, self.splits - 1)


def spend(share: float, tail: float, spending: str) -> float:
    """How much of a tail's error rate is spent at a share of all splits.

    O'Brien and Fleming's kind spends late, 2 − 2Φ(z(tail / 2) / √t); Pocock's evenly,
    tail · ln(1 + (e − 1) t).
    """
    if spending == OBRIEN_FLEMING:
        reach = _NORMAL.inv_cdf(1 - tail / 2)
        # erfc, as 1 − Φ is 0 by rounding at small shares, of which there is no bound
        return math.erfc(reach / math.sqrt(2 * share))
    if spending == POCOCK:
        return tail * math.log(1 + (math.e - 1) * share)
    raise ValueError(f"no spending {spending!r}")


@lru_cache(maxsize=64)
def plan_looks(splits: tuple[int, ...], tail: float, spending: str) -> tuple[Look, ...]:
    """The looks at so many splits each, the last of them all; `tail`: how often a claim
    without an effect may be decided on one side."""
    shares = [count / splits[-1] for count in splits]
    spent = [spend(share, tail, spending) for share in shares]
    bounds = compute_z_bounds(shares, spent)
    tails = calibrate_tails(splits, spent)
    return tuple(
        Look(*values)
        for values in zip(splits, shares, spent, bounds, tails, strict=True)
    )


def compute_z_bounds(shares: Sequence[float], spent: Sequence[float]) -> list[float]:
    """The bounds of z at looks with these shares of the information: that they are
    crossed at a look for the first time has the probability that is spent there."""
    bounds: list[float] = []
    process = _Process(0.0)
    before = 0.0
    for share, total in zip(shares, spent, strict=True):
        process.move_to(share)
        bound = _find_bound(process.compute_beyond, total - before)
        process.stop_beyond(bound)
        bounds.append(bound)
        before = total
    return bounds


def _find_bound(beyond: Callable[[float], float], quota: float) -> float:
    """The z beyond which there is as much as is wanted."""
    low = -MOST_Z
    high = MOST_Z
    for _ in range(80):
        middle = (low + high) / 2
        if beyond(middle) > quota:
            low = middle
        else:
            high = middle
    return (low + high) / 2


class _Process:
    """The density of S = z √t of the studies that go on, from look to look: a Brownian
    motion with a drift, cut off where studies stop.

    By Simpson's rule over POINTS points (Armitage, McPherson and Rowe 1969).
    """

    def __init__(self, drift: float) -> None:
        self._drift = drift
        self._share = 0.0
        self._before = 0.0
        self._points: Floats | None = None  # of those that went on at the last look
        self._masses: Floats | None = None

    def move_to(self, share: float) -> None:
        """Goes on to the look with this share of the information."""
        self._before = self._share
        self._share = share

    def compute_beyond(self, bound: float) -> float:
        """The share of all studies that go on to this look and lie above z there."""
        reach = bound * math.sqrt(self._share)
        gap = self._share - self._before
        if self._points is None or self._masses is None:
            position = (reach - self._drift * gap) / math.sqrt(gap)
            return 1 - _NORMAL.cdf(position)
        positions = (reach - self._points - self._drift * gap) / math.sqrt(gap)
        return float(self._masses @ _compute_normal_tails(positions))

    def stop_beyond(self, bound: float) -> None:
        """Takes away the studies that lie above z."""
        lowest = self._drift * self._share - LOWEST * math.sqrt(self._share)
        highest = bound * math.sqrt(self._share)
        points = np.linspace(min(lowest, highest - 1e-6), highest, POINTS)
        weights = np.full(POINTS, 2.0)
        weights[1::2] = 4.0
        weights[0] = 1.0
        weights[-1] = 1.0
        weights *= (points[1] - points[0]) / 3
        self._masses = weights * self._compute_density(points)
        self._points = points

    def _compute_density(self, points: Floats) -> Floats:
        gap = self._share - self._before
        if self._points is None or self._masses is None:
            return _compute_normal_density(points - self._drift * gap, gap)
        density = np.zeros(len(points))
        for start in range(0, len(points), 500):
            block = points[start : start + 500]
            distances = block[:, None] - self._points[None, :] - self._drift * gap
            kernel = _compute_normal_density(distances, gap)
            density[start : start + 500] = kernel @ self._masses
        return density


def _compute_normal_density(distances: Floats, variance: float) -> Floats:
    scale = math.sqrt(2 * math.pi * variance)
    return np.asarray(np.exp(-(distances**2) / (2 * variance)) / scale, np.float64)


def _compute_normal_tails(values: Floats) -> Floats:
    tails = [math.erfc(value / math.sqrt(2)) / 2 for value in values.tolist()]
    return np.asarray(tails, np.float64)


@lru_cache(maxsize=64)
def _calibrate(splits: tuple[int, ...], spent: tuple[float, ...]) -> tuple[float, ...]:
    values = draw_t_values(splits, STUDIES, SEED)
    values = np.concatenate([values, -values])
    goes_on = np.ones(len(values), bool)
    tails: list[float] = []
    used = 0
    for number, count in enumerate(splits):
        quota = round(spent[number] * len(values)) - used
        if number == 0:
            # exact: before the first look nobody has stopped
            tail = spent[0]
            bound = student.compute_quantile(tail, count - 1)
        else:
            staying = np.sort(values[goes_on, number])
            bound = float(staying[len(staying) - max(quota, 1)])
            tail = student.compute_tail(bound, count - 1)
        crossed = goes_on & (values[:, number] >= bound)
        used += int(crossed.sum())
        goes_on &= ~crossed
        tails.append(tail)
    return tuple(tails)


def calibrate_tails(splits: Sequence[int], spent: Sequence[float]) -> tuple[float, ...]:
    """The tail of each look, by STUDIES studies without an effect whose replicates are
    normal: each look takes what is spent there of those that have not stopped before.

    The draws are the same each time. At the first look it is exact.
    """
    return _calibrate(tuple(splits), tuple(spent))


def draw_t_values(
    splits: Sequence[int], studies: int, seed: int, effect: float = 0.0
) -> Floats:
    """(studies, looks) t-values of the means of the first splits, whose values are
    normal with deviation 1 around `effect`."""
    rng = np.random.default_rng(seed)
    blocks: list[Floats] = []
    for start in range(0, studies, AT_ONCE):
        count = min(AT_ONCE, studies - start)
        values = effect + rng.standard_normal((count, splits[-1]))
        blocks.append(compute_t_values(values, splits))
    return np.concatenate(blocks)


def compute_t_values(values: Floats, splits: Sequence[int]) -> Floats:
    """(studies, looks) t-values of the means of the first splits of (studies, splits)
    values."""
    sums = np.cumsum(values, axis=1)
    squares = np.cumsum(values**2, axis=1)
    columns: list[Floats] = []
    for count in splits:
        mean = sums[:, count - 1] / count
        variance = (squares[:, count - 1] / count - mean**2) * count / (count - 1)
        error = np.sqrt(np.maximum(variance, 1e-300) / count)
        columns.append(mean / error)
    return np.stack(columns, axis=1)


def compute_crossing(
    looks: Sequence[Look], number: int, z: float, drift: float
) -> float:
    """How often a study with this drift, in units of the last look's z, crosses before
    look `number` or is above z there; looks are counted from 0."""
    process = _Process(drift)
    crossed = 0.0
    for look in looks[:number]:
        process.move_to(look.share)
        crossed += process.compute_beyond(look.bound)
        process.stop_beyond(look.bound)
    process.move_to(looks[number].share)
    return crossed + process.compute_beyond(z)


@dataclass(frozen=True)
class StoppedEstimate:
    """What is estimated after a stop, in units of the last look's z: without a lean to
    either side, with its 95 % interval and its p-value."""

    value: float
    interval: tuple[float, float]
    p: float


def estimate_after_stop(
    looks: Sequence[Look], number: int, z: float
) -> StoppedEstimate:
    """The median-unbiased estimate of a study that stopped at look `number` with z, by
    the stage-wise order of what could have come (Jennison and Turnbull 2000, 8.4)."""

    def solve(probability: float) -> float:
        low = -MOST_Z
        high = MOST_Z
        for _ in range(50):
            middle = (low + high) / 2
            if compute_crossing(looks, number, z, middle) < probability:
                low = middle
            else:
                high = middle
        return (low + high) / 2

    return StoppedEstimate(
        value=solve(0.5),
        interval=(solve(0.025), solve(0.975)),
        p=compute_crossing(looks, number, z, 0.0),
    )


def compute_conditional_power(looks: Sequence[Look], number: int, p: float) -> float:
    """How likely the last look's bound is crossed if what was seen by look `number`, of
    the one-sided p-value p, goes on as it did."""
    share = looks[number].share
    if share >= 1:
        return float(p <= looks[number].tail)
    z = convert_to_z(p)
    path = z * math.sqrt(share)
    drift = z / math.sqrt(share)
    ahead = 1 - share
    position = (path + drift * ahead - looks[-1].bound) / math.sqrt(ahead)
    return _NORMAL.cdf(position)


def convert_to_z(p: float) -> float:
    """The z that has a one-sided p-value; within ±8.2, beyond which doubles end."""
    return _NORMAL.inv_cdf(1 - min(max(p, 1e-16), 1 - 1e-16))
