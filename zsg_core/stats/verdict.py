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
from enum import StrEnum
from typing import Any

import numpy as np

from zsg_core.metrics.means import is_over_items
from zsg_core.settings.claims import (
    FEWEST_PLACES,
    Claim,
    explain_too_few_places,
)
from zsg_core.stats import wobble
from zsg_core.stats.curves import T975, Interval
from zsg_core.stats.effects import (
    SPLITS,
    TAIL,
    EffectEstimate,
    Floats,
    RunTable,
    compute_level_means,
    count_effective_tasks,
    estimate_effects,
)
from zsg_core.stats.questions import (
    Curve,
    Question,
    compute_ranks,
    find_common_steps,
    make_question,
    take_steps,
    turn_upside_down,
)

SUPPORTED, NOT_SUPPORTED, OPPOSITE, TOO_FEW = (
    "supported",
    "not supported",
    "opposite",
    "too few replicates",
)
# what is added to a word that another split could turn
HERE, HERE_OF_ONE = "on these tasks", "on this task"
# of a metric that is one number a run: what is known is how far seeds lie apart
OVER_SEEDS = "over seeds"
# the fewest held-out tasks whose signs, were all alike, would be below 5 % by chance: 2 · 2⁻⁶ = 3 %
TASKS = 6
# the fewest runs at a place that decide a metric that is one number a run
RUNS = 4
# places whose orders are all looked at; of more, DRAWN_ORDERS are drawn
MOST_ORDERED = 8
DRAWN_ORDERS = 100_000


@dataclass(frozen=True)
class ClaimEffect:
    """A size that a claim is about. The claim wants all its interval above `null`, and
    its value at least `least`.

    `chance`: how often, if places of the axis meant nothing, a value at least as high,
    and one at least as low, would come of them. None of an effect that is no order of
    places. `tail`: how often, on either side, it may be decided where it is none.
    """

    name: str
    found: EffectEstimate
    null: float
    least: float
    chance: tuple[float, float] | None = None
    # what the contrary is decided by, where that is another size
    opposite: EffectEstimate | None = None
    tail: float = TAIL

    @property
    def confidence(self) -> float:
        """Of how many studies the interval has the effect: 0.95 where each side may be
        wrong in 2.5 %."""
        return 1 - 2 * self.tail

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
        against = self.opposite or self.found
        return self._is_opposite(against, against.interval)

    @property
    def is_opposite_here(self) -> bool:
        """Whether they are if these splits stand for all."""
        against = self.opposite or self.found
        return self.is_opposite or (
            against.on_these is not None
            and self._is_opposite(against, against.on_these)
        )

    def compute_p(self) -> tuple[float, float]:
        """The one-sided p-values of what the claim wants, and of the contrary."""
        above, _ = self.found.compute_p(self.null)
        _, below = (self.opposite or self.found).compute_p(self.null)
        if self.chance is None:
            return above, below
        return max(above, self.chance[0]), max(below, self.chance[1])

    def _holds(self, interval: Interval) -> bool:
        by_chance = self.chance[0] if self.chance else 0.0
        return (
            interval[0] > self.null
            and self.found.value >= self.least
            and by_chance <= self.tail
        )

    def _is_opposite(self, against: EffectEstimate, interval: Interval) -> bool:
        by_chance = self.chance[1] if self.chance else 0.0
        return (
            interval[1] < self.null
            and against.value <= 2 * self.null - self.least
            and by_chance <= self.tail
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
    looked: "Looked | None" = None  # where claims are looked at while splits come in


@dataclass(frozen=True)
class Looked:
    """Where a claim stands that is looked at while held-out splits come in.

    `number`: of the last look that was taken, 0 of none; `of`: how many there are;
    `is_over`: whether it is decided, or was given up; `unbiased`: of each effect the
    median-unbiased estimate with its 95 % interval, where it was stopped by a bound.
    """

    number: int
    of: int
    is_over: bool
    unbiased: Sequence[tuple[float, Interval]] = ()


# what is too large is no number, and is told
@np.errstate(over="ignore", invalid="ignore")
def judge_claim(
    claim: Claim,
    curves_of_group: Sequence[Curve],
    levels: Sequence[str],
    *,
    units_are_tasks: bool = True,
    units_are_runs: bool = False,
    tail: float = TAIL,
) -> ClaimVerdict:
    """The verdict of a claim on the runs of one group.

    `levels`: the places of the claim's axis as the curves name them, in the claim's
    order; one for a claim without an axis; the metrics of a claim that compares them.
    `units_are_runs`: each curve has one unit, as the metric is one number a run.
    `tail`: how often, on either side, a claim without an effect may be decided; intervals
    leave out as much.

    Splits in which a level has no run are left out, and told. The order of
    `curves_of_group` does not matter. ValueError where curves of a split are of
    different tasks.
    """
    weighed = _prepare_curves(claim, curves_of_group)
    whole, notes = _select_whole_splits(weighed, levels)
    if not whole:
        return ClaimVerdict(TOO_FEW, notes=[_explain_no_runs(weighed, levels)])
    splits = len({curve.split for curve in whole})
    kind = _Units.choose(units_are_tasks, units_are_runs)
    tasks = 0 if units_are_runs else _count_measured_units(whole)
    runs = len(whole) // len(claim.metrics)
    question = make_question(claim, whole, levels)
    if isinstance(question, str):
        return ClaimVerdict(
            TOO_FEW, tasks=tasks, splits=splits, runs=runs, notes=[question]
        )
    cells = [_tabulate(curve, question.take) for curve in whole]
    evidence = _Evidence(
        question=question,
        whole=whole,
        effects=_estimate_claim_effects(question, cells, levels, tail),
        levels=levels,
        splits=splits,
        tasks=tasks,
        counted=0.0 if units_are_runs else count_effective_tasks(cells),
        units=kind,
    )
    too_few = _explain_too_few(evidence)
    return ClaimVerdict(
        word=TOO_FEW if too_few else _choose_word(evidence.effects, kind),
        effects=evidence.effects,
        levels=dict(
            zip(levels, _compute_level_values(question, cells, levels), strict=False)
        ),
        tasks=tasks,
        counted=evidence.counted,
        splits=splits,
        runs=runs,
        notes=[*notes, *too_few, *_list_warnings(evidence)],
    )


def _prepare_curves(claim: Claim, curves_of_group: Sequence[Curve]) -> list[Curve]:
    """The curves as the claim's question is of them, in an order of their own."""
    prepared = []
    for curve in curves_of_group:
        weighed = _weigh_units(curve, _get_metric(claim, curve))
        prepared.append(turn_upside_down(claim, weighed))
    return sorted(prepared, key=lambda curve: (curve.level, curve.split, curve.seed))


def _get_metric(claim: Claim, curve: Curve) -> str:
    """The metric that a curve is of: its level, where a claim compares metrics."""
    return claim.metric if len(claim.metrics) == 1 else curve.level


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
    curves_of_group: Sequence[Curve], levels: Sequence[str], claim: Claim
) -> dict[str, tuple[list[int], Floats]]:
    """Of each level (steps, values): the mean of its runs at the steps that they share,
    every split weighing alike.

    Of the splits that a verdict is of. Levels without such a run, or without a shared
    step, are left out.
    """
    weighed = [
        _weigh_units(curve, _get_metric(claim, curve)) for curve in curves_of_group
    ]
    whole, _ = _select_whole_splits(weighed, levels)
    means = {}
    for level in levels:
        of_level = [curve for curve in whole if curve.level == level]
        if of_level and (steps := find_common_steps(of_level)):
            cells = [_tabulate(curve, take_steps(steps)) for curve in of_level]
            means[level] = (steps, compute_level_means(cells, [level])[level][0])
    return means


