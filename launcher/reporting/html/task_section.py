"""Writes a report's section of test tasks, or categories: the value of each at the last
checkpoint, side by side for the points of the grid."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from launcher.reporting.data.grid_comparison import GridComparison
from launcher.reporting.data.run_groups import Group, ItemMeans
from launcher.reporting.html import page as report_page
from launcher.reporting.html.page import NumberCell, number_cell

MOST_POINTS = 12  # columns of the table
MOST_TASKS = 200  # its lines


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
    rows = [_make_row(task, count, listed) for task, count in tasks.items()]
    return [
        report_page.render_heading(f"{comparison.options.metric} by test task"),
        report_page.render_table(["task", "items", *labels], rows[:MOST_TASKS]),
        report_page.render_paragraph(_write_note(groups, len(rows)), "faint"),
    ]


def list_tasks(groups: Sequence[Group]) -> dict[str, int]:
    """The test tasks of some points, each with its number of items."""
    tasks: dict[str, int] = {}
    for group in groups:
        if group.items is not None:
            for task, count in Counter(group.items.tasks).items():
                tasks.setdefault(task, count)
    return tasks


def _make_row(task: str, count: int, groups: Sequence[Group]) -> list[str | NumberCell]:
    """A task's line: its items, and its value at each point."""
    row: list[str | NumberCell] = [task, NumberCell(count, f"{count:,}")]
    for group in groups:
        row.append(_make_cell(task, group))
    return row


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
    if task not in items.names:
        return None
    value = float(items.by_task[-1, items.names.index(task)])
    return value if np.isfinite(value) else None


def _write_note(groups: Sequence[Group], tasks: int) -> str:
    """What stands in a cell, and what is left out."""
    note = "The mean over a task's items at the last checkpoint"
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
