"""Writes the sections of a report: what is missing, curves, final values, sudden drops,
what they stand on."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from jobs.contract.grid_record import GridRecord
from jobs.contract.states import RecordedState
from jobs.deciding import recorded_runs, run_axes
from jobs.deciding.judged_claims import JudgedClaim
from jobs.deciding.run_axes import last_word
from launcher.reporting.data.grid_comparison import GridComparison
from launcher.reporting.data.run_groups import SPARED, Group, Member, Summary
from launcher.reporting.data.state_maps import StateMaps
from launcher.reporting.figures import curve_panels, line_charts
from launcher.reporting.figures.curve_panels import X_LABELS
from launcher.reporting.figures.line_charts import Panel
from launcher.reporting.html import (
    map_section,
    metric_section,
    prompt_section,
    task_section,
    verdict_section,
)
from launcher.reporting.html import page as report_page
from launcher.reporting.html.page import estimate_cell, interval_cell, number_cell
from zsg_core.metrics.means import is_over_items
from zsg_core.stats import curves
from zsg_core.stats.curves import Drop

MOST_NAMED = 12
INTERVALS = ("replicates", "items", "tasks")
MOST_DROPS, FEW_DROPS = 20, 5
DRAWN_TASKS = 12  # test tasks that have a panel


TaskDrop = tuple[Group, Member, Drop]


def make_sections(
    comparison: GridComparison,
    summaries: Sequence[tuple[Summary, Summary] | None],
    drops: Sequence[tuple[Group, Member, Drop]],
    drawn: Sequence[Panel],
    decided: Sequence[JudgedClaim],
    maps: StateMaps,
) -> list[str]:
    """The sections as HTML; `summaries` are those of the groups, `drawn` the panels by axis."""
    points = sum(len(line.x) for panel in drawn for line in panel.lines)
    hover = points <= line_charts.MOST_HOVERED
    number_of_panels = len(drawn) + len(verdict_section.make_verdict_panels(decided))
    return [
        *_head(comparison),
        *_curves(comparison, drawn, hover),
        *metric_section.make_metric_section(comparison),
        *metric_section.make_way_section(comparison),
        *verdict_section.make_verdict_section(decided, len(drawn)),
        *verdict_section.make_deviation_section(comparison.record),
        *_finals(comparison, summaries),
        *prompt_section.make_prompt_section(comparison),
        *task_section.make_task_section(comparison),
        *_drops(comparison, drops, number_of_panels, hover),
        *map_section.make_map_section(maps),
        *_stands_on(comparison),
    ]


def _head(comparison: GridComparison) -> list[str]:
    """The title, how far the runs have come, and what is missing."""
    members = comparison.members
    when = time.strftime("%Y-%m-%d %H:%M %Z")
    summary = (
        f"{_count_done(members)} of {len(members)} runs done; metric"
        f" {comparison.options.metric}; written {when}."
    )
    head = [
        report_page.render_title(comparison.name),
        report_page.render_paragraph(summary, "faint"),
        *_tell_spared(members),
    ]
    if missing := _missing(comparison):
        head.append(report_page.render_warning("What is missing or in doubt", missing))
    if flags := metric_section.list_flags(comparison):
        head.append(_warn_of_flags(flags))
    return head


def _warn_of_flags(flags: Sequence[str]) -> str:
    """What is likely to be broken, the first few in full."""
    lines = list(flags[:MOST_NAMED])
    unnamed = len(flags) - MOST_NAMED
    if unnamed > 0:
        lines.append(f"… and {unnamed} more, which the table of metrics has")
    return report_page.render_warning("Likely broken", lines)


def _tell_spared(members: Sequence[Member]) -> list[str]:
    """How many runs a look has spared; nothing where none has."""
    count = sum(member.state == SPARED for member in members)
    if not count:
        return []
    are = "1 run is" if count == 1 else f"{count} runs are"
    text = f"{are} spared: a look ended the study before their held-out splits began."
    return [report_page.render_paragraph(text)]


def _count_done(members: Sequence[Member]) -> int:
    """How many runs have come to their end."""
    return sum(member.state == RecordedState.DONE for member in members)


def _curves(
    comparison: GridComparison, drawn: Sequence[Panel], hover: bool
) -> list[str]:
    """The section of the large figures: their legend, the panels, which points have no
    curve and why, and what a band is."""
    options = comparison.options
    panels = [
        (panel.title, line_charts.draw_svg(panel, number, hover))
        for number, panel in enumerate(drawn)
    ]
    return [
        report_page.render_heading(f"{options.metric} by {X_LABELS[options.x]}"),
        *_colour_legend(comparison),
        report_page.render_panels(panels),
        *_without_curve(comparison),
        report_page.render_paragraph(_bands(comparison), "faint"),
    ]


def _without_curve(comparison: GridComparison) -> list[str]:
    """Which points have no curve, and why; nothing where all have one."""
    reasons = [
        f"{comparison.full_label(group) or comparison.name}: {_explain_no_curve(group)}"
        for group in comparison.groups
        if not group.steps
    ]
    if not reasons:
        return []
    unnamed = len(reasons) - MOST_NAMED
    further = f"; and {unnamed} more" if unnamed > 0 else ""
    text = f"No curve: {'; '.join(reasons[:MOST_NAMED])}{further}."
    return [report_page.render_paragraph(text)]


def _explain_no_curve(group: Group) -> str:
    """Why the runs of a point make no curve."""
    if group.averaged:
        return "its replicates have no step in common at which all have a value"
    if all(member.state == SPARED for member in group.members):
        return SPARED
    states = Counter(str(member.state) for member in group.members)
    words = [f"{count} {state}" for state, count in states.items()]
    return f"no value yet ({', '.join(words)})"


def _colour_legend(comparison: GridComparison) -> list[str]:
    """Which colour is whose, of what is drawn; nothing where there is but one."""
    if not comparison.colour_keys:
        return []
    title = _names(comparison.colour_keys)
    drawn = {
        comparison.label(group)
        for group in comparison.groups
        if group.steps or group.apart
    }
    colours = {
        label: number for label, number in comparison.colours.items() if label in drawn
    }
    return [report_page.render_legend(title, colours)]


def _style_legend(comparison: GridComparison) -> list[str]:
    """Which style of line is of which panel; nothing where there is one panel."""
    if not comparison.panel:
        return []
    return [report_page.render_style_legend("", comparison.styles)]


def _bands(comparison: GridComparison) -> str:
    """What a band, a thin line and a dotted line mean, in sentences."""
    sentences = [_band_sentence(comparison)]
    if any(group.apart for group in comparison.groups):
        sentences.append(
            "Thin dashed lines are runs that broke off or lag behind; no mean holds them."
        )
    if comparison.most_stages > 1:
        sentences.append(
            "A dotted line, or where curves differ a bar across each, is where the next stage"
            " begins."
        )
    return " ".join([*sentences, "Values show where the mouse rests on a point."])


def _band_sentence(comparison: GridComparison) -> str:
    """What the bands of the curves are of, or that no curve has one."""
    banded = [len(group.averaged) for group in comparison.groups if group.has_band]
    if not banded:
        return "No point of this grid has replicates that are done, so no curve has a band."
    fewest, largest = min(banded), max(banded)
    count = f"{fewest}" if fewest == largest else f"{fewest} to {largest}"
    splits = ", and in held-out splits" if comparison.options.over_splits else ""
    return (
        f"A curve with a band is the mean of {count} replicates, which differ only in seeds"
        f" that take effect{splits}; the band reaches from the lowest to the highest of them."
    )


def _missing(comparison: GridComparison) -> list[str]:
    """What a reader must know first: runs that failed, lag behind, lack the metric, ran
    changed code, or are left out."""
    lines = list(comparison.troubles[:MOST_NAMED])
    unnamed = len(comparison.troubles) - MOST_NAMED
    if unnamed > 0:
        lines.append(f"… and {unnamed} more that failed, were cancelled or are flagged")
    labels = _label_runs(comparison)
    for state in (RecordedState.NOT_FINISHED, RecordedState.NOT_BEGUN):
        runs = [
            labels[member.run] for member in comparison.members if member.state == state
        ]
        if runs:
            count = f", … ({len(runs)})" if len(runs) > MOST_NAMED else ""
            lines.append(f"{state}: {_first_names(runs)}{count}")
    if without := _runs_without_metric(comparison.members):
        metric = comparison.options.metric
        lines.append(f"done, but without {metric}: {_first_names(without)}")
    if dirty := _count_uncommitted(comparison.facts):
        lines.append(
            f"{dirty} of {len(comparison.facts)} runs ran code with uncommitted changes"
        )
    if former := _former_runs(comparison.record):
        lines.append(
            f"left out, as the grid no longer lists them: {_first_names(former)}"
        )
    return lines


def _label_runs(comparison: GridComparison) -> dict[str, str]:
    """Each run by its id, and what its curve is called."""
    labels: dict[str, str] = {}
    for group in comparison.groups:
        name = comparison.full_label(group)
        for member in group.members:
            labels[member.run] = f"{member.run} ({name})" if name else member.run
    return labels


def _first_names(runs: Sequence[str]) -> str:
    """The names of a few runs or tasks, as a list in a sentence."""
    return ", ".join(runs[:MOST_NAMED])


def _runs_without_metric(members: Sequence[Member]) -> list[str]:
    """The runs that are done and have no value of the metric."""
    finished = [member for member in members if member.state == RecordedState.DONE]
    return [member.run for member in finished if not member.values]


def _count_uncommitted(facts: Sequence[Mapping[str, str]]) -> int:
    """How many runs ran code that was changed after its last commit."""
    return sum(
        recorded_runs.UNCOMMITTED in run_facts.get("commit", "") for run_facts in facts
    )


def _former_runs(record: GridRecord) -> list[str]:
    """The runs that the grid no longer lists, without those that are stages of others."""
    return [row.run for row in record.former if not row.is_stage]


def _finals(
    comparison: GridComparison, summaries: Sequence[tuple[Summary, Summary] | None]
) -> list[str]:
    """The section of final values and areas, with what their intervals are of."""
    metric = comparison.options.metric
    rows = [
        _final_row(comparison, group, summary)
        for group, summary in zip(comparison.groups, summaries, strict=True)
    ]
    note = (
        "Area: under the curve over steps, by the trapezoidal rule, divided by the span: in the"
        f" metric's unit. {_mean_of(metric)} All intervals are of 95 %, and of that"
        " mean. Replicates: Student's t over runs, the only one that tells of other seeds. Items:"
        f" bootstrap over test items ({curves.REPEATS} draws, seed 0). Tasks: the same, drawing"
        " whole test tasks, as items of a task are alike. Both tell of other test items, not of"
        " another training; there is none where items have no value in some runs or at some steps."
        " Decimals are those that the narrowest interval bears out. Click a heading to sort."
    )
    areas = [
        _area_row(comparison, group, summary)
        for group, summary in zip(comparison.groups, summaries, strict=True)
    ]
    return [
        report_page.render_heading("Final values and areas"),
        report_page.render_table(_final_headings(comparison), rows),
        report_page.render_table(_area_headings(comparison), areas),
        report_page.render_paragraph(note, "faint"),
    ]


def _final_headings(comparison: GridComparison) -> list[str]:
    """The headings of the table of final values, in the order of `_final_row`."""
    stages = range(1, comparison.most_stages)
    return [
        *map(last_word, comparison.keys),
        "runs",
        *(f"after stage {number}" for number in stages),
        "last step",
        f"final {comparison.options.metric}",
        *(f"final ± {kind}" for kind in INTERVALS),
    ]


def _area_headings(comparison: GridComparison) -> list[str]:
    """The headings of the table of areas, in the order of `_area_row`."""
    return [
        *map(last_word, comparison.keys),
        f"area of {comparison.options.metric}",
        *(f"area ± {kind}" for kind in INTERVALS),
    ]


def _area_row(
    comparison: GridComparison,
    group: Group,
    summaries: tuple[Summary, Summary] | None,
) -> list[Any]:
    """The cells of a group: its axes, and the area under its curve."""
    cells = _summary_cells(summaries[1]) if summaries else [number_cell(None)] * 4
    return [*(_axis_cell(group.axes.get(key)) for key in comparison.keys), *cells]


def _final_row(
    comparison: GridComparison,
    group: Group,
    summaries: tuple[Summary, Summary] | None,
) -> list[Any]:
    """The cells of a group: its axes, runs, ends of stages and last value."""
    stages = comparison.most_stages - 1
    ends = [value for _, value in group.stage_ends] + [None] * stages
    last_step = float(group.steps[-1]) if group.steps else None
    values = _summary_cells(summaries[0]) if summaries else [number_cell(None)] * 4
    return [
        *(_axis_cell(group.axes.get(key)) for key in comparison.keys),
        f"{_count_done(group.members)} of {len(group.members)}",
        *map(number_cell, ends[:stages]),
        number_cell(last_step, 12),
        *values,
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
    """The value of an axis, which sorts as a number where it is one."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return (
        report_page.NumberCell(float(value), run_axes.axis_text(value))
        if is_number
        else run_axes.axis_text(value)
    )


