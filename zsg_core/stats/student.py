"""Student's t without scipy: how much of it lies above a value, and where a tail begins.

By the regularised incomplete beta function, whose continued fraction is evaluated as
Lentz does (Abramowitz and Stegun 26.5.8, 26.7.1).
"""

import math
from functools import lru_cache

MOST_TERMS = 300
SMALL = 1e-300
EXACT = 1e-14
MOST_HALVINGS = 200
LEAST_TAIL = 1e-16
# beyond so many degrees of freedom nobody sees a difference to the normal
MOST_FREE = 100_000


def compute_tail(value: float, free: float) -> float:
    """The share of Student's t with `free` degrees of freedom that lies above a value.

    NaN for a value that is none. ValueError for `free` that is not above 0.
    """
    if not free > 0:
        raise ValueError(f"degrees of freedom must be above 0, not {free}")
    if math.isnan(value):
        return math.nan
    free = min(free, MOST_FREE)
    if math.isinf(value):
        return 0.0 if value > 0 else 1.0
    beyond = _compute_beta(free / (free + value * value), free / 2, 0.5) / 2
    return beyond if value >= 0 else 1.0 - beyond


@lru_cache(maxsize=4096)
def compute_quantile(tail: float, free: float) -> float:
    """The value above which the share `tail`, below one half, of Student's t lies."""
    if not 0 < tail < 0.5:
        raise ValueError(f"a tail must be above 0 and below 0.5, not {tail}")
    low = 0.0
    high = 1.0
    while compute_tail(high, free) > tail:
        low = high
        high *= 2
    for _ in range(MOST_HALVINGS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if compute_tail(middle, free) > tail:
            low = middle
        else:
            high = middle
    return high


def convert_from_normal(value: float, free: float) -> float:
    """The value of Student's t above which there is as much as above this one of the
    normal; within what doubles tell apart of the normal, ±8.2."""
    tail = max(math.erfc(abs(value) / math.sqrt(2)) / 2, LEAST_TAIL)
    if tail >= 0.5:
        return 0.0
    return math.copysign(compute_quantile(tail, free), value)


def _compute_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b)."""
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    logarithm = (
        math.lgamma(a + b)
        - math.lgamma(a)
        - math.lgamma(b)
        + a * math.log(x)
        + b * math.log1p(-x)
    )
    front = math.exp(logarithm)
    if x < (a + 1) / (a + b + 2):
        return front * _continue_fraction(x, a, b) / a
    return 1.0 - front * _continue_fraction(1 - x, b, a) / b


def _continue_fraction(x: float, a: float, b: float) -> float:
    """The continued fraction of I_x(a, b), by Lentz."""
    numerator = 1.0
    denominator = _keep_off_zero(1.0 - (a + b) * x / (a + 1))
    denominator = 1.0 / denominator
    value = denominator
    for term in range(1, MOST_TERMS):
        even = term * (b - term) * x / ((a + 2 * term - 1) * (a + 2 * term))
        odd = -(a + term) * (a + b + term) * x / ((a + 2 * term) * (a + 2 * term + 1))
        for factor in (even, odd):
            denominator = 1.0 / _keep_off_zero(1.0 + factor * denominator)
            numerator = _keep_off_zero(1.0 + factor / numerator)
            change = denominator * numerator
            value *= change
        if abs(change - 1.0) < EXACT:
            break
    return value


def _keep_off_zero(value: float) -> float:
    return value if abs(value) > SMALL else SMALL
