"""Puts the runs of a grid beside one another: replicates into one curve with a band,
the rest as curves and rows.

Pure. Replicates are runs whose recipes differ in nothing but seeds that take effect;
one run has no band.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.contract.grid_record import LABEL
from jobs.contract.journal import Point
from jobs.contract.states import RecordedState
from jobs.deciding.recorded_runs import RecordedRun
from jobs.deciding.run_axes import (
    Axes,
    axis_text,
    last_word,
    unseeded_axes,
    without_splits,
)
from zsg_core.errors import UserError
from zsg_core.metrics import means
from zsg_core.recipe import remove_seeds
from zsg_core.stats import curves
from zsg_core.stats.curves import Drop, Interval

X = ("step", "examples", "tokens")
NONE = "none"
# the axis that runs of several grids have beside one another: whose they are
GRID = "grid"
# in the names of settings that say what is held out, of all data or of a source
HELD_OUT = "held_out"
# the state of a run that a look has ended before it began
SPARED = "spared"
# how far apart, relative or not, a value and the mean of its items may lie: items are
# kept in 32 bits
SAME = 1e-5


@dataclass(frozen=True)
class ItemMeans:
    """What the losses or scores of a run's test items come to: of each at the last step
    and over all, of tasks by step.

    `over_items`: whether the metric's value is the mean over items, as that of a loss;
    else it is over tasks.
    """

    ids: tuple[str, ...]
    tasks: tuple[str, ...]
    final: NDArray[np.float64]
    area: NDArray[np.float64]
    steps: list[int]
    names: list[str]
    by_task: NDArray[np.float64]  # (steps, names)
    over_items: bool = False

    @cached_property
    def columns(self) -> dict[str, int]:
        """Where in `by_task` each task stands."""
        return {name: column for column, name in enumerate(self.names)}


@dataclass(frozen=True)
class Member:
    """One run of a comparison: its curve as step → value, and step → place on the
    horizontal axis."""

    run: str
    axes: Axes
    kind: str  # what it has in common with its replicates
    state: str
    values: dict[int, float]
    at: dict[int, float]
    items: ItemMeans | None = None
    begins: tuple[int, ...] = ()  # after which step each stage but the first begins

    def stage_after(self, step: int) -> int:
        """The number of the stage that trains on from a step, the first being 1."""
        return 1 + sum(begin <= step for begin in self.begins)


def make_member(
    run: RecordedRun, key: str, x: str, over_splits: bool = False
) -> Member:
    """What of a recorded run enters the comparison of a metric. UserError for tokens
    that were not recorded.

    `over_splits`: its replicates may have other held-out splits, too.
    """
    points = run.points(key)
    axes = name_test_set(run.axes)
    if over_splits:
        axes = without_splits(unseeded_axes(run.axes))
    kind = axes if over_splits else [axes.get(GRID), remove_seeds(run.recipe)]
    return Member(
        run=run.run,
        axes=axes,
        kind=json.dumps(kind, sort_keys=True),
        state=SPARED if run.is_spared else run.state,
        values={step: point.value for step, point in points.items()},
        at=find_positions(run, points, x),
        items=_items(run, key),
        begins=tuple(run.begins),
    )


def name_test_set(axes: Axes) -> dict[str, Any]:
    """The values of a grid's point without the seeds that make replicates; the seed of
    what is held out stays, for runs of other test sets are no replicates."""
    plain = unseeded_axes(axes)
    kept: dict[str, Any] = {}
    for key, value in axes.items():
        if HELD_OUT in key.split("."):
            kept[key] = value
        elif key in plain:
            kept[key] = plain[key]
    return kept


def find_positions(
    run: RecordedRun, points: Mapping[int, Point], x: str
) -> dict[int, float]:
    """Where each step stands on the horizontal axis. UserError for tokens that were not
    recorded."""
    if x == "step":
        return {step: _as_position(step) for step in points}
    if x != "tokens" or not points:
        return {step: _as_position(point.examples) for step, point in points.items()}
    tokens = run.tokens()
    for step in points:
        if step not in tokens:
            raise UserError(
                f"run {run.run}: its tokens up to step {step} were not recorded; use --x"
                " examples"
            )
    return {step: tokens[step] for step in points}


def _as_position(count: int) -> float:
    """A count as a place on an axis; inf where it is larger than any."""
    try:
        return float(count)
    except OverflowError:
        return math.inf


def _items(run: RecordedRun, key: str) -> ItemMeans | None:
    """What the values of a run's items come to, of one metric; None where it has none of
    them, or their sets differ between its stages."""
    recorded = run.items(key)
    if recorded is None:
        return None
    losses = recorded.losses.astype(np.float64)
    names, by_task = recorded.by_task()
    return ItemMeans(
        tuple(recorded.ids),
        tuple(recorded.tasks),
        losses[-1],
        curves.compute_area(recorded.steps, losses),
        recorded.steps,
        names,
        by_task,
        means.is_over_items(key),
    )


@dataclass(frozen=True)
class Group:
    """Replicates of one point of a grid. `averaged` make the curve, `apart` have values
    and are not in it."""

    axes: Axes
    members: Sequence[Member]
    averaged: Sequence[Member] = field(init=False)
    apart: Sequence[Member] = field(init=False)

    def __post_init__(self) -> None:
        begun = [member for member in self.members if member.values]
        # A curve cannot rest on runs that broke off; on runs under way only as long as
        # none is done.
        best = next(
            (
                state
                for state in (RecordedState.DONE, RecordedState.NOT_FINISHED)
                if any(member.state == state for member in begun)
            ),
            None,
        )
        object.__setattr__(
            self, "averaged", [member for member in begun if member.state == best]
        )
        object.__setattr__(
            self, "apart", [member for member in begun if member.state != best]
        )

    @cached_property
    def steps(self) -> list[int]:
        """The steps at which all averaged runs have a value."""
        common = (
            set.intersection(*(set(member.values) for member in self.averaged))
            if self.averaged
            else set()
        )
        return sorted(common)

    @cached_property
    def at(self) -> list[float]:
        """The places of the steps on the horizontal axis: the mean, as the tokens of
        replicates may differ."""
        return [
            float(np.mean([member.at[step] for member in self.averaged]))
            for step in self.steps
        ]

    @cached_property
    def table(self) -> NDArray[np.float64]:
        """(averaged, steps) values."""
        return np.array(
            [[member.values[step] for step in self.steps] for member in self.averaged],
            np.float64,
        )

    @cached_property
    def begins(self) -> list[int]:
        """After which step each stage but the first begins; replicates have it in
        common, or none has a place."""
        all_begins = {member.begins for member in self.averaged}
        return list(*all_begins) if len(all_begins) == 1 else []

    @cached_property
    def stage_ends(self) -> list[tuple[int, float]]:
        """(step, value) at which each stage but the last has ended, where it was measured."""
        means = self.table.mean(axis=0) if self.averaged else []
        value = dict(zip(self.steps, map(float, means), strict=True))
        return [(step, value[step]) for step in self.begins if step in value]

    @property
    def has_band(self) -> bool:
        """Whether there are real replicates."""
        return len(self.averaged) > 1

    @cached_property
    def items(self) -> ItemMeans | None:
        """The replicates' item losses, averaged; None unless all have those of the same
        items at the same steps."""
        all_items = [member.items for member in self.averaged if member.items]
        if not all_items or len(all_items) < len(self.averaged):
            return None
        first = all_items[0]
        if any(
            (items.ids, items.steps) != (first.ids, first.steps) for items in all_items
        ):
            return None
        return replace(
            first,
            final=np.mean([items.final for items in all_items], axis=0),
            area=np.mean([items.area for items in all_items], axis=0),
            by_task=np.mean([items.by_task for items in all_items], axis=0),
        )


def group_replicates(members: Iterable[Member]) -> list[Group]:
    """The groups of replicates, in the order of the grid."""
    by_kind: dict[str, list[Member]] = {}
    for member in members:
        by_kind.setdefault(member.kind, []).append(member)
    return [Group(replicates[0].axes, replicates) for replicates in by_kind.values()]


@dataclass(frozen=True)
class Summary:
    """A value of a group's curve with its intervals: of replicates (seeds), of test
    items, of whole test tasks."""

    value: float
    seeds: Interval | None
    items: Interval | None
    tasks: Interval | None


def summarize_groups(groups: Sequence[Group]) -> list[tuple[Summary, Summary] | None]:
    """Of each group what it ends at and the area under it; None for a group without a value."""
    by_items = _item_intervals(groups)
    summaries: list[tuple[Summary, Summary] | None] = []
    with np.errstate(over="ignore", invalid="ignore"):
        for group, (final, area) in zip(groups, by_items, strict=True):
            if not group.steps:
                summaries.append(None)
                continue
            ends, areas = (
                group.table[:, -1],
                curves.compute_area(group.steps, group.table.T),
            )
            summaries.append((_summary(ends, final), _summary(areas, area)))
    return summaries


def _summary(values: NDArray[np.float64], of_items: "_Intervals") -> Summary:
    """A value with its intervals; those over items only if the mean of the items is this value.

    It is another where items lack a value in some replicates, or at some steps.
    """
    value = float(np.mean(values))
    items, tasks = of_items.items, of_items.tasks
    if not math.isclose(of_items.mean, value, rel_tol=SAME, abs_tol=SAME):
        items = tasks = None
    return Summary(
        value, _finite(curves.compute_t_interval(list(values))), items, tasks
    )


@dataclass(frozen=True)
class _Intervals:
    """The mean of items by a metric's own estimator, and its intervals: over items,
    over whole tasks."""

    mean: float = math.nan
    items: Interval | None = None
    tasks: Interval | None = None


def _item_intervals(groups: Sequence[Group]) -> list[tuple[_Intervals, _Intervals]]:
    """Of each group those of the end and of the area; groups with the same test set
    share their draws."""
    intervals = [(_Intervals(), _Intervals())] * len(groups)
    for numbers in _list_same_test_sets(groups):
        members = [items for n in numbers if (items := groups[n].items) is not None]
        pairs = _draw_intervals(members)
        for number, pair in zip(numbers, pairs, strict=True):
            intervals[number] = pair
    return intervals


def _list_same_test_sets(groups: Sequence[Group]) -> list[list[int]]:
    """The numbers of the groups that have item values of their last step, together
    where their test set and the kind of their mean are the same."""
    numbers: dict[tuple[Any, ...], list[int]] = {}
    for number, group in enumerate(groups):
        items = group.items
        if items is not None and items.steps[-1:] == group.steps[-1:]:
            numbers.setdefault((items.ids, items.over_items), []).append(number)
    return list(numbers.values())


def _draw_intervals(
    members: Sequence[ItemMeans],
) -> list[tuple[_Intervals, _Intervals]]:
    """Of each member, all of one test set, the intervals of its end and of its area,
    over items and over tasks."""
    tasks, over_items = members[0].tasks, members[0].over_items
    columns = [values for items in members for values in (items.final, items.area)]
    values = np.stack(columns, axis=1)  # (items, 2 x members)
    weights = means.item_weights(values, tasks, over_items=over_items)
    centres = means.compute_means(values, tasks, over_items=over_items)
    of_items = curves.bootstrap_intervals(values, None, weights).T
    of_tasks = curves.bootstrap_intervals(values, tasks, weights).T
    intervals = [
        _Intervals(float(centre), _finite(item), _finite(task))
        for centre, item, task in zip(centres, of_items, of_tasks, strict=True)
    ]
    return list(zip(intervals[::2], intervals[1::2], strict=True))


def _finite(bounds: Iterable[float] | None) -> Interval | None:
    """An interval whose bounds are numbers."""
    if bounds is None:
        return None
    low, high = map(float, bounds)
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None


def find_drops(groups: Sequence[Group]) -> list[tuple[Group, Member, Drop]]:
    """The sudden drops of every averaged run, by size beyond what all tasks fall;
    replicates fall at other steps."""
    drops = [
        (group, member, drop)
        for group in groups
        for member in group.averaged
        if member.items
        for drop in curves.find_sudden_drops(
            member.items.steps, member.items.names, member.items.by_task
        )
    ]
    return sorted(drops, key=lambda row: -row[2].own)


def differing_axes(groups: Sequence[Group]) -> list[str]:
    """The axes in which the groups differ."""
    keys = list(dict.fromkeys(key for group in groups for key in group.axes))
    return [
        key
        for key in keys
        if len({axis_text(group.axes.get(key)) for group in groups}) > 1
    ]


def choose_panel_axis(
    keys: Sequence[str], groups: Sequence[Group], axis: str | None
) -> str | None:
    """The axis that gets a panel for each of its values: the one asked for, or of
    several that with fewest values.

    UserError for an axis that is none of the grid's, or that does not differ.
    """
    if axis == NONE:
        return None
    if axis is not None:
        named = [key for key in keys if axis in (key, last_word(key))]
        if len(named) == 1:
            return named[0]
        raise UserError(
            f"--panel {axis}: not one of the axes in which the runs differ:"
            f" {', '.join([*keys, NONE])}"
        )
    # runs of several grids stand beside one another
    if GRID in keys and len(keys) > 1:
        return GRID
    # a label names what has no place on the other axes: panels would part the two
    if len(keys) < 2 or LABEL in keys:
        return None
    return min(
        keys[::-1],
        key=lambda key: len({axis_text(group.axes.get(key)) for group in groups}),
    )


def axes_label(axes: Axes, keys: Sequence[str]) -> str:
    """A group's place on some axes, in words; of one axis its value only."""
    if len(keys) == 1 and axes.get(keys[0]) is not None:
        return axis_text(axes.get(keys[0]))
    return ", ".join(
        name_place(axes, key) for key in keys if key in axes or len(keys) == 1
    )


def name_place(axes: Axes, key: str) -> str:
    """A group's place on one axis, in words: `order nft`, or `order not set`; a label as
    it is."""
    if key == LABEL and key in axes:
        return axis_text(axes[key])
    if axes.get(key) is None:
        return f"{last_word(key)} not set"
    return f"{last_word(key)} {axis_text(axes[key])}"
