"""Decides claims: supported, not supported, opposite, or too few replicates; with
effect sizes and intervals.

`supported` and `opposite` are of tasks and splits that nobody has seen. Of fewer than
four splits it may be that only these are known: where another split could turn the
word, it is `supported on these tasks`, or `on this task` where all test items are of
one. Each is wrong in about 2.5 % of studies without an effect
(tests/test_error_rates.py).

What a study says is of tasks that it never saw, so its replicates are held-out tasks
and held-out splits; seeds only repeat a run on the same tasks. With 24 held-out tasks
the error over tasks was five times that over seeds, and one split turned the sign. The
papers gave neither.

Effects and their intervals are those of `zsg_core.stats.effects`, which draws whole
tasks and whole splits. A chain of several comparisons is supported if each is: no
correction is needed (Berger 1982, intersection-union). So it is opposite if each is: a
last place below the first says little of a chain that rises in between.

The means that are compared are those of the metric's own values: see `zsg_core.metrics.means`.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from zsg_core.metrics.means import LOSS, is_over_items
from zsg_core.settings.claims import (
    FEWEST_PLACES,
    Claim,
    Correlates,
    FallsAt,
    FallsEarly,
    FallsSuddenly,
    Rises,
    explain_too_few_places,
)
from zsg_core.stats import curves
from zsg_core.stats.curves import Interval
from zsg_core.stats.effects import (
    SPLITS,
    EffectEstimate,
    Effects,
    Floats,
    RunTable,
    compute_level_means,
    count_effective_tasks,
    estimate_effects,
)

SUPPORTED, NOT_SUPPORTED, OPPOSITE, TOO_FEW = (
    "supported",
    "not supported",
    "opposite",
    "too few replicates",
)
# what is added to a word that another split could turn
HERE, HERE_OF_ONE = "on these tasks", "on this task"
# the fewest held-out tasks whose signs, were all alike, would be below 5 % by chance: 2 · 2⁻⁶ = 3 %
TASKS = 6
TAIL = 0.025  # how often, on either side, a claim without an effect may be decided
# places whose orders are all looked at; of more, DRAWN_ORDERS are drawn
MOST_ORDERED = 8
DRAWN_ORDERS = 100_000


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
class ClaimEffect:
    """A size that a claim is about. The claim wants all its interval above `null`, and
    its value at least `least`.

    `chance`: how often, if places of the axis meant nothing, a value at least as high,
    and one at least as low, would come of them. None of an effect that is no order of
    places.
    """

    name: str
    found: EffectEstimate
    null: float
    least: float
    chance: tuple[float, float] | None = None

    @property
    def is_known(self) -> bool:
        """Whether there are numbers to decide by."""
        return all(map(math.isfinite, (self.found.value, *self.found.interval)))

    @property
    def holds(self) -> bool:
        """Whether the interval and the value are where the claim wants them."""
        return self._holds(self.found.interval)

    @property
    def holds_here(self) -> bool:
        """Whether they are if these splits stand for all."""
        return self.holds or (
            self.found.on_these is not None and self._holds(self.found.on_these)
        )

    @property
    def is_opposite(self) -> bool:
        """Whether they are where they should be if the contrary were claimed."""
        return self._is_opposite(self.found.interval)

    @property
    def is_opposite_here(self) -> bool:
        """Whether they are if these splits stand for all."""
        return self.is_opposite or (
            self.found.on_these is not None and self._is_opposite(self.found.on_these)
        )

    def _holds(self, interval: Interval) -> bool:
        by_chance = self.chance[0] if self.chance else 0.0
        return (
            interval[0] > self.null
            and self.found.value >= self.least
            and by_chance <= TAIL
        )

    def _is_opposite(self, interval: Interval) -> bool:
        by_chance = self.chance[1] if self.chance else 0.0
        return (
            interval[1] < self.null
            and self.found.value <= 2 * self.null - self.least
            and by_chance <= TAIL
        )


@dataclass(frozen=True)
class ClaimVerdict:
    """What came of a claim: the word, the sizes behind it, what they rest on, and what
    to bear in mind."""

    word: str
    effects: Sequence[ClaimEffect] = ()
    # the value at each place of the axis
    levels: Mapping[str, float] = field(default_factory=dict)
    tasks: int = 0
    counted: float = 0.0  # how many tasks of equal weight know as much
    splits: int = 0
    runs: int = 0
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class _Question:
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


# what is too large is no number, and is told
@np.errstate(over="ignore", invalid="ignore")
def judge_claim(
    claim: Claim,
    curves_of_group: Sequence[Curve],
    levels: Sequence[str],
    *,
    units_are_tasks: bool = True,
) -> ClaimVerdict:
    """The verdict of a claim on the runs of one group.

    `levels`: the places of the claim's axis as the curves name them, in the claim's
    order; one for a claim without an axis. Splits in which a level has no run are left
    out, and told. The order of `curves_of_group` does not matter. ValueError where
    curves of a split are of different tasks.
    """
    weighed = sorted(
        (_weigh_units(curve, claim.metric) for curve in curves_of_group),
        key=lambda curve: (curve.level, curve.split, curve.seed),
    )
    whole, notes = _select_whole_splits(weighed, levels)
    if not whole:
        return ClaimVerdict(TOO_FEW, notes=[_explain_no_runs(weighed, levels)])
    splits = len({curve.split for curve in whole})
    tasks = len({unit for curve in whole for unit in _list_measured_units(curve)})
    question = _make_question(claim, whole, levels)
    if isinstance(question, str):
        return ClaimVerdict(
            TOO_FEW, tasks=tasks, splits=splits, runs=len(whole), notes=[question]
        )
    cells = [_tabulate(curve, question.take) for curve in whole]
    evidence = _Evidence(
        question=question,
        whole=whole,
        effects=_estimate_claim_effects(question, cells, levels),
        levels=levels,
        splits=splits,
        tasks=tasks,
        counted=count_effective_tasks(cells),
        units_are_tasks=units_are_tasks,
    )
    too_few = _explain_too_few(evidence)
    return ClaimVerdict(
        word=TOO_FEW if too_few else _choose_word(evidence.effects, units_are_tasks),
        effects=evidence.effects,
        levels=dict(
            zip(levels, _compute_level_values(question, cells, levels), strict=False)
        ),
        tasks=tasks,
        counted=evidence.counted,
        splits=splits,
        runs=len(whole),
        notes=[*notes, *too_few, *_list_warnings(evidence)],
    )


def _explain_no_runs(curves_of_group: Sequence[Curve], levels: Sequence[str]) -> str:
    """Why there is no split with runs at all levels."""
    at_levels = {curve.level for curve in curves_of_group}
    missing = [level for level in levels if level not in at_levels]
    if missing:
        return f"no run has values at {', '.join(missing)}"
    return "no split has runs at all places"


def _tabulate(curve: Curve, take: Callable[[Curve], tuple[Floats, Floats]]) -> RunTable:
    """What is looked at of a run."""
    return RunTable(curve.level, curve.split, curve.seed, curve.units, *take(curve))


@np.errstate(over="ignore", invalid="ignore")
def compute_mean_curves(
    curves_of_group: Sequence[Curve], levels: Sequence[str], metric: str = LOSS
) -> dict[str, tuple[list[int], Floats]]:
    """Of each level (steps, values): the mean of its runs at the steps that they share,
    every split weighing alike.

    Of the splits that a verdict is of. Levels without such a run, or without a shared
    step, are left out.
    """
    weighed = [_weigh_units(curve, metric) for curve in curves_of_group]
    whole, _ = _select_whole_splits(weighed, levels)
    means = {}
    for level in levels:
        of_level = [curve for curve in whole if curve.level == level]
        if of_level and (steps := _find_common_steps(of_level)):
            cells = [_tabulate(curve, _take_steps(steps)) for curve in of_level]
            means[level] = (steps, compute_level_means(cells, [level])[level][0])
    return means


def _choose_word(effects: Sequence[ClaimEffect], units_are_tasks: bool) -> str:
    scope = HERE if units_are_tasks else HERE_OF_ONE
    if all(effect.holds for effect in effects):
        return _add_scope(SUPPORTED, effects, scope, units_are_tasks)
    if all(effect.is_opposite for effect in effects):
        return _add_scope(OPPOSITE, effects, scope, units_are_tasks)
    if all(effect.holds_here for effect in effects):
        return f"{SUPPORTED} {scope}"
    if all(effect.is_opposite_here for effect in effects):
        return f"{OPPOSITE} {scope}"
    return NOT_SUPPORTED


def _add_scope(
    word: str, effects: Sequence[ClaimEffect], scope: str, units_are_tasks: bool
) -> str:
    """A word whose intervals hold: of a single split, or of items of one task, it says so."""
    is_whole = units_are_tasks and all(
        effect.found.is_over_splits for effect in effects
    )
    return word if is_whole else f"{word} {scope}"


def _estimate_claim_effects(
    question: _Question, cells: Sequence[RunTable], levels: Sequence[str]
) -> list[ClaimEffect]:
    sizes = estimate_effects(cells, levels, question.effects)
    chance = None
    if question.is_order:
        chance = compute_order_chance(_compute_level_values(question, cells, levels))
        sizes = [
            replace(
                size,
                interval=_clip_correlation(size.interval),
                on_these=_clip_correlation(size.on_these),
            )
            for size in sizes
        ]
    return [
        ClaimEffect(name, size, question.null, question.least, chance)
        for name, size in zip(question.names, sizes, strict=True)
    ]


def _list_measured_units(curve: Curve) -> list[str]:
    """The units that have a value at some step."""
    items = np.asarray(curve.counts, np.float64).sum(axis=0).tolist()
    return [unit for unit, count in zip(curve.units, items, strict=True) if count > 0]


def _compute_level_values(
    question: _Question, cells: Sequence[RunTable], levels: Sequence[str]
) -> list[float]:
    """What a claim compares: one value of each level; none where it is of parts of a curve."""
    if question.values is None:
        return []
    return question.values(compute_level_means(cells, levels))[0].tolist()


def _clip_correlation(interval: Interval | None) -> Any:
    """The part of an interval in which a correlation can be."""
    return interval and (max(interval[0], -1.0), min(interval[1], 1.0))


def compute_order_chance(values: Sequence[float]) -> tuple[float, float]:
    """How often the ranks of values, put in any order, rise with their places at least
    as much as they do; and fall.

    The exact one-sided p-values of Spearman's correlation with 1, 2, … n. Of more than
    MOST_ORDERED places, orders are drawn, the same ones each time. Of ranks that are
    not known both are 1.
    """
    positions = np.arange(len(values)) - (len(values) - 1) / 2
    ranks = _compute_ranks(np.asarray([values], np.float64))[0]
    if not np.isfinite(ranks).all():
        return 1.0, 1.0
    if len(values) <= MOST_ORDERED:
        orders = np.array(list(itertools.permutations(ranks)))
    else:
        rng = np.random.default_rng(0)
        drawn = rng.permuted(np.tile(ranks, (DRAWN_ORDERS, 1)), axis=1)
        orders = np.concatenate([ranks[None, :], drawn])
    observed, by_chance = ranks @ positions, orders @ positions
    rises = float(np.mean(by_chance >= observed - 1e-9))
    falls = float(np.mean(by_chance <= observed + 1e-9))
    return rises, falls


def _weigh_units(curve: Curve, metric: str) -> Curve:
    """A curve whose units weigh what they do in the metric's value: their items, or one task each.

    What is not finite weighs 0, and is NaN.
    """
    losses = np.asarray(curve.losses, np.float64)
    finite = np.isfinite(losses)
    counts = np.broadcast_to(np.asarray(curve.counts, np.float64), losses.shape)
    items = counts if is_over_items(metric) else np.sign(counts)
    return replace(
        curve,
        counts=np.where(finite, items, 0),
        losses=np.where(finite & (counts > 0), losses, np.nan),
    )


def _select_whole_splits(
    curves_of_group: Sequence[Curve], levels: Sequence[str]
) -> tuple[list[Curve], list[str]]:
    """The runs of splits in which every level has one, and what is to be said of the others."""
    by_split: dict[str, list[Curve]] = {}
    for curve in curves_of_group:
        runs = by_split.setdefault(curve.split, [])
        if curve.level in levels:
            runs.append(curve)
    whole: list[Curve] = []
    lacking = 0
    for split, runs in by_split.items():
        if {curve.level for curve in runs} != set(levels):
            lacking += 1
            continue
        _check_same_units(split, runs)
        whole += runs
    if lacking and whole:
        return whole, [
            f"{lacking} of {len(by_split)} splits lack runs and are left out"
        ]
    return whole, []


def _check_same_units(split: str, runs: Sequence[Curve]) -> None:
    """ValueError where runs of a split are tested on different tasks."""
    if any(list(curve.units) != list(runs[0].units) for curve in runs):
        raise ValueError(f"runs of the split {split!r} are tested on different tasks")


@dataclass(frozen=True, kw_only=True)
class _Evidence:
    """What a verdict rests on: the runs of whole splits, and the effects they have."""

    question: _Question
    whole: Sequence[Curve]
    effects: Sequence[ClaimEffect]
    levels: Sequence[str]
    splits: int
    tasks: int
    counted: float  # how many tasks of equal weight know as much
    units_are_tasks: bool

    @property
    def unit_word(self) -> str:
        return "tasks" if self.units_are_tasks else "items"


def _explain_too_few(evidence: _Evidence) -> list[str]:
    """Why nothing can be decided; nothing where something can."""
    reasons = []
    tasks, counted = evidence.tasks, evidence.counted
    if counted < TASKS - 1e-9:
        is_unequal = counted < tasks - 0.05
        unequal = (
            f" of unequal size, which count as {counted:.1f}" if is_unequal else ""
        )
        reasons.append(
            f"{tasks} held-out {evidence.unit_word}{unequal}: fewer than the {TASKS} that can"
            " decide anything"
        )
    if evidence.question.is_order and len(evidence.levels) < FEWEST_PLACES:
        reasons.append(
            f"too few places: {explain_too_few_places(len(evidence.levels))}"
        )
    reasons += [
        f"{effect.name}: no number, as a value that it is of is none"
        for effect in evidence.effects
        if not effect.is_known
    ]
    return reasons


def _list_warnings(evidence: _Evidence) -> list[str]:
    """What to bear in mind beside the verdict."""
    return [
        *_warn_of_splits(evidence),
        *_warn_of_unequal_tasks(evidence),
        *_warn_of_unequal_runs(evidence),
        *_warn_of_chance(evidence),
        *_warn_of_single_seeds(evidence),
        *_warn_of_seeds_alone(evidence),
    ]


def _warn_of_splits(evidence: _Evidence) -> Iterator[str]:
    if not evidence.units_are_tasks:
        yield (
            "all test items are of one task: the interval is over items and says nothing of other"
            " tasks"
        )
    elif evidence.splits == 1:
        yield (
            f"rests on one held-out split: it is about these {evidence.tasks} tasks, and others"
            " may differ"
        )
    elif evidence.splits < SPLITS:
        yield (
            f"rests on {evidence.splits} held-out splits, of which little is known how far others"
            " lie apart"
        )


def _warn_of_unequal_tasks(evidence: _Evidence) -> Iterator[str]:
    if TASKS <= evidence.counted < 0.8 * evidence.tasks:
        yield (
            f"tasks of unequal size: {evidence.tasks} count as {evidence.counted:.0f} of equal"
            " weight"
        )


def _warn_of_unequal_runs(evidence: _Evidence) -> Iterator[str]:
    runs = Counter((curve.level, curve.split) for curve in evidence.whole)
    if len(set(runs.values())) > 1:
        yield (
            f"{min(runs.values())} to {max(runs.values())} runs at a place of a split: each split"
            " weighs alike here"
        )


def _warn_of_chance(evidence: _Evidence) -> Iterator[str]:
    for effect in evidence.effects:
        is_high = effect.found.value >= effect.least
        if effect.chance and is_high and effect.chance[0] > TAIL:
            yield f"{effect.name}: of orders by chance {effect.chance[0]:.1%} rise as much"


def _warn_of_single_seeds(evidence: _Evidence) -> Iterator[str]:
    seeds = len({(curve.split, curve.seed) for curve in evidence.whole})
    if seeds == evidence.splits < SPLITS:
        yield "one seed each: what a seed changes is not in the interval"


def _warn_of_seeds_alone(evidence: _Evidence) -> Iterator[str]:
    for effect in evidence.effects:
        seeds, (low, high) = effect.found.by_seeds, effect.found.interval
        if seeds and (seeds[0] > effect.null >= low or seeds[1] < effect.null <= high):
            yield (
                f"{effect.name}: clear over seeds alone, but not over held-out"
                f" {evidence.unit_word}"
            )


# What each claim takes of a run


def _make_question(
    claim: Claim, whole: Sequence[Curve], levels: Sequence[str]
) -> "_Question | str":
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
            return _Question(
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
) -> "_Question | str":
    """A question about one value of each level, its last or the area under its mean
    curve, as the report has them. `curve_value`: end or area."""
    steps = {
        level: _find_common_steps([curve for curve in whole if curve.level == level])
        for level in levels
    }
    if lacking := [level for level in levels if not steps[level]]:
        return f"the runs at {', '.join(lacking)} share no checkpoint"

    def take(curve: Curve) -> tuple[Floats, Floats]:
        common = steps[curve.level]
        return _take_steps(common[-1:] if curve_value == "end" else common)(curve)

    def values(means: Mapping[str, Floats]) -> Floats:
        ends = [
            means[level][:, -1]
            if curve_value == "end"
            else curves.compute_area(steps[level], means[level].T)
            for level in levels
        ]
        return np.stack(ends, axis=1)

    return _Question(
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
    ranks = _compute_ranks(values)
    length = np.sqrt((ranks**2).sum(axis=1) * (positions**2).sum())
    return np.divide(
        ranks @ positions, length, out=np.full(len(ranks), np.nan), where=length > 0
    )[:, None]


def _compute_ranks(values: Floats) -> Floats:
    """(draws, levels) ↦ the ranks of each row, centred; ties share their mean. NaN
    where a value is none."""
    above = np.sign(values[:, :, None] - values[:, None, :])
    return above.sum(axis=2) / 2


def _ask_falls_early(
    claim: FallsEarly, whole: Sequence[Curve], levels: Sequence[str]
) -> "_Question | str":
    """The question of a claim that most of the fall happens early; or why the curves
    cannot answer it."""
    steps = _find_common_steps(whole)
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
    return _Question(_take_steps(steps), effects, [name], null=share, least=share)


def _ask_falls_at(
    claim: FallsAt, whole: Sequence[Curve], levels: Sequence[str]
) -> "_Question | str":
    """The question of a claim that a curve turns down at a step; or why the curves
    cannot answer it."""
    steps = _find_common_steps(whole)
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
    return _Question(_take_steps([before[-1], middle, after[0]]), effects, [name])


def _take_steps(steps: Sequence[int]) -> Callable[[Curve], tuple[Floats, Floats]]:
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


def _find_common_steps(whole: Sequence[Curve]) -> list[int]:
    return sorted(set.intersection(*(set(curve.steps) for curve in whole)))