def _choose_word(effects: Sequence[ClaimEffect], units: "_Units") -> str:
    if all(effect.holds for effect in effects):
        return _add_scope(SUPPORTED, effects, units)
    if all(effect.is_opposite for effect in effects):
        return _add_scope(OPPOSITE, effects, units)
    if all(effect.holds_here for effect in effects):
        return f"{SUPPORTED} {units.scope}"
    if all(effect.is_opposite_here for effect in effects):
        return f"{OPPOSITE} {units.scope}"
    return NOT_SUPPORTED


def _add_scope(word: str, effects: Sequence[ClaimEffect], units: "_Units") -> str:
    """A word whose intervals hold: of a single split, or of items of one task, it says so."""
    is_whole = units is not _Units.ITEMS and all(
        effect.found.is_over_splits for effect in effects
    )
    return word if is_whole else f"{word} {units.scope}"


def _estimate_claim_effects(
    question: Question, cells: Sequence[RunTable], levels: Sequence[str], tail: float
) -> list[ClaimEffect]:
    sizes = _estimate_sizes(question, cells, levels, tail)
    opposite: list[EffectEstimate | None] = [None] * len(sizes)
    if question.opposite is not None:
        opposite = [*_estimate_sizes(question.opposite, cells, levels, tail)]
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
        ClaimEffect(name, size, question.null, question.least, chance, against, tail)
        for name, size, against in zip(question.names, sizes, opposite, strict=True)
    ]


def _estimate_sizes(
    question: Question, cells: Sequence[RunTable], levels: Sequence[str], tail: float
) -> list[EffectEstimate]:
    """The effects, with what the runs' own courses leave open where no other splits'
    runs tell of it."""
    sizes = estimate_effects(cells, levels, question.effects, tail)
    if question.course_errors is None or not any(size.on_these for size in sizes):
        return sizes
    errors = question.course_errors(compute_level_means(cells, levels))
    return [
        _widen_by_course(size, error) for size, error in zip(sizes, errors, strict=True)
    ]


def _widen_by_course(size: EffectEstimate, error: float) -> EffectEstimate:
    """An effect whose interval, or that on these tasks, has a run's own course in it.

    Other seeds tell of it as well: it is beside what tasks leave open, and where seeds
    and tasks leave more open, they count.
    """
    if size.on_these is None:
        return size
    least = _widen(size.value, size.by_tasks, error)
    wide = _cover(size.on_these, least)
    if size.is_over_splits:
        return replace(size, on_these=wide)
    return replace(size, interval=wide, on_these=wide)


