"""Writes a report's section of test tasks, or categories: of each its curves, and its value
at the last checkpoint, side by side for the points of the grid."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from launcher.reporting.data.grid_comparison import GridComparison
from launcher.reporting.data.run_groups import Group, ItemMeans
from launcher.reporting.figures import small_charts
from launcher.reporting.figures.small_charts import SmallLine
from launcher.reporting.html import page as report_page
from launcher.reporting.html.page import NumberCell, number_cell

MOST_POINTS = 12  # columns of the table
MOST_TASKS = 4000  # its lines
MOST_OPEN = 40  # of more tasks the table is folded
MOST_CURVES = 8  # of a task
# points of all curves of the table, that the page stays light, and those of one curve
MOST_DRAWN, FEWEST_OF_CURVE, MOST_OF_CURVE = 60_000, 6, 40


def make_task_section(comparison: GridComparison) -> list[str]:
    """The section as HTML; nothing where no point has values of two test tasks."""
    groups = [group for group in comparison.groups if group.items is not None]
    tasks = list_tasks(groups)
    if len(tasks) < 2:
        return []
    listed = groups[:MOST_POINTS]
    labels = [
        comparison.full_label(group) or comparison.options.metric for group in listed
    ]
    sparks = _draw_sparks(comparison, groups, list(tasks)[:MOST_TASKS])
    rows = [
        [*_make_head(task, count, sparks), *_make_cells(task, listed)]
        for task, count in list(tasks.items())[:MOST_TASKS]
    ]
    table = report_page.render_table(["task", "items", "curves", *labels], rows)
    if len(rows) > MOST_OPEN:
        table = report_page.render_folded(f"All {len(rows)} test tasks", table)
    return [
        report_page.render_heading(f"{comparison.options.metric} by test task"),
        table,
        report_page.render_paragraph(_write_note(groups, len(tasks)), "faint"),
    ]


def _draw_sparks(
    comparison: GridComparison, groups: Sequence[Group], tasks: Sequence[str]
) -> dict[str, str]:
    """Of each task a small chart of its curves, those of the first points."""
    drawn = groups[:MOST_CURVES]
    count = max(1, len(tasks) * len(drawn))
    points_of_curve = min(MOST_OF_CURVE, max(FEWEST_OF_CURVE, MOST_DRAWN // count))
    lines_of: dict[str, list[SmallLine]] = {task: [] for task in tasks}
    for group in drawn:
        items = group.items
        if items is None:
            continue
        rows = _spread(len(items.steps), points_of_curve)
        x = [float(items.steps[row]) for row in rows]
        label = comparison.label(group)
        for column, task in enumerate(items.names):
            if task in lines_of:
                y = items.by_task[rows, column].tolist()
                style = comparison.styles[comparison.panel_name(group)]
                line = SmallLine(label, comparison.colours[label], x, y, style=style)
                lines_of[task].append(line)
    return {task: small_charts.draw_spark(lines) for task, lines in lines_of.items()}


def _spread(count: int, points_of_curve: int) -> list[int]:
    """At most so many of the places up to `count`, evenly spread, the last among them."""
    numbers = np.linspace(0, count - 1, min(count, points_of_curve))
    return [int(number) for number in np.unique(numbers.round())]


def list_tasks(groups: Sequence[Group]) -> dict[str, int]:
    """The test tasks of some points, each with its number of items."""
    tasks: dict[str, int] = {}
    for group in groups:
        if group.items is not None:
            for task, count in Counter(group.items.tasks).items():
                tasks.setdefault(task, count)
    return tasks


def _make_head(task: str, count: int, sparks: Mapping[str, str]) -> list[object]:
    """The first cells of a task: its name, its items, its curves."""
    drawing = report_page.drawing_cell(sparks[task])
    return [task, NumberCell(count, f"{count:,}"), drawing]


def _make_cells(task: str, groups: Sequence[Group]) -> list[object]:
    """A task's value at each point."""
    return [_make_cell(task, group) for group in groups]


def _make_cell(task: str, group: Group) -> NumberCell:
    """A point's value of a task: the mean of its replicates, and how far these go."""
    values = [
        _find_last(task, member.items) for member in group.averaged if member.items
    ]
    finite = [value for value in values if value is not None]
    if not finite:
        return number_cell(None)
    mean = float(np.mean(finite))
    if len(finite) == 1:
        return number_cell(mean)
    text = f"{mean:.4g} ({min(finite):.4g} to {max(finite):.4g})"
    return NumberCell(mean, text)


def _find_last(task: str, items: ItemMeans) -> float | None:
    """A run's value of a task at its last step; None where it has none."""
    column = items.columns.get(task)
    if column is None:
        return None
    value = float(items.by_task[-1, column])
    return value if np.isfinite(value) else None


def _write_note(groups: Sequence[Group], tasks: int) -> str:
    """What stands in a cell, and what is left out."""
    note = "Curves: each task on a scale of its own, colours as above"
    if len(groups) > MOST_CURVES:
        note += f", of the first {MOST_CURVES} points"
    note += ". Values: the mean over a task's items at the last checkpoint"
    if any(group.has_band for group in groups):
        note += ", over replicates; in brackets the lowest and the highest of these"
    note += "."
    points_left = len(groups) - MOST_POINTS
    if points_left > 0:
        note += f" {points_left} more points are left out."
    tasks_left = tasks - MOST_TASKS
    if tasks_left > 0:
        note += f" {tasks_left} more tasks are left out."
    return f"{note} Of single items: zsg export GRID --items."
