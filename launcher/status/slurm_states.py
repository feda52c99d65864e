"""Decides the state of a job of which Slurm says something, by what the job's own files
show besides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jobs.contract import exit_record, job_file
from jobs.contract.causes import Cause
from jobs.contract.heartbeat import STARTING
from jobs.contract.states import State
from launcher.clusters.slurm import PAUSED, SlurmState
from launcher.status import launch, liveness, logs
from launcher.status.liveness import LOST_S, Clock, Signs
from launcher.status.logs import Launch
from launcher.status.progress import add_liveness, add_progress
from launcher.workspace.job_state import JobState
from launcher.workspace.ledger import Submission
from launcher.workspace.scheduler_job import Job

LEAVING = "leaving"
NO_ANSWER = "Slurm does not answer"  # with which the cause begins of what nobody knows
HELD_S = 45.0  # from a job's own end to that of its allocation, which takes seconds
# from a job's start to the beginning of its attempt: setup lines, imports from a slow disk
START_S = 300.0
PROLOG_S = 3600.0  # from a job's start to the first word of its script
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

    @property
    def since_start_s(self) -> float | None:
        """For how many seconds Slurm's last start is past. Slurm's own count stands still
        while a job is suspended, and once its processes have ended."""
        answer = self.answer
        stands_still = answer.is_leaving or answer.word in PAUSED
        if not stands_still:
            return answer.elapsed_s
        if answer.began is None:
            return None if answer.is_leaving else answer.elapsed_s
        return max(answer.elapsed_s or 0.0, self.clock.now() - answer.began)


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


def decide_unasked(sighting: Sighting, why: str) -> JobState:
    """The state of a job of which Slurm cannot be asked, by what its files show; `why`:
    for what reason. What nobody knows is unknown, and may well be at work."""
    answer = sighting.answer
    if sighting.end is not None:
        doubt = f"{why}, so whether it continues by itself is not known"
        end = sighting.end
        return replace(end, evidence=doubt) if end.stopped else end
    if not answer.away:
        return _gone(sighting)
    state = JobState(state=State.UNKNOWN, slurm=answer.job, cause=why, in_queue=True)
    signs = liveness.read_signs(sighting.folder, sighting.clock)
    if signs is None or signs.attempt.submission != sighting.last.id:
        return state
    job = job_file.read_job(sighting.folder)
    if signs.age_s > LOST_S:
        cause = f"{why}; its last sign of life is {signs.age_s:.0f} s old"
        return add_progress(sighting.folder, replace(state, cause=cause))
    state = replace(
        state,
        state=State.RUNNING,
        cause=None,
        gpus=job.resources.gpus if job else None,
        node=signs.attempt.host,
    )
    return add_liveness(sighting.folder, state, signs, job)


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
    if answer.is_booting:
        return _booting(answer, state)
    if sighting.end is not None and _has_ended_since_start(sighting):
        return _leaving(sighting, sighting.end, state)
    if answer.is_leaving:
        return _leaving_unrecorded(sighting, state)
    return _at_work(sighting, state)


def _booting(answer: SlurmState, state: JobState) -> JobState:
    """A job whose nodes boot, or are made ready by a prolog: nothing of it runs."""
    minutes = f" for {answer.elapsed_s / 60:.0f} min" if answer.elapsed_s else ""
    reason = f"Slurm makes its nodes ready{minutes} ({answer.word})"
    return replace(state, doing=STARTING, reason=reason)


def _at_work(sighting: Sighting, state: JobState) -> JobState:
    """A job that has told no end and that Slurm has not ended."""
    answer = sighting.answer
    signs = liveness.read_signs(sighting.folder, sighting.clock)
    job = job_file.read_job(sighting.folder)
    state = replace(state, gpus=job.resources.gpus if job else None)
    if signs is None or not _has_begun(sighting, signs):
        return _starting(sighting, state)
    state = replace(state, node=answer.nodes or signs.attempt.host)
    state = add_liveness(sighting.folder, state, signs, job)
    if signs.age_s > LOST_S and answer.word not in PAUSED:
        lost = f"no sign of life for {signs.age_s:.0f} s{_on(signs.attempt.host)}"
        return replace(state, state=State.UNKNOWN, cause=lost, flag=None, eta_s=None)
    return state


def _has_ended_since_start(sighting: Sighting) -> bool:
    """Whether a job told its end after Slurm started it for the last time."""
    since_start_s = sighting.since_start_s
    if since_start_s is None:
        # Of one that leaves, its record is of what has ended.
        return sighting.answer.is_leaving and not sighting.is_link
    # Of one that runs, an end in the first second may be that of the start before.
    doubt_s = 0 if sighting.answer.is_leaving else 1
    return sighting.end_age_s < since_start_s - doubt_s


def _leaving(sighting: Sighting, end: JobState, state: JobState) -> JobState:
    """A job that has told its end, and whose processes are leaving."""
    held_end = _still_held(sighting, end)
    if not end.stopped:
        if not sighting.answer.is_leaving:
            return replace(held_end, in_queue=True)
        is_usual = held_end.flag is None
        doing = LEAVING if is_usual else None
        return replace(held_end, in_queue=is_usual, doing=doing)
    patience_s = START_S if sighting.answer.is_leaving else LOST_S
    if sighting.end_age_s < patience_s:
        return replace(
            state,
            attempt=end.attempt,
            step=end.step,
            steps=end.steps,
            spent=end.spent,
            doing=LEAVING,
        )
    return replace(held_end, in_queue=False)


def _leaving_unrecorded(sighting: Sighting, state: JobState) -> JobState:
    """A job that has ended without a record, and after which Slurm still clears up: how
    it ended, accounting says once it has left."""
    signs = liveness.read_signs(sighting.folder, sighting.clock)
    if signs is not None and signs.attempt.submission != sighting.last.id:
        signs = None
    if signs is not None:
        state = add_progress(sighting.folder, state)
    state = replace(state, doing=LEAVING)
    clearing_s = _measure_clearing(sighting, signs)
    if clearing_s <= START_S:
        return state
    cause = (
        f"it left no record, and Slurm has been clearing up after it for {clearing_s / 60:.0f}"
        f" min{_on(sighting.answer.nodes)}: an epilog, or a node that hangs"
    )
    return replace(state, state=State.UNKNOWN, cause=cause, doing=None, in_queue=False)


def _measure_clearing(sighting: Sighting, signs: Signs | None) -> float:
    """For how many seconds Slurm has cleared up after a job, by its own count and by
    what the job has written last.

    Slurm's count leaves out how long a job was suspended, which is no clearing up; its
    clock may differ from that of the file system.
    """
    by_slurm_s = (sighting.since_start_s or 0.0) - (sighting.answer.elapsed_s or 0.0)
    log_age_s = sighting.clock.now() - _modified(sighting.log)
    silent_s = log_age_s if signs is None else min(log_age_s, signs.age_s)
    return min(by_slurm_s, silent_s)


def _has_begun(sighting: Sighting, signs: Signs) -> bool:
    """Whether the attempt of the newest submission's last start has begun."""
    is_of_last = signs.attempt.submission == sighting.last.id
    return is_of_last and not signs.predate(sighting.since_start_s)


