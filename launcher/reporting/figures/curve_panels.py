"""Turns what the runs of a grid came to into panels of curves: by the axes of the grid,
and by test task."""

import itertools
import math
from collections.abc import Mapping, Sequence

from launcher.reporting.data.grid_comparison import GridComparison
from launcher.reporting.data.run_groups import Group, Member
from launcher.reporting.figures import line_charts
from launcher.reporting.figures.line_charts import Line, Panel
from zsg_core.metrics.means import LOSS
from zsg_core.stats.curves import Drop

FALLEN = 0.9  # of a curve's fall: what comes after it is drawn again on its own scale
LEAST_LATER = 3  # points of each curve that are left after the fall
MOST_OF_TASK = 8  # curves in the panel of a test task
X_LABELS = {
    "step": "step",
    "examples": "examples trained on",
    "tokens": "tokens trained on",
}


def make_axis_panels(comparison: GridComparison) -> list[Panel]:
    """A panel for each value of the panel axis, on one scale, and after each the part
    after most of the fall."""
    lines_by_panel: dict[str, list[Line]] = {}
    for group in comparison.groups:
        lines = lines_by_panel.setdefault(comparison.panel_name(group), [])
        lines.extend(_lines(group, comparison))
    options = comparison.options
    limits = _common_limits(list(lines_by_panel.values()))
    whole = [
        Panel(title, lines, X_LABELS[options.x], label_metric(options.metric), limits)
        for title, lines in lines_by_panel.items()
    ]
    return [panel for whole_panel in whole for panel in _with_later(whole_panel)]


def _common_limits(panels: Sequence[Sequence[Line]]) -> tuple[float, float] | None:
    """The limits of the vertical axis of several panels, with a margin; None for one
    panel, or where all values are the same."""
    bounds = [
        values
        for lines in panels
        for line in lines
        for values in (line.y, line.low, line.high)
        if values is not None
    ]
    finite = list(filter(math.isfinite, itertools.chain.from_iterable(bounds)))
    if len(panels) < 2 or not finite:
        return None
    margin = 0.04 * (max(finite) - min(finite))
    return (min(finite) - margin, max(finite) + margin) if margin else None


def _lines(group: Group, comparison: GridComparison) -> list[Line]:
    """The curves of a point: the mean of its replicates with their band, and each run that
    is apart by itself."""
    name = comparison.label(group)
    colour = comparison.colours[name]
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
    for member in group.apart:
        x = [member.at[step] for step in member.values]
        lines.append(
            Line(
                f"{name} ({member.run}, {member.state})",
                colour,
                x,
                [*member.values.values()],
                apart=True,
            )
        )
    return lines


def _begins(group: Group, at: Mapping[int, float]) -> list[float]:
    """Where on the horizontal axis stages begin, of those that are measured there."""
    return [at[step] for step in group.begins if step in at]


def _with_later(panel: Panel) -> list[Panel]:
    """A panel, and where curves fall steeply first the later part of it, on its own scale."""
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
    if not lines:
        return None
    start = max(map(_end_of_fall, lines))
    fewest = min(sum(x >= start for x in line.x) for line in lines)
    is_later = start > min(line.x[0] for line in lines)
    return start if fewest >= LEAST_LATER and is_later else None


def _end_of_fall(line: Line) -> float:
    """Where a curve has made most of its fall."""
    low_enough = line.y[0] - FALLEN * (line.y[0] - min(line.y))
    return next(x for x, y in zip(line.x, line.y, strict=True) if y <= low_enough)


def make_task_panel(
    comparison: GridComparison, task: str, drops: Sequence[tuple[Group, Member, Drop]]
) -> Panel:
    """The curves of one test task, those that fall most first; `drops` are those of the
    task, largest first, and may be none."""
    lines = []
    chosen = {
        id(group): group
        for group in (*(group for group, *_ in drops), *comparison.groups)
    }
    for group in list(chosen.values())[:MOST_OF_TASK]:
        items = group.items
        # runs of other data have other tasks
        if items is None or task not in items.names:
            continue
        at = dict(zip(group.steps, group.at, strict=True))
        column = items.by_task[:, items.names.index(task)]
        rows = [row for row, step in enumerate(items.steps) if step in at]
        x, y = (
            [at[items.steps[row]] for row in rows],
            [float(column[row]) for row in rows],
        )
        style = comparison.styles[comparison.panel_name(group)]
        name = ", ".join(
            filter(None, (comparison.label(group), comparison.panel_name(group)))
        )
        colour, runs, begins = (
            comparison.colours[comparison.label(group)],
            len(group.averaged),
            _begins(group, at),
        )
        lines.append(Line(name, colour, x, y, runs=runs, style=style, begins=begins))
    return Panel(
        task,
        lines,
        X_LABELS[comparison.options.x],
        label_metric(comparison.options.metric),
        marked=_find_first_fall(drops),
    )


def _find_first_fall(
    drops: Sequence[tuple[Group, Member, Drop]],
) -> tuple[float, float] | None:
    """Where the first of some falls begins and ends; None of none."""
    if not drops:
        return None
    _, member, drop = drops[0]
    return member.at[drop.start], member.at[drop.end]


def label_metric(metric: str) -> str:
    """What an axis calls a metric: a loss says of which examples it is."""
    is_held_out = metric == LOSS or metric.startswith(f"{LOSS}/")
    return f"{metric} (held out)" if is_held_out else metric
