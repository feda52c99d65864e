"""Reads how a job has ended by its own word: its exit record, as a state."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from msgspec import UNSET

from jobs.contract import attempt as attempts
from jobs.contract import exit_record, gpu_hours, job_file
from jobs.contract.continuation import NEXT
from jobs.contract.exit_record import ExitRecord, replace_unset
from jobs.contract.job_file import TrainJob
from jobs.contract.states import Outcome, State
from launcher.workspace.job_state import JobState
from launcher.workspace.ledger import Submission


def read_end(folder: Path, last: Submission | None) -> JobState | None:
    """How a job has ended, if its record is of the newest submission and of the newest
    attempt; else None."""
    record = exit_record.read_exit_record(folder)
    if record is None:
        return None
    if last is not None and record.submission != last.id:
        return None  # submitted again since
    newest = attempts.read_attempt(folder)
    if not attempts.is_current(record, newest):
        return None  # requeued since
    end = replace(_make_state(record), spent=gpu_hours.sum_end(folder, newest, record))
    if record.outcome != Outcome.DONE and end.saved is not None:
        end = replace(end, under=_read_size(folder))
    return end


def _make_state(record: ExitRecord) -> JobState:
    is_stopped = record.outcome == Outcome.CONTINUE
    quick = replace_unset(record.quick, {})
    state = JobState(
        state=State.WAITING if is_stopped else State(record.outcome),
        attempt=record.attempt,
        step=record.step,
        steps=replace_unset(record.steps),
        signature=replace_unset(record.signature),
        first=replace_unset(record.first, 0),
        loss=replace_unset(record.loss),
        slurm=record.slurm_job_id,
        cause=record.cause,
        evidence=record.evidence,
        checkpoints=tuple(replace_unset(record.checkpoints, ())),
        quick={key: tuple(steps) for key, steps in quick.items()},
        snapshots=tuple(replace_unset(record.snapshots, ())),
        saved=replace_unset(record.saved),
        notes=tuple(replace_unset(record.notes, ())),
        other_versions=replace_unset(record.other_versions),
    )
    return _as_stopped(state, record) if is_stopped else state


def _as_stopped(state: JobState, record: ExitRecord) -> JobState:
    """A job that was stopped before its end: how far it came, why, and what it waits for."""
    return replace(
        state,
        step=record.reached,
        cause=f"stopped {_stopped_at(record)} ({_stopped_by(record)})",
        evidence=_next_step(record),
        stopped=True,
    )


def _stopped_at(record: ExitRecord) -> str:
    """How far it came: a run to a step, an evaluate job to so many scores."""
    if record.scored is UNSET:
        return f"at step {record.reached}"
    return f"after {record.scored} scores"


def _stopped_by(record: ExitRecord) -> str:
    return "time limit or preemption" if record.goes_on is UNSET else str(record.cause)


def _next_step(record: ExitRecord) -> str:
    """What a stopped job waits for; where it was to continue by itself, it is seen that
    it does not."""
    return str(record.evidence) if record.goes_on is None else NEXT


def _read_size(folder: Path) -> dict[str, Any]:
    """The size of a job, and when a run is measured and its weights are kept."""
    job = job_file.read_job(folder)
    if job is None:
        return {}
    size = {
        "nodes": job.resources.nodes,
        "ranks_per_node": job.resources.ranks_per_node,
    }
    if not isinstance(job, TrainJob):
        return size
    every, quick, snapshots = job.checkpoints.strides
    return {**size, "every": every, "quick": quick, "snapshots": snapshots}
