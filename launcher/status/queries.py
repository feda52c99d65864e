"""Reads what a workspace holds: its grids, the states of their runs, logs and the MLflow page.

Its imports are light: people ask for states all day.
"""

import codecs
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from jobs.contract import evaluations, job_file
from jobs.contract.folder import Damaged, Workspace, list_paths
from jobs.contract.grid_record import GridOutline
from jobs.contract.job_file import runs_served
from jobs.contract.states import State
from jobs.runtime.slurm_calls import Runner, run_program
from launcher.status import data_notes as data_notes_of
from launcher.status import logs, status_view
from launcher.status import look_notes as look_notes_of
from launcher.status.journal_checks import flag_journals
from launcher.status.status import BEFORE, collect_states
from launcher.status.status_view import Row, ShownJob
from launcher.status.submitting import add_submit_under_way
from launcher.status.terminal_cache import TerminalCache
from launcher.workspace import recorded_grids
from launcher.workspace.job_state import HELD_BACK, JobState
from launcher.workspace.ledger import Ledger
from launcher.workspace.submit_lock import find_submit_under_way
from zsg_core.errors import UserError

logger = logging.getLogger(__name__)

WATCH_S = 20  # the scheduler is asked no more often
KINDS = ("runs", "prepare", "evaluate", "canary", "looks", "checks")


def status_rows(
    workspace: Workspace,
    grid: str | None,
    states: Collection[str] = (),
    run: Runner = run_program,
) -> list[dict[str, Any]]:
    """The rows of `zsg status`, every grid's in turn; of what a grid no longer wants,
    what is still active.

    `states`: only the runs in one of these.
    """
    outlines, troubles = _read_outlines(workspace, grid)
    for trouble in troubles:
        logger.warning(f"note: a grid is not shown: {trouble}")
    runs = dict.fromkeys(
        f"runs/{row.run}" for outline in outlines for row in outline.all_runs
    )
    submit = find_submit_under_way(workspace)
    ledger = Ledger(workspace)
    evaluators = _find_grids_of_kinds(ledger, ("evaluate",))
    helpers = _find_grids_of_kinds(ledger, BEFORE)
    job_states = collect_states(
        workspace,
        [*runs, *evaluators, *helpers],
        ledger,
        run,
        settled=TerminalCache(workspace),
        only_looks=True,
    )
    job_states = flag_journals(workspace, job_states)
    rows: list[dict[str, Any]] = []
    for outline in outlines:
        listed = [f"runs/{row.run}" for row in outline.runs]
        shown_states = add_submit_under_way(job_states, outline.name, listed, submit)
        rows += _list_runs(outline, shown_states)
        rows += _list_evaluators(workspace, outline.name, evaluators, shown_states)
        rows += _list_held(outline.name, {**helpers, **evaluators}, shown_states)
    if not states:
        return rows
    return [row for row in rows if row["state"] in states]


def _read_outlines(
    workspace: Workspace, grid: str | None
) -> tuple[list[GridOutline], list[Damaged]]:
    """The record of a grid; or those of all grids that can be read, and why not the
    others."""
    if grid is not None:
        return [recorded_grids.read_outline(workspace, grid)], []
    outlines: list[GridOutline] = []
    troubles: list[Damaged] = []
    for name in recorded_grids.select_grids(workspace):
        try:
            outlines.append(recorded_grids.read_outline(workspace, name))
        except Damaged as error:
            troubles.append(error)
    if troubles and not outlines:
        raise troubles[0]
    return outlines, troubles


def _find_grids_of_kinds(ledger: Ledger, kinds: Collection[str]) -> dict[str, str]:
    """The grid that last submitted each job of these kinds."""
    return {
        item: last.grid for item, last in ledger.by_item().items() if last.kind in kinds
    }


def data_notes(
    workspace: Workspace, grid: str | None, rows: Iterable[Row]
) -> list[str]:
    """What there is to know of the data of a grid, or of all grids, and of what the runs
    of these rows of status made of them."""
    corpora = [
        corpus
        for outline in _read_outlines(workspace, grid)[0]
        for corpus in outline.corpora
    ]
    of_runs = data_notes_of.of_rows(rows)
    return data_notes_of.of_corpora(workspace, corpora, of_runs)