def _starting(sighting: Sighting, state: JobState) -> JobState:
    """A job whose attempt has not begun. Where that takes long, what it is at is told:
    the site's prolog, a setup line; or nobody knows."""
    elapsed_s = sighting.answer.elapsed_s
    state = replace(state, doing=STARTING)
    if elapsed_s is None or elapsed_s <= START_S or sighting.answer.word in PAUSED:
        return state
    reason = _describe_start(sighting, elapsed_s)
    if reason is not None:
        return replace(state, reason=reason)
    nodes = _on(sighting.answer.nodes)
    return replace(
        state,
        state=State.UNKNOWN,
        doing=None,
        cause=f"not begun {elapsed_s:.0f} s after its start{nodes}",
    )


def _describe_start(sighting: Sighting, elapsed_s: float) -> str | None:
    """What a job is at that takes long to begin; None where that cannot be seen, or it
    should have begun."""
    log_age_s = sighting.clock.now() - _modified(sighting.log)
    if log_age_s > elapsed_s + 1:
        if elapsed_s > PROLOG_S:
            return None
        return (
            f"its script has not begun {elapsed_s:.0f} s after its start"
            f"{_on(sighting.answer.nodes)}: a prolog of the site?"
        )
    line, has_failed = logs.setup_trouble(sighting.log) or ("", True)
    return None if has_failed else line


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
        f" {held_s / 60:.0f} min after its end"
    )
    # What is leaving, nobody can end: its node's epilog or its administrator can.
    mend = "Slurm is still clearing up" if answer.is_leaving else "zsg cancel ends it"
    return replace(
        end,
        in_queue=not answer.is_leaving,
        gpus=gpus,
        node=answer.nodes,
        flag=f"{flag}; {mend}",
    )


