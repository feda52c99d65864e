"""Makes a grid's report: one page of curves, tables and what they stand on, with the figure and the numbers beside it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.folder import Workspace, write_text
from launcher import comparison, frames, grid_record, recorded, report_figure, report_page
from launcher.comparison import Group, Member, Summary
from launcher.recorded import DONE
from launcher.report_figure import Line, Panel
from launcher.report_page import interval, number
from zsg_core import curves
from zsg_core.curves import Drop
from zsg_core.errors import UserError

MOST_PANELS = 24
BESIDE = ("curves.png", "curves.pdf", "curves.csv", "finals.csv", "drops.csv", "metrics.parquet")
MOST_NAMED = 12
MOST_DROPS, DRAWN_DROPS = 60, 6
FALLEN = 0.9  # of the mean curve's fall: what comes after it is drawn again on its own scale
X_LABELS = {"step": "step", "examples": "examples trained on", "tokens": "tokens trained on"}

Rows = list[Sequence[Any]]


@dataclass(frozen=True)
class Asked:
    """What a report shows: a metric, over what, with a panel for each value of which axis."""

    metric: str = "loss"
    x: str = "step"
    panel: str | None = None


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
        return comparison.label(group.axes, self.colour_keys) if self.colour_keys else self.asked.metric

    @property
    def colours(self) -> dict[str, int]:
        """The number of each curve's colour, the same in every panel."""
        return {name: place for place, name in enumerate(dict.fromkeys(self.label(group) for group in self.groups))}


def write(place: Workspace, name: str, asked: Asked, out: Path | None = None) -> Path:
    """Writes the report of a grid and returns the page's path; `out` is a folder. Replaces an older report.

    UserError for an unknown grid, a metric that no run has, an axis in which the runs do not differ.
    """
    folder = out or place.grid(name) / "report"
    record = grid_record.read(place, name)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with frames.Writer(folder / "metrics.parquet", frames.metric_schema(record["runs"])) as kept:
        found = _read(place, record, asked, kept)
    summed = comparison.summaries(found.groups)
    drops = comparison.drops(found.groups)
    panels = _panels(found)
    drawn = [one for panel in panels for one in _with_later(panel, found)]
    report_figure.picture(
        drawn, [folder / "curves.png", folder / "curves.pdf"], f"{found.name}: {asked.metric} by {asked.x}"
    )
    frames.write_csv(folder / "curves.csv", _curve_columns(found))
    frames.write_csv(folder / "finals.csv", _final_columns(found, summed))
    frames.write_csv(folder / "drops.csv", _drop_columns(found, drops))
    page = folder / "report.html"
    write_text(page, report_page.page(f"zsg report: {found.name}", _parts(found, summed, drops, drawn)))
    return page


def _read(place: Workspace, record: dict[str, Any], asked: Asked, kept: "frames.Writer") -> Found:
    members, facts, troubles, keys = [], [], [], dict[str, None]()
    for run in recorded.runs(place, record):
        members.append(comparison.member(run, asked.metric, asked.x))
        facts.append(run.facts())
        troubles += _troubles(run)
        keys |= dict.fromkeys(run.keys())
        kept.add(frames.metric_columns(run))
    if asked.metric not in keys and keys:
        raise UserError(f"--metric {asked.metric}: no run has it; there are {', '.join(sorted(keys))}")
    if not keys:
        raise UserError(f"grid {record['name']}: no run has recorded a value yet; zsg status shows where they stand")
    groups = comparison.groups(members)
    axes = comparison.differing(groups)
    panel = comparison.panel_axis(axes, groups, asked.panel)
    values = {comparison.text(group.axes.get(panel)) for group in groups} if panel else set()
    if len(values) > MOST_PANELS:
        if asked.panel:
            raise UserError(f"--panel {asked.panel}: {len(values)} values; a page has at most {MOST_PANELS} panels")
        panel = None
    return Found(record["name"], asked, record, members, facts, troubles, groups, axes, panel)


