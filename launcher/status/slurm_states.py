"""Decides the state of a job of which Slurm says something, by what the job's own files
show besides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jobs.contract import exit_record, job_file
from jobs.contract.causes import Cause
from jobs.contract.heartbeat import STARTING
from jobs.contract.states import State
from launcher.clusters.slurm import SlurmState
from launcher.status import liveness, logs
from launcher.status.liveness import LOST_S, Clock, Signs
from launcher.status.progress import add_liveness, add_progress
from launcher.workspace.job_state import JobState
from launcher.workspace.ledger import Submission
from launcher.workspace.scheduler_job import Job

LEAVING = "leaving"
PAUSED = ("SUSPENDED", "STOPPED")
HELD_S = 45.0  # from a job's own end to that of its allocation, which takes seconds
# from a job's start to the beginning of its attempt: setup lines, imports from a slow disk
START_S = 300.0
# in the order in which the jobs of a chain are looked for
PRECEDENCE = (
    (State.RUNNING,),
    (State.QUEUED,),
    (State.WAITING,),
    (State.FAILED, State.CANCELLED, State.UNKNOWN),
)


@dataclass(frozen=True)
class Sighting:
    """A job of which Slurm says something. `answer`: what Slurm says; `last`: its newest
    submission; `end`: how it has ended, if it has told that; `is_link`: it is a later
    job of its chain; `log`: that of its script, which is rank 0's too."""

    folder: Path
    answer: SlurmState
    last: Submission
    end: JobState | None
    is_link: bool
    log: Path
    clock: Clock

    @property
    def end_age_s(self) -> float:
        """For how many seconds its exit record has been there."""
        path = exit_record.locate_exit_record(self.folder)
        return self.clock.now() - _modified(path)


def choose_acting(
    links: Sequence[Job], answers: Mapping[Job, SlurmState]
) -> Job | None:
    """The job of a chain that is at work or comes next; of one that has ended, the
    first that did not end well."""
    answered = [job for job in links if job in answers]
    for states in PRECEDENCE:
        for job in answered:
            if answers[job].state in states:
                return job
    return answered[0] if answered else None


def decide_state(sighting: Sighting) -> JobState:
    """The state of a job of which Slurm says something."""
    answer, end = sighting.answer, sighting.end
    if answer.away:
        return JobState(
            state=State.UNKNOWN, slurm=answer.job, cause=answer.detail, in_queue=True
        )
    if end is not None and end.state == State.DONE:
        # The links of a chain come and go behind a run that is done.
        return _still_held(sighting, end) if answer.state == State.RUNNING else end
    if answer.state in (State.QUEUED, State.WAITING):
        return _in_queue(answer, end, sighting.is_link)
    if answer.state == State.RUNNING:
        return _running(sighting)
    return _gone(sighting)


def _in_queue(answer: SlurmState, end: JobState | None, is_link: bool) -> JobState:
    """A job in the queue: for its first start, put back after its `end`, or a link
    behind one that has ended.

    A job that was put back waits anew for what it waited for at first, so its reason
    does not tell it from a link.
    """
    queued = JobState(
        state=answer.state,
        slurm=answer.job,
        reason=answer.detail,
        starts=answer.starts,
        in_queue=True,
    )
    if end is None:
        return queued
    if not end.stopped:
        # Of a run that has failed Slurm may not have dropped the links yet; they never start.
        is_dropped = is_link and (answer.detail or "").startswith("Dependency")
        return end if is_dropped else queued
    return replace(
        end,
        state=answer.state,
        stopped=False,
        evidence="continues by itself",
        slurm=answer.job,
        reason=answer.detail,
        starts=answer.starts,
        in_queue=True,
    )


def _running(sighting: Sighting) -> JobState:
    """A job that runs by squeue's word: has its attempt begun, does it live, has it
    told its end meanwhile?"""
    answer = sighting.answer
    state = JobState(
        state=State.RUNNING,
        slurm=answer.job,
        in_queue=True,
        reason=answer.detail,
        node=answer.nodes,
    )
    signs = liveness.read_signs(sighting.folder, sighting.clock)
    if sighting.end is not None and _has_ended_since_start(sighting):
        return _leaving(sighting, sighting.end, state)
    job = job_file.read_job(sighting.folder)
    state = replace(state, gpus=job.resources.gpus if job else None)
    if signs is None or not _has_begun(sighting, signs):
        return _starting(answer, state)
    state = replace(state, node=answer.nodes or signs.attempt.host)
    state = add_liveness(sighting.folder, state, signs, job)
    if signs.age_s > LOST_S and answer.word not in PAUSED:
        lost = f"no sign of life for {signs.age_s:.0f} s{_on(signs.attempt.host)}"
        return replace(state, state=State.UNKNOWN, cause=lost, flag=None, eta_s=None)
    return state


