"""Writes the sections of a report: what is missing, curves, final values, sudden drops,
what they stand on."""

import time
from collections.abc import Sequence
from typing import Any

from jobs.contract.states import RecordedState
from launcher.reporting.data import recorded_runs, run_groups
from launcher.reporting.data.grid_comparison import GridComparison
from launcher.reporting.data.run_groups import Group, Member, Summary, last_word
from launcher.reporting.data.state_maps import StateMaps
from launcher.reporting.data.verdicts import JudgedClaim
from launcher.reporting.figures import curve_panels, line_charts
from launcher.reporting.figures.curve_panels import X_LABELS
from launcher.reporting.figures.line_charts import Panel
from launcher.reporting.html import map_section, verdict_section
from launcher.reporting.html import page as report_page
from launcher.reporting.html.page import interval_cell, number_cell
from zsg_core.metrics.means import is_over_items
from zsg_core.stats import curves
from zsg_core.stats.curves import Drop

MOST_NAMED = 12
MOST_DROPS, FEW_DROPS, DRAWN_DROPS = 20, 5, 6

Rows = list[Sequence[Any]]


def make_sections(
    found: GridComparison,
    summed: Sequence[tuple[Summary, Summary] | None],
    drops: Sequence[tuple[Group, Member, Drop]],
    drawn: Sequence[Panel],
    decided: Sequence[JudgedClaim],
    maps: StateMaps,
) -> list[str]:
    """The sections as HTML; `summed` are those of the groups, `drawn` the panels by axis."""
    hover = (
        sum(len(line.x) for panel in drawn for line in panel.lines)
        <= line_charts.MOST_HOVERED
    )
    done = sum(one.state == RecordedState.DONE for one in found.members)
    when = time.strftime("%Y-%m-%d %H:%M %Z")
    summary = (
        f"{done} of {len(found.members)} runs done; metric {found.options.metric};"
        f" written {when}."
    )
    parts = [
        report_page.render_title(found.name),
        report_page.render_paragraph(summary, "faint"),
    ]
    missing = _missing(found)
    parts += (
        [report_page.render_warning("What is missing or in doubt", missing)]
        if missing
        else []
    )
    parts += [
        report_page.render_heading(
            f"{found.options.metric} by {X_LABELS[found.options.x]}"
        )
    ]
    parts += (
        [report_page.render_legend(_names(found.colour_keys), found.colours)]
        if found.colour_keys
        else []
    )
    parts += [
        report_page.render_panels(
            (panel.title, line_charts.draw_svg(panel, n, hover))
            for n, panel in enumerate(drawn)
        )
    ]
    parts += [report_page.render_paragraph(_bands(found), "faint")]
    parts += verdict_section.make_verdict_section(decided, len(drawn))
    others = len(drawn) + len(verdict_section.make_verdict_panels(decided))
    parts += _finals(found, summed) + _drops(found, drops, others, hover)
    parts += map_section.make_map_section(maps) + _stands_on(found)
    return parts


def _bands(found: GridComparison) -> str:
    banded = [len(group.averaged) for group in found.groups if group.has_band]
    if banded:
        least, most = min(banded), max(banded)
        count = f"{least}" if least == most else f"{least} to {most}"
        splits = ", and in held-out splits" if found.options.over_splits else ""
        text = (
            f"A curve with a band is the mean of {count} replicates, which differ only in seeds"
            " that take effect"
        )
        text += f"{splits}; "
        text += "the band reaches from the lowest to the highest of them. "
    else:
        text = "No point of this grid has replicates that are done, so no curve has a band. "
    apart = any(group.apart for group in found.groups)
    text += (
        "Thin dashed lines are runs that broke off or lag behind; no mean holds them. "
        if apart
        else ""
    )
    staged = (
        "A dotted line, or where curves differ a bar across each, is where the next stage"
        " begins. "
    )
    text += staged if found.most_stages > 1 else ""
    return text + "Values show where the mouse rests on a point."