def look_notes(workspace: Workspace, grid: str | None) -> list[str]:
    """What the newest look at the claims of a grid, or of all grids, has decided."""
    outlines, _ = _read_outlines(workspace, grid)
    return look_notes_of.of_grids(workspace, [outline.name for outline in outlines])


def _list_runs(
    outline: GridOutline, states: Mapping[str, JobState]
) -> list[dict[str, Any]]:
    """The runs that a grid lists, the stages before them that have begun and are not
    done, and the runs that it no longer lists and that are still active."""
    runs = [ShownJob.of_run(row) for row in outline.runs]
    before = [
        job
        for job in map(ShownJob.of_run, outline.before)
        if states[job.item].state not in (State.ABSENT, State.DONE)
    ]
    former = [
        job
        for job in map(ShownJob.of_run, outline.former)
        if states[job.item].is_active
    ]
    return [
        *status_view.rows_of(outline.name, [*runs, *before], states),
        *status_view.rows_of(outline.name, former, states, is_listed=False),
    ]


def _list_evaluators(
    workspace: Workspace,
    grid: str,
    evaluators: Mapping[str, str],
    states: Mapping[str, JobState],
) -> list[dict[str, Any]]:
    """The evaluate jobs of a grid that are under way, and those that failed and whose
    work nobody has done since."""
    jobs = [
        ShownJob.of_item(item)
        for item, submitter in evaluators.items()
        if submitter == grid and _is_evaluator_shown(workspace, item, states[item])
    ]
    return status_view.rows_of(grid, jobs, states)


def _is_evaluator_shown(workspace: Workspace, item: str, state: JobState) -> bool:
    if state.state == State.DONE:
        return False
    is_at_work = state.is_active and not state.stopped
    return is_at_work or _has_work_left(workspace, item)


def _has_work_left(workspace: Workspace, item: str) -> bool:
    """Whether what an evaluate job was to score is not scored; also where a broken file
    keeps that from being told."""
    try:
        return any(
            evaluations.is_left(workspace.run(served.run), served.keys)
            for served in runs_served(job_file.read_job(workspace.root / item))
        )
    except Damaged:
        return True


def _list_held(
    grid: str, jobs: Mapping[str, str], states: Mapping[str, JobState]
) -> list[dict[str, Any]]:
    """The jobs of a grid beside its runs that are done and whose allocations outlive
    them, and those that Slurm holds, so that runs wait for them in vain."""
    held_jobs = [
        ShownJob.of_item(item)
        for item, submitter in jobs.items()
        if submitter == grid and _is_held(states[item])
    ]
    return status_view.rows_of(grid, held_jobs, states)


def _is_held(state: JobState) -> bool:
    """Whether Slurm still holds what a job has done with, or holds back the job."""
    if state.state == State.DONE:
        return state.flag is not None
    return state.reason in HELD_BACK


def read_log(
    workspace: Workspace,
    text: str,
    rank: int,
    attempt: int | None,
    lines: int | None,
    follow: bool,
) -> Iterator[str]:
    """The end of a job's log, or all if `lines` is None; with `follow`, goes on as it grows."""
    item = find_item(workspace, text)
    if follow:
        pieces = logs.follow_log(workspace, item, rank, lines)
    else:
        part = logs.of_rank(workspace, item, rank, attempt)
        pieces = part.read(part.tail(lines))
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    return map(decode, pieces)


def find_item(workspace: Workspace, text: str, kind_of_name: str = "run") -> str:
    """The folder of the one run whose id begins so, or of another job, named
    `prepare/…` or `evaluate/…`. UserError for none; `kind_of_name`: of what `text` may
    be the name, for that."""
    kind, _, prefix = text.rpartition("/")
    kind = kind or "runs"
    names = _list_folders(workspace, kind) if kind in KINDS else []
    if prefix in names:
        return f"{kind}/{prefix}"
    matches = [name for name in names if name.startswith(prefix)]
    if len(matches) > 1:
        raise UserError(
            f"{text!r} begins {len(matches)} run ids: {', '.join(matches[:5])}; give more of it"
        )
    if not matches:
        raise UserError(
            f"no {kind_of_name} {text!r} in {workspace.root}; zsg status shows them"
        )
    return f"{kind}/{matches[0]}"


def _list_folders(workspace: Workspace, kind: str) -> list[str]:
    """The names of the job folders of a kind, in order."""
    return sorted(
        path.name for path in list_paths(workspace.root / kind, "*") if path.is_dir()
    )
