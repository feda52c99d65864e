"""Tells the user from the node how a job has ended, where its submit was told to.

It can cost the job nothing: its end is on the disk by then, a thread does it that
nobody waits for longer than LIMIT_S, and whatever goes wrong is a line of the log. What
was not told, whoever looks next tells: another job, `zsg sync`, `zsg status --watch`.
"""

import logging
import threading
from pathlib import Path

from msgspec import UnsetType

from jobs.contract import attempt as attempts
from jobs.contract import grid_record, job_file, ledger_rows
from jobs.contract import notices as records
from jobs.contract.exit_record import ExitRecord
from jobs.contract.folder import Workspace
from jobs.contract.grid_record import GridOutline
from jobs.contract.job_file import AnyJob
from jobs.contract.ledger_rows import Intent, NumberedRow
from jobs.contract.notices import Kind, Notice, Receiver
from jobs.contract.states import Outcome

logger = logging.getLogger(__name__)

LIMIT_S = 5.0
# of the job's end, that of the sender included
SEND_S = 4.0
ENDED = (Outcome.DONE, Outcome.FAILED, Outcome.CANCELLED)


def tell_end(folder: Path, job: AnyJob) -> None:
    """Tells how the newest attempt of a job has ended, from its own record. Returns
    after LIMIT_S at the latest, and never raises."""
    receivers = job.notify
    if isinstance(receivers, UnsetType) or not receivers:
        return
    try:
        thread = threading.Thread(
            target=_tell_quietly, args=(folder, receivers), daemon=True
        )
        thread.start()
        thread.join(LIMIT_S)
    except Exception as error:
        logger.warning(_describe(error))


def _tell_quietly(folder: Path, receivers: list[Receiver]) -> None:
    try:
        _tell(folder, receivers)
    except Exception as error:
        logger.warning(_describe(error))


def _describe(error: Exception) -> str:
    # its text may quote an address
    return f"no notice was sent ({type(error).__name__}); zsg sync sends it"


def _tell(folder: Path, receivers: list[Receiver]) -> None:
    """Tells the receivers how the newest attempt ended, if it did in a way that
    somebody waits for. `folder` is the job's own. What cannot be told now is a warning
    in the log and never an error: the job is over, and a later `zsg sync` tells it."""
    # only where somebody is to be told: it loads what speaks HTTP
    from jobs.notices import sender

    # as it lies by now; job.json names where it was submitted
    workspace = Workspace(folder.absolute().parent.parent)
    record = attempts.end_of_newest(folder)
    if record is None or record.outcome not in ENDED:
        return
    grid = find_grid(workspace, record.submission)
    item = f"{folder.parent.name}/{folder.name}"
    notices = list_end_notices(workspace, grid, item, record, receivers)
    report = sender.tell(workspace, receivers, notices, sender.Patience(SEND_S))
    for key, why in report.troubles.items():
        logger.warning(f"{key} was not told: {why}; zsg sync tells it")


def find_grid(workspace: Workspace, submission: str) -> str:
    """The grid of a submission, by the ledger; empty where it is of none."""
    for line in ledger_rows.read_lines(workspace.ledger):
        if isinstance(line, NumberedRow) and isinstance(line.row, Intent):
            if line.row.submission == submission:
                return line.row.grid
    return ""


def list_end_notices(
    workspace: Workspace,
    grid: str,
    item: str,
    record: ExitRecord,
    receivers: list[Receiver],
) -> list[Notice]:
    """What the end of a job gives to tell: that it failed, and that with it the last
    run of its grid has ended."""
    notices: list[Notice] = []
    if record.outcome == Outcome.FAILED:
        notices.append(_make_failure(grid, item, record))
    is_wanted = any(Kind.DONE in receiver.on for receiver in receivers)
    if is_wanted and grid and item.startswith("runs/"):
        outline = grid_record.read_grid_outline(workspace, grid)
        ends = _read_ends(workspace, outline) if outline else None
        if ends:
            notices.append(make_grid_end(grid, ends))
    return notices


def _make_failure(grid: str, item: str, record: ExitRecord) -> Notice:
    kind = Kind.FAILED
    return Notice(
        id=records.name_job_notice(kind, item, record.submission, record.attempt),
        kind=kind,
        grid=grid,
        alike=records.tell_alike(kind, grid, record.cause, record.evidence),
        item=item,
        attempt=record.attempt,
        step=record.step,
        cause=record.cause,
        evidence=record.evidence,
        at=record.ended,
    )


def _read_ends(workspace: Workspace, outline: GridOutline) -> list[ExitRecord] | None:
    """How the runs of a grid have ended; None while one of them has not. The last of
    them are looked at first, as they end last."""
    ends: list[ExitRecord] = []
    for row in reversed(outline.runs):
        record = _read_last_end(workspace.run(row.run))
        if record is None:
            return None
        ends.append(record)
    return ends


def _read_last_end(folder: Path) -> ExitRecord | None:
    """How a run has ended for good; None for one that was submitted again since, that
    goes on, or that has not ended."""
    record = attempts.end_of_newest(folder)
    if record is None or record.outcome not in ENDED:
        return None
    job = job_file.read_job(folder)
    is_newest = job is not None and job.submission == record.submission
    return record if is_newest else None


def make_grid_end(grid: str, ends: list[ExitRecord]) -> Notice:
    """That all runs of a grid have ended, and how."""
    outcomes = [str(record.outcome) for record in ends]
    submissions = {record.submission for record in ends}
    return describe_grid_end(
        grid, outcomes, submissions, max(record.ended for record in ends)
    )


def describe_grid_end(
    grid: str, outcomes: list[str], submissions: set[str], at: int
) -> Notice:
    """The same, by the words for how each has ended and the submissions that they were
    of."""
    kind = Kind.DONE
    counts = [f"{outcomes.count(word):,} {word}" for word in map(str, ENDED)]
    summary = ", ".join(words for words in counts if not words.startswith("0 "))
    return Notice(
        id=records.name_grid_notice(kind, grid, submissions),
        kind=kind,
        grid=grid,
        alike=records.tell_alike(kind, grid, None, None),
        evidence=f"all {len(outcomes):,} runs have ended: {summary}",
        at=at,
    )