def _missing(found: GridComparison) -> list[str]:
    lines = list(found.troubles[:MOST_NAMED])
    if len(found.troubles) > MOST_NAMED:
        lines.append(
            f"… and {len(found.troubles) - MOST_NAMED} more that failed, were cancelled or are"
            " flagged"
        )
    for state in (RecordedState.NOT_FINISHED, RecordedState.NOT_BEGUN):
        of = [one.run for one in found.members if one.state == state]
        if of:
            more = f", … ({len(of)})" if len(of) > MOST_NAMED else ""
            lines.append(f"{state}: {', '.join(of[:MOST_NAMED])}{more}")
    without = [
        one.run
        for one in found.members
        if one.state == RecordedState.DONE and not one.values
    ]
    lines += (
        [f"done, but without {found.options.metric}: {', '.join(without[:MOST_NAMED])}"]
        if without
        else []
    )
    dirty = sum(
        recorded_runs.UNCOMMITTED in one.get("commit", "") for one in found.facts
    )
    lines += (
        [f"{dirty} of {len(found.facts)} runs ran code with uncommitted changes"]
        if dirty
        else []
    )
    former = [
        row["run"] for row in found.record.get("former", []) if not row.get("is_stage")
    ]
    lines += (
        [
            f"left out, as the grid no longer lists them: {', '.join(former[:MOST_NAMED])}"
        ]
        if former
        else []
    )
    return lines


def _finals(
    found: GridComparison, summed: Sequence[tuple[Summary, Summary] | None]
) -> list[str]:
    of_final, of_area = (
        [f"{name} ± {kind}" for kind in ("replicates", "items", "tasks")]
        for name in ("final", "area")
    )
    names = [last_word(key) for key in found.keys]
    stages = [f"after stage {number}" for number in range(1, found.most_stages)]
    headings = [
        *names,
        "runs",
        *stages,
        "last step",
        f"final {found.options.metric}",
        *of_final,
        "area",
        *of_area,
    ]
    rows: Rows = []
    for group, of in zip(found.groups, summed, strict=True):
        done = sum(one.state == RecordedState.DONE for one in group.members)
        axes = [_axis_cell(group.axes.get(key)) for key in found.keys]
        runs = f"{done} of {len(group.members)}"
        values = (
            [cell for one in of for cell in _summary_cells(one)]
            if of
            else [number_cell(None)] * 8
        )
        ends = [value for _, value in group.stage_ends] + [None] * len(stages)
        ended = [number_cell(value) for value in ends[: len(stages)]]
        rows.append(
            [
                *axes,
                runs,
                *ended,
                number_cell(float(group.steps[-1]) if group.steps else None, 12),
                *values,
            ]
        )
    note = (
        "Area: under the curve over steps, by the trapezoidal rule, divided by the span: in the"
        f" metric's unit. {_mean_of(found.options.metric)} All intervals are of 95 %, and of that"
        " mean. Replicates: Student's t over runs, the only one that tells of other seeds. Items:"
        f" bootstrap over test items ({curves.REPEATS} draws, seed 0). Tasks: the same, drawing"
        " whole test tasks, as items of a task are alike. Both tell of other test items, not of"
        " another training; there is none where items have no value in some runs or at some steps."
        " Click a heading to sort."
    )
    return [
        report_page.render_heading("Final values and areas"),
        report_page.render_table(headings, rows),
        report_page.render_paragraph(note, "faint"),
    ]


def _mean_of(metric: str) -> str:
    """What a value of the table is the mean over, in a sentence."""
    over = (
        "test items"
        if is_over_items(metric)
        else "test tasks, each of which counts the same however many items it has"
    )
    return f"A value of {metric} is the mean over {over}."


