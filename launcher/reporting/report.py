"""Makes a grid's report: a page that compares its runs, with the figure and the numbers
beside it."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.contract.folder import Workspace, write_text
from jobs.contract.states import RecordedState
from jobs.tracking import run_facts
from launcher.reporting import frames, outputs
from launcher.reporting.data import recorded_runs, run_groups, state_maps, verdicts
from launcher.reporting.data.grid_comparison import GridComparison, ReportOptions
from launcher.reporting.data.run_groups import Group, Member, Summary
from launcher.reporting.data.state_maps import StateMaps
from launcher.reporting.figures import curve_panels, line_charts, map_charts
from launcher.reporting.html import map_section, sections, verdict_section
from launcher.reporting.html import page as report_page
from launcher.status import data_notes
from launcher.workspace import extras, grid_record
from zsg_core.errors import UserError
from zsg_core.stats.curves import Drop

logger = logging.getLogger(__name__)

MOST_PANELS = 24
# a value that is drawn: axes reach beyond it, and a double ends at 1.8e308
LARGEST = 1e300
BESIDE = (
    "curves.png",
    "curves.pdf",
    "curves.csv",
    "finals.csv",
    "drops.csv",
    "metrics.parquet",
)
# where the grid claims something
OF_CLAIMS = ("verdicts.png", "verdicts.pdf", "verdicts.csv")
OF_STATES = ("maps.png", "maps.pdf", "maps.csv")  # where runs keep hidden states
PAGE = "report.html"


def write_report(
    place: Workspace, name: str, asked: ReportOptions, out: Path | None = None
) -> Path:
    """Writes the report of a grid and returns the page's path; `out` is a folder.
    Replaces an older report.

    UserError for an unknown grid, a metric that no run has, an axis in which the runs
    do not differ, no matplotlib; and for a file in the folder that zsg did not write,
    or that was changed since.
    """
    extras.need("a report", "report", only=("jinja2", "matplotlib"))
    folder = out or place.grid(name) / "report"
    record = grid_record.read(place, name)
    if out is None:
        outputs.refuse_linked(place, folder)
    names = (PAGE, *BESIDE, *OF_CLAIMS, *OF_STATES)
    with outputs.open_report_folder(
        folder, names, (PAGE, *BESIDE), is_own=out is None
    ) as draft:
        _write(place, record, asked, draft)
    return folder / PAGE


def _write(
    place: Workspace, record: dict[str, Any], asked: ReportOptions, folder: Path
) -> None:
    with frames.TableWriter(
        folder / "metrics.parquet", frames.metric_schema(record["runs"])
    ) as kept:
        found = _read(place, record, asked, kept)
    summed = run_groups.summarize_groups(found.groups)
    drops = run_groups.find_drops(found.groups)
    drawn = curve_panels.make_axis_panels(found)
    bands = (
        "; bands: lowest to highest replicate"
        if any(group.has_band for group in found.groups)
        else ""
    )
    title = f"{found.name}: {asked.metric} by {asked.x}{bands}"
    line_charts.draw_picture(
        drawn, [folder / "curves.png", folder / "curves.pdf"], title
    )
    frames.write_csv(folder / "curves.csv", _curve_columns(found))
    frames.write_csv(folder / "finals.csv", _final_columns(found, summed))
    frames.write_csv(folder / "drops.csv", _drop_columns(found, drops))
    maps = state_maps.map_groups(
        place, [(found.full_label(group), group) for group in found.groups]
    )
    _write_maps(folder, maps)
    decided = verdicts.judge_grid(place, record["name"])
    _write_verdicts(folder, decided)
    parts = sections.make_sections(found, summed, drops, drawn, decided, maps)
    if notes := data_notes.of_grid(place, record):
        parts.insert(
            2, report_page.render_warning("What there is to know of the data", notes)
        )
    write_text(
        folder / PAGE, report_page.render_page(f"zsg report: {found.name}", parts)
    )


def files_beside(page: Path) -> list[str]:
    """The names of what was written beside a page."""
    return outputs.written_files(page.parent, (*BESIDE, *OF_CLAIMS, *OF_STATES))


def _write_verdicts(folder: Path, decided: Sequence[verdicts.JudgedClaim]) -> None:
    if panels := verdict_section.make_verdict_panels(decided):
        pictures = [folder / name for name in OF_CLAIMS[:2]]
        beside_them = (
            ", and published curves"
            if any(one.claim.published for one in decided)
            else ""
        )
        line_charts.draw_picture(
            panels, pictures, f"What the verdicts are of{beside_them}", apart=True
        )
    if decided:
        frames.write_csv(
            folder / "verdicts.csv",
            frames.rows_to_columns(verdict_section.verdict_rows(decided)),
        )


def _write_maps(folder: Path, maps: StateMaps) -> None:
    if maps.drawn:
        titled = [(map_section.map_title(one), one) for one in maps.drawn]
        map_charts.draw_picture(
            titled,
            map_section.number_groups(maps),
            [folder / name for name in OF_STATES[:2]],
        )
        frames.write_csv(
            folder / OF_STATES[2], frames.rows_to_columns(map_section.map_rows(maps))
        )


def _read(
    place: Workspace,
    record: dict[str, Any],
    asked: ReportOptions,
    table: frames.TableWriter,
) -> GridComparison:
    members, facts, troubles, keys = [], [], [], dict[str, None]()
    for run in recorded_runs.read_runs(place, record, asked.stage):
        if isinstance(run, recorded_runs.UnreadableRun):
            logger.warning("%s", run.trouble)
            troubles.append(run.trouble)
            facts.append({"run": run.run, "state": recorded_runs.UNREADABLE})
            continue
        members.append(
            run_groups.make_member(run, asked.metric, asked.x, asked.over_splits)
        )
        facts.append(run.facts())
        troubles += _troubles(run)
        keys |= dict.fromkeys(run.keys())
        table.add(frames.metric_columns(run))
    if asked.metric not in keys and keys:
        raise UserError(
            f"--metric {asked.metric}: no run has it; there are {', '.join(sorted(keys))}"
        )
    stages = max((len(row["recipe"]["stages"]) for row in record["runs"]), default=1)
    if asked.stage is not None and asked.stage > stages:
        raise UserError(
            f"--stage {asked.stage}: the runs of grid {record['name']} have {stages} stages at most"
        )
    if not keys:
        raise UserError(
            f"grid {record['name']}: no run has recorded a value yet; zsg status shows where they"
            " stand"
        )
    _refuse_too_large(asked.metric, members)
    groups = run_groups.group_replicates(members)
    axes = run_groups.differing_axes(groups)
    panel = run_groups.choose_panel_axis(axes, groups, asked.panel)
    values = (
        {run_groups.axis_text(group.axes.get(panel)) for group in groups}
        if panel
        else set()
    )
    if len(values) > MOST_PANELS:
        if asked.panel:
            raise UserError(
                f"--panel {asked.panel}: {len(values)} values; a page has at most {MOST_PANELS}"
                " panels"
            )
        panel = None
    return GridComparison(
        record["name"], asked, record, members, facts, troubles, groups, axes, panel
    )


def _refuse_too_large(metric: str, members: Sequence[Member]) -> None:
    """UserError for a metric with a value too large to be drawn, with the run that has it."""
    for one in members:
        for step, value in one.values.items():
            if math.isfinite(value) and abs(value) > LARGEST:
                raise UserError(
                    f"--metric {metric}: run {one.run} has {value:g} at step {step}, which is too"
                    f" large to be drawn or compared (at most {LARGEST:g}); it is hardly a"
                    " measurement. Ask for another metric with --metric, or see what journalled it"
                )


def _troubles(run: recorded_runs.RecordedRun) -> list[str]:
    told = []
    if run.state not in (
        RecordedState.DONE,
        RecordedState.NOT_FINISHED,
        RecordedState.NOT_BEGUN,
    ):
        step = run.end.step if run.end else None
        cause = (
            ": ".join(filter(None, (run.end.cause, run.end.evidence)))
            if run.end
            else ""
        )
        told.append(
            f"{run.run}"
            f" {run.state}{f' at step {step}' if step is not None else ''}"
            f"{f': {cause}' if cause else ''}"
        )
    if run.flags:
        told.append(
            f"{run.run} is flagged: a restart computed other values ({len(run.flags)}):"
            f" {run.flags[0]}"
        )
    doubts = run_facts.doubts(row for stage in run.stages for row in stage.rows)
    return told + [
        f"{run.run}, scores of answers: {doubt}" for doubt in doubts.values()
    ]


def _curve_columns(found: GridComparison) -> dict[str, list[Any]]:
    rows = []
    for group in found.groups:
        if not group.steps:
            continue
        table = group.table
        columns = (
            group.steps,
            group.at,
            table.mean(axis=0),
            table.min(axis=0),
            table.max(axis=0),
        )
        for step, x, mean, low, high in zip(*columns, strict=True):
            row = {
                **_axes(found, group),
                "step": step,
                found.options.x: x,
                "mean": float(mean),
                "lowest": float(low),
            }
            rows.append({**row, "highest": float(high), "runs": len(group.averaged)})
    return frames.rows_to_columns(rows)


def _final_columns(
    found: GridComparison, summed: Sequence[tuple[Summary, Summary] | None]
) -> dict[str, list[Any]]:
    rows = []
    for group, of in zip(found.groups, summed, strict=True):
        row = {
            **_axes(found, group),
            "runs": len(group.averaged),
            "step": group.steps[-1] if group.steps else None,
        }
        ends = [*group.stage_ends, *[(None, None)] * found.most_stages]
        for number in range(1, found.most_stages):
            row[f"stage_{number}_step"], row[f"stage_{number}_final"] = ends[number - 1]
        for name, one in zip(("final", "area"), of or (None, None), strict=True):
            row[name] = one.value if one else None
            for kind in ("seeds", "items", "tasks"):
                bounds = getattr(one, kind) if one else None
                row[f"{name}_{kind}_low"], row[f"{name}_{kind}_high"] = bounds or (
                    None,
                    None,
                )
        rows.append(row)
    return frames.rows_to_columns(rows)


def _drop_columns(
    found: GridComparison, drops: Sequence[tuple[Group, Member, Drop]]
) -> dict[str, list[Any]]:
    return frames.rows_to_columns(
        [
            {
                **_axes(found, group),
                "run": one.run,
                "task": drop.task,
                "stage": one.stage_after(drop.start),
                "from": drop.start,
                "to": drop.end,
                "size": drop.size,
                "all_tasks": drop.shared,
                "beyond_all": drop.own,
                "usual": drop.usual,
            }
            for group, one, drop in drops
        ]
    )


def _axes(found: GridComparison, group: Group) -> dict[str, str]:
    return {key: run_groups.axis_text(group.axes.get(key)) for key in found.keys}
