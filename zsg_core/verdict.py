"""Decides claims: supported, not supported, opposite, or too few replicates; with effect sizes and intervals.

What a study says is of tasks that it never saw, so its replicates are held-out tasks and held-out splits; seeds only
repeat a run on the same tasks. With 24 held-out tasks the error over tasks was five times that over seeds, and one
split turned the sign. The papers gave neither.

Effects and their intervals are those of `zsg_core.effects`, which draws whole tasks and whole splits.
A chain of several comparisons is supported if each is: no correction is needed (Berger 1982, intersection-union).
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from zsg_core import curves
from zsg_core.effects import SPLITS, Cell, Effects, Estimate, Floats, estimate, means
from zsg_core.settings.claims import Claim, Correlates, FallsAt, FallsEarly, FallsSuddenly, Rises

SUPPORTED, NOT_SUPPORTED, OPPOSITE, TOO_FEW = "supported", "not supported", "opposite", "too few replicates"
TASKS = 6  # the fewest held-out tasks whose signs, were all alike, would be below 5 % by chance: 2 · 2⁻⁶ = 3 %


@dataclass(frozen=True)
class Curve:
    """One run: the mean loss of each unit, a held-out task (or an item, where all are of one task), at every step."""

    level: str  # its place on the claim's axis
    split: str  # the test set
    seed: str
    steps: Sequence[int]
    units: Sequence[str]
    counts: Sequence[int]  # test items of each unit
    losses: Floats  # (steps, units)


@dataclass(frozen=True)
class Effect:
    """A size that a claim is about. The claim wants all its interval above `null`, and its value at least `least`."""

    name: str
    found: Estimate
    null: float
    least: float

    @property
    def holds(self) -> bool:
        """Whether the interval and the value are where the claim wants them."""
        return self.found.interval[0] > self.null and self.found.value >= self.least

    @property
    def is_opposite(self) -> bool:
        """Whether they are where they should be if the contrary were claimed."""
        return self.found.interval[1] < self.null and self.found.value <= 2 * self.null - self.least


@dataclass(frozen=True)
class Verdict:
    """What came of a claim: the word, the sizes behind it, what they rest on, and what to bear in mind."""

    word: str
    effects: Sequence[Effect] = ()
    levels: Mapping[str, float] = field(default_factory=dict)  # the value at each place of the axis
    tasks: int = 0
    splits: int = 0
    runs: int = 0
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class _Question:
    """A claim as arithmetic: what is taken of each run, and what effects the means of it at the levels make."""

    take: Callable[[Curve], tuple[Floats, Floats]]  # → (values, units), the units' weights
    effects: Effects
    names: Sequence[str]
    null: float = 0.0
    least: float = 0.0


def judge(claim: Claim, found: Sequence[Curve], levels: Sequence[str], *, units_are_tasks: bool = True) -> Verdict:
    """The verdict of a claim on the runs of one group.

    `levels`: the places of the claim's axis as the curves name them, in the claim's order; one for a claim without an
    axis. Splits in which a level has no run are left out, and told. The order of `found` does not matter. ValueError
    where curves of a split are of different tasks.
    """
    found = sorted(found, key=lambda one: (one.level, one.split, one.seed))
    whole, notes = _whole_splits(found, levels)
    runs, splits = len(whole), len({one.split for one in whole})
    tasks = len({unit for one in whole for unit in one.units})
    if not whole:
        missing = [level for level in levels if all(one.level != level for one in found)]
        lacking = f"no run has values at {', '.join(missing)}" if missing else "no split has runs at all places"
        return Verdict(TOO_FEW, notes=[lacking])
    question = _question(claim, whole, levels)
    if isinstance(question, str):
        return Verdict(TOO_FEW, tasks=tasks, splits=splits, runs=runs, notes=[question])
    cells = [Cell(one.level, one.split, one.seed, one.units, *question.take(one)) for one in whole]
    found_sizes = estimate(cells, levels, question.effects)
    effects = [
        Effect(name, size, question.null, question.least)
        for name, size in zip(question.names, found_sizes, strict=True)
    ]
    at_levels = {name: float(mean[0, 0]) for name, mean in means(cells, levels).items()}
    if tasks < TASKS:
        notes.append(f"{tasks} held-out {_things(units_are_tasks)}: fewer than the {TASKS} that can decide anything")
    notes += _warnings(whole, effects, splits, tasks, units_are_tasks)
    word = TOO_FEW if tasks < TASKS else _word(effects)
    shown = at_levels if len(cells[0].table) == 1 else {}
    return Verdict(word, effects, shown, tasks, splits, runs, notes)


def mean_curves(found: Sequence[Curve], levels: Sequence[str]) -> dict[str, tuple[list[int], Floats]]:
    """Of each level (steps, values): the mean of its runs at the steps that they share, every split weighing alike.

    Of the splits that a verdict is of. Levels without such a run, or without a shared step, are left out.
    """
    whole, _ = _whole_splits(found, levels)
    made = {}
    for level in levels:
        own = [one for one in whole if one.level == level]
        if own and (steps := _common_steps(own)):
            cells = [Cell(level, one.split, one.seed, one.units, *_at(steps)(one)) for one in own]
            made[level] = (steps, means(cells, [level])[level][0])
    return made


def _things(units_are_tasks: bool) -> str:
    return "tasks" if units_are_tasks else "items"


def _word(effects: Sequence[Effect]) -> str:
    if all(effect.holds for effect in effects):
        return SUPPORTED
    return OPPOSITE if effects[-1].is_opposite else NOT_SUPPORTED  # the last is of the whole


def _whole_splits(found: Sequence[Curve], levels: Sequence[str]) -> tuple[list[Curve], list[str]]:
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
            raise ValueError(f"runs of the split {split!r} are tested on different tasks")
        kept += own
    notes = [f"{left} of {len(splits)} splits lack runs and are left out"] if left and kept else []
    return kept, notes


def _warnings(
    whole: Sequence[Curve], effects: Sequence[Effect], splits: int, tasks: int, units_are_tasks: bool
) -> list[str]:
    notes = []
    if not units_are_tasks:
        notes.append("all test items are of one task: the interval is over items and says nothing of other tasks")
    elif splits < SPLITS:
        of = "one held-out split" if splits == 1 else f"{splits} held-out splits, pooled"
        notes.append(f"rests on {of}: it is about these {tasks} tasks, and others may differ (from {SPLITS} splits on)")
    if len({(one.split, one.seed) for one in whole}) == splits < SPLITS:
        notes.append("one seed each: what a seed changes is not in the interval")
    for effect in effects:
        seeds, (low, high) = effect.found.by_seeds, effect.found.interval
        if seeds and (seeds[0] > effect.null >= low or seeds[1] < effect.null <= high):
            notes.append(f"{effect.name}: clear over seeds alone, but not over held-out {_things(units_are_tasks)}")
    return notes


# What each claim takes of a run


def _question(claim: Claim, whole: Sequence[Curve], levels: Sequence[str]) -> "_Question | str":
    """The claim as arithmetic; a text says why these curves cannot answer it."""
    match claim:
        case Rises():
            names = [f"{after} − {before}" for before, after in itertools.pairwise(levels)]
            whole_name = [f"{levels[-1]} − {levels[0]}"] if len(levels) > 2 else []
            return _Question(_value(claim.of), _steps_up(levels), [*names, *whole_name], least=claim.by)
        case Correlates():
            name = "rank correlation"
            return _Question(_value(claim.of), _spearman(levels), [name], least=claim.at_least)
        case FallsEarly():
            return _falls_early(claim, whole, levels)
        case FallsAt():
            return _falls_at(claim, whole, levels)
        case FallsSuddenly():
            name = f"share of tasks that fall suddenly, {levels[0]} − {levels[1]}"
            return _Question(_sudden(claim.times), lambda at: at[levels[0]] - at[levels[1]], [name])


def _value(of: str) -> Callable[[Curve], tuple[Floats, Floats]]:
    def take(curve: Curve) -> tuple[Floats, Floats]:
        values = curve.losses[-1] if of == "end" else curves.area(curve.steps, curve.losses)
        return np.asarray(values, np.float64)[None, :], np.asarray(curve.counts, np.float64)

    return take


def _steps_up(levels: Sequence[str]) -> Callable[[Mapping[str, Floats]], Floats]:
    def effects(at: Mapping[str, Floats]) -> Floats:
        values = np.concatenate([at[level] for level in levels], axis=1)
        steps = np.diff(values, axis=1)
        return steps if len(levels) == 2 else np.concatenate([steps, values[:, -1:] - values[:, :1]], axis=1)

    return effects


def _spearman(levels: Sequence[str]) -> Callable[[Mapping[str, Floats]], Floats]:
    place = np.arange(len(levels)) - (len(levels) - 1) / 2

    def effects(at: Mapping[str, Floats]) -> Floats:
        values = np.concatenate([at[level] for level in levels], axis=1)
        above = values[:, :, None] - values[:, None, :]
        ranks = np.sign(above).sum(axis=2) / 2  # centred; ties share their mean
        length = np.sqrt((ranks**2).sum(axis=1) * (place**2).sum())
        found = np.divide(ranks @ place, length, out=np.full(len(ranks), np.nan), where=length > 0)
        return found[:, None]

    return effects


def _falls_early(claim: FallsEarly, whole: Sequence[Curve], levels: Sequence[str]) -> "_Question | str":
    steps = _common_steps(whole)
    early = sum(step <= claim.within * steps[-1] for step in steps) - 1
    if early < 1:
        return f"no checkpoint lies within the first {float(claim.within):.0%} of the steps"

    def effects(at: Mapping[str, Floats]) -> Floats:
        curve = at[levels[0]]
        fall, done = curve[:, 0] - curve.min(axis=1), curve[:, 0] - curve[:, early]
        return np.divide(done, fall, out=np.full(len(curve), np.nan), where=fall > 0)[:, None]

    share = float(claim.share)
    name = f"share of the fall by step {steps[early]}"
    return _Question(_at(steps), effects, [name], null=share, least=share)


def _falls_at(claim: FallsAt, whole: Sequence[Curve], levels: Sequence[str]) -> "_Question | str":
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
        return np.asarray(curve.losses[rows], np.float64), np.asarray(curve.counts, np.float64)

    return take


def _sudden(times: float) -> Callable[[Curve], tuple[Floats, Floats]]:
    def take(curve: Curve) -> tuple[Floats, Floats]:
        drops = curves.sudden_drops(list(curve.steps), list(curve.units), curve.losses)
        sudden = {drop.task for drop in drops if drop.times_usual > times}
        return np.array([[float(unit in sudden) for unit in curve.units]]), np.ones(len(curve.units))

    return take


def _common_steps(whole: Sequence[Curve]) -> list[int]:
    return sorted(set.intersection(*(set(one.steps) for one in whole)))
