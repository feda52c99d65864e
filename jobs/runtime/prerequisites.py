"""Looks whether what a train job needs has been made, before any engine is loaded, and
says who did not make it.

A train job may wait for the ends of many prepare jobs, not all of them its own: that
they ended says nothing.
"""

from collections.abc import Iterator
from pathlib import Path

from jobs.contract import exit_record
from jobs.contract.causes import Cause, Known
from jobs.contract.folder import Workspace, is_committed
from jobs.contract.job_file import TrainJob
from jobs.contract.states import Outcome


def check_prerequisites(job: TrainJob) -> None:
    """Raises Known, the cause, if corpus, order or weights are missing or half made,
    with what their maker said."""
    workspace = job.workspace
    lacking = [folder for folder in _needed(workspace, job) if not is_committed(folder)]
    if not lacking:
        return
    names = ", ".join(str(folder.relative_to(workspace.root)) for folder in lacking)
    told = [(item, _told(workspace.root / item)) for item in job.after]
    blamed = next(((item, why) for item, why in told if why), None)
    is_stage = blamed[0].startswith("runs/") if blamed else False
    why = (
        f"{blamed[0]}: {blamed[1]}"
        if blamed
        else "no job that makes it has ended yet; submit again when it has"
    )
    raise Known(
        Cause.STAGE_FAILED if is_stage else Cause.PREPARE_FAILED,
        f"{names} is not there: {why}",
    )


def _needed(workspace: Workspace, job: TrainJob) -> Iterator[Path]:
    made = job.made
    yield workspace.corpus(made.corpus)
    yield workspace.arrangement(made.arrangement)
    if made.base or job.before:
        yield job.base_folder


def _told(folder: Path) -> str:
    """How a job ended badly, in its own words; empty where it has not, or has not said."""
    record = exit_record.read(folder)
    return "" if record is None or record.outcome == Outcome.DONE else record.why
