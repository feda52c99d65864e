"""Makes the report of a grid, or of several: a page that compares the runs, with the figure
and the numbers beside it."""

import dataclasses
import logging
import math
import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from jobs.contract.exit_record import replace_unset
from jobs.contract.folder import Damaged, Workspace, write_text
from jobs.contract.grid_record import GridRecord, Summaries
from jobs.contract.journal_rows import AnswersKept, find_events
from jobs.contract.metric_ways import describe_ways
from jobs.contract.states import RecordedState
from jobs.deciding import recorded_runs, run_axes
from jobs.deciding.judged_claims import JudgedClaim
from jobs.tracking import mlflow_metadata
from launcher.reporting import frames, outputs
from launcher.reporting.data import (
    claims_between,
    joined_grids,
    metric_overview,
    run_groups,
    state_maps,
    verdicts,
)
from launcher.reporting.data.grid_comparison import GridComparison, ReportOptions
from launcher.reporting.data.metric_overview import OverviewReader
from launcher.reporting.data.run_groups import Group, Member, Summary
from launcher.reporting.data.state_maps import StateMaps
from launcher.reporting.figures import curve_panels, line_charts, map_charts
from launcher.reporting.html import map_section, sections, verdict_section
from launcher.reporting.html import page as report_page
from launcher.status import data_notes
from launcher.workspace import extras, recorded_grids
from zsg_core.errors import UserError
from zsg_core.metrics import summaries as summary_keys
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


@dataclasses.dataclass(frozen=True)
class ReportSubject:
    """What a report is of: the runs of a grid, or of several as one (`is_joined`), what
    is claimed of them, where the report lies by default, and what is to be told.

    `judge` decides the claims; it is called once, when runs have been read.
    """

    record: GridRecord
    folder: Path
    judge: Callable[[], Sequence[JudgedClaim]]
    notes: Sequence[str] = ()
    is_joined: bool = False


@dataclasses.dataclass(frozen=True)
class WrittenReport:
    """A report that was written: its page, and the verdicts that it has."""

    page: Path
    decided: Sequence[JudgedClaim]


def find_subject(
    workspace: Workspace, names: Sequence[str], claims: Path | None = None
) -> ReportSubject:
    """What a report of these grids is of. `claims`: a file of claims between several.

    UserError for an unknown grid, one that is named twice, and what is wrong in the file.
    """
    if len(names) == 1 and claims is None:
        [name] = names
        return ReportSubject(
            recorded_grids.read_grid(workspace, name),
            workspace.grid(name) / "report",
            lambda: verdicts.judge_grid(workspace, name),
        )
    joined = joined_grids.join_grids(workspace, names)
    others = "".join(f"-with-{name}" for name in names[1:])
    folder = workspace.grid(names[0]) / f"report{others or '-with-claims'}"
    file = None
    if claims is not None:
        file = claims_between.read_claim_file(claims, joined)

    def judge() -> list[JudgedClaim]:
        of_each = claims_between.judge_own(workspace, joined)
        if file is None:
            return of_each
        return [*claims_between.judge_between(workspace, file), *of_each]

    return ReportSubject(joined.record, folder, judge, joined.notes, is_joined=True)


def write_report(
    workspace: Workspace, name: str, options: ReportOptions, out: Path | None = None
) -> Path:
    """Writes the report of a grid and returns the page's path, as `write_subject` does."""
    extras.require_extra("a report", "report", only=("jinja2", "matplotlib"))
    subject = find_subject(workspace, [name])
    return write_subject(workspace, subject, options, out).page


def write_subject(
    workspace: Workspace,
    subject: ReportSubject,
    options: ReportOptions,
    out: Path | None = None,
) -> WrittenReport:
    """Writes a report; `out` is a folder, or a page that goes by itself where it ends in
    .html. Replaces an older report.

    UserError for a metric that no run has, an axis in which the runs do not differ, no
    matplotlib; and for a file in the folder that zsg did not write, or that was changed
    since.
    """
    extras.require_extra("a report", "report", only=("jinja2", "matplotlib"))
    if out is not None and out.suffix.lower() == ".html":
        return _write_alone(workspace, subject, options, out)
    folder = out or subject.folder
    if out is None:
        outputs.refuse_linked(workspace, folder)
    names = (PAGE, *BESIDE, *OF_CLAIMS, *OF_STATES)
    with outputs.open_report_folder(
        folder, names, (PAGE, *BESIDE), is_own=out is None
    ) as draft:
        decided = _write(workspace, subject, options, draft)
    return WrittenReport(folder / PAGE, decided)