def _summary_cells(summary: Summary) -> list[Any]:
    """A value and its intervals, in the order of INTERVALS."""
    intervals = [summary.seeds, summary.items, summary.tasks]
    return [
        estimate_cell(summary.value, intervals),
        *map(interval_cell, intervals),
    ]


def _drops(
    comparison: GridComparison,
    drops: Sequence[tuple[Group, Member, Drop]],
    first: int,
    hover: bool,
) -> list[str]:
    """The section of test tasks and their sudden drops; its panels are numbered from
    `first`."""
    if not drops:
        return _explain_no_tasks(comparison)
    sudden = [row for row in drops if row[2].is_sudden]
    all_of_them = "" if comparison.options.is_alone else " (all in drops.csv)"
    listed = sudden[:MOST_DROPS] or drops[:FEW_DROPS]
    note = (
        "Of every run and test task, the fall between neighbouring checkpoints that goes most"
        " beyond the mean fall of all tasks there. × usual: how many times the task's median"
        f" change between its other checkpoints; beyond 3 it is sudden, as are {len(sudden)} of"
        f" {len(drops)}{all_of_them}. Grey: a task's first fall in the table. – where a task"
        " has no other checkpoints."
    )
    ordered = _order_tasks(comparison, [*listed, *drops])
    return [
        report_page.render_heading("Test tasks and their sudden drops"),
        report_page.render_table(
            _drop_headings(comparison), [_drop_row(comparison, *row) for row in listed]
        ),
        report_page.render_paragraph(note, "faint"),
        *_colour_legend(comparison),
        *_style_legend(comparison),
        report_page.render_panels(
            _draw_tasks(comparison, ordered, first, hover), small=True
        ),
        report_page.render_paragraph(_tell_undrawn(list(ordered)), "faint"),
    ]


