"""Makes studies whose effect is known, and has the verdict itself decide them:

    python -m tests.lib.made_studies none [KIND ...] [--studies 1000]
    python -m tests.lib.made_studies effects [KIND ...] [--studies 1000]

The first prints how often a claim of each kind is decided where there is nothing, looked at
after 4, 5, 6, 7 and 8 held-out splits; the second how often it is found where there is
something, with how many splits, beside one look at the end and what `zsg plan` foresees.

A split is 24 tasks. They are of 142, so that splits share some, or each split has its own.

The verdict decides, and nothing else does. It is not asked where it cannot decide: its
interval is never narrower than that over splits alone, so of effects that are means over
splits, the mean is far from nothing wherever something is decided.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any
from unittest import mock

import numpy as np

from zsg_core.settings.claims import OF_A_GRID, Claim
from zsg_core.settings.looks import OBRIEN_FLEMING
from zsg_core.stats import (
    boundaries,
    curves,
    effects,
    power,
    sequential,
    student,
)
from zsg_core.stats.questions import Curve
from zsg_core.stats.verdict import (
    NOT_SUPPORTED,
    OPPOSITE,
    SUPPORTED,
    ClaimVerdict,
    judge_claim,
)

TAIL = 0.025
AT = (4, 5, 6, 7, 8)
POOL = 142
TASKS = 24
# before, at and behind the turn of a claim that falls at a step
STEPS = (0, 10, 20, 30, 40)
TURN = 2
# of claims that need many checkpoints; and how far one lies off, alike in all tasks
MANY_STEPS = tuple(range(0, 210, 10))
SWING = 0.05
# draws of a bootstrap, as good on average as the product's 2,000; of few numbers it takes more
DRAWS = 200
DRAWS_OF_NUMBERS = 1000
_DRAW_WEIGHTS = effects._draw_weights
# the share of a look's bound below which a mean over splits is never decided: the verdict's
# own error, by its draws, is within a tenth of that of the splits
NEVER_DECIDED = 0.6
# claims whose effects are means over splits
OF_MEANS = ("rises", "trends", "is_higher", "falls_at", "rises_at")
# a step of a chain that is there beyond doubt
PLAIN = 3.0

Grid = list[list[Curve]]


@dataclass(frozen=True)
class StudyKind:
    """A kind of claim, and studies of it.

    `plain_steps`: how many of the steps from level to level are there beyond doubt;
    the effect is that of the others. `direction`: whether curves rise, 1, or fall, −1.
    """

    said: Mapping[str, Any]
    steps: Sequence[int] = STEPS
    swing: float = 0.0
    direction: int = -1
    plain_steps: int = 0
    of_numbers: bool = False

    @property
    def claim(self) -> Claim:
        """The claim as a grid file says it."""
        [claim] = OF_A_GRID.validate_python([dict(self.said)])
        return claim

    @property
    def levels(self) -> list[str]:
        """The metrics that are compared, or the places; one where there is no axis."""
        claim = self.claim
        if len(claim.metrics) > 1:
            return claim.metrics
        return claim.axis[1] if claim.axis else ["a"]

    @property
    def is_of_a_turn(self) -> bool:
        """Whether the effect is a turn of a curve; else it is between levels."""
        return str(self.said["claim"]).endswith("_at")


def _along(kind: str, places: str, **more: Any) -> dict[str, Any]:
    return {"claim": kind, "along": "x", "values": list(places), **more}


def _between(kind: str, than: str, **more: Any) -> dict[str, Any]:
    return {"claim": kind, "metric": "a", "than": list(than), **more}


def _suddenly(kind: str) -> dict[str, Any]:
    return {"claim": kind, "along": "x", "value": "a", "against": "b"}


def _early(kind: str) -> dict[str, Any]:
    return {"claim": kind, "share": 0.5, "within": 0.5}


def _turn(kind: str) -> dict[str, Any]:
    return {"claim": kind, "at": 0.5, "window": 0.25}


# a label of blocks, or a name of points of several grids, is an axis as any other is
KINDS = {
    "rises": StudyKind(_along("rises", "ab")),
    "rises of area": StudyKind(_along("rises", "ab", of="area")),
    "rises, chain": StudyKind(_along("rises", "abc")),
    "rises, chain of which one step is none": StudyKind(
        _along("rises", "abc"), plain_steps=1
    ),
    "rises of one number a run": StudyKind(
        _along("rises", "ab", metric="silhouette/x"), of_numbers=True
    ),
    "trends": StudyKind(_along("trends", "abc")),
    "correlates": StudyKind(_along("correlates", "abcdef")),
    "falls_early": StudyKind(_early("falls_early")),
    "rises_early": StudyKind(_early("rises_early"), direction=1),
    "falls_at": StudyKind(_turn("falls_at")),
    "rises_at": StudyKind(_turn("rises_at")),
    "falls_suddenly": StudyKind(_suddenly("falls_suddenly"), MANY_STEPS, SWING),
    "rises_suddenly": StudyKind(
        _suddenly("rises_suddenly"), MANY_STEPS, SWING, direction=1
    ),
    "is_higher": StudyKind(_between("is_higher", "b")),
    "is_higher than two, one of them alike": StudyKind(
        _between("is_higher", "bc"), plain_steps=1
    ),
    "is_higher of one number a run": StudyKind(
        _between("is_higher", "b"), of_numbers=True
    ),
    "is_earlier": StudyKind(_between("is_earlier", "b", within=0.2), MANY_STEPS, SWING),
    "is_steadier": StudyKind(
        _between("is_steadier", "b", within=0.2), MANY_STEPS, SWING
    ),
}
# of which a table says how often effects are found
WITH_EFFECTS = ("rises", "trends", "falls_at")
EFFECTS = (0.5, 1.0, 1.5, 2.0)


@dataclass(frozen=True)
class Nature:
    """What splits do to the effects of a study, and whether they share tasks."""

    of_splits: float = 0.1
    shares_tasks: bool = True


@cache
def _draw_once(count: int, draws: int) -> np.ndarray:
    return _DRAW_WEIGHTS(np.random.default_rng(0), count, draws)


def _draw_again(_: np.random.Generator, count: int, draws: int) -> np.ndarray:
    """The weights that the product draws of so many clusters; as there is one run at a
    place of a split, each kind of clusters is one draw, and each starts anew."""
    return _draw_once(count, draws)


@contextmanager
def deciding_alone(draws: int) -> Iterator[None]:
    """Verdicts by so few draws, without the unbiased estimates that a stopped study has:
    they take a second each, and no word depends on them. What is drawn again and again,
    the same each time, is drawn once."""
    with (
        mock.patch.object(curves, "REPEATS", draws),
        mock.patch.object(sequential, "_estimate_unbiased", return_value=[]),
        mock.patch.object(effects, "_draw_weights", _draw_again),
    ):
        yield


def draw_grid(
    rng: np.random.Generator, kind: StudyKind, effect: float, nature: Nature
) -> Grid:
    """The curves of eight splits: levels differ by the effect, and by what splits,
    tasks, tasks in splits and runs do. Curves go on a straight line, but for a turn."""
    count = AT[-1]
    pool = POOL if nature.shares_tasks else TASKS * count
    heights = rng.normal(0, 0.47, (len(kind.levels), pool))
    order = rng.permutation(pool)
    splits: Grid = []
    for number in range(count):
        own = order[TASKS * number : TASKS * (number + 1)]
        if nature.shares_tasks:
            own = rng.choice(pool, TASKS, replace=False)
        own = np.sort(own)
        wave: list[Curve] = []
        for place, level in enumerate(kind.levels):
            raised = _raise_level(kind, place, effect) + heights[place, own] / 2**0.5
            curve = _draw_curve(rng, kind, nature, level)
            bent = _bend(kind, effect)
            losses = curve.losses + raised + bent[:, None]
            units = [f"t{task}" for task in own.tolist()]
            wave.append(replace(curve, split=f"s{number}", units=units, losses=losses))
        splits.append([_average(curve) for curve in wave] if kind.of_numbers else wave)
    return splits


def _raise_level(kind: StudyKind, place: int, effect: float) -> float:
    """How much a level lies above the first one; of metrics, below it."""
    if kind.is_of_a_turn:
        return 0.0
    if len(kind.claim.metrics) > 1:
        return -PLAIN if place > 1 else -effect * place
    plain = min(place, kind.plain_steps)
    return PLAIN * plain + effect * (place - plain)


def _bend(kind: StudyKind, effect: float) -> np.ndarray:
    """What the effect adds at each checkpoint where it is a turn: nothing up to it, and
    from there on so much from one to the next."""
    places = np.arange(len(kind.steps))
    if not kind.is_of_a_turn:
        return np.zeros(len(places))
    sign = -1 if kind.said["claim"] == "falls_at" else 1
    return sign * effect * np.maximum(places - TURN, 0)


def _draw_curve(
    rng: np.random.Generator, kind: StudyKind, nature: Nature, level: str
) -> Curve:
    """A run's curve: a height of its split, slopes of tasks, and errors of tasks and of
    the run at each checkpoint."""
    count = len(kind.steps)
    height = 5 + rng.normal(0, nature.of_splits / 2**0.5)
    slopes = kind.direction + rng.normal(0, 0.1, TASKS)
    slopes = slopes + rng.normal(0, nature.of_splits / 4)
    errors = rng.normal(0, 0.1, (count, TASKS))
    swings = rng.normal(0, kind.swing, (count, 1))
    line = np.linspace(0, 1, count)[:, None] * slopes
    values = height + line + errors + swings
    return Curve(level, "", "0", kind.steps, [], [5] * TASKS, values)


def _average(curve: Curve) -> Curve:
    """The same of a metric that is one number a run."""
    values = curve.losses.mean(axis=1, keepdims=True)
    return replace(curve, units=["run"], counts=[1], losses=values)


def list_split_effects(kind: StudyKind, grid: Grid) -> np.ndarray | None:
    """The effects (splits, effects) in each split alone; None where those of a claim are
    not their means."""
    name = kind.said["claim"]
    if name not in OF_MEANS:
        return None
    # (splits, levels, steps)
    means = np.array([[curve.losses.mean(axis=1) for curve in wave] for wave in grid])
    if kind.is_of_a_turn:
        around = means[:, :, TURN - 1 : TURN + 2]
        return np.diff(around, 2, axis=2)[:, :, 0]
    ends = means[:, :, -1]
    if kind.said.get("of") == "area":
        ends = np.stack([curves.compute_area(kind.steps, split.T) for split in means])
    if name == "is_higher":
        return ends[:, :1] - ends[:, 1:]
    if name == "trends":
        return ends[:, -1:] - ends[:, :1]
    return np.diff(ends, axis=1)


def is_never_decided(effects_of_splits: np.ndarray, count: int, tail: float) -> bool:
    """Whether the mean of the first splits is too near to nothing for any word."""
    values = effects_of_splits[:count]
    errors = values.std(axis=0, ddof=1) / count**0.5
    distance = float(np.min(np.abs(values.mean(axis=0)) / errors))
    return distance < NEVER_DECIDED * student.compute_quantile(tail, count - 1)


def decide(
    kind: StudyKind, grid: Grid, at: Sequence[int], is_always_asked: bool = False
) -> ClaimVerdict:
    """The verdict on a grid that is looked at after so many splits; `is_always_asked`:
    also where it cannot decide."""
    claim = kind.claim
    levels = kind.levels
    looks = boundaries.plan_looks(tuple(at), TAIL, OBRIEN_FLEMING)
    of_splits = None if is_always_asked else list_split_effects(kind, grid)

    def judge(curves_so_far: Sequence[Curve], tail: float) -> ClaimVerdict:
        count = len({curve.split for curve in curves_so_far})
        if of_splits is not None and is_never_decided(of_splits, count, tail):
            return ClaimVerdict(NOT_SUPPORTED)
        return judge_claim(
            claim, curves_so_far, levels, units_are_runs=kind.of_numbers, tail=tail
        )

    waves: list[list[Curve]] = []
    begin = 0
    for end in at:
        waves.append([curve for split in grid[begin:end] for curve in split])
        begin = end
    return sequential.judge_in_looks(waves, looks, judge)


@dataclass(frozen=True)
class Rates:
    """The shares of studies that were decided, for a claim and against it, and how many
    splits they used on average."""

    supported: float
    opposite: float
    splits: float


def count_words(
    name: str,
    studies: int,
    effect: float = 0.0,
    designs: Sequence[Sequence[int]] = (AT,),
    nature: Nature | None = None,
) -> list[Rates]:
    """What comes of the same studies by each of these designs.

    Without a `nature` splits share tasks, but those of a metric that is one number a
    run: its numbers do not tell how alike such splits are.
    """
    kind = KINDS[name]
    nature = nature or Nature(shares_tasks=not kind.of_numbers)
    rng = np.random.default_rng(20)
    totals = np.zeros((len(designs), 3))
    draws = DRAWS_OF_NUMBERS if kind.of_numbers else DRAWS
    with deciding_alone(draws):
        for _ in range(studies):
            grid = draw_grid(rng, kind, effect, nature)
            for row, at in enumerate(designs):
                found = decide(kind, grid, at)
                assert found.looked is not None
                used = at[found.looked.number - 1]
                totals[row] += (found.word == SUPPORTED, found.word == OPPOSITE, used)
    return [Rates(*row) for row in (totals / studies).tolist()]


def measure_spread(name: str, nature: Nature, grids: int = 300) -> power.Spread:
    """How far the effects of single splits lie apart where there is none, and how alike
    they are: of splits that share tasks the mean of n varies by more than an n-th."""
    kind = KINDS[name]
    claim = kind.claim
    rng = np.random.default_rng(21)
    sizes: list[list[float]] = []
    with mock.patch.object(curves, "REPEATS", 2):
        for _ in range(grids):
            grid = draw_grid(rng, kind, 0.0, nature)
            judged = [judge_claim(claim, split, kind.levels) for split in grid]
            sizes.append([verdict.effects[0].found.value for verdict in judged])
    table = np.array(sizes)
    single = float(np.mean(table**2))
    if not nature.shares_tasks:
        return power.Spread(single**0.5)
    count = table.shape[1]
    of_means = float(np.mean(table.mean(axis=1) ** 2))
    shared = (count * of_means / single - 1) / (count - 1)
    return power.Spread(single**0.5, min(max(shared, 0.0), 0.9))


@dataclass(frozen=True)
class FoundEffect:
    """How often an effect is found that is so many standard deviations of a split, at the
    end and with looks; and what is foreseen of both."""

    effect: float
    at_end: Rates
    with_looks: Rates
    foreseen_at_end: power.Outlook
    foreseen: power.Outlook

    def __str__(self) -> str:
        return (
            f"{self.effect}: at the end {self.at_end.supported:.1%}, foreseen"
            f" {self.foreseen_at_end.power:.1%}; with looks {self.with_looks.supported:.1%},"
            f" {self.with_looks.splits:.2f} splits, foreseen {self.foreseen.power:.1%},"
            f" {self.foreseen.splits:.2f}"
        )


def find_effect(
    name: str, effect: float, studies: int, nature: Nature, spread: power.Spread
) -> FoundEffect:
    """One row of a table of effects."""
    size = effect * spread.deviation
    designs = (AT[-1:], AT)
    at_end, with_looks = count_words(name, studies, size, designs, nature)
    foreseen_at_end, foreseen = (
        power.foresee(
            boundaries.plan_looks(at, TAIL, OBRIEN_FLEMING), size or 1e-9, spread
        )
        for at in designs
    )
    return FoundEffect(effect, at_end, with_looks, foreseen_at_end, foreseen)


def _print_none(names: Sequence[str], studies: int) -> None:
    for name in names:
        [rates] = count_words(name, studies)
        print(
            f"{name}: supported {rates.supported:.1%}, opposite {rates.opposite:.1%},"
            f" {rates.splits:.2f} splits",
            flush=True,
        )


def _print_effects(names: Sequence[str], studies: int) -> None:
    for name in names:
        for shares_tasks in (False, True):
            nature = Nature(shares_tasks=shares_tasks)
            spread = measure_spread(name, nature)
            kinds = "share tasks" if shares_tasks else "have tasks of their own"
            print(f"{name}, splits {kinds}: {spread}")
            for effect in EFFECTS:
                print(find_effect(name, effect, studies, nature, spread), flush=True)


def main() -> None:
    """Makes and counts."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.lib.made_studies",
        description="How often does the verdict decide made studies?",
    )
    parser.add_argument("of", choices=("none", "effects"), help="what there is to find")
    parser.add_argument("kinds", nargs="*", help="kinds of claims; all without")
    parser.add_argument("--studies", type=int, default=1000)
    asked = parser.parse_args()
    if unknown := set(asked.kinds) - set(KINDS):
        parser.error(f"no kind {sorted(unknown)}; there are {list(KINDS)}")
    if asked.of == "none":
        _print_none(asked.kinds or list(KINDS), asked.studies)
    else:
        _print_effects(asked.kinds or WITH_EFFECTS, asked.studies)


if __name__ == "__main__":
    main()