def _troubles(run: recorded.Recorded) -> list[str]:
    told = []
    if run.state not in (DONE, recorded.OPEN, recorded.ABSENT):
        step = run.end.get("step")
        cause = ": ".join(str(run.end[key]) for key in ("cause", "evidence") if run.end.get(key))
        told.append(
            f"{run.run} {run.state}{f' at step {step}' if step is not None else ''}{f': {cause}' if cause else ''}"
        )
    if run.flags:
        told.append(f"{run.run} is flagged: a restart computed other values ({len(run.flags)}): {run.flags[0]}")
    return told


def _panels(found: Found) -> list[Panel]:
    """One panel for each value of the panel axis, on one vertical scale."""
    of: dict[str, list[Line]] = {}
    for group in found.groups:
        title = (
            f"{found.panel.rpartition('.')[2]} {comparison.text(group.axes.get(found.panel))}" if found.panel else ""
        )
        of.setdefault(title, []).extend(_lines(group, found))
    values = [y for lines in of.values() for line in lines for y in (line.low or line.y) + (line.high or line.y)]
    finite = [y for y in values if abs(y) < float("inf")]
    room = 0.04 * (max(finite) - min(finite)) if finite else 0
    limits = (min(finite) - room, max(finite) + room) if len(of) > 1 and room else None
    labels = X_LABELS[found.asked.x], found.asked.metric
    return [Panel(title, lines, *labels, limits) for title, lines in of.items()]


def _lines(group: Group, found: Found) -> list[Line]:
    name = found.label(group)
    colour = found.colours[name]
    lines = []
    if group.steps:
        low, high = ([*map(float, f(axis=0))] for f in (group.table.min, group.table.max))
        mean = [*map(float, group.table.mean(axis=0))]
        bounds = (low, high) if group.has_band else (None, None)
        lines.append(Line(name, colour, group.at, mean, *bounds, runs=len(group.averaged)))
    for one in group.apart:
        x = [one.at[step] for step in one.values]
        lines.append(Line(f"{name} ({one.run}, {one.state})", colour, x, [*one.values.values()], apart=True))
    return lines


def _with_later(panel: Panel, found: Found) -> list[Panel]:
    """A panel, and the part after most of the fall on a scale of its own, where that is a part."""
    start = _fallen(panel)
    return [panel] if start is None else [panel, report_figure.later(panel, start)]


def _fallen(panel: Panel) -> float | None:
    """From where on every curve of a panel has made most of its fall, if at least three points are left."""
    starts = []
    for line in panel.lines:
        if line.apart or len(line.x) < 5:
            continue
        mark = line.y[0] - FALLEN * (line.y[0] - min(line.y))
        starts.append(next((number for number, y in enumerate(line.y) if y <= mark), 0))
    line = max((one for one in panel.lines if not one.apart), key=lambda one: len(one.x), default=None)
    at = max(starts, default=0)
    return line.x[at] if line and 0 < at <= len(line.x) - 3 else None


def _parts(found: Found, summed: Sequence[Any], drops: Sequence[Any], drawn: Sequence[Panel]) -> list[str]:
    hover = sum(len(line.x) for panel in drawn for line in panel.lines) <= report_figure.MOST_HOVERED
    done = sum(one.state == DONE for one in found.members)
    when = time.strftime("%Y-%m-%d %H:%M %Z")
    said = f"{done} of {len(found.members)} runs done; metric {found.asked.metric}; written {when}."
    parts = [f"<h1>{report_page.text(found.name)}</h1>", report_page.paragraph(said, "faint")]
    missing = _missing(found)
    parts += [report_page.warning("What is missing", missing)] if missing else []
    parts += [report_page.heading(f"{found.asked.metric} by {X_LABELS[found.asked.x]}")]
    parts += [report_page.legend(found.colours)] if found.colour_keys else []
    parts += [report_page.panels((panel.title, report_figure.svg(panel, n, hover)) for n, panel in enumerate(drawn))]
    parts += [report_page.paragraph(_bands(found), "faint")]
    parts += _finals(found, summed) + _drops(found, drops, len(drawn), hover) + _stands_on(found)
    return parts


def _bands(found: Found) -> str:
    banded = [len(group.averaged) for group in found.groups if group.has_band]
    if banded:
        least, most = min(banded), max(banded)
        count = f"{least}" if least == most else f"{least} to {most}"
        text = f"A curve with a band is the mean of {count} replicates, which differ only in seeds that take effect; "
        text += "the band reaches from the lowest to the highest of them. "
    else:
        text = "No point of this grid has replicates that are done, so no curve has a band. "
    apart = any(group.apart for group in found.groups)
    text += "Thin dashed lines are runs that broke off or lag behind; no mean holds them. " if apart else ""
    return text + "Values show where the mouse rests on a point."


