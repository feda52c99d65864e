"""Measures how much a curve swings from checkpoint to checkpoint: what of its values is
of that one checkpoint alone.

A checkpoint is held against the straight line between its two neighbours, so a curve
that rises or falls evenly does not swing. The swing of a run is the same in all its
tasks; an interval over tasks does not know of it.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from zsg_core.stats.effects import Floats

# a block of the checkpoints that are left out together, as neighbours' swings go together
BLOCKS = 6
# fewer say too little of how much a curve swings
FEWEST_CHECKPOINTS = 12


def compute_swings(steps: Sequence[int], values: Floats) -> Floats:
    """How far each value but the first and last lies above the line between its
    neighbours: (draws, S − 2) of (draws, S), in units of the standard deviation that
    independent errors of size 1 at each checkpoint would give it."""
    positions = np.asarray(steps, np.float64)
    span = positions[2:] - positions[:-2]
    after = (positions[1:-1] - positions[:-2]) / span
    line = values[:, :-2] * (1 - after) + values[:, 2:] * after
    size = np.sqrt(1 + after**2 + (1 - after) ** 2)
    return (values[:, 1:-1] - line) / size


def compute_swing_size(steps: Sequence[int], values: Floats) -> Floats:
    """The error (draws,) of one checkpoint about the curve: the root mean square of its
    swings. 0 of fewer than three checkpoints."""
    if len(steps) < 3:
        return np.zeros(len(values))
    return np.sqrt(np.mean(compute_swings(steps, values) ** 2, axis=1))


def compute_typical_swing(steps: Sequence[int], values: Floats) -> Floats:
    """The error (draws,) of one checkpoint by the median of its swings' sizes, 1.4826 of
    it: steep parts of the curve do not count. 0 of fewer than three checkpoints."""
    if len(steps) < 3:
        return np.zeros(len(values))
    return 1.4826 * np.median(np.abs(compute_swings(steps, values)), axis=1)


def average_back(values: Floats, count: int) -> Floats:
    """Each value (draws, S) but the first as the mean of `count` checkpoints, the last
    of them its own; of fewer where there are no more after the first."""
    sums = np.cumsum(values[:, 1:], axis=1)
    taken = np.minimum(np.arange(1, sums.shape[1] + 1), count)
    before = np.zeros(sums.shape)
    before[:, count:] = sums[:, :-count]
    return np.concatenate([values[:, :1], (sums - before) / taken], axis=1)


def list_blocks(count: int) -> list[range]:
    """The places 0 to `count` − 1 in at most BLOCKS neighbouring parts of nearly equal
    size, none of fewer than three."""
    blocks = max(1, min(BLOCKS, count // 3))
    borders = [round(number * count / blocks) for number in range(blocks + 1)]
    return [range(start, stop) for start, stop in itertools.pairwise(borders)]


def compute_jackknife_error(without: Floats) -> float:
    """The standard error of a value by what it is without each of n blocks:
    √((n − 1) / n · Σ (v − v̄)²) (Efron and Tibshirani 1993, chapter 11)."""
    count = len(without)
    squares = float(np.sum((without - without.mean()) ** 2))
    return float(np.sqrt((count - 1) / count * squares))


def compute_least_error(count: int) -> float:
    """The standard error of the logarithm of how many times the one of two curves
    swings as much as the other, of `count` checkpoints each, if these err
    independently and normally: √(V / count).

    Neighbouring swings go together by −2/3 and those next to them by 1/6, so V = 1 +
    2 · (4/9 + 1/36): the variance of a mean square is twice this, over the count; the
    half of it is that of a logarithm of a root, and there are two.
    """
    together = 1 + 2 * (4 / 9 + 1 / 36)
    return float(np.sqrt(together / count))