def _axis_cell(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return (
        report_page.NumberCell(float(value), run_groups.axis_text(value))
        if is_number
        else run_groups.axis_text(value)
    )


def _summary_cells(one: Summary) -> list[Any]:
    return [
        number_cell(one.value),
        interval_cell(one.seeds),
        interval_cell(one.items),
        interval_cell(one.tasks),
    ]


def _drops(
    found: GridComparison,
    drops: Sequence[tuple[Group, Member, Drop]],
    first: int,
    hover: bool,
) -> list[str]:
    if not drops:
        return []
    shown = [row for row in drops if row[2].is_sudden][:MOST_DROPS] or drops[:FEW_DROPS]
    staged = found.most_stages > 1
    headings = [
        "task",
        *map(last_word, found.keys),
        "run",
        *(["stage"] if staged else []),
        "from step",
        "to step",
    ]
    headings += ["falls by", "all tasks", "× usual"]
    rows: Rows = [
        [
            drop.task,
            *(_axis_cell(group.axes.get(key)) for key in found.keys),
            one.run,
            *([number_cell(one.stage_after(drop.start))] if staged else []),
            number_cell(drop.start, 12),
            number_cell(drop.end, 12),
            number_cell(drop.size, 3),
            number_cell(drop.shared, 3),
            number_cell(drop.times_usual, 3),
        ]
        for group, one, drop in shown
    ]
    sudden = sum(drop.is_sudden for *_, drop in drops)
    note = (
        "Of every run and test task, the fall between neighbouring checkpoints that goes most"
        " beyond the mean fall of all tasks there. × usual: how many times the task's median"
        f" change between its other checkpoints; beyond 3 it is sudden, as are {sudden} of"
        f" {len(drops)} (all in drops.csv). Grey: a task's first fall in the table."
    )
    of_task: dict[str, list[tuple[Group, Member, Drop]]] = {}
    for row in [*shown, *drops]:
        of_task.setdefault(row[2].task, []).append(row)
    chosen = list(dict.fromkeys(drop.task for *_, drop in [*shown, *drops]))[
        :DRAWN_DROPS
    ]
    panels = [
        curve_panels.make_task_panel(found, task, of_task[task]) for task in chosen
    ]
    drawn = [
        (one.title, line_charts.draw_svg(one, first + n, hover, small=True))
        for n, one in enumerate(panels)
    ]
    legend = (
        report_page.render_legend(_names(found.colour_keys), found.colours)
        if found.colour_keys
        else ""
    )
    styles = report_page.render_style_legend("", found.styles) if found.panel else ""
    return [
        report_page.render_heading("Sudden drops of test tasks"),
        report_page.render_table(headings, rows),
        report_page.render_paragraph(note, "faint"),
        legend,
        styles,
        report_page.render_panels(drawn, small=True),
    ]


def _names(keys: Sequence[str]) -> str:
    return last_word(keys[0]) if len(keys) == 1 else ""


def _stands_on(found: GridComparison) -> list[str]:
    names = list(dict.fromkeys(name for one in found.facts for name in one))
    values = {name: {one.get(name, "") for one in found.facts} for name in names}
    shared = {
        name: next(iter(of))
        for name, of in values.items()
        if len(of) == 1 and name not in ("run", "state")
    }
    others = [name for name in names if name not in shared]
    axes = list(
        dict.fromkeys(key for row in found.record["runs"] for key in row["axes"])
    )
    rows = [
        [
            *(one.get(name, "") for name in others),
            *(run_groups.axis_text(row["axes"].get(key)) for key in axes),
        ]
        for one, row in zip(found.facts, found.record["runs"], strict=True)
    ]
    beside = (
        "Beside this page: curves.png and curves.pdf, curves.csv (what is drawn), finals.csv,"
        " drops.csv, "
    )
    beside += "metrics.parquet (every value of every run)."
    return [
        report_page.render_heading("What it stands on"),
        report_page.render_paragraph("All runs share:"),
        report_page.render_facts({"grid": found.name, **shared}),
        report_page.render_folded(
            f"The {len(rows)} runs, and what differs",
            report_page.render_table([*others, *axes], rows),
        ),
        report_page.render_paragraph(beside, "faint"),
    ]
