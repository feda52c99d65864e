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
from collections.abc import Callable, Mapping, Sequence
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
# what a word that another split could turn goes on with
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
    found: Sequence[Curve],
    levels: Sequence[str],
    *,
    units_are_tasks: bool = True,
) -> ClaimVerdict:
    """The verdict of a claim on the runs of one group.

    `levels`: the places of the claim's axis as the curves name them, in the claim's
    order; one for a claim without an axis. Splits in which a level has no run are left
    out, and told. The order of `found` does not matter. ValueError where curves of a
    split are of different tasks.
    """
    found = sorted(
        (_weighed(one, claim.metric) for one in found),
        key=lambda one: (one.level, one.split, one.seed),
    )
    whole, notes = _whole_splits(found, levels)
    runs, splits = len(whole), len({one.split for one in whole})
    tasks = len({unit for one in whole for unit in _measured(one)})
    if not whole:
        missing = [
            level for level in levels if all(one.level != level for one in found)
        ]
        lacking = (
            f"no run has values at {', '.join(missing)}"
            if missing
            else "no split has runs at all places"
        )
        return ClaimVerdict(TOO_FEW, notes=[lacking])
    question = _question(claim, whole, levels)
    if isinstance(question, str):
        return ClaimVerdict(
            TOO_FEW, tasks=tasks, splits=splits, runs=runs, notes=[question]
        )
    cells = [
        RunTable(one.level, one.split, one.seed, one.units, *question.take(one))
        for one in whole
    ]
    counted = count_effective_tasks(cells)
    effects = _effects(question, cells, levels)
    shown = dict(zip(levels, _level_values(question, cells, levels), strict=False))
    too_few = _what_is_too_few(
        question, effects, levels, tasks, counted, units_are_tasks
    )
    word = TOO_FEW if too_few else _word(effects, units_are_tasks)
    notes += [
        *too_few,
        *_warnings(whole, effects, splits, tasks, counted, units_are_tasks),
    ]
    return ClaimVerdict(word, effects, shown, tasks, counted, splits, runs, notes)


@np.errstate(over="ignore", invalid="ignore")
def compute_mean_curves(
    found: Sequence[Curve], levels: Sequence[str], metric: str = LOSS
) -> dict[str, tuple[list[int], Floats]]:
    """Of each level (steps, values): the mean of its runs at the steps that they share,
    every split weighing alike.

    Of the splits that a verdict is of. Levels without such a run, or without a shared
    step, are left out.
    """
    whole, _ = _whole_splits([_weighed(one, metric) for one in found], levels)
    made = {}
    for level in levels:
        own = [one for one in whole if one.level == level]
        if own and (steps := _common_steps(own)):
            cells = [
                RunTable(level, one.split, one.seed, one.units, *_at(steps)(one))
                for one in own
            ]
            made[level] = (steps, compute_level_means(cells, [level])[level][0])
    return made


def _things(units_are_tasks: bool) -> str:
    return "tasks" if units_are_tasks else "items"


def _word(effects: Sequence[ClaimEffect], units_are_tasks: bool) -> str:
    here = HERE if units_are_tasks else HERE_OF_ONE
    if all(effect.holds for effect in effects):
        return _scoped(SUPPORTED, effects, here, units_are_tasks)
    if all(effect.is_opposite for effect in effects):
        return _scoped(OPPOSITE, effects, here, units_are_tasks)
    if all(effect.holds_here for effect in effects):
        return f"{SUPPORTED} {here}"
    if all(effect.is_opposite_here for effect in effects):
        return f"{OPPOSITE} {here}"
    return NOT_SUPPORTED


def _scoped(
    word: str, effects: Sequence[ClaimEffect], here: str, units_are_tasks: bool
) -> str:
    """A word whose intervals hold: of a single split, or of items of one task, it says so."""
    is_whole = units_are_tasks and all(
        effect.found.is_over_splits for effect in effects
    )
    return word if is_whole else f"{word} {here}"


def _effects(
    question: _Question, cells: Sequence[RunTable], levels: Sequence[str]
) -> list[ClaimEffect]:
    sizes = estimate_effects(cells, levels, question.effects)
    chance = None
    if question.is_order:
        chance = compute_order_chance(_level_values(question, cells, levels))
        sizes = [
            replace(
                size,
                interval=_within_one(size.interval),
                on_these=_within_one(size.on_these),
            )
            for size in sizes
        ]
    return [
        ClaimEffect(name, size, question.null, question.least, chance)
        for name, size in zip(question.names, sizes, strict=True)
    ]


def _measured(one: Curve) -> list[str]:
    """The units that have a value at some step."""
    items = np.asarray(one.counts, np.float64).sum(axis=0).tolist()
    return [unit for unit, count in zip(one.units, items, strict=True) if count > 0]


def _level_values(
    question: _Question, cells: Sequence[RunTable], levels: Sequence[str]
) -> list[float]:
    """What a claim compares: one value of each level; none where it is of parts of a curve."""
    return (
        question.values(compute_level_means(cells, levels))[0].tolist()
        if question.values
        else []
    )