def _write_alone(
    workspace: Workspace, subject: ReportSubject, options: ReportOptions, page: Path
) -> WrittenReport:
    """Writes a page by itself, readable by whom the user's umask lets read it."""
    outputs.refuse_foreign_page(page)
    options = dataclasses.replace(options, is_alone=True)
    with tempfile.TemporaryDirectory() as drafts:
        draft = Path(drafts)
        decided = _write(workspace, subject, options, draft)
        outputs.publish_page(draft / PAGE, page)
    return WrittenReport(page, decided)


def _write(
    workspace: Workspace, subject: ReportSubject, options: ReportOptions, folder: Path
) -> Sequence[JudgedClaim]:
    """Makes all files of a report in a folder: tables, curves, maps, verdicts and the
    page that shows them. Returns the verdicts."""
    record = subject.record
    with frames.TableWriter(
        folder / "metrics.parquet", frames.metric_schema(record.runs)
    ) as table:
        comparison = _read(workspace, subject, options, table)
    summed = run_groups.summarize_groups(comparison.groups)
    drops = run_groups.find_drops(comparison.groups)
    drawn = curve_panels.make_axis_panels(comparison)
    bands = (
        "; bands: lowest to highest replicate"
        if any(group.has_band for group in comparison.groups)
        else ""
    )
    title = f"{comparison.name}: {options.metric} by {options.x}{bands}"
    line_charts.draw_picture(
        drawn, [folder / "curves.png", folder / "curves.pdf"], title
    )
    frames.write_csv(folder / "curves.csv", _curve_columns(comparison))
    frames.write_csv(folder / "finals.csv", _final_columns(comparison, summed))
    frames.write_csv(folder / "drops.csv", _drop_columns(comparison, drops))
    maps = state_maps.map_groups(
        workspace,
        [(comparison.full_label(group), group) for group in comparison.groups],
    )
    _write_maps(folder, maps)
    decided = subject.judge()
    _write_verdicts(folder, decided)
    page_sections = sections.make_sections(
        comparison, summed, drops, drawn, decided, maps
    )
    notes = data_notes.of_corpora(workspace, record.corpora, comparison.notes)
    if notes:
        page_sections.insert(
            2, report_page.render_warning("What there is to know of the data", notes)
        )
    write_text(
        folder / PAGE,
        report_page.render_page(f"zsg report: {comparison.name}", page_sections),
    )
    return decided


def list_values(
    workspace: Workspace, subject: ReportSubject, options: ReportOptions
) -> list[dict[str, Any]]:
    """What each metric comes to at each point of a grid, or of several, as rows for
    scripts: metric, axes, runs, step, value, lowest, highest, broken. UserError as of a
    report."""
    comparison = _read(workspace, subject, options, None)
    rows = metric_overview.list_rows(comparison.overview, comparison.keys)
    return [dataclasses.asdict(row) for row in rows]


def files_beside(page: Path) -> list[str]:
    """The names of what was written beside a page."""
    return outputs.written_files(page.parent, (*BESIDE, *OF_CLAIMS, *OF_STATES))