def _widen(value: float, interval: Interval, error: float) -> Interval:
    """The interval with one more standard error in it, of wobble.BLOCKS parts."""
    reach = T975[wobble.BLOCKS - 2] * error
    low = value - math.hypot(value - interval[0], reach)
    high = value + math.hypot(interval[1] - value, reach)
    return low, high


def _cover(first: Interval, second: Interval) -> Interval:
    """The narrowest interval in which both are; none where one of them is none."""
    low = float(np.minimum(first[0], second[0]))
    high = float(np.maximum(first[1], second[1]))
    return low, high


def _count_measured_units(whole: Sequence[Curve]) -> int:
    """How many units have a value in some run."""
    return len({unit for curve in whole for unit in _list_measured_units(curve)})


def _list_measured_units(curve: Curve) -> list[str]:
    """The units that have a value at some step."""
    items = np.asarray(curve.counts, np.float64).sum(axis=0).tolist()
    return [unit for unit, count in zip(curve.units, items, strict=True) if count > 0]


def _compute_level_values(
    question: Question, cells: Sequence[RunTable], levels: Sequence[str]
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
    ranks = compute_ranks(np.asarray([values], np.float64))[0]
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


class _Units(StrEnum):
    """What a verdict draws: tasks, items of one task, or runs of one number each. The
    value is what is added to its word where other splits may turn it."""

    TASKS = HERE
    ITEMS = HERE_OF_ONE
    RUNS = OVER_SEEDS

    @classmethod
    def choose(cls, are_tasks: bool, are_runs: bool) -> "_Units":
        """The kind of units that curves have."""
        if are_runs:
            return cls.RUNS
        return cls.TASKS if are_tasks else cls.ITEMS

    @property
    def scope(self) -> str:
        """What is added to a word that another split could turn."""
        return self.value


@dataclass(frozen=True, kw_only=True)
class _Evidence:
    """What a verdict rests on: the runs of whole splits, and the effects they have."""

    question: Question
    whole: Sequence[Curve]
    effects: Sequence[ClaimEffect]
    levels: Sequence[str]
    splits: int
    tasks: int
    counted: float  # how many tasks of equal weight know as much
    units: _Units

    @property
    def unit_word(self) -> str:
        return "items" if self.units is _Units.ITEMS else "tasks"

    @property
    def fewest_runs(self) -> int:
        """The number of runs at the place that has the fewest."""
        return min(Counter(curve.level for curve in self.whole).values())


def _explain_too_few(evidence: _Evidence) -> list[str]:
    """Why nothing can be decided; nothing where something can."""
    reasons = []
    tasks, counted = evidence.tasks, evidence.counted
    if evidence.units is _Units.RUNS:
        reasons += _explain_too_few_runs(evidence)
    elif counted < TASKS - 1e-9:
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


def _explain_too_few_runs(evidence: _Evidence) -> Iterator[str]:
    """Why a metric that is one number a run cannot be decided; nothing where it can."""
    fewest = evidence.fewest_runs
    if fewest < RUNS:
        yield (
            f"one number a run, and {fewest} runs at a place: fewer than the {RUNS} that can decide"
            " anything"
        )


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
    if evidence.units is _Units.RUNS:
        yield from _warn_of_one_number(evidence)
    elif evidence.units is _Units.ITEMS:
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


def _warn_of_one_number(evidence: _Evidence) -> Iterator[str]:
    if evidence.splits == 1:
        yield (
            "one number a run: the interval is over seeds, and says nothing of other test items"
        )
    else:
        yield (
            "one number a run: held-out splits that share tasks are alike, and how much is not"
            " in the interval"
        )
    if 1 < evidence.splits < SPLITS:
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
        if effect.chance and is_high and effect.chance[0] > effect.tail:
            yield f"{effect.name}: of orders by chance {effect.chance[0]:.1%} rise as much"


def _warn_of_single_seeds(evidence: _Evidence) -> Iterator[str]:
    seeds = len({(curve.split, curve.seed) for curve in evidence.whole})
    if not seeds == evidence.splits < SPLITS:
        return
    question = evidence.question
    if question.course_errors is not None:
        yield (
            "one seed each: how far a run swings from checkpoint to checkpoint is in the"
            " interval, what else a seed changes is not"
        )
    elif question.assumed:
        yield f"one seed each: {question.assumed}, and what a seed changes is not in the interval"
    else:
        yield "one seed each: what a seed changes is not in the interval"


def _warn_of_seeds_alone(evidence: _Evidence) -> Iterator[str]:
    for effect in evidence.effects:
        seeds, (low, high) = effect.found.by_seeds, effect.found.interval
        if seeds and (seeds[0] > effect.null >= low or seeds[1] < effect.null <= high):
            yield (
                f"{effect.name}: clear over seeds alone, but not over held-out"
                f" {evidence.unit_word}"
            )