def _missing(found: Found) -> list[str]:
    lines = list(found.troubles[:MOST_NAMED])
    if len(found.troubles) > MOST_NAMED:
        lines.append(f"… and {len(found.troubles) - MOST_NAMED} more that failed, were cancelled or are flagged")
    for state in (recorded.OPEN, recorded.ABSENT):
        of = [one.run for one in found.members if one.state == state]
        if of:
            more = f", … ({len(of)})" if len(of) > MOST_NAMED else ""
            lines.append(f"{state}: {', '.join(of[:MOST_NAMED])}{more}")
    without = [one.run for one in found.members if one.state == DONE and not one.values]
    lines += [f"done, but without {found.asked.metric}: {', '.join(without[:MOST_NAMED])}"] if without else []
    former = [row["run"] for row in found.record.get("former", []) if not row.get("is_stage")]
    lines += [f"left out, as the grid no longer lists them: {', '.join(former[:MOST_NAMED])}"] if former else []
    return lines


def _finals(found: Found, summed: Sequence[tuple[Summary, Summary] | None]) -> list[str]:
    intervals = ("± replicates", "± items", "± tasks")
    names = [key.rpartition(".")[2] for key in found.keys]
    headings = [*names, "runs", "last step", f"final {found.asked.metric}", *intervals, "area", *intervals]
    rows: Rows = []
    for group, of in zip(found.groups, summed, strict=True):
        done = sum(one.state == DONE for one in group.members)
        axes = [_axis_cell(group.axes.get(key)) for key in found.keys]
        runs = f"{done} of {len(group.members)}"
        values = [cell for one in of for cell in _summary_cells(one)] if of else [number(None)] * 8
        rows.append([*axes, runs, number(float(group.steps[-1]) if group.steps else None, 12), *values])
    note = (
        "Area: under the curve over steps, by the trapezoidal rule, divided by the span, so it is in the metric's unit. "
        "All intervals are of 95 %. Replicates: Student's t over runs, the only one that tells of other seeds. Items: "
        f"bootstrap over test items ({curves.REPEATS} draws, seed 0). Tasks: the same, drawing whole test tasks, as items "
        "of a task are alike. The last two tell of other test items, not of another training. Click a heading to sort."
    )
    return [
        report_page.heading("Final values and areas"),
        report_page.table(headings, rows),
        report_page.paragraph(note, "faint"),
    ]


