"""Turns a claim into arithmetic: what is taken of each run, and what effects its
levels' means make.

`zsg_core.stats.verdict` decides by the effects.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from zsg_core.settings.claims import (
    Claim,
    Correlates,
    FallsAt,
    FallsEarly,
    FallsSuddenly,
    IsEarlier,
    IsHigher,
    IsSteadier,
    Rises,
    RisesAt,
    RisesEarly,
    RisesSuddenly,
    Trends,
)
from zsg_core.stats import curves, metric_questions, wobble
from zsg_core.stats.effects import Effects, Floats, RunTable
from zsg_core.stats.run_course import RunCourse


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
    # what decides the contrary, where that is another size
    opposite: "Question | None" = None
    # standard errors that a run's own course leaves open, and tasks do not tell of; None
    # where nothing says how much they are
    course_errors: Callable[[Mapping[str, Floats]], Sequence[float]] | None = None
    # what is taken for granted of a single run, where nothing tells whether it is so
    assumed: str = ""


def make_question(
    claim: Claim, whole: Sequence[Curve], levels: Sequence[str]
) -> "Question | str":
    """The claim as arithmetic; a text says why these curves cannot answer it."""
    match claim:
        case Rises() | Correlates() | Trends():
            return _ask_of_places(claim, whole, levels)
        case FallsEarly() | RisesEarly():
            return _ask_early(claim, whole, levels)
        case FallsAt() | RisesAt():
            return _ask_at(claim, whole, levels)
        case FallsSuddenly() | RisesSuddenly():
            return _ask_suddenly(claim, levels)
        case IsEarlier() | IsSteadier() | IsHigher():
            return _ask_of_metrics(claim, whole, levels)


def _ask_of_places(
    claim: Rises | Correlates | Trends, whole: Sequence[Curve], levels: Sequence[str]
) -> "Question | str":
    """The question of a claim on the values at the places of an axis."""
    match claim:
        case Rises():
            return _ask_of_values(
                claim.of,
                whole,
                levels,
                _compute_steps_up,
                _name_steps_up(levels),
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
        case Trends():
            return _ask_trends(claim, whole, levels)


def _name_steps_up(levels: Sequence[str]) -> list[str]:
    names = [f"{after} − {before}" for before, after in itertools.pairwise(levels)]
    if len(levels) > 2:
        names.append(f"{levels[-1]} − {levels[0]}")
    return names


def _ask_of_metrics(
    claim: IsEarlier | IsSteadier | IsHigher,
    whole: Sequence[Curve],
    levels: Sequence[str],
) -> "Question | str":
    """The question of a claim that compares metrics of the same runs."""
    match claim:
        case IsEarlier():
            return _ask_is_earlier(claim, whole, levels)
        case IsSteadier():
            return _ask_is_steadier(claim, whole, levels)
        case IsHigher():
            return _ask_is_higher(claim, whole, levels)


def turn_upside_down(claim: Claim, curve: Curve) -> Curve:
    """The curve of which the claim's question is: of a claim that a metric rises early,
    at a step or suddenly its negative, which falls so."""
    if isinstance(claim, RisesEarly | RisesAt | RisesSuddenly):
        return replace(curve, losses=-np.asarray(curve.losses, np.float64))
    return curve


def _name_change(claim: Claim) -> str:
    is_rise = isinstance(claim, RisesEarly | RisesAt | RisesSuddenly)
    return "rise" if is_rise else "fall"


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

    is_order = bool(thresholds.get("is_order"))
    return Question(
        take,
        lambda means: compare(values(means)),
        names,
        values=values,
        # an order is held against those by chance, which runs' own courses make, too
        course_errors=None
        if is_order
        else _measure_course(curve_value, whole, levels, compare),
        **thresholds,
    )


def _measure_course(
    curve_value: str,
    whole: Sequence[Curve],
    levels: Sequence[str],
    compare: Callable[[Floats], Floats],
) -> Callable[[Mapping[str, Floats]], Sequence[float]] | None:
    """What the runs' own courses leave open of values that are compared; None where too
    few checkpoints tell."""
    steps = _list_measured_steps(whole)
    if len(steps) < wobble.FEWEST_CHECKPOINTS:
        return None
    take = take_steps(steps)
    cells = [
        RunTable(curve.level, curve.split, curve.seed, curve.units, *take(curve))
        for curve in whole
    ]
    course = RunCourse(steps, cells, levels, curve_value)
    return lambda _: course.compute_errors(compare)


def _list_measured_steps(whole: Sequence[Curve]) -> list[int]:
    """The checkpoints that all runs have, and at which each has a value of some unit."""
    measured: list[int] = []
    for step in find_common_steps(whole):
        tables = [take_steps([step])(curve) for curve in whole]
        if all(counts.any() for _, counts in tables):
            measured.append(step)
    return measured


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


def _ask_trends(
    claim: Trends, whole: Sequence[Curve], levels: Sequence[str]
) -> "Question | str":
    """The question of a claim that a value rises along an axis: the slope of the line
    through the levels' values, by least squares."""
    positions = np.asarray(claim.positions or range(len(levels)), np.float64)
    centred = positions - positions.mean()
    weights = centred / (centred**2).sum()

    def compute_slope(values: Floats) -> Floats:
        return (values @ weights)[:, None]

    name = "slope" if claim.positions else "slope from place to place"
    return _ask_of_values(
        claim.of, whole, levels, compute_slope, [name], least=claim.by
    )


