"""Tells the user of what `zsg sync` and `zsg status --watch` see: runs that failed or
hang, grids whose runs have all ended, and what their claims came to.

What a job has told itself at its end is known by the same ids here, and not told again.
What died without a word, what hangs and what claims came to is seen only here.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from msgspec import UnsetType

from jobs.contract import grid_record
from jobs.contract import notices as records
from jobs.contract.attempt import now_ms
from jobs.contract.folder import Damaged, Workspace
from jobs.contract.grid_record import GridOutline
from jobs.contract.notices import Kind, Notice, Receiver
from jobs.contract.states import ACTIVE, State
from jobs.files.locks import NoLocks
from jobs.notices import at_end, sender
from jobs.notices.sender import Patience, Report
from launcher.status import queries
from launcher.status.status_view import Row
from launcher.workspace import workspaces
from launcher.workspace.ledger import Ledger
from zsg_core.errors import ZsgError
from zsg_core.secrets import hide_known

logger = logging.getLogger(__name__)

# how long `zsg sync` takes for it at most, and each look of `zsg status --watch`
ASKED = Patience(60.0, is_asked=True)
WATCHING = Patience(6.0)
ENDED = (State.DONE, State.FAILED, State.CANCELLED)


@dataclass(frozen=True)
class _WatchedGrid:
    """A grid whose submit named receivers.

    `rows`: those of `zsg status` of its jobs; `submissions`: the id of the newest
    submission of each job folder of the workspace.
    """

    workspace: Workspace
    outline: GridOutline
    receivers: Sequence[Receiver]
    rows: Sequence[Row]
    submissions: Mapping[str, str]

    @property
    def name(self) -> str:
        """The grid's name."""
        return self.outline.name

    @property
    def items(self) -> list[str]:
        """The folders of the runs that it lists now."""
        return [f"runs/{row.run}" for row in self.outline.runs]


def tell_grids(workspace: Workspace, grid: str | None) -> Report:
    """Looks where the jobs of a grid, or of all grids, stand, and tells all that is to
    be told.

    Asks Slurm only where a grid's submit named somebody to tell. What keeps it from
    looking is logged, and is no error.
    """
    try:
        if not _find_outlines(workspace, grid):
            return Report()
        rows = queries.status_rows(workspace, grid)
    except (OSError, NoLocks, ZsgError) as error:
        logger.warning(f"note: notices could not be sent: {error}")
        return Report()
    return tell_rows(workspace, grid, rows, ASKED)


def tell_rows(
    workspace: Workspace,
    grid: str | None,
    rows: Sequence[Row],
    patience: Patience = WATCHING,
) -> Report:
    """Tells what these rows of `zsg status` show.

    What keeps it from that is logged, and is no error: whoever looks wants to see the
    rows.

    Args:
        workspace: the folder of all runs.
        grid: the name of a grid; None for all.
        rows: those of that grid, or of all grids.
        patience: how long it may take.
    """
    report = Report()
    try:
        outlines = _find_outlines(workspace, grid)
        if not outlines or not _may_send(workspace):
            return report
        submissions = _name_submissions(workspace)
        until = time.monotonic() + patience.all_s
        for outline in outlines:
            of_grid = [row for row in rows if row["grid"] == outline.name]
            receivers = _list_receivers(outline)
            watched = _WatchedGrid(workspace, outline, receivers, of_grid, submissions)
            notices = _list_notices(watched)
            # one look at all grids takes no longer than at one
            left_s = max(0.0, until - time.monotonic())
            left = replace(patience, all_s=left_s)
            skipped = report.troubles.keys()
            told = sender.tell(workspace, receivers, notices, left, skipped)
            report.add_report(told)
    except (OSError, NoLocks, ZsgError) as error:
        logger.warning(f"note: notices could not be sent: {error}")
    for key, why in report.troubles.items():
        logger.warning(f"note: {key} was not told: {why}; the next look tries again")
    return report


def _may_send(workspace: Workspace) -> bool:
    """Whether what lies in a workspace may send something in the user's name: it is no
    folder that may only be read, or that others may write."""
    if workspaces.is_read_only(workspace):
        return False
    return workspaces.find_foreign_access(workspace) is None


def _find_outlines(workspace: Workspace, grid: str | None) -> list[GridOutline]:
    """The grids whose submit named receivers; what is not there or cannot be read is
    passed by."""
    outlines: list[GridOutline] = []
    for name in grid_record.list_grids(workspace):
        if grid not in (None, name):
            continue
        try:
            outline = grid_record.read_grid_outline(workspace, name)
        except Damaged:
            continue
        if outline is not None and _list_receivers(outline):
            outlines.append(outline)
    return outlines


def _list_receivers(outline: GridOutline) -> list[Receiver]:
    """Who is told what befalls a grid's runs; nobody in what an older zsg wrote."""
    if isinstance(outline.notify, UnsetType):
        return []
    return outline.notify


