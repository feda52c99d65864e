"""Turns claims that compare metrics of the same runs into arithmetic.

The levels of such a claim are metrics: a run has a curve for each of them, of the same
test items. Of each the way from step 0 is looked at, as a share of that to the mean of
its later values. So it does not matter in which unit a metric is, whether it falls or
rises; and, as the mean is over many checkpoints, a metric that swings is not taken for
one that goes on changing, as it would be if its best value counted.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zsg_core.settings.claims import IsEarlier, IsSteadier
from zsg_core.stats import wobble
from zsg_core.stats.effects import Effects, Floats

Means = Mapping[str, Floats]
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class EarlySteps:
    """The checkpoints that all compared curves have, and which of them are early: those
    after step 0 up to place `last`."""

    steps: Sequence[int]
    last: int

    @property
    def later(self) -> Sequence[int]:
        """The checkpoints after the early ones."""
        return self.steps[self.last + 1 :]

    def compute_way(self, curve: Floats) -> Floats:
        """The way (draws, S) of a mean curve (draws, S) from its first checkpoint, as a
        share of the way to the mean of the later ones. NaN where that is none."""
        change = curve - curve[:, :1]
        whole = change[:, self.last + 1 :].mean(axis=1, keepdims=True)
        unknown = np.full(change.shape, np.nan)
        return np.divide(change, whole, out=unknown, where=whole != 0)

    def compute_early_share(self, curve: Floats) -> Floats:
        """The mean (draws,) of the way over the early checkpoints."""
        return self.compute_way(curve)[:, 1 : self.last + 1].mean(axis=1)

    def compute_swing(self, curve: Floats, among: Indices | None = None) -> Floats:
        """The natural logarithm (draws,) of the curve's swing after the early steps, as a
        share of its way; `among` these swings alone, where given."""
        later = self.compute_way(curve)[:, self.last + 1 :]
        swings = wobble.compute_swings(self.later, later)
        if among is not None:
            swings = swings[:, among]
        square = np.mean(swings**2, axis=1)
        return 0.5 * np.log(square, out=np.full(len(square), np.nan), where=square > 0)


def find_early_steps(steps: Sequence[int], share: float) -> EarlySteps | str:
    """Which of the checkpoints are early; a text says why none is, or too few are later."""
    last = sum(step <= share * steps[-1] for step in steps) - 1 if steps else 0
    if last < 1:
        return f"no checkpoint lies within the first {share:.0%} of the steps"
    if last + 1 >= len(steps):
        return f"no checkpoint lies after the first {share:.0%} of the steps"
    return EarlySteps(steps, last)


def express_as_ways(
    curves: Mapping[str, tuple[list[int], Floats]], share: float
) -> dict[str, tuple[list[int], Floats]]:
    """Mean curves (steps, values) by metric as shares of their ways, so that metrics of
    other units stand on one axis; those without later checkpoints are left out."""
    shares: dict[str, tuple[list[int], Floats]] = {}
    for metric, (steps, values) in curves.items():
        early = find_early_steps(steps, share)
        if not isinstance(early, str):
            shares[metric] = (steps, early.compute_way(values[None, :])[0])
    return shares


def make_earlier_effects(early: EarlySteps, levels: Sequence[str]) -> Effects:
    """The early share of the first metric less that of each other."""

    def effects(at: Means) -> Floats:
        shares = [early.compute_early_share(at[level]) for level in levels]
        return np.stack([shares[0] - share for share in shares[1:]], axis=1)

    return effects


def make_earlier_errors(
    early: EarlySteps, levels: Sequence[str]
) -> Callable[[Means], list[float]]:
    """What the swings of the curves leave open of each effect: standard errors.

    Of the difference of two curves, so swings that both have do not count.
    """

    def errors(at: Means) -> list[float]:
        first, *following = [early.compute_way(at[level]) for level in levels]
        sizes = []
        for second in following:
            difference = (first - second)[:, early.last + 1 :]
            swing = wobble.compute_swing_size(early.later, difference)
            sizes.append(float(swing[0]) / math.sqrt(early.last))
        return sizes

    return errors


def make_steadier_effects(
    early: EarlySteps, levels: Sequence[str], among: Indices | None = None
) -> Effects:
    """By how many times each other metric swings more than the first, as a logarithm."""

    def effects(at: Means) -> Floats:
        swings = [early.compute_swing(at[level], among) for level in levels]
        return np.stack([swing - swings[0] for swing in swings[1:]], axis=1)

    return effects


def make_steadier_errors(
    early: EarlySteps, levels: Sequence[str]
) -> Callable[[Means], list[float]]:
    """What the checkpoints that there are leave open of each effect: standard errors,
    by leaving out some of them in turn."""
    count = len(early.later) - 2
    blocks = wobble.list_blocks(count)

    def errors(at: Means) -> list[float]:
        without = []
        for block in blocks:
            remaining = np.delete(np.arange(count), block)
            effects = make_steadier_effects(early, levels, remaining)
            without.append(effects(at)[0])
        smallest = wobble.compute_least_error(count)
        return [
            max(smallest, wobble.compute_jackknife_error(column))
            for column in np.array(without).T
        ]

    return errors


def explain_no_steadiness(early: EarlySteps) -> str | None:
    """Why it cannot be said how much curves swing; None where it can."""
    count = len(early.later)
    if count >= wobble.FEWEST_CHECKPOINTS:
        return None
    return (
        f"{count} checkpoints after the first steps: fewer than the"
        f" {wobble.FEWEST_CHECKPOINTS} that can say how much a metric swings"
    )


def name_earlier(claim: IsEarlier, early: EarlySteps) -> list[str]:
    """What each effect of a claim that a metric is earlier is called."""
    return [
        f"share of the way by step {early.steps[early.last]}, {claim.metric} − {second}"
        for second in claim.than
    ]


def name_steadier(claim: IsSteadier) -> list[str]:
    """What each effect of a claim that a metric is steadier is called."""
    return [f"ln of the swing of {second} / {claim.metric}" for second in claim.than]
