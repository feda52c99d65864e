"""Turns what the runs of a grid came to into panels of curves: by the axes of the grid,
and by test task."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from launcher.reporting import comparison
from launcher.reporting import figure as report_figure
from launcher.reporting.comparison import Group, Member
from launcher.reporting.figure import Line, Panel
from zsg_core.stats.curves import Drop

FALLEN = 0.9  # of a curve's fall: what comes after it is drawn again on its own scale
MOST_OF_TASK = 8  # curves in the panel of a test task
X_LABELS = {
    "step": "step",
    "examples": "examples trained on",
    "tokens": "tokens trained on",
}


@dataclass(frozen=True)
class Asked:
    """What a report shows: a metric, over what, with a panel for each value of which
    axis, of which stage or all.

    `over_splits`: runs that differ in their held-out split alone are replicates.
    """

    metric: str = "loss"
    x: str = "step"
    panel: str | None = None
    stage: int | None = None
    over_splits: bool = False


@dataclass(frozen=True)
class Found:
    """What the runs of a grid come to."""

    name: str
    asked: Asked
    record: Mapping[str, Any]
    members: Sequence[Member]
    facts: Sequence[dict[str, str]]
    troubles: Sequence[str]  # flagged runs
    groups: Sequence[Group]
    keys: Sequence[str]
    panel: str | None

    @property
    def colour_keys(self) -> list[str]:
        """The axes whose values have colours: those that have no panels."""
        return [key for key in self.keys if key != self.panel]

    def label(self, group: Group) -> str:
        """What a curve is called in its panel."""
        return (
            comparison.label(group.axes, self.colour_keys)
            if self.colour_keys
            else self.asked.metric
        )

    def full_label(self, group: Group) -> str:
        """What a group is called where it stands alone; nothing where there is but one."""
        return comparison.label(group.axes, self.keys) if self.keys else ""

    def panel_name(self, group: Group) -> str:
        """What the panel of a group is called; nothing where all are in one."""
        value = comparison.text(group.axes.get(self.panel)) if self.panel else ""
        return f"{comparison.last_word(self.panel)} {value}" if self.panel else ""

    @cached_property
    def most_stages(self) -> int:
        """The most stages that a curve has."""
        return 1 + max((len(group.begins) for group in self.groups), default=0)

    @cached_property
    def colours(self) -> dict[str, int]:
        """The number of each curve's colour, the same in every panel."""
        return {
            name: place
            for place, name in enumerate(dict.fromkeys(map(self.label, self.groups)))
        }

    @cached_property
    def styles(self) -> dict[str, int]:
        """The number of each panel's style of line, where its curves stand among those
        of other panels."""
        return {
            name: place
            for place, name in enumerate(
                dict.fromkeys(map(self.panel_name, self.groups))
            )
        }


def by_axis(found: Found) -> list[Panel]:
    """A panel for each value of the panel axis, on one scale, and after each the part
    after most of the fall."""
    of: dict[str, list[Line]] = {}
    for group in found.groups:
        of.setdefault(found.panel_name(group), []).extend(_lines(group, found))
    values = [
        y
        for lines in of.values()
        for line in lines
        for y in (*line.y, *(line.low or ()), *(line.high or ()))
    ]
    finite = list(filter(math.isfinite, values))
    room = 0.04 * (max(finite) - min(finite)) if finite else 0
    limits = (min(finite) - room, max(finite) + room) if len(of) > 1 and room else None
    whole = [
        Panel(title, lines, X_LABELS[found.asked.x], found.asked.metric, limits)
        for title, lines in of.items()
    ]
    return [panel for one in whole for panel in _with_later(one)]


def _lines(group: Group, found: Found) -> list[Line]:
    name = found.label(group)
    colour = found.colours[name]
    lines = []
    if group.steps:
        low, high = (
            [*map(float, f(axis=0))] for f in (group.table.min, group.table.max)
        )
        mean = [*map(float, group.table.mean(axis=0))]
        bounds = (low, high) if group.has_band else (None, None)
        begins = _begins(group, dict(zip(group.steps, group.at, strict=True)))
        lines.append(
            Line(
                name,
                colour,
                group.at,
                mean,
                *bounds,
                runs=len(group.averaged),
                begins=begins,
            )
        )
    for one in group.apart:
        x = [one.at[step] for step in one.values]
        lines.append(
            Line(
                f"{name} ({one.run}, {one.state})",
                colour,
                x,
                [*one.values.values()],
                apart=True,
            )
        )
    return lines


def _begins(group: Group, at: Mapping[int, float]) -> list[float]:
    return [at[step] for step in group.begins if step in at]


def _with_later(panel: Panel) -> list[Panel]:
    start = _fallen(panel)
    return [panel] if start is None else [panel, report_figure.later(panel, start)]


def _fallen(panel: Panel) -> float | None:
    """From where on every curve of a panel has made most of its fall, if at least three
    points are left of each."""
    lines = [
        line
        for line in panel.lines
        if not line.apart and all(map(math.isfinite, line.y))
    ]
    starts = []
    for line in lines:
        low_enough = line.y[0] - FALLEN * (line.y[0] - min(line.y))
        starts.append(
            line.x[next(number for number, y in enumerate(line.y) if y <= low_enough)]
        )
    start = max(starts, default=0)
    left = min((sum(x >= start for x in line.x) for line in lines), default=0)
    return start if left >= 3 and start > min(line.x[0] for line in lines) else None


def of_task(
    found: Found, task: str, drops: Sequence[tuple[Group, Member, Drop]]
) -> Panel:
    """The curves of one test task, those that fall most first; `drops` are those of the
    task, largest first."""
    lines = []
    chosen = {
        id(group): group for group in (*(group for group, *_ in drops), *found.groups)
    }
    for group in list(chosen.values())[:MOST_OF_TASK]:
        items = group.items
        # runs of other data have other tasks
        if items is None or task not in items.names:
            continue
        at = dict(zip(group.steps, group.at, strict=True))
        column = items.by_task[:, items.names.index(task)]
        places = [place for place, step in enumerate(items.steps) if step in at]
        x, y = (
            [at[items.steps[place]] for place in places],
            [float(column[place]) for place in places],
        )
        style = found.styles[found.panel_name(group)]
        name = ", ".join(filter(None, (found.label(group), found.panel_name(group))))
        colour, runs, begins = (
            found.colours[found.label(group)],
            len(group.averaged),
            _begins(group, at),
        )
        lines.append(Line(name, colour, x, y, runs=runs, style=style, begins=begins))
    _, one, drop = drops[0]
    marked = (one.at[drop.start], one.at[drop.end])
    return Panel(
        task, lines, X_LABELS[found.asked.x], found.asked.metric, marked=marked
    )
