"""Writes a report's section of data sets that have several prompts, as T0 is evaluated:
the median over each set's prompts, its quartiles, and what the paper has beside it."""

from collections.abc import Mapping, Sequence

import numpy as np

from jobs.contract.exit_record import replace_unset
from jobs.contract.grid_record import Summaries
from launcher.grids import published
from launcher.reporting.data.grid_comparison import GridComparison
from launcher.reporting.data.run_groups import Group
from launcher.reporting.html import page as report_page
from launcher.reporting.html.page import NumberCell, number_cell
from zsg_core.metrics import summaries
from zsg_core.metrics.rank_classification import RANK_ACCURACY
from zsg_core.metrics.summaries import MEDIAN, Q1, Q3

MOST_POINTS = 12  # columns of the table
T0_TABLE = "t0-zero-shot"
# the rows of that table, by the names of P3's data sets
T0_ROWS = {
    "anli": "ANLI (mean of R1 to R3)",
    "hellaswag": "HellaSwag",
    "story_cloze_2016": "StoryCloze",
    "super_glue_cb": "CB",
    "super_glue_copa": "COPA",
    "super_glue_rte": "RTE",
    "super_glue_wic": "WiC",
    "super_glue_wsc.fixed": "WSC",
    "winogrande_winogrande_xl": "Winogrande XL",
}
NOTE = (
    "Of each data set the median over its prompts at the last checkpoint, in brackets the"
    " first and the third quartile (linear interpolation); of replicates the mean of each"
    " prompt is taken first. prompts/median/KEY is the mean of these medians."
)
BESIDE = "Published: as printed, of another model, data and number of prompts."


def make_prompt_section(comparison: GridComparison) -> list[str]:
    """The section as HTML; nothing where no data set has two prompts or more."""
    groups = [group for group in comparison.groups if group.items is not None]
    settings = replace_unset(comparison.record.summaries, Summaries())
    sets = _list_sets(groups, settings)
    if not any(count > 1 for count in sets.values()):
        return []
    metric = comparison.options.metric
    beside = _read_published(metric)
    note = f"{NOTE} {BESIDE}" if beside else NOTE
    return [
        report_page.render_heading(f"{metric} over the prompts of each data set"),
        _render_table(comparison, groups[:MOST_POINTS], sets, beside),
        report_page.render_paragraph(note, "faint"),
    ]


def _render_table(
    comparison: GridComparison,
    groups: Sequence[Group],
    sets: Mapping[str, int],
    beside: Mapping[str, Sequence[str]],
) -> str:
    """A line for each data set of `sets`, which has so many prompts: a column for each
    point, and one for what the paper has, where there are rows `beside`."""
    settings = replace_unset(comparison.record.summaries, Summaries())
    by_group = [_summarize(group, settings) for group in groups]
    headings = ["data set", "prompts"]
    for group in groups:
        headings.append(comparison.full_label(group) or comparison.options.metric)
    if beside:
        headings.append("T0 11B, published")
    rows: list[list[NumberCell | str]] = []
    for name, count in sets.items():
        row: list[NumberCell | str] = [name, NumberCell(count, str(count))]
        for summarized in by_group:
            row.append(_make_cell(summarized.get(name)))
        if beside:
            row.append(_make_published_cell(name, beside))
        rows.append(row)
    return report_page.render_table(headings, rows)


def _list_sets(groups: Sequence[Group], settings: Summaries) -> dict[str, int]:
    """The data sets of some points, each with its number of prompts."""
    sets: dict[str, int] = {}
    for group in groups:
        if group.items is not None:
            by_set = summaries.group_prompts(group.items.names, settings.data_sets)
            for name, columns_of_set in by_set.items():
                sets.setdefault(name, len(columns_of_set))
    return sets


def _summarize(
    group: Group, settings: Summaries
) -> dict[str, tuple[float, float, float]]:
    """Of each data set the median and the quartiles at the last step."""
    items = group.items
    if items is None or not items.steps:
        return {}
    last = items.by_task[-1:]
    summary: dict[str, tuple[float, float, float]] = {}
    groups = summaries.group_prompts(items.names, settings.data_sets)
    for name, columns_of_set in groups.items():
        values = last[:, columns_of_set]
        median, low, high = (
            float(summaries.summarize_prompts(values, kind)[0])
            for kind in (MEDIAN, Q1, Q3)
        )
        summary[name] = median, low, high
    return summary


def _make_cell(summary: tuple[float, float, float] | None) -> NumberCell:
    """A median with its quartiles in brackets; a dash where a point lacks the data set, and
    the median alone where all prompts are the same."""
    if summary is None or not np.isfinite(summary).all():
        return number_cell(None)
    median, low, high = summary
    if low == high:
        return number_cell(median)
    return NumberCell(median, f"{median:.4g} ({low:.4g} to {high:.4g})")


def _read_published(metric: str) -> Mapping[str, Sequence[str]]:
    """The rows of T0's table by their names, for the metric that it is of; nothing for
    any other."""
    if metric != RANK_ACCURACY:
        return {}
    return {row[0]: row for row in published.read_table(T0_TABLE).rows}


def _make_published_cell(name: str, rows: Mapping[str, Sequence[str]]) -> NumberCell:
    """What the paper has of a data set: the median where it was found, else the mean."""
    row = rows.get(T0_ROWS.get(name.rpartition("/")[2], ""))
    if row is None:
        return number_cell(None)
    _, mean, _, median = row
    if median:
        return NumberCell(float(median), f"{median} median")
    if mean:
        return NumberCell(float(mean), f"{mean} mean")
    return number_cell(None)