def _has_ended_since_start(sighting: Sighting) -> bool:
    """Whether a job told its end after Slurm started it for the last time."""
    elapsed_s = sighting.answer.elapsed_s
    return elapsed_s is not None and sighting.end_age_s < elapsed_s - 1


def _leaving(sighting: Sighting, end: JobState, state: JobState) -> JobState:
    """A job that has told its end, and whose processes are leaving."""
    if not end.stopped:
        return replace(_still_held(sighting, end), in_queue=True)
    if sighting.end_age_s < LOST_S:
        return replace(
            state, attempt=end.attempt, step=end.step, steps=end.steps, doing=LEAVING
        )
    return replace(_still_held(sighting, end), in_queue=False)


def _has_begun(sighting: Sighting, signs: Signs) -> bool:
    """Whether the attempt of the newest submission's last start has begun."""
    is_of_last = signs.attempt.submission == sighting.last.id
    return is_of_last and not signs.predate(sighting.answer.elapsed_s)


def _starting(answer: SlurmState, state: JobState) -> JobState:
    """A job whose attempt has not begun, which is told where it takes too long."""
    elapsed_s = answer.elapsed_s
    if elapsed_s is None or elapsed_s <= START_S:
        return replace(state, doing=STARTING)
    return replace(
        state,
        state=State.UNKNOWN,
        cause=f"not begun {elapsed_s:.0f} s after its start{_on(answer.nodes)}",
    )


def _still_held(sighting: Sighting, end: JobState) -> JobState:
    """A job that has told its end, and whose allocation squeue calls running: where
    that lasts, it is flagged."""
    answer = sighting.answer
    held_s, patience_s = _measure_hold(sighting)
    if held_s <= patience_s:
        return end
    job = job_file.read_job(sighting.folder)
    gpus = job.resources.gpus if job else None
    allocation = "its allocation"
    if gpus:
        allocation = f"{gpus} GPUs, {gpus * held_s / 3600:.1f} GPU-hours so far,"
    flag = (
        f"its Slurm job {answer.job} still holds {allocation}{_on(answer.nodes)}"
        f" {held_s / 60:.0f} min after its end; zsg cancel ends it"
    )
    return replace(end, in_queue=True, gpus=gpus, node=answer.nodes, flag=flag)


def _measure_hold(sighting: Sighting) -> tuple[float, float]:
    """For how many seconds an allocation has outlived its job, and how many it may.

    What Slurm has started again after the end finds nothing to do, once it has begun.
    """
    elapsed_s = sighting.answer.elapsed_s or 0.0
    end_age_s = sighting.end_age_s
    held_s, patience_s = elapsed_s, START_S
    if elapsed_s >= end_age_s:
        held_s, patience_s = end_age_s, HELD_S
    if sighting.answer.word == "COMPLETING":
        patience_s = START_S  # an epilogue may take its time
    return held_s, patience_s


def _gone(sighting: Sighting) -> JobState:
    """A job that has left the queue without a record of its own."""
    answer, folder = sighting.answer, sighting.folder
    state = JobState(
        state=answer.state,
        slurm=answer.job,
        cause=answer.detail,
        evidence=answer.evidence,
    )
    signs = liveness.read_signs(folder, sighting.clock)
    has_begun = signs is not None and signs.attempt.submission == sighting.last.id
    if not has_begun:
        in_setup = _ended_in_setup(sighting, state)
        if in_setup is not None:
            return in_setup
    if answer.state == State.DONE:
        # sacct's COMPLETED without a record of the job's own is no proof that the work was done.
        return replace(
            state,
            state=State.UNKNOWN,
            cause="Slurm says COMPLETED, but the job left no record",
        )
    if signs is None or not has_begun:
        return state
    if signs.age_s < LOST_S:
        state = _perhaps_alive(answer, state, signs.age_s)
    return add_progress(folder, state)


def _perhaps_alive(answer: SlurmState, state: JobState, age_s: float) -> JobState:
    """A job that has ended by Slurm's word only: slurmd may be dead and the ranks
    alive."""
    cause = (
        f"Slurm says {answer.detail or answer.state}; its last sign of life is {age_s:.0f}"
        " s old"
    )
    return replace(state, state=State.UNKNOWN, cause=cause, doing=LEAVING)


def _ended_in_setup(sighting: Sighting, state: JobState) -> JobState | None:
    """A job that did not come past its setup lines: the line, and where that is what
    ended it, as its cause. None where it came past them."""
    trouble = logs.setup_trouble(sighting.log)
    if trouble is None:
        return None
    line, has_failed = trouble
    answer = sighting.answer
    if has_failed or answer.state == State.DONE or answer.detail == Cause.DIED:
        return replace(state, state=State.FAILED, cause=Cause.SETUP, evidence=line)
    return replace(state, evidence="; ".join(filter(None, (state.evidence, line))))


def _on(node: str | None) -> str:
    return f" on {node}" if node else ""


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