def _explain_no_tasks(comparison: GridComparison) -> list[str]:
    """Why there are no curves of test tasks; nothing where no run has a value."""
    if not any(group.steps for group in comparison.groups):
        return []
    metric = comparison.options.metric
    if any(group.items for group in comparison.groups):
        why = "no test task has values at two checkpoints yet"
    else:
        why = (
            f"no run has recorded {metric} of each test item, of the same items at the same steps"
            " in all replicates of a point"
        )
    return [report_page.render_paragraph(f"No curves of test tasks: {why}.", "faint")]


def _order_tasks(
    comparison: GridComparison, drops: Sequence[TaskDrop]
) -> dict[str, list[TaskDrop]]:
    """Every test task with its falls, that which falls most first; those without a fall last."""
    by_task: dict[str, list[TaskDrop]] = {}
    for row in drops:
        by_task.setdefault(row[2].task, []).append(row)
    for group in comparison.groups:
        for task in group.items.names if group.items else ():
            by_task.setdefault(task, [])
    return by_task


def _tell_undrawn(tasks: Sequence[str]) -> str:
    """Which test tasks have a panel, and which not, with the reason."""
    undrawn = tasks[DRAWN_TASKS:]
    if not undrawn:
        return f"All {len(tasks)} test tasks have a panel, those that fall most first."
    further = ", …" if len(undrawn) > MOST_NAMED else ""
    return (
        f"Of {len(tasks)} test tasks the {DRAWN_TASKS} that fall most suddenly have a panel."
        f" Without one, as others fall more: {_first_names(undrawn)}{further}."
    )


