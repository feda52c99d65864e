"""Shows what metrics come to at each point of a grid, as a table of the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from launcher.views import columns, tables
from zsg_core.shown_text import make_showable

HEADINGS = ("runs", "step", "value", "replicates")


def draw_metrics(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The lines of rows as `zsg report --json` prints them: metric, axes, runs, step,
    value, lowest, highest, broken. Below the table stands what is likely to be broken."""
    keys = list(dict.fromkeys(key for row in rows for key in row["axes"]))
    headings = ["metric", *tables.shorten_keys(keys), *HEADINGS]
    cells: list[list[str]] = []
    for row in rows:
        axes = [tables.format_cell(row["axes"].get(key)) for key in keys]
        cells.append([row["metric"], *axes, *_make_value_cells(row)])
    return [*columns.format_columns(headings, cells).splitlines(), *_list_broken(rows)]


def _list_broken(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each reason of each metric, with at how many points it is so."""
    counts: dict[tuple[str, str], int] = {}
    points: dict[str, int] = {}
    for row in rows:
        metric = row["metric"]
        points[metric] = points.get(metric, 0) + 1
        for reason in row["broken"]:
            counts[metric, reason] = counts.get((metric, reason), 0) + 1
    lines: list[str] = []
    for (metric, reason), count in counts.items():
        line = (
            f"likely broken: {metric}: {reason}, at {count} of {points[metric]} points"
        )
        lines.append(make_showable(line, keep=""))
    return lines


def _make_value_cells(row: Mapping[str, Any]) -> list[str]:
    """Runs, step, value, and how far replicates go."""
    step = "–" if row["step"] is None else str(row["step"])
    spread = "–"
    if row["runs"] > 1:
        spread = f"{_write(row['lowest'])} to {_write(row['highest'])}"
    return [str(row["runs"]), step, _write(row["value"]), spread]


def _write(value: float | None) -> str:
    """A number of four digits; a dash where there is none."""
    return "–" if value is None else f"{value:.4g}"
