"""Decides the state of every job from what the world says, asking the scheduler once.

Truth order: the run's own exit record, sacct's terminal state, squeue, the ledger. Absence is `unknown`.
"""

import fcntl
import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jobs import journal
from jobs.attempt import CONTINUE
from jobs.folder import Workspace, read_json
from launcher import slurm
from launcher.ledger import Ledger, Submission
from launcher.slurm import CANCELLED, DONE, FAILED, QUEUED, RUNNING, UNKNOWN, WAITING

ABSENT = "absent"  # never submitted
ACTIVE = (WAITING, QUEUED, RUNNING)


@dataclass(frozen=True, kw_only=True)
class JobState:
    """What is known of one job folder. `every` is the checkpoint stride of a finished run."""

    state: str
    attempt: int | None = None
    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    slurm: str | None = None
    cause: str | None = None
    evidence: str | None = None
    every: int | None = None


def collect(
    workspace: Workspace, items: Iterable[str], ledger: Ledger, run: slurm.Run = subprocess.run
) -> dict[str, JobState]:
    """The state of each job folder (relative to the workspace)."""
    known = ledger.by_item()
    states: dict[str, JobState] = {}
    asked: dict[str, Submission] = {}
    for item in items:
        last = known.get(item)
        ended = _ended(workspace.root / item, last)
        if ended is not None:
            states[item] = ended
        elif last is None:
            states[item] = JobState(state=ABSENT)
        elif last.scheduler == "local":
            states[item] = _local(workspace, item, last)
        else:
            asked[item] = last
    states |= _slurm(workspace, asked, run)
    return {item: _explain(workspace, item, state) for item, state in states.items()}


def _ended(folder: Path, last: Submission | None) -> JobState | None:
    """The exit record, if it belongs to the newest submission and to the newest attempt."""
    record = read_json(folder / "exit.json")
    if record is None or (last is not None and record["submission"] != last.id):
        return None
    attempt = read_json(folder / "attempt.json") or {}
    if attempt.get("nonce") != record["nonce"]:
        return None  # requeued since
    outcome = record["outcome"]
    return JobState(
        state=FAILED if outcome == CONTINUE else outcome,
        attempt=record["attempt"],
        step=record["step"],
        steps=record.get("steps"),
        loss=record.get("loss"),
        slurm=record["slurm_job_id"],
        cause=record["cause"] if outcome != CONTINUE else "time limit or preemption",
        evidence=record["evidence"],
        every=record.get("every"),
    )


def _slurm(workspace: Workspace, asked: dict[str, Submission], run: slurm.Run) -> dict[str, JobState]:
    ids = {item: last.job_id(item) for item, last in asked.items()}
    told = slurm.states([job_id for job_id in ids.values() if job_id], run)
    states = {}
    for item, job_id in ids.items():
        if job_id is None:
            states[item] = JobState(state=UNKNOWN, cause="its submission was cut short; zsg submit again settles it")
            continue
        said = told[job_id]
        # sacct's COMPLETED without a record of the job's own is no proof that the work was done.
        state = UNKNOWN if said.state == DONE else said.state
        cause = "Slurm says COMPLETED, but the job left no record" if said.state == DONE else said.detail
        state_now = JobState(state=state, slurm=job_id, cause=cause)
        states[item] = progress(workspace.root / item, state_now) if state in (RUNNING, FAILED) else state_now
    return states


def _local(workspace: Workspace, item: str, last: Submission) -> JobState:
    folder = workspace.root / item
    if is_locked(folder / "lock"):
        return progress(folder, JobState(state=RUNNING))
    if is_locked(workspace.submission(last.id) / "lock"):
        return JobState(state=QUEUED if last.kind == "prepare" else WAITING)
    attempt = read_json(folder / "attempt.json") or {}
    if attempt.get("submission") == last.id:
        dead = JobState(state=FAILED, cause="died", evidence="the process ended without a record (killed?)")
        return progress(folder, dead)
    return JobState(state=CANCELLED, cause="never started: the zsg submit that was to run it has ended")


def _explain(workspace: Workspace, item: str, state: JobState) -> JobState:
    """A job that never started because its prepare job failed has failed for that reason."""
    if state.state != CANCELLED or state.attempt is not None:
        return state
    for needed in (read_json(workspace.root / item / "job.json") or {}).get("after", []):
        record = read_json(workspace.root / needed / "exit.json")
        if record and record["outcome"] == FAILED:
            why = f"{record['cause']}: {record['evidence']} ({needed})"
            return replace(state, state=FAILED, cause="prepare failed", evidence=why)
    return state


def progress(folder: Path, state: JobState) -> JobState:
    """Adds attempt, step and last loss from the end of the newest journal."""
    attempt = read_json(folder / "attempt.json")
    files = journal.files(folder)
    if not attempt or not files:
        return state
    rows = journal.last_rows(files[-1])
    starts = [row["data"] for row in rows if row["data"].get("event") == "start"] or _first_start(files[-1])
    losses = [row["data"]["loss"] for row in rows if "loss" in row["data"]]
    return replace(
        state,
        attempt=attempt["attempt"],
        step=rows[-1]["step"] if rows else None,
        steps=starts[-1]["steps"] if starts else None,
        loss=losses[-1] if losses else None,
    )


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock file (this machine only)."""
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _first_start(path: Path) -> list[dict[str, Any]]:
    for number, row in enumerate(journal.read_file(path)):
        if row["data"].get("event") == "start":
            return [row["data"]]
        if number > 10:
            break
    return []