def _write_verdicts(folder: Path, decided: Sequence[JudgedClaim]) -> None:
    """Writes the figure and the table of verdicts; nothing of a grid that claims nothing."""
    if panels := verdict_section.make_verdict_panels(decided):
        pictures = [folder / name for name in OF_CLAIMS[:2]]
        beside_them = (
            ", and published curves"
            if any(judged.claim.published for judged in decided)
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
    """Writes the figure and the table of maps; nothing where no run keeps hidden states."""
    if maps.drawn:
        titled = [
            (map_section.map_title(state_map), state_map) for state_map in maps.drawn
        ]
        map_charts.draw_picture(
            titled,
            map_section.number_groups(maps),
            [folder / name for name in OF_STATES[:2]],
        )
        frames.write_csv(
            folder / OF_STATES[2], frames.rows_to_columns(map_section.map_rows(maps))
        )


def _read(
    workspace: Workspace,
    subject: ReportSubject,
    options: ReportOptions,
    table: frames.TableWriter | None,
) -> GridComparison:
    """What the runs come to; all their values go into the table, if there is one.
    UserError where there is nothing to show of what is asked for."""
    record = subject.record
    members, facts, troubles = [], [], list(subject.notes)
    metrics, notes = dict[str, None](), dict[str, None]()
    ways: dict[str, str] = {}
    overview = OverviewReader(options.metrics or (options.metric,), record, options.x)
    for run in recorded_runs.read_runs(workspace, record, options.stage):
        try:
            if isinstance(run, recorded_runs.UnreadableRun):
                raise Damaged(run.why)
            member = run_groups.make_member(
                run, options.metric, options.x, options.over_splits
            )
            run_facts_shown, run_troubles = run.facts(), _troubles(run)
            run_notes = run.notes
            overview.add(run)
            if table is not None:
                table.add(frames.metric_columns(run))
        except Damaged as error:
            trouble = recorded_runs.warn_of_left_out(run.run, error)
            troubles.append(trouble)
            facts.append({"run": run.run, "state": recorded_runs.UNREADABLE})
            continue
        if trouble := _explain_too_large(options.metric, member):
            logger.warning(trouble)
            troubles.append(trouble)
            member = _leave_out_too_large(member)
        members.append(member)
        facts.append(run_facts_shown)
        troubles += run_troubles
        notes |= dict.fromkeys(run_notes)
        ways |= describe_ways(row for stage in run.stages for row in stage.rows)
        metrics |= dict.fromkeys(run.keys())
    has_values = any(member.values for member in members)
    _refuse_empty(record, options, metrics, has_values)
    _refuse_odd_places(options.x, members)
    overview.refuse_unknown(metrics)
    troubles += joined_grids.explain_lacking_metric(options.metric, members)
    troubles += joined_grids.explain_test_sets(members)
    groups = run_groups.group_replicates(members)
    axes = run_groups.differing_axes(groups)
    curves = overview.finish(groups)
    shown_keys = dict.fromkeys([options.metric, *(each.key for each in curves)])
    return GridComparison(
        name=record.name,
        options=options,
        record=record,
        members=members,
        facts=facts,
        troubles=troubles,
        notes=list(notes),
        groups=groups,
        keys=axes,
        panel=_choose_panel_axis(axes, groups, options.panel),
        overview=curves,
        ways={key: ways[key] for key in shown_keys if key in ways},
    )


def _refuse_empty(
    record: GridRecord,
    options: ReportOptions,
    metrics: Collection[str],
    has_values: bool,
) -> None:
    """UserError for a metric or a stage that no run has, or where no run has recorded
    anything. `has_values`: whether a run has one of the metric, which may be a summary."""
    if metrics and not has_values and options.metric not in metrics:
        lacks = _explain_lacks(record, options.metric, metrics)
        raise UserError(
            f"--metric {options.metric}: no run has it{lacks}; there are"
            f" {', '.join(sorted(metrics))}"
        )
    stages = max((len(row.recipe["stages"]) for row in record.runs), default=1)
    if options.stage is not None and options.stage > stages:
        raise UserError(
            f"--stage {options.stage}: the runs of grid {record.name} have {stages} stages at"
            " most"
        )
    if not metrics:
        raise UserError(
            f"grid {record.name}: no run has recorded a value yet; zsg status shows where they"
            " stand"
        )


def _explain_lacks(record: GridRecord, metric: str, metrics: Collection[str]) -> str:
    """Which suites of an average no run has recorded; nothing of another metric, or where
    all are there."""
    kind, _, name = metric.partition("/")
    if kind != summary_keys.AVERAGE:
        return ""
    settings = replace_unset(record.summaries, Summaries())
    lacking: list[str] = []
    for suite in settings.averages.get(name, {}):
        if not any(key in metrics for key in summary_keys.list_measured(suite)):
            lacking.append(suite)
    return f", as none has {', '.join(lacking)}" if lacking else ""


def _choose_panel_axis(
    axes: Sequence[str], groups: Sequence[Group], wish: str | None
) -> str | None:
    """The axis whose values have panels; none that would fill more than a page, unless
    it is asked for, which is a UserError."""
    panel = run_groups.choose_panel_axis(axes, groups, wish)
    if panel is None:
        return None
    count = len({run_axes.axis_text(group.axes.get(panel)) for group in groups})
    if count <= MOST_PANELS:
        return panel
    if wish:
        raise UserError(
            f"--panel {wish}: {count} values; a page has at most {MOST_PANELS} panels"
        )
    return None


def _explain_too_large(metric: str, member: Member) -> str | None:
    """What is told of a run whose values are too large to be drawn; None if none is."""
    steps = [step for step, value in member.values.items() if _is_too_large(value)]
    if not steps:
        return None
    further = f", and at {len(steps) - 1} more steps" if len(steps) > 1 else ""
    return (
        f"{member.run} has {metric} {member.values[steps[0]]:g} at step {steps[0]}{further}: too"
        f" large to be drawn or compared (at most {LARGEST:g}), so it counts as infinite; it is"
        " hardly a measurement, see what journalled it"
    )


def _leave_out_too_large(member: Member) -> Member:
    """The same run with infinities for the values that are too large: a gap in its curve."""
    values = {
        step: math.copysign(math.inf, value) if _is_too_large(value) else value
        for step, value in member.values.items()
    }
    return dataclasses.replace(member, values=values)


def _is_too_large(value: float) -> bool:
    """Whether a number is larger than what can be drawn."""
    return math.isfinite(value) and abs(value) > LARGEST


def _refuse_odd_places(x: str, members: Sequence[Member]) -> None:
    """UserError for values that have no place on the horizontal axis, with the run."""
    for member in members:
        for step, position in member.at.items():
            if not abs(position) <= LARGEST:
                raise UserError(
                    f"--x {x}: run {member.run} has {position:g} {x} at step {step}, which is no"
                    " place on an axis; use --x step, or see what journalled it"
                )


def _troubles(run: recorded_runs.RecordedRun) -> list[str]:
    """What a reader must know of a run: how it broke off, where a restart disagreed, and
    what is doubtful about its scores."""
    troubles = []
    if not run.is_spared and run.state not in (
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
        troubles.append(
            f"{run.run}"
            f" {run.state}{f' at step {step}' if step is not None else ''}"
            f"{f': {cause}' if cause else ''}"
        )
    if run.flags:
        troubles.append(
            f"{run.run} is flagged: a restart computed other values ({len(run.flags)}):"
            f" {run.flags[0]}"
        )
    doubts = mlflow_metadata.collect_doubts(
        row for stage in run.stages for row in stage.rows
    )
    troubles += [f"{run.run}, scores of answers: {doubt}" for doubt in doubts.values()]
    return troubles + _describe_failed_keys(run)


def _describe_failed_keys(run: recorded_runs.RecordedRun) -> list[str]:
    """A sentence for each metric that could not be taken of answers, and why."""
    taken: set[tuple[int, str]] = set()
    failed: dict[str, dict[int, str]] = {}
    for stage in run.stages:
        for row, event in find_events(stage.rows, AnswersKept):
            taken.update((row.step, key) for key in event.keys)
            for key, why in replace_unset(event.failed, {}).items():
                failed.setdefault(key, {})[row.step] = why
    sentences: list[str] = []
    for key, reasons in failed.items():
        steps = [step for step in sorted(reasons) if (step, key) not in taken]
        if steps:
            sentences.append(
                f"{run.run}, {key} is lacking at {len(steps)} steps; the first, step"
                f" {steps[0]}: {reasons[steps[0]]}"
            )
    return sentences


def _curve_columns(comparison: GridComparison) -> dict[str, list[Any]]:
    """The table of what is drawn: a row for each point of the grid and step."""
    rows = []
    for group in comparison.groups:
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
                **_axes(comparison, group),
                "step": step,
                comparison.options.x: x,
                "mean": float(mean),
                "lowest": float(low),
            }
            rows.append({**row, "highest": float(high), "runs": len(group.averaged)})
    return frames.rows_to_columns(rows)


def _final_columns(
    comparison: GridComparison, summed: Sequence[tuple[Summary, Summary] | None]
) -> dict[str, list[Any]]:
    """The table of final values and areas: a row for each point of the grid."""
    rows = []
    for group, summaries in zip(comparison.groups, summed, strict=True):
        row = {
            **_axes(comparison, group),
            "runs": len(group.averaged),
            "step": group.steps[-1] if group.steps else None,
        }
        ends = [*group.stage_ends, *[(None, None)] * comparison.most_stages]
        for number in range(1, comparison.most_stages):
            row[f"stage_{number}_step"], row[f"stage_{number}_final"] = ends[number - 1]
        for name, summary in zip(
            ("final", "area"), summaries or (None, None), strict=True
        ):
            row[name] = summary.value if summary else None
            for kind in ("seeds", "items", "tasks"):
                bounds = getattr(summary, kind) if summary else None
                row[f"{name}_{kind}_low"], row[f"{name}_{kind}_high"] = bounds or (
                    None,
                    None,
                )
        rows.append(row)
    return frames.rows_to_columns(rows)


def _drop_columns(
    comparison: GridComparison, drops: Sequence[tuple[Group, Member, Drop]]
) -> dict[str, list[Any]]:
    """The table of falls: a row for each run and test task that falls."""
    return frames.rows_to_columns(
        [
            {
                **_axes(comparison, group),
                "run": member.run,
                "task": drop.task,
                "stage": member.stage_after(drop.start),
                "from": drop.start,
                "to": drop.end,
                "size": drop.size,
                "all_tasks": drop.shared,
                "beyond_all": drop.own,
                "usual": drop.usual,
            }
            for group, member, drop in drops
        ]
    )


def _axes(comparison: GridComparison, group: Group) -> dict[str, str]:
    return {key: run_axes.axis_text(group.axes.get(key)) for key in comparison.keys}
