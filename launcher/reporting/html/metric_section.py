"""Writes a report's section of many metrics: what each ends at, which are likely to be
broken, and a small chart of each, by the part of the test set that it is of."""

from collections.abc import Iterable, Sequence

import numpy as np

from launcher.reporting.data import metric_overview
from launcher.reporting.data.grid_comparison import GridComparison
from launcher.reporting.data.metric_overview import (
    OVER_PROMPTS,
    MetricCurves,
    name_source,
)
from launcher.reporting.data.run_groups import Group
from launcher.reporting.figures import small_charts
from launcher.reporting.figures.small_charts import SmallLine
from launcher.reporting.html import page as report_page
from launcher.reporting.html.page import NumberCell, number_cell
from zsg_core.metrics.summaries import MEDIAN, PROMPTS, Q1, Q3

MOST_POINTS = 12  # columns of the table
MOST_CURVES = 24  # of a chart
MOST_OPEN = 24  # of more metrics the table is folded
MOST_CHARTS = 120
MOST_NAMED = 6  # runs of a flag
NOTE = (
    "Each value is that of the first checkpoint, then that of the last: the mean over"
    " replicates, in brackets the lowest and the highest of them at the last. What is"
    " likely to be broken is told by values alone: 0, the same or no number throughout,"
    " a loss that ends higher than it began, a score within two standard errors of a guess"
    " where the grid file says what a guess has, or the same curve at every point of the"
    " grid."
)


def list_flags(comparison: GridComparison) -> list[str]:
    """A line for each metric that is likely to be broken."""
    labels: dict[str, str] = {}
    for group in comparison.groups:
        name = comparison.full_label(group)
        for member in group.members:
            labels[member.run] = f"{member.run} ({name})" if name else member.run
    return metric_overview.describe_flags(comparison.overview, labels, MOST_NAMED)


def make_metric_section(comparison: GridComparison) -> list[str]:
    """The section as HTML; nothing where there is but one metric."""
    if len(comparison.overview) < 2:
        return []
    return [
        report_page.render_heading(f"{len(comparison.overview)} metrics"),
        *_render_charts(comparison),
        report_page.render_subheading("from the first checkpoint to the last"),
        _render_table(comparison),
        report_page.render_paragraph(_write_note(comparison), "faint"),
    ]


def make_way_section(comparison: GridComparison) -> list[str]:
    """How the metrics of the page were taken, as HTML; nothing where nothing is to be
    said of them."""
    if not comparison.ways:
        return []
    rows = list(comparison.ways.items())
    return [
        report_page.render_subheading("how they were taken"),
        report_page.render_table(["metric", "taken by"], rows),
    ]


def _render_table(comparison: GridComparison) -> str:
    """A line for each metric, a column for each point."""
    groups = comparison.groups[:MOST_POINTS]
    labels = [comparison.full_label(group) or "value" for group in groups]
    rows: list[list[NumberCell | str]] = []
    for curves in comparison.overview:
        cells = [_make_cell(group) for group in curves.groups[:MOST_POINTS]]
        reasons = "; ".join(flag.reason for flag in curves.flags)
        rows.append([curves.key, *cells, reasons])
    table = report_page.render_table(["metric", *labels, "likely broken"], rows)
    if len(rows) <= MOST_OPEN:
        return table
    return report_page.render_folded(f"The values of {len(rows)} metrics", table)


def _make_cell(group: Group) -> NumberCell:
    """A point's first and last value, by the last of which the column is sorted; of
    replicates the means, and how far they go at the end."""
    if not group.steps:
        return number_cell(None)
    last = group.table[:, -1]
    mean = float(last.mean())
    text = f"{mean:.4g}"
    if last.min() < last.max():
        text = f"{text} ({last.min():.4g} to {last.max():.4g})"
    if len(group.steps) > 1:
        first = float(group.table[:, 0].mean())
        text = f"{first:.4g} → {text}"
    return NumberCell(mean, text) if np.isfinite(last).all() else number_cell(mean)


def _write_note(comparison: GridComparison) -> str:
    """What stands in the table, and how many points have no column."""
    unshown = len(comparison.groups) - MOST_POINTS
    if unshown <= 0:
        return NOTE
    return f"{NOTE} {unshown} more points are left out; zsg report --json has all."


