"""How often would a design find an effect, with how many splits, and what would one more
split bring? By simulated studies whose splits are normal.

Splits that share held-out tasks are alike: the correlation `shared` of their effects stays
in the mean however many there are, V(n) = σ² (1 + (n − 1) shared) / n.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zsg_core.stats import boundaries, student
from zsg_core.stats.boundaries import Floats, Look

STUDIES = 20_000
SEED = 7
# an effect of more deviations is found always, and its squares would take all digits
MOST_DEVIATIONS = 1000.0


@dataclass(frozen=True)
class Spread:
    """How far the effects of splits lie apart: their standard deviation, and the
    correlation that they have by the tasks that they share."""

    deviation: float
    shared: float = 0.0

    def compute_error(self, splits: int) -> float:
        """The standard error of the mean of so many splits."""
        alike = 1 + (splits - 1) * self.shared
        return self.deviation * math.sqrt(alike / splits)


@dataclass(frozen=True)
class Outlook:
    """What would come of a design: how often the effect is found, how many splits are
    used on average, and how often a study ends at each look."""

    power: float
    splits: float
    ends: Sequence[float]


def foresee(
    looks: Sequence[Look], effect: float, spread: Spread, futility: float = 0.0
) -> Outlook:
    """What comes of studies with this effect, in the unit of the spread."""
    counts = [look.splits for look in looks]
    values = _draw_studies(counts, effect, spread)
    goes_on = np.ones(len(values), bool)
    hits = 0
    used = 0.0
    ends: list[float] = []
    for number, look in enumerate(looks):
        column = values[:, number]
        bound = look.t_bound
        is_last = number == len(looks) - 1
        crossed = goes_on & (column >= bound)
        opposite = goes_on & (column <= -bound)
        stops = crossed | opposite
        if futility and not is_last:
            stops |= goes_on & (np.abs(column) < _find_futile(looks, number, futility))
        if is_last:
            stops = goes_on
        hits += int(crossed.sum())
        used += float(stops.sum()) * look.splits
        ends.append(float(stops.mean()))
        goes_on = goes_on & ~stops
    return Outlook(hits / len(values), used / len(values), ends)


def _find_futile(looks: Sequence[Look], number: int, futility: float) -> float:
    """The t-value below which, on either side, a study would be given up; 0 where none is."""
    low = 0.0
    high = looks[number].t_bound
    free = looks[number].splits - 1
    for _ in range(40):
        middle = (low + high) / 2
        p = student.compute_tail(middle, free)
        if boundaries.compute_conditional_power(looks, number, p) < futility:
            low = middle
        else:
            high = middle
    return low


def _draw_studies(counts: Sequence[int], effect: float, spread: Spread) -> Floats:
    """(studies, looks) t-values, each with the error that the likeness of splits makes."""
    rng = np.random.default_rng(SEED)
    apart = math.sqrt(1 - spread.shared)
    values = apart * rng.standard_normal((STUDIES, counts[-1]))
    if spread.shared:
        values += math.sqrt(spread.shared) * rng.standard_normal((STUDIES, 1))
    values += min(effect / spread.deviation, MOST_DEVIATIONS)
    columns = boundaries.compute_t_values(values, counts)
    for number, count in enumerate(counts):
        alike = 1 + (count - 1) * spread.shared
        columns[:, number] *= math.sqrt((1 - spread.shared) / alike)
    return columns


def compute_fixed_power(
    splits: int, effect: float, spread: Spread, tail: float
) -> float:
    """How often one look at the end finds the effect."""
    looks = boundaries.plan_looks((splits,), tail, boundaries.OBRIEN_FLEMING)
    return foresee(looks, effect, spread).power


def bound_deviation(deviation: float, splits: int) -> tuple[float, float]:
    """The 95 % interval of a standard deviation that was estimated from so many splits:
    of four it is known within a factor of 0.57 to 3.7."""
    free = splits - 1
    low = find_chi_square(0.975, free)
    high = find_chi_square(0.025, free)
    return deviation * math.sqrt(free / low), deviation * math.sqrt(free / high)


def find_chi_square(share: float, free: int) -> float:
    """The value below which a share of the chi-square distribution lies."""
    low = 0.0
    high = 10.0 * free + 50
    for _ in range(100):
        middle = (low + high) / 2
        if _compute_gamma(free / 2, middle / 2) < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _compute_gamma(shape: float, value: float) -> float:
    """The regularised lower incomplete gamma function, by its series."""
    if value <= 0:
        return 0.0
    term = 1 / shape
    total = term
    for number in range(1, 1000):
        term *= value / (shape + number)
        total += term
        if term < total * 1e-15:
            break
    logarithm = shape * math.log(value) - value - math.lgamma(shape)
    return min(1.0, total * math.exp(logarithm))