def _within_one(interval: Interval | None) -> Any:
    """The part of an interval in which a correlation can be."""
    return interval and (max(interval[0], -1.0), min(interval[1], 1.0))


def compute_order_chance(values: Sequence[float]) -> tuple[float, float]:
    """How often the ranks of values, put in any order, rise with their places at least
    as much as they do; and fall.

    The exact one-sided p-values of Spearman's correlation with 1, 2, … n. Of more than
    MOST_ORDERED places, orders are drawn, the same ones each time. Of ranks that are
    not known both are 1.
    """
    place = np.arange(len(values)) - (len(values) - 1) / 2
    ranks = _ranks(np.asarray([values], np.float64))[0]
    if not np.isfinite(ranks).all():
        return 1.0, 1.0
    if len(values) <= MOST_ORDERED:
        orders = np.array(list(itertools.permutations(ranks)))
    else:
        rng = np.random.default_rng(0)
        drawn = rng.permuted(np.tile(ranks, (DRAWN_ORDERS, 1)), axis=1)
        orders = np.concatenate([ranks[None, :], drawn])
    found, others = ranks @ place, orders @ place
    return float(np.mean(others >= found - 1e-9)), float(
        np.mean(others <= found + 1e-9)
    )


def _weighed(curve: Curve, metric: str) -> Curve:
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


def _whole_splits(
    found: Sequence[Curve], levels: Sequence[str]
) -> tuple[list[Curve], list[str]]:
    """The runs of splits in which every level has one, and what is to be said of the others."""
    kept: list[Curve] = []
    splits = list(dict.fromkeys(one.split for one in found))
    left = 0
    for split in splits:
        own = [one for one in found if one.split == split and one.level in levels]
        if {one.level for one in own} != set(levels):
            left += 1
            continue
        if any(list(one.units) != list(own[0].units) for one in own):
            raise ValueError(
                f"runs of the split {split!r} are tested on different tasks"
            )
        kept += own
    notes = (
        [f"{left} of {len(splits)} splits lack runs and are left out"]
        if left and kept
        else []
    )
    return kept, notes


def _what_is_too_few(
    question: _Question,
    effects: Sequence[ClaimEffect],
    levels: Sequence[str],
    tasks: int,
    counted: float,
    units_are_tasks: bool,
) -> list[str]:
    """Why nothing can be decided; nothing where something can."""
    told = []
    things = _things(units_are_tasks)
    if counted < TASKS - 1e-9:
        unequal = (
            f" of unequal size, which count as {counted:.1f}"
            if counted < tasks - 0.05
            else ""
        )
        told.append(
            f"{tasks} held-out {things}{unequal}: fewer than the {TASKS} that can decide anything"
        )
    if question.is_order and len(levels) < FEWEST_PLACES:
        told.append(f"too few places: {explain_too_few_places(len(levels))}")
    told += [
        f"{effect.name}: no number, as a value that it is of is none"
        for effect in effects
        if not effect.is_known
    ]
    return told


def _warnings(
    whole: Sequence[Curve],
    effects: Sequence[ClaimEffect],
    splits: int,
    tasks: int,
    counted: float,
    units_are_tasks: bool,
) -> list[str]:
    notes = []
    if not units_are_tasks:
        notes.append(
            "all test items are of one task: the interval is over items and says nothing of other"
            " tasks"
        )
    elif splits == 1:
        notes.append(
            f"rests on one held-out split: it is about these {tasks} tasks, and others may differ"
        )
    elif splits < SPLITS:
        notes.append(
            f"rests on {splits} held-out splits, of which little is known how far others lie apart"
        )
    if TASKS <= counted < 0.8 * tasks:
        notes.append(
            f"tasks of unequal size: {tasks} count as {counted:.0f} of equal weight"
        )
    runs = Counter((one.level, one.split) for one in whole)
    if len(set(runs.values())) > 1:
        notes.append(
            f"{min(runs.values())} to {max(runs.values())} runs at a place of a split: each split"
            " weighs alike here"
        )
    for effect in effects:
        if (
            effect.chance
            and effect.found.value >= effect.least
            and effect.chance[0] > TAIL
        ):
            notes.append(
                f"{effect.name}: of orders by chance {effect.chance[0]:.1%} rise as much"
            )
    if len({(one.split, one.seed) for one in whole}) == splits < SPLITS:
        notes.append("one seed each: what a seed changes is not in the interval")
    for effect in effects:
        seeds, (low, high) = effect.found.by_seeds, effect.found.interval
        if seeds and (seeds[0] > effect.null >= low or seeds[1] < effect.null <= high):
            notes.append(
                f"{effect.name}: clear over seeds alone, but not over held-out"
                f" {_things(units_are_tasks)}"
            )
    return notes


# What each claim takes of a run


