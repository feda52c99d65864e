"""Turns a claim into arithmetic: what is taken of each run, and what effects its
levels' means make.

`zsg_core.stats.verdict` decides by the effects.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zsg_core.settings.claims import (
    Claim,
    Correlates,
    FallsAt,
    FallsEarly,
    FallsSuddenly,
    Rises,
)
from zsg_core.stats import curves
from zsg_core.stats.effects import Effects, Floats


@dataclass(frozen=True)
class Curve:
    """One run: the mean loss of each unit, a held-out task (or an item, where all are
    of one task), at every step.

    A unit that has no loss at a step, NaN, counts 0 items there.
    """

    level: str  # its place on the claim's axis
    split: str  # the test set
    seed: str
    steps: Sequence[int]
    units: Sequence[str]
    # test items of each unit; (steps, units) where they differ by step
    counts: Sequence[int] | Floats
    losses: Floats  # (steps, units)


@dataclass(frozen=True)
class Question:
    """A claim as arithmetic: what is taken of each run, and what effects the means of
    it at the levels make."""

    # → (values, units), the units' weights
    take: Callable[[Curve], tuple[Floats, Floats]]
    effects: Effects
    names: Sequence[str]
    null: float = 0.0
    least: float = 0.0
    # the levels' means ↦ one value of each level (draws, levels), where there is one
    values: Effects | None = None
    # its one effect is the correlation of these values with the levels' places
    is_order: bool = False


def make_question(
    claim: Claim, whole: Sequence[Curve], levels: Sequence[str]
) -> "Question | str":
    """The claim as arithmetic; a text says why these curves cannot answer it."""
    match claim:
        case Rises():
            names = [
                f"{after} − {before}" for before, after in itertools.pairwise(levels)
            ]
            whole_name = [f"{levels[-1]} − {levels[0]}"] if len(levels) > 2 else []
            return _ask_of_values(
                claim.of,
                whole,
                levels,
                _compute_steps_up,
                [*names, *whole_name],
                least=claim.by,
            )
        case Correlates():
            return _ask_of_values(
                claim.of,
                whole,
                levels,
                _compute_spearman,
                ["rank correlation"],
                least=claim.at_least,
                is_order=True,
            )
        case FallsEarly():
            return _ask_falls_early(claim, whole, levels)
        case FallsAt():
            return _ask_falls_at(claim, whole, levels)
        case FallsSuddenly():
            name = f"share of tasks that fall suddenly, {levels[0]} − {levels[1]}"
            return Question(
                _take_sudden_drops(claim.times),
                lambda at: at[levels[0]] - at[levels[1]],
                [name],
                values=lambda at: np.concatenate(
                    [at[level] for level in levels], axis=1
                ),
            )


def _ask_of_values(
    curve_value: str,
    whole: Sequence[Curve],
    levels: Sequence[str],
    compare: Callable[[Floats], Floats],
    names: Sequence[str],
    **thresholds: Any,
) -> "Question | str":
    """A question about one value of each level, its last or the area under its mean
    curve, as the report has them. `curve_value`: end or area."""
    steps = {
        level: find_common_steps([curve for curve in whole if curve.level == level])
        for level in levels
    }
    if lacking := [level for level in levels if not steps[level]]:
        return f"the runs at {', '.join(lacking)} share no checkpoint"

    def take(curve: Curve) -> tuple[Floats, Floats]:
        common = steps[curve.level]
        return take_steps(common[-1:] if curve_value == "end" else common)(curve)

    def values(means: Mapping[str, Floats]) -> Floats:
        ends = [
            means[level][:, -1]
            if curve_value == "end"
            else curves.compute_area(steps[level], means[level].T)
            for level in levels
        ]
        return np.stack(ends, axis=1)

    return Question(
        take, lambda means: compare(values(means)), names, values=values, **thresholds
    )


def _compute_steps_up(values: Floats) -> Floats:
    """(draws, levels) ↦ what each level is above the one before, and of several the
    last above the first."""
    steps = np.diff(values, axis=1)
    return (
        steps
        if values.shape[1] == 2
        else np.concatenate([steps, values[:, -1:] - values[:, :1]], axis=1)
    )


def _compute_spearman(values: Floats) -> Floats:
    """(draws, levels) ↦ Spearman's correlation of a level's value with its place."""
    positions = np.arange(values.shape[1]) - (values.shape[1] - 1) / 2
    ranks = compute_ranks(values)
    length = np.sqrt((ranks**2).sum(axis=1) * (positions**2).sum())
    return np.divide(
        ranks @ positions, length, out=np.full(len(ranks), np.nan), where=length > 0
    )[:, None]


def compute_ranks(values: Floats) -> Floats:
    """(draws, levels) ↦ the ranks of each row, centred; ties share their mean. NaN
    where a value is none."""
    above = np.sign(values[:, :, None] - values[:, None, :])
    return above.sum(axis=2) / 2


def _ask_falls_early(
    claim: FallsEarly, whole: Sequence[Curve], levels: Sequence[str]
) -> "Question | str":
    """The question of a claim that most of the fall happens early; or why the curves
    cannot answer it."""
    steps = find_common_steps(whole)
    early = sum(step <= claim.within * steps[-1] for step in steps) - 1
    if early < 1:
        return f"no checkpoint lies within the first {float(claim.within):.0%} of the steps"

    def effects(at: Mapping[str, Floats]) -> Floats:
        curve = at[levels[0]]
        whole_fall = curve[:, 0] - curve.min(axis=1)
        early_fall = curve[:, 0] - curve[:, early]
        shares = np.full(len(curve), np.nan)
        np.divide(early_fall, whole_fall, out=shares, where=whole_fall > 0)
        return shares[:, None]

    share = float(claim.share)
    name = f"share of the fall by step {steps[early]}"
    return Question(take_steps(steps), effects, [name], null=share, least=share)


def _ask_falls_at(
    claim: FallsAt, whole: Sequence[Curve], levels: Sequence[str]
) -> "Question | str":
    """The question of a claim that a curve turns down at a step; or why the curves
    cannot answer it."""
    steps = find_common_steps(whole)
    middle = max(step for step in steps if step <= claim.at * steps[-1])
    reach = claim.window * steps[-1]
    before = [step for step in steps if step <= middle - reach]
    after = [step for step in steps if step >= middle + reach]
    if not before or not after or claim.at == 1:
        return "too few checkpoints around the turn"

    def effects(at: Mapping[str, Floats]) -> Floats:
        first, turn, last = at[levels[0]].T
        return ((turn - last) - (first - turn))[:, None]

    name = f"fall over steps {middle}–{after[0]} less that over {before[-1]}–{middle}"
    return Question(take_steps([before[-1], middle, after[0]]), effects, [name])


def take_steps(steps: Sequence[int]) -> Callable[[Curve], tuple[Floats, Floats]]:
    def take(curve: Curve) -> tuple[Floats, Floats]:
        rows = [list(curve.steps).index(step) for step in steps]
        return (
            np.asarray(curve.losses[rows], np.float64),
            np.asarray(curve.counts, np.float64)[rows],
        )

    return take


def _take_sudden_drops(times: float) -> Callable[[Curve], tuple[Floats, Floats]]:
    def take(curve: Curve) -> tuple[Floats, Floats]:
        drops = curves.find_sudden_drops(
            list(curve.steps), list(curve.units), curve.losses
        )
        sudden = {drop.task for drop in drops if drop.times_usual > times}
        return np.array([[float(unit in sudden) for unit in curve.units]]), np.ones(
            len(curve.units)
        )

    return take


def find_common_steps(whole: Sequence[Curve]) -> list[int]:
    return sorted(set.intersection(*(set(curve.steps) for curve in whole)))