def _render_charts(comparison: GridComparison) -> list[str]:
    """The charts of each part of the test set, below its name."""
    by_source: dict[str, list[tuple[str, str]]] = {}
    charts = list(_list_charts(comparison.overview))
    for curves in charts[:MOST_CHARTS]:
        source, name = name_source(curves.key)
        lines = _make_lines(comparison, curves)
        drawn = small_charts.draw_chart(
            lines, f"{curves.key} by {comparison.options.x}"
        )
        by_source.setdefault(source, []).append((name, drawn))
    pieces: list[str] = []
    for source, drawn_charts in by_source.items():
        pieces.append(report_page.render_subheading(source))
        if source == OVER_PROMPTS:
            pieces.append(report_page.render_paragraph(_explain_quartiles(), "faint"))
        pieces.append(report_page.render_charts(drawn_charts))
    undrawn = len(charts) - MOST_CHARTS
    if undrawn > 0:
        text = f"{undrawn} more metrics have no chart; --metric names single ones."
        pieces.append(report_page.render_paragraph(text, "faint"))
    return pieces


def _explain_quartiles() -> str:
    """What a median over prompts and its band mean, in a sentence."""
    return (
        "Over the prompts of each data set, then the mean over data sets; the band of a"
        " median reaches from the mean of the first quartiles to that of the third."
    )


def _list_charts(overview: Sequence[MetricCurves]) -> Iterable[MetricCurves]:
    """The metrics that have a chart of their own: quartiles are the band of a median."""
    keys = {curves.key for curves in overview}
    for curves in overview:
        kind, _, remainder = curves.key.partition("/")
        _, _, metric = remainder.partition("/")
        is_beside = kind == PROMPTS and f"{PROMPTS}/{MEDIAN}/{metric}" in keys
        if not is_beside or remainder.startswith(f"{MEDIAN}/"):
            yield curves


def _make_lines(comparison: GridComparison, curves: MetricCurves) -> list[SmallLine]:
    """A line for each point that has values, of the first few."""
    low_high = _find_quartiles(comparison.overview, curves.key)
    lines: list[SmallLine] = []
    for number, group in enumerate(curves.groups):
        if not group.steps or len(lines) == MOST_CURVES:
            continue
        bounds = _find_bounds(group)
        if low_high is not None:
            bounds = _find_means(group, [each[number] for each in low_high])
        low, high = bounds
        label = comparison.label(group)
        panel = comparison.panel_name(group)
        lines.append(
            SmallLine(
                label=", ".join(filter(None, (label, panel))),
                colour=comparison.colours[label],
                x=group.at,
                y=[float(value) for value in group.table.mean(axis=0)],
                low=low,
                high=high,
                style=comparison.styles[panel],
            )
        )
    return lines


def _find_quartiles(
    overview: Sequence[MetricCurves], key: str
) -> list[Sequence[Group]] | None:
    """The groups of the first and the third quartile beside a median; None for any other
    metric, or where they are not there."""
    median = f"{PROMPTS}/{MEDIAN}/"
    if not key.startswith(median):
        return None
    by_key = {curves.key: curves.groups for curves in overview}
    metric = key.removeprefix(median)
    quartile_keys = [f"{PROMPTS}/{Q1}/{metric}", f"{PROMPTS}/{Q3}/{metric}"]
    quartiles = [by_key[name] for name in quartile_keys if name in by_key]
    return quartiles if len(quartiles) == len(quartile_keys) else None


Bounds = tuple[Sequence[float] | None, Sequence[float] | None]


def _find_bounds(group: Group) -> Bounds:
    """The lowest and the highest replicate; None of a single run."""
    if not group.has_band:
        return None, None
    low = [float(value) for value in group.table.min(axis=0)]
    high = [float(value) for value in group.table.max(axis=0)]
    return low, high


def _find_means(group: Group, beside: Sequence[Group]) -> Bounds:
    """The means of two groups that bound a third; None where they lack a step of it."""
    if any(bound.steps != group.steps for bound in beside):
        return None, None
    low, high = (
        [float(value) for value in bound.table.mean(axis=0)] for bound in beside
    )
    return low, high
