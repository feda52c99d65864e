"""Turns what the runs of a grid came to into panels of curves: by the axes of the grid,
and by test task."""

import math
from collections.abc import Mapping, Sequence

from launcher.reporting.data.grid_comparison import GridComparison
from launcher.reporting.data.run_groups import Group, Member
from launcher.reporting.figures import line_charts
from launcher.reporting.figures.line_charts import Line, Panel
from zsg_core.stats.curves import Drop

FALLEN = 0.9  # of a curve's fall: what comes after it is drawn again on its own scale
MOST_OF_TASK = 8  # curves in the panel of a test task
X_LABELS = {
    "step": "step",
    "examples": "examples trained on",
    "tokens": "tokens trained on",
}


def make_axis_panels(found: GridComparison) -> list[Panel]:
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
        Panel(title, lines, X_LABELS[found.options.x], found.options.metric, limits)
        for title, lines in of.items()
    ]
    return [panel for one in whole for panel in _with_later(one)]


def _lines(group: Group, found: GridComparison) -> list[Line]:
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
    return [panel] if start is None else [panel, line_charts.cut_panel(panel, start)]


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


def make_task_panel(
    found: GridComparison, task: str, drops: Sequence[tuple[Group, Member, Drop]]
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
        task, lines, X_LABELS[found.options.x], found.options.metric, marked=marked
    )