def _drop_headings(comparison: GridComparison) -> list[str]:
    """The headings of the table of falls, in the order of `_drop_row`."""
    return [
        "task",
        *map(last_word, comparison.keys),
        "run",
        *(["stage"] if comparison.most_stages > 1 else []),
        "from step",
        "to step",
        "falls by",
        "all tasks",
        "× usual",
    ]


def _drop_row(
    comparison: GridComparison, group: Group, member: Member, drop: Drop
) -> list[Any]:
    """The cells of a fall: its task, its run, where it is, and how large."""
    stage = member.stage_after(drop.start)
    return [
        drop.task,
        *(_axis_cell(group.axes.get(key)) for key in comparison.keys),
        member.run,
        *([number_cell(stage)] if comparison.most_stages > 1 else []),
        number_cell(drop.start, 12),
        number_cell(drop.end, 12),
        number_cell(drop.size, 3),
        number_cell(drop.shared, 3),
        number_cell(drop.times_usual, 3),
    ]


def _draw_tasks(
    comparison: GridComparison,
    tasks: Mapping[str, Sequence[TaskDrop]],
    first: int,
    hover: bool,
) -> list[tuple[str, str]]:
    """A small panel, with its title, of each of the first tasks."""
    panels = [
        curve_panels.make_task_panel(comparison, task, tasks[task])
        for task in list(tasks)[:DRAWN_TASKS]
    ]
    return [
        (panel.title, line_charts.draw_svg(panel, number, hover, small=True))
        for number, panel in enumerate(panels, start=first)
    ]