def _name_submissions(workspace: Workspace) -> dict[str, str]:
    """The id of the newest submission of each job folder."""
    by_item = Ledger(workspace).by_item()
    return {item: submission.id for item, submission in by_item.items()}


def _list_notices(grid: _WatchedGrid) -> list[Notice]:
    """What there is to tell of a grid: of its jobs, and of it as a whole."""
    notices: list[Notice] = []
    for row in grid.rows:
        notice = _make_notice_of_row(grid, row)
        if notice is not None:
            notices.append(notice)
    end = _find_end(grid)
    if end is not None:
        notices.append(end)
        if not _is_at_work(grid):
            notices += _list_verdicts(grid, end)
    return notices


def _is_at_work(grid: _WatchedGrid) -> bool:
    """Whether a job of a grid goes on, or waits: an evaluate job may yet measure what a
    claim rests on, and a verdict is told once."""
    return any(row["state"] in ACTIVE for row in grid.rows)


def _make_notice_of_row(grid: _WatchedGrid, row: Row) -> Notice | None:
    """What a row of status gives to tell; None of most, and of a job that was never
    submitted, or is forgotten."""
    submission = grid.submissions.get(_name_item(row["run"]))
    if submission is None:
        return None
    if row["state"] == State.FAILED:
        return _make_failure(grid, row, submission)
    if row["state"] == State.RUNNING and row.get("hang_s"):
        return _make_hang(grid, row, submission)
    return None


def _name_item(name: str) -> str:
    """The folder of a job by its name in status: a run is named by its id alone."""
    return name if "/" in name else f"runs/{name}"


def _make_failure(grid: _WatchedGrid, row: Row, submission: str) -> Notice:
    """That a job has failed."""
    kind = Kind.FAILED
    item = _name_item(row["run"])
    attempt = row["attempt"] or 0
    cause = row["cause"]
    # it may be a line of a log, which holds anything
    evidence = hide_known(row["evidence"] or "")
    return Notice(
        id=records.name_job_notice(kind, item, submission, attempt),
        kind=kind,
        grid=grid.name,
        alike=records.tell_alike(kind, grid.name, cause, evidence),
        item=item,
        attempt=attempt,
        step=row["step"],
        cause=cause,
        evidence=evidence,
        at=now_ms(),
    )


def _make_hang(grid: _WatchedGrid, row: Row, submission: str) -> Notice:
    """That a job takes no step. It may hang again at another step, which is another
    notice."""
    kind = Kind.HANG
    item = _name_item(row["run"])
    attempt = row["attempt"] or 0
    step = row["step"] or 0
    name = records.name_job_notice(kind, item, submission, attempt)
    return Notice(
        id=f"{name}:{step}",
        kind=kind,
        grid=grid.name,
        alike=records.tell_alike(kind, grid.name, None, None),
        item=item,
        attempt=attempt,
        step=step,
        cause="hangs",
        evidence=row["flag"],
        at=now_ms(),
    )


def _find_end(grid: _WatchedGrid) -> Notice | None:
    """That all runs that a grid lists have ended; None while one of them has not."""
    states: dict[str, str] = {}
    for row in grid.rows:
        states[_name_item(row["run"])] = str(row["state"])
    outcomes: list[str] = []
    submissions: set[str] = set()
    for item in grid.items:
        outcome = states.get(item, "")
        submission = grid.submissions.get(item)
        if outcome not in ENDED or submission is None:
            return None
        outcomes.append(str(outcome))
        submissions.add(submission)
    if not outcomes:
        return None
    return at_end.describe_grid_end(grid.name, outcomes, submissions, now_ms())


def _list_verdicts(grid: _WatchedGrid, end: Notice) -> list[Notice]:
    """What the claims of a grid that has ended came to, for who wants to know; nothing
    where that is noted already, as to decide claims takes a while."""
    name = end.id.replace(Kind.DONE, Kind.VERDICT, 1)
    if not _lacks_notice(grid, name):
        return []
    lines = _judge_claims(grid.workspace, grid.name)
    if not lines:
        return []
    kind = Kind.VERDICT
    notice = Notice(
        id=name,
        kind=kind,
        grid=grid.name,
        alike=records.tell_alike(kind, grid.name, None, None),
        evidence="what its claims came to",
        more=lines,
        at=now_ms(),
    )
    return [notice]


def _lacks_notice(grid: _WatchedGrid, name: str) -> bool:
    """Whether a receiver of verdicts has not got this one noted."""
    outboxes = records.read_outboxes(grid.workspace)
    for receiver in grid.receivers:
        if Kind.VERDICT not in receiver.on:
            continue
        outbox = outboxes.get(receiver.key)
        if outbox is None or name not in outbox.notices:
            return True
    return False


def _judge_claims(workspace: Workspace, grid: str) -> list[str]:
    """The claims of a grid, each with its verdict in a line; none without claims."""
    # numpy: only where there is something to decide
    from launcher.reporting import verdict_lines
    from launcher.reporting.data import verdicts

    return verdict_lines.describe_verdicts(verdicts.judge_grid(workspace, grid))