def _ask_early(
    claim: FallsEarly | RisesEarly, whole: Sequence[Curve], levels: Sequence[str]
) -> "Question | str":
    """The question of a claim that most of the fall happens early; or why the curves
    cannot answer it.

    The lowest of many values that swing is lower than the curve is, so a share of the
    fall to it is too small: it can support the claim, but not speak against it. The
    mean of the later values is no lower than the lowest, so a share of the fall to that
    can.
    """
    early = metric_questions.find_early_steps(
        find_common_steps(whole), float(claim.within)
    )
    if isinstance(early, str):
        return early
    [level] = levels
    average = claim.average if isinstance(claim, RisesEarly) else 1

    def share_of_lowest(at: Mapping[str, Floats]) -> Floats:
        curve = wobble.average_back(at[level], average)
        return _divide_falls(
            curve[:, 0] - curve[:, early.last], curve[:, 0] - curve.min(axis=1)
        )

    def share_of_later(at: Mapping[str, Floats]) -> Floats:
        curve = at[level]
        later = curve[:, early.last + 1 :].mean(axis=1)
        return _divide_falls(curve[:, 0] - curve[:, early.last], curve[:, 0] - later)

    def measure_swing(at: Mapping[str, Floats]) -> list[float]:
        later = early.compute_way(at[level])[:, early.last + 1 :]
        return [float(wobble.compute_swing_size(early.later, later)[0])]

    def measure_averaged_swing(at: Mapping[str, Floats]) -> list[float]:
        [swing] = measure_swing(at)
        return [swing / math.sqrt(min(average, early.last))]

    share = float(claim.share)
    name = f"share of the {_name_change(claim)} by step {early.steps[early.last]}"
    against = Question(
        take_steps(early.steps),
        share_of_later,
        [name],
        null=share,
        least=share,
        course_errors=measure_swing,
    )
    return replace(
        against,
        effects=share_of_lowest,
        course_errors=measure_averaged_swing,
        opposite=against,
    )


def _divide_falls(early_fall: Floats, whole_fall: Floats) -> Floats:
    """The share (draws, 1) of a fall that is done early; NaN where nothing falls."""
    shares = np.full(len(whole_fall), np.nan)
    np.divide(early_fall, whole_fall, out=shares, where=whole_fall > 0)
    return shares[:, None]