def _names(keys: Sequence[str]) -> str:
    """What a legend is called: by the one axis that its colours are of."""
    return last_word(keys[0]) if len(keys) == 1 else ""


def _stands_on(comparison: GridComparison) -> list[str]:
    """The section that says what all runs share, in what each differs, and which files
    lie beside the page."""
    names = list(dict.fromkeys(name for facts in comparison.facts for name in facts))
    shared = _shared_facts(comparison.facts, names)
    differing = [name for name in names if name not in shared]
    listed = comparison.record.runs
    axes = list(dict.fromkeys(key for row in listed for key in row.axes))
    rows = [
        [
            *(facts.get(name, "") for name in differing),
            *(run_axes.axis_text(row.axes.get(key)) for key in axes),
        ]
        for facts, row in zip(comparison.facts, listed, strict=True)
    ]
    return [
        report_page.render_heading("What it stands on"),
        report_page.render_paragraph("All runs share:"),
        report_page.render_facts({"grid": comparison.name, **shared}),
        report_page.render_folded(
            f"The {len(rows)} runs, and what differs",
            report_page.render_table([*differing, *axes], rows),
        ),
        report_page.render_paragraph(_name_beside(comparison), "faint"),
    ]


def _name_beside(comparison: GridComparison) -> str:
    """Which files lie beside the page, in a sentence."""
    if comparison.options.is_alone:
        return "This page is one file and needs no other; zsg export has every value."
    return (
        "Beside this page: curves.png and curves.pdf, curves.csv (what is drawn), finals.csv,"
        " drops.csv, metrics.parquet (every value of every run)."
    )


def _shared_facts(
    facts: Sequence[Mapping[str, str]], names: Sequence[str]
) -> dict[str, str]:
    """The facts that are the same of all runs."""
    shared = dict[str, str]()
    for name in names:
        values = {run_facts.get(name, "") for run_facts in facts}
        if len(values) == 1 and name not in ("run", "state"):
            shared[name] = values.pop()
    return shared