def _measure_hold(sighting: Sighting) -> tuple[float, float]:
    """For how many seconds an allocation has outlived its job, and how many it may.

    What Slurm has started again after the end finds nothing to do, once it has begun.
    """
    end_age_s = sighting.end_age_s
    since_start_s = sighting.since_start_s
    if sighting.answer.is_leaving:
        # an epilogue may take its time
        return min(end_age_s, since_start_s or end_age_s), START_S
    if (since_start_s or 0.0) >= end_age_s:
        return end_age_s, HELD_S
    return since_start_s or 0.0, START_S


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
    printed = logs.read_launch(sighting.log)
    has_begun = signs is not None and _has_begun_before_end(sighting, signs, printed)
    if not has_begun:
        unbegun = _ended_before_it_began(sighting, state, printed)
        if unbegun is not None:
            return unbegun
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


def _has_begun_before_end(
    sighting: Sighting, signs: Signs, printed: Launch | None
) -> bool:
    """Whether the last start of a job that has left began an attempt: one of an earlier
    start proves nothing."""
    if sighting.answer.exit_code == launch.NO_LOG:
        return False
    if signs.attempt.submission != sighting.last.id:
        return False
    if printed is None or printed.started is None:
        return True
    # Both times are of the node's clock. The log may lack the mark of an attempt.
    return signs.attempt.started / 1000 >= printed.started - 1


def _ended_before_it_began(
    sighting: Sighting, state: JobState, printed: Launch | None
) -> JobState | None:
    """A job that ended before zsg itself began, with the line that says why; None where
    nothing says so."""
    if printed is not None:
        state = replace(state, node=printed.node)
        in_setup = _ended_in_setup(sighting, state, printed)
        if in_setup is not None:
            return in_setup
    answer = sighting.answer
    if answer.state != State.UNKNOWN and answer.detail != Cause.DIED:
        return None
    failure = launch.explain_launch(
        printed.text.decode("utf-8", "replace") if printed else None,
        answer.exit_code,
        sighting.log.parent,
    )
    if failure is not None:
        return replace(
            state, state=State.FAILED, cause=failure.cause, evidence=failure.evidence
        )
    if answer.exit_code is None or launch.was_signalled(answer.exit_code):
        return None
    return replace(state, evidence=f"{state.evidence}, {launch.BEFORE}")


def _perhaps_alive(answer: SlurmState, state: JobState, age_s: float) -> JobState:
    """A job that has ended by Slurm's word only: slurmd may be dead and the ranks
    alive."""
    cause = (
        f"Slurm says {answer.detail or answer.state}; its last sign of life is {age_s:.0f}"
        " s old"
    )
    return replace(state, state=State.UNKNOWN, cause=cause, doing=LEAVING)


def _ended_in_setup(
    sighting: Sighting, state: JobState, printed: Launch
) -> JobState | None:
    """A job that did not come past its setup lines: the line, and where that is what
    ended it, as its cause. None where it came past them."""
    trouble = logs.find_setup_trouble(printed)
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