def _ask_at(
    claim: FallsAt | RisesAt, whole: Sequence[Curve], levels: Sequence[str]
) -> "Question | str":
    """The question of a claim that a curve turns down at a step; or why the curves
    cannot answer it."""
    steps = find_common_steps(whole)
    if not steps:
        return "the runs share no checkpoint"
    around = _find_turn(claim, steps)
    if around is None:
        return "too few checkpoints around the turn"
    indices = list(map(steps.index, around))
    before, middle, after = around

    def effects(at: Mapping[str, Floats]) -> Floats:
        first, turn, last = at[levels[0]][:, indices].T
        return ((turn - last) - (first - turn))[:, None]

    def measure_swing(at: Mapping[str, Floats]) -> list[float]:
        swing = float(wobble.compute_typical_swing(steps, at[levels[0]])[0])
        # of first − 2 · turn + last
        return [swing * math.sqrt(6)]

    change = _name_change(claim)
    name = f"{change} over steps {middle}–{after} less that over {before}–{middle}"
    return Question(take_steps(steps), effects, [name], course_errors=measure_swing)


def _find_turn(
    claim: FallsAt | RisesAt, steps: Sequence[int]
) -> tuple[int, int, int] | None:
    """The checkpoint at which a curve is claimed to turn, between those a window before
    and behind it; None where there are not three."""
    last = steps[-1]
    middle = _find_last(steps, claim.at * last)
    if middle is None:
        return None
    reach = claim.window * last
    before = _find_last(steps, middle - reach)
    later = [step for step in steps if step >= middle + reach]
    if before is None or not later:
        return None
    after = min(later)
    return (before, middle, after) if before < middle < after else None


def _find_last(steps: Sequence[int], limit: Fraction) -> int | None:
    """The last checkpoint up to a limit; None where all lie behind it."""
    return max((step for step in steps if step <= limit), default=None)


def _ask_suddenly(
    claim: FallsSuddenly | RisesSuddenly, levels: Sequence[str]
) -> Question:
    """The question of a claim that more tasks change suddenly at one level than at another."""
    at_level, against = levels
    change = _name_change(claim)
    name = f"share of tasks that {change} suddenly, {at_level} − {against}"
    return Question(
        _take_sudden_drops(claim.times),
        lambda at: at[at_level] - at[against],
        [name],
        values=lambda at: np.concatenate([at[level] for level in levels], axis=1),
        assumed=f"tasks that {change} together, as a run swings, count as each for itself",
    )


def _ask_is_earlier(
    claim: IsEarlier, whole: Sequence[Curve], levels: Sequence[str]
) -> "Question | str":
    """The question of a claim that a metric is earlier than others."""
    early = metric_questions.find_early_steps(
        find_common_steps(whole), float(claim.within)
    )
    if isinstance(early, str):
        return early
    return Question(
        take_steps(early.steps),
        metric_questions.make_earlier_effects(early, levels),
        metric_questions.name_earlier(claim, early),
        least=claim.by,
        values=lambda at: np.stack(
            [early.compute_early_share(at[level]) for level in levels], axis=1
        ),
        course_errors=metric_questions.make_earlier_errors(early, levels),
    )


def _ask_is_steadier(
    claim: IsSteadier, whole: Sequence[Curve], levels: Sequence[str]
) -> "Question | str":
    """The question of a claim that a metric swings less than others."""
    early = metric_questions.find_early_steps(
        find_common_steps(whole), float(claim.within)
    )
    if isinstance(early, str):
        return early
    if reason := metric_questions.explain_no_steadiness(early):
        return reason
    return Question(
        take_steps(early.steps),
        metric_questions.make_steadier_effects(early, levels),
        metric_questions.name_steadier(claim),
        least=math.log(claim.times),
        values=lambda at: np.exp(
            np.stack([early.compute_swing(at[level]) for level in levels], axis=1)
        ),
        course_errors=metric_questions.make_steadier_errors(early, levels),
    )


def _ask_is_higher(
    claim: IsHigher, whole: Sequence[Curve], levels: Sequence[str]
) -> "Question | str":
    """The question of a claim that a metric has higher values than others."""
    return _ask_of_values(
        claim.of,
        whole,
        levels,
        lambda values: values[:, :1] - values[:, 1:],
        [f"{claim.metric} − {second}" for second in claim.than],
        least=claim.by,
    )


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