def _question(
    claim: Claim, whole: Sequence[Curve], levels: Sequence[str]
) -> "_Question | str":
    """The claim as arithmetic; a text says why these curves cannot answer it."""
    match claim:
        case Rises():
            names = [
                f"{after} − {before}" for before, after in itertools.pairwise(levels)
            ]
            whole_name = [f"{levels[-1]} − {levels[0]}"] if len(levels) > 2 else []
            return _of_values(
                claim.of,
                whole,
                levels,
                _steps_up,
                [*names, *whole_name],
                least=claim.by,
            )
        case Correlates():
            return _of_values(
                claim.of,
                whole,
                levels,
                _spearman,
                ["rank correlation"],
                least=claim.at_least,
                is_order=True,
            )
        case FallsEarly():
            return _falls_early(claim, whole, levels)
        case FallsAt():
            return _falls_at(claim, whole, levels)
        case FallsSuddenly():
            name = f"share of tasks that fall suddenly, {levels[0]} − {levels[1]}"
            return _Question(
                _sudden(claim.times),
                lambda at: at[levels[0]] - at[levels[1]],
                [name],
                values=lambda at: np.concatenate(
                    [at[level] for level in levels], axis=1
                ),
            )


def _of_values(
    of: str,
    whole: Sequence[Curve],
    levels: Sequence[str],
    compare: Callable[[Floats], Floats],
    names: Sequence[str],
    **more: Any,
) -> "_Question | str":
    """A question about one value of each level, its last or the area under its mean
    curve, as the report has them."""
    steps = {
        level: _common_steps([one for one in whole if one.level == level])
        for level in levels
    }
    if lacking := [level for level in levels if not steps[level]]:
        return f"the runs at {', '.join(lacking)} share no checkpoint"

    def take(curve: Curve) -> tuple[Floats, Floats]:
        wanted = steps[curve.level]
        return _at(wanted[-1:] if of == "end" else wanted)(curve)

    def values(at: Mapping[str, Floats]) -> Floats:
        ends = [
            at[level][:, -1]
            if of == "end"
            else curves.compute_area(steps[level], at[level].T)
            for level in levels
        ]
        return np.stack(ends, axis=1)

    return _Question(take, lambda at: compare(values(at)), names, values=values, **more)


def _steps_up(values: Floats) -> Floats:
    """(draws, levels) ↦ what each level is above the one before, and of several the
    last above the first."""
    steps = np.diff(values, axis=1)
    return (
        steps
        if values.shape[1] == 2
        else np.concatenate([steps, values[:, -1:] - values[:, :1]], axis=1)
    )


def _spearman(values: Floats) -> Floats:
    """(draws, levels) ↦ Spearman's correlation of a level's value with its place."""
    place = np.arange(values.shape[1]) - (values.shape[1] - 1) / 2
    ranks = _ranks(values)
    length = np.sqrt((ranks**2).sum(axis=1) * (place**2).sum())
    return np.divide(
        ranks @ place, length, out=np.full(len(ranks), np.nan), where=length > 0
    )[:, None]


def _ranks(values: Floats) -> Floats:
    """(draws, levels) ↦ the ranks of each row, centred; ties share their mean. NaN
    where a value is none."""
    above = np.sign(values[:, :, None] - values[:, None, :])
    return above.sum(axis=2) / 2


def _falls_early(
    claim: FallsEarly, whole: Sequence[Curve], levels: Sequence[str]
) -> "_Question | str":
    steps = _common_steps(whole)
    early = sum(step <= claim.within * steps[-1] for step in steps) - 1
    if early < 1:
        return f"no checkpoint lies within the first {float(claim.within):.0%} of the steps"

    def effects(at: Mapping[str, Floats]) -> Floats:
        curve = at[levels[0]]
        fall, done = curve[:, 0] - curve.min(axis=1), curve[:, 0] - curve[:, early]
        return np.divide(done, fall, out=np.full(len(curve), np.nan), where=fall > 0)[
            :, None
        ]

    share = float(claim.share)
    name = f"share of the fall by step {steps[early]}"
    return _Question(_at(steps), effects, [name], null=share, least=share)


def _falls_at(
    claim: FallsAt, whole: Sequence[Curve], levels: Sequence[str]
) -> "_Question | str":
    steps = _common_steps(whole)
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
    return _Question(_at([before[-1], middle, after[0]]), effects, [name])


def _at(steps: Sequence[int]) -> Callable[[Curve], tuple[Floats, Floats]]:
    def take(curve: Curve) -> tuple[Floats, Floats]:
        rows = [list(curve.steps).index(step) for step in steps]
        return (
            np.asarray(curve.losses[rows], np.float64),
            np.asarray(curve.counts, np.float64)[rows],
        )

    return take


def _sudden(times: float) -> Callable[[Curve], tuple[Floats, Floats]]:
    def take(curve: Curve) -> tuple[Floats, Floats]:
        drops = curves.find_sudden_drops(
            list(curve.steps), list(curve.units), curve.losses
        )
        sudden = {drop.task for drop in drops if drop.times_usual > times}
        return np.array([[float(unit in sudden) for unit in curve.units]]), np.ones(
            len(curve.units)
        )

    return take


def _common_steps(whole: Sequence[Curve]) -> list[int]:
    return sorted(set.intersection(*(set(one.steps) for one in whole)))