def _axis_cell(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return report_page.Cell(float(value), comparison.text(value)) if is_number else comparison.text(value)


def _summary_cells(one: Summary) -> list[Any]:
    return [number(one.value), interval(one.seeds), interval(one.items), interval(one.tasks)]


def _drops(found: Found, drops: Sequence[tuple[Group, Member, Drop]], first: int, hover: bool) -> list[str]:
    if not drops:
        return []
    names = [key.rpartition(".")[2] for key in found.keys]
    headings = ["task", *names, "run", "from step", "to step", "falls by", "all tasks", "beyond all", "× usual"]
    rows: Rows = [
        [drop.task, *(_axis_cell(group.axes.get(key)) for key in found.keys), one.run,
         number(drop.start, 12), number(drop.end, 12), number(drop.size, 3), number(drop.shared, 3),
         number(drop.own, 3), number(drop.size / drop.usual if drop.usual else None, 3)]
        for group, one, drop in drops[:MOST_DROPS]
    ]  # fmt: skip
    more = f" The first {MOST_DROPS} of {len(drops)}; drops.csv has all." if len(drops) > MOST_DROPS else ""
    note = (
        "Of every run and test task the fall between neighbouring checkpoints that goes most beyond what all tasks fall "
        "there. × usual: how many times the task's median change between its other checkpoints; beyond 3 it is sudden."
        + more
    )
    tasks = list(dict.fromkeys(drop.task for _, _, drop in drops))[:DRAWN_DROPS]
    panels = [_task_panel(found, task) for task in tasks]
    drawn = [(one.title, report_figure.svg(one, first + n, hover, small=True)) for n, one in enumerate(panels)]
    return [
        report_page.heading("Sudden drops of test tasks"), report_page.table(headings, rows),
        report_page.paragraph(note, "faint"), report_page.panels(drawn, small=True),
    ]  # fmt: skip


def _task_panel(found: Found, task: str) -> Panel:
    lines = []
    every = list(dict.fromkeys(comparison.label(group.axes, found.keys) for group in found.groups))
    for group in found.groups:
        items = group.items
        if items is not None and task in items.names:
            at = {step: x for step, x in zip(group.steps, group.at, strict=True)}
            column = items.by_task[:, items.names.index(task)]
            places = [n for n, step in enumerate(items.steps) if step in at]
            name = comparison.label(group.axes, found.keys) if found.keys else task
            lines.append(Line(
                name, every.index(name) if found.panel else found.colours[found.label(group)],
                [at[items.steps[n]] for n in places], [float(column[n]) for n in places], runs=len(group.averaged),
            ))  # fmt: skip
    return Panel(task, lines, X_LABELS[found.asked.x], found.asked.metric)


def _stands_on(found: Found) -> list[str]:
    names = list(dict.fromkeys(name for one in found.facts for name in one))
    values = {name: {one.get(name, "") for one in found.facts} for name in names}
    shared = {name: next(iter(of)) for name, of in values.items() if len(of) == 1 and name not in ("run", "state")}
    others = [name for name in names if name not in shared]
    axes = list(dict.fromkeys(key for row in found.record["runs"] for key in row["axes"]))
    rows = [
        [*(one.get(name, "") for name in others), *(comparison.text(row["axes"].get(key)) for key in axes)]
        for one, row in zip(found.facts, found.record["runs"], strict=True)
    ]
    dirty = sum("uncommitted" in one.get("commit", "") for one in found.facts)
    told = [report_page.warning("Code", [f"{dirty} runs ran code with uncommitted changes"])] if dirty else []
    beside = "Beside this page: curves.png and curves.pdf, curves.csv (what is drawn), finals.csv, drops.csv, "
    beside += "metrics.parquet (every value of every run)."
    return [
        report_page.heading("What it stands on"), *told, report_page.paragraph("All runs share:"),
        report_page.facts({"grid": found.name, **shared}),
        report_page.folded(f"The {len(rows)} runs, and what differs", report_page.table([*others, *axes], rows)),
        report_page.paragraph(beside, "faint"),
    ]  # fmt: skip


def _curve_columns(found: Found) -> dict[str, list[Any]]:
    rows = [
        {**_axes(found, group), "step": step, found.asked.x: x, "mean": float(mean), "lowest": float(low),
         "highest": float(high), "runs": len(group.averaged)}
        for group in found.groups if group.steps
        for step, x, mean, low, high in zip(
            group.steps, group.at, group.table.mean(axis=0), group.table.min(axis=0), group.table.max(axis=0), strict=True
        )
    ]  # fmt: skip
    return frames.columns(rows)


def _final_columns(found: Found, summed: Sequence[tuple[Summary, Summary] | None]) -> dict[str, list[Any]]:
    rows = []
    for group, of in zip(found.groups, summed, strict=True):
        row = {**_axes(found, group), "runs": len(group.averaged), "step": group.steps[-1] if group.steps else None}
        for name, one in zip(("final", "area"), of or (None, None), strict=True):
            row[name] = one.value if one else None
            for kind in ("seeds", "items", "tasks"):
                bounds = getattr(one, kind) if one else None
                row[f"{name}_{kind}_low"], row[f"{name}_{kind}_high"] = bounds or (None, None)
        rows.append(row)
    return frames.columns(rows)


def _drop_columns(found: Found, drops: Sequence[tuple[Group, Member, Drop]]) -> dict[str, list[Any]]:
    return frames.columns([
        {**_axes(found, group), "run": one.run, "task": drop.task, "from": drop.start, "to": drop.end,
         "size": drop.size, "all_tasks": drop.shared, "beyond_all": drop.own, "usual": drop.usual}
        for group, one, drop in drops
    ])  # fmt: skip


def _axes(found: Found, group: Group) -> dict[str, str]:
    return {key: comparison.text(group.axes.get(key)) for key in found.keys}
