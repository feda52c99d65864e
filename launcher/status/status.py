"""Decides the state of every job from what the world says, asking the scheduler once.

Truth order: the run's own exit record, sacct's terminal state, squeue, the ledger.
Absence is `unknown`. A job that runs by squeue's word and gives no sign of life is
`unknown` too, and so is one that does after its end was told.
"""

import contextlib
import fcntl
import math
import os
import subprocess
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET

from jobs.contract import attempt as attempts
from jobs.contract import cancellation, exit_record, job_file
from jobs.contract.causes import Cause
from jobs.contract.continuation import NEXT
from jobs.contract.exit_record import ExitRecord, replace_unset
from jobs.contract.folder import Damaged, Workspace
from jobs.contract.heartbeat import STARTING, TRAINING
from jobs.contract.job_file import TrainJob, jobs_before
from jobs.contract.states import Outcome, State
from launcher.clusters import slurm
from launcher.clusters.slurm import SlurmState
from launcher.status import liveness, logs
from launcher.status.liveness import LOST_S, Clock
from launcher.status.progress import add_liveness, add_progress
from launcher.status.terminal_cache import (
    FIELDS,
    Key,
    RememberedEnd,
    TerminalCache,
)
from launcher.workspace.job_state import NEVER_STARTED, JobState
from launcher.workspace.ledger import Ledger, Submission
from launcher.workspace.scheduler_job import Job
from zsg_core.errors import ClusterError

LEAVING = "leaving"
BEFORE = ("prepare", "sample", "canary")  # kinds of jobs that others wait for
MOST_DONE = 5000  # ids of jobs that are done, in one squeue: a command line has an end
PAUSED = ("SUSPENDED", "STOPPED")
HELD_S = 45.0  # from a job's own end to that of its allocation, which takes seconds
# from a job's start to the beginning of its attempt: setup lines, imports from a slow disk
START_S = 300.0


def collect_states(
    workspace: Workspace,
    items: Iterable[str],
    ledger: Ledger,
    run: slurm.Runner = subprocess.run,
    *,
    settled: TerminalCache | None = None,
) -> dict[str, JobState]:
    """The state of each job folder (relative to the workspace).

    `settled` remembers the ends that were read before; of them it has no checkpoints,
    snapshots or sizes. With it the queue is also searched for jobs that are done, until
    each was seen to have left it: an allocation may outlive its run.
    """
    known, clock = ledger.by_item(), Clock(workspace)
    # what cannot be read of a job's folder: the others are told of all the same
    broken: dict[str, str] = {}
    states: dict[str, JobState] = {}
    asked: dict[str, Submission] = {}
    done: dict[str, Key] = {}
    wanted = list(items)
    for item in wanted:
        last = known.get(item)
        try:
            ended = _remembered(workspace, item, last, settled, clock)
        except Damaged as error:
            ended, broken[item] = None, str(error)
        if ended is not None:
            states[item] = ended
        if (
            last is not None
            and last.scheduler == "slurm"
            and (ended is None or ended.state != State.DONE)
        ):
            asked[item] = last  # also what has ended: Slurm may have requeued it since
        elif ended is not None:
            if (
                last is not None
                and last.ids
                and last.scheduler == "slurm"
                and settled
                and len(done) < MOST_DONE
            ):
                key = settled.key(workspace.root / item, last.id)
                if key is not None and not settled.has_left_queue(item, key):
                    asked[item], done[item] = last, key
        elif last is None:
            states[item] = JobState(state=State.ABSENT)
        else:
            states[item] = _readable(
                item, broken, partial(_local, workspace, item, last, clock)
            )
    before = _jobs_before(
        workspace, asked.keys() - states.keys(), known, states, settled, clock
    )
    asked |= {item: last for item, last in before.items() if item not in states}
    try:
        found = _slurm(workspace, asked, ledger, states, clock, run, broken)
    except ClusterError:
        if asked.keys() - done.keys():
            raise
        # all is done: that can be read where there is no Slurm, too
        found, done = {}, {}
    if settled:
        for item in done.keys() - found.keys():
            settled.remember_left_queue(item, done[item])
        settled.save()
    states |= found

    def of(item: str) -> JobState | None:
        """The state of a job that others wait for."""
        if item in states:
            return _as_wished(states[item], item, known.get(item))
        last = known.get(item)
        ended = _ended(workspace.root / item, last)
        if ended is None and last is not None and last.scheduler == "local":
            return _local(workspace, item, last, clock)
        return ended

    made: dict[str, JobState] = {}
    for item in wanted:
        state = states[item]
        state = _readable(
            item, broken, partial(_explain, workspace, item, state, of), state
        )
        made[item] = _as_wished(
            _with_trouble(state, broken.get(item)), item, known.get(item)
        )
    return made


def _jobs_before(
    workspace: Workspace,
    waiting: Collection[str],
    known: Mapping[str, Submission],
    states: dict[str, JobState],
    settled: TerminalCache | None,
    clock: Clock,
) -> dict[str, Submission]:
    """The prepare jobs and canaries on Slurm, of which what waits may learn that it never starts.

    Those that have ended by their own word go to `states`. Nobody is asked where nothing waits.
    """
    if not waiting:
        return {}
    of_kind = {
        item: last
        for item, last in known.items()
        if last.kind in BEFORE and last.scheduler == "slurm"
    }
    for item, last in of_kind.items():
        # then it is asked for like one that has not ended
        with contextlib.suppress(Damaged):
            if item not in states and (
                ended := _remembered(workspace, item, last, settled, clock)
            ):
                states[item] = ended
    return of_kind


def _as_wished(state: JobState, item: str, last: Submission | None) -> JobState:
    """What `zsg cancel` has stopped is cancelled, whatever became of it; what is still
    on its way out is not yet."""
    if last is None or item not in last.cancelled or state.state == State.DONE:
        return state
    if (state.is_active and not state.stopped) or state.doing == LEAVING:
        return state if state.cause else replace(state, cause="is being cancelled")
    return replace(
        state, state=State.CANCELLED, stopped=False, in_queue=False, **cancellation.TOLD
    )


def _remembered(
    workspace: Workspace,
    item: str,
    last: Submission | None,
    settled: TerminalCache | None,
    clock: Clock,
) -> JobState | None:
    """The end of a job by its own word, read or remembered."""
    ended = _read_or_recalled(workspace.root / item, item, last, settled, clock)
    if (
        ended is not None
        and ended.state == State.DONE
        and ended.loss is not None
        and not math.isfinite(float(ended.loss))
    ):
        return replace(
            ended, flag="its last test loss is not a number: it has diverged"
        )
    return ended


def _read_or_recalled(
    folder: Path,
    item: str,
    last: Submission | None,
    settled: TerminalCache | None,
    clock: Clock,
) -> JobState | None:
    if settled is None:
        return _ended(folder, last)
    key = settled.key(folder, last.id if last else None)
    if key is None:
        return None  # there is no folder
    is_remembered, end = settled.recall(item, key)
    if is_remembered:
        return JobState(**msgspec.structs.asdict(end)) if end else None
    ended = _ended(folder, last)
    settled.remember(item, key, _brief(ended) if ended else None, clock.now())
    return ended


def _brief(state: JobState) -> RememberedEnd:
    """What a table shows of a job that has ended."""
    return RememberedEnd(**{name: getattr(state, name) for name in FIELDS})


def _ended(folder: Path, last: Submission | None) -> JobState | None:
    """The exit record, if it belongs to the newest submission and to the newest attempt."""
    record = exit_record.read_exit_record(folder)
    if record is None or (last is not None and record.submission != last.id):
        return None
    attempt = attempts.read_attempt(folder)
    if attempt is None or attempt.nonce != record.nonce:
        return None  # requeued since
    stopped = record.outcome == Outcome.CONTINUE
    saved = replace_unset(record.saved)
    return JobState(
        state=State.WAITING if stopped else State(record.outcome),
        attempt=record.attempt,
        step=record.reached if stopped else record.step,
        steps=replace_unset(record.steps),
        signature=replace_unset(record.signature),
        first=replace_unset(record.first, 0),
        loss=replace_unset(record.loss),
        slurm=record.slurm_job_id,
        cause=f"stopped {_stopped_at(record)} ({_stopped_by(record)})"
        if stopped
        else record.cause,
        evidence=_next_step(record) if stopped else record.evidence,
        checkpoints=tuple(replace_unset(record.checkpoints, ())),
        quick={
            key: tuple(steps) for key, steps in replace_unset(record.quick, {}).items()
        },
        snapshots=tuple(replace_unset(record.snapshots, ())),
        saved=saved,
        under=_under(folder)
        if record.outcome != Outcome.DONE and saved is not None
        else {},
        stopped=stopped,
    )


def _stopped_at(record: ExitRecord) -> str:
    """How far it came: a run to a step, an evaluate job to so many scores."""
    return (
        f"at step {record.reached}"
        if record.scored is UNSET
        else f"after {record.scored} scores"
    )


def _stopped_by(record: ExitRecord) -> str:
    return "time limit or preemption" if record.goes_on is UNSET else str(record.cause)


def _next_step(record: ExitRecord) -> str:
    """What a stopped run waits for; where it was to go on by itself, it is seen that it
    does not."""
    return str(record.evidence) if record.goes_on is None else NEXT


def _under(folder: Path) -> dict[str, Any]:
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
    return size | {"every": every, "quick": quick, "snapshots": snapshots}


def _slurm(
    workspace: Workspace,
    asked: dict[str, Submission],
    ledger: Ledger,
    settled: Mapping[str, JobState],
    clock: Clock,
    run: slurm.Runner,
    broken: dict[str, str],
) -> dict[str, JobState]:
    """What Slurm adds: all of `asked` but those of `settled` that are not in its queue again."""
    jobs = {item: last.jobs_of(item) for item, last in asked.items()}
    replaced = ledger.replaced({*asked, *settled})
    ended = {job for item, links in jobs.items() if item in settled for job in links}
    ended |= {job for links in replaced.values() for job in links}
    may_ask = all(last.sacct for last in asked.values())
    every = [job for of in (jobs, replaced) for links in of.values() for job in links]
    told = slurm.query_states(every, run, settled=ended, sacct=may_ask)
    states = {}
    for item, links in jobs.items():
        job = _acting(links, told)
        if asked[item].copied_from:
            if item not in settled:
                cause = (
                    f"it was submitted from {asked[item].copied_from}, of which this workspace is a"
                    " copy"
                )
                states[item] = JobState(state=State.UNKNOWN, cause=cause)
        elif not links:
            states[item] = JobState(
                state=State.UNKNOWN,
                cause="its submission was cut short; zsg submit again settles it",
            )
        elif job:
            said, before = replace(told[job], job=job.id), settled.get(item)
            is_link = before is not None and job.id not in (links[0].id, before.slurm)
            read = partial(
                _by_slurm, workspace, item, said, asked[item], before, is_link, clock
            )
            in_queue = said.state in (State.QUEUED, State.WAITING, State.RUNNING)
            states[item] = _readable(
                item,
                broken,
                read,
                JobState(state=State.UNKNOWN, slurm=job.id, in_queue=in_queue),
            )
    for item, links in replaced.items():
        if left := tuple(
            job.id for job in links if job in told and not told[job].is_leaving
        ):
            states[item] = replace(states.get(item) or settled[item], replaced=left)
    return states


def _by_slurm(
    workspace: Workspace,
    item: str,
    said: SlurmState,
    last: Submission,
    before: JobState | None,
    is_link: bool,
    clock: Clock,
) -> JobState:
    """A job of which Slurm says something. `before`: its end, if it has told one;
    `is_link`: of its chain."""
    folder = workspace.root / item
    if said.away:
        return JobState(
            state=State.UNKNOWN, slurm=said.job, cause=said.detail, in_queue=True
        )
    if before is not None and before.state == State.DONE:
        # The links of a chain come and go behind a run that is done.
        return (
            _still_held(folder, said, before, clock)
            if said.state == State.RUNNING
            else before
        )
    if said.state in (State.QUEUED, State.WAITING):
        return _waits(said, before, is_link)
    if said.state == State.RUNNING:
        return _running(folder, said, last, before, clock)
    return _gone(workspace, folder, said, last, clock)


def _readable(
    item: str,
    broken: dict[str, str],
    read: Callable[[], JobState],
    otherwise: JobState | None = None,
) -> JobState:
    """What `read` tells of a job. Where a file of its folder cannot be read, that goes
    to `broken`."""
    try:
        return read()
    except Damaged as error:
        broken.setdefault(item, str(error))
        return otherwise or JobState(state=State.UNKNOWN)


def _with_trouble(state: JobState, trouble: str | None) -> JobState:
    """A job of which a file cannot be read: nobody knows how it ended; one under way
    goes on all the same."""
    if trouble is None:
        return state
    if state.is_active:
        return replace(state, flag=trouble)
    return replace(state, state=State.UNKNOWN, cause=trouble, evidence=None)


def _acting(links: Sequence[Job], told: Mapping[Job, SlurmState]) -> Job | None:
    """The job of a chain that is at work or comes next; of one that has ended, the
    first that did not end well."""
    known = [job for job in links if job in told]
    for wanted in (
        (State.RUNNING,),
        (State.QUEUED,),
        (State.WAITING,),
        (State.FAILED, State.CANCELLED, State.UNKNOWN),
    ):
        for job in known:
            if told[job].state in wanted:
                return job
    return known[0] if known else None


def _waits(said: SlurmState, ended: JobState | None, is_link: bool) -> JobState:
    """A job in the queue: for its first start, put back after it had `ended`, or a link
    behind one that has.

    A job that was put back waits anew for what it waited for at first, so its reason
    does not tell it from a link.
    """
    waits = JobState(
        state=said.state,
        slurm=said.job,
        reason=said.detail,
        starts=said.starts,
        in_queue=True,
    )
    if ended is None:
        return waits
    if not ended.stopped:
        # Of a run that has failed Slurm may not have dropped the links yet; they never start.
        never = is_link and (said.detail or "").startswith("Dependency")
        return ended if never else waits
    facts = {
        "slurm": said.job,
        "reason": said.detail,
        "starts": said.starts,
        "in_queue": True,
    }
    return replace(
        ended, state=said.state, stopped=False, evidence="goes on by itself", **facts
    )


def _running(
    folder: Path,
    said: SlurmState,
    last: Submission,
    ended: JobState | None,
    clock: Clock,
) -> JobState:
    """A job that runs by squeue's word: has its attempt begun, does it live, has it
    told its end meanwhile?"""
    state = JobState(
        state=State.RUNNING,
        slurm=said.job,
        in_queue=True,
        reason=said.detail,
        node=said.nodes,
    )
    signs, elapsed_s = liveness.read_signs(folder, clock), said.elapsed_s
    told_s = clock.now() - _modified(exit_record.locate_exit_record(folder))
    # its processes are leaving
    if ended and elapsed_s is not None and told_s < elapsed_s - 1:
        if ended.stopped and told_s < LOST_S:
            return replace(
                state,
                attempt=ended.attempt,
                step=ended.step,
                steps=ended.steps,
                doing=LEAVING,
            )
        held = _still_held(folder, said, ended, clock)
        return (
            replace(held, in_queue=False)
            if ended.stopped
            else replace(held, in_queue=True)
        )
    job = job_file.read_job(folder)
    state = replace(state, gpus=job.resources.gpus if job else None)
    if signs is None or signs.attempt.submission != last.id or signs.predate(elapsed_s):
        if elapsed_s is not None and elapsed_s > START_S:
            return replace(
                state,
                state=State.UNKNOWN,
                cause=f"not begun {elapsed_s:.0f} s after its start{_on(said.nodes)}",
            )
        return replace(state, doing=STARTING)
    state = add_liveness(
        folder, replace(state, node=said.nodes or signs.attempt.host), signs, job
    )
    if signs.age_s > LOST_S and said.word not in PAUSED:
        lost = f"no sign of life for {signs.age_s:.0f} s{_on(signs.attempt.host)}"
        return replace(state, state=State.UNKNOWN, cause=lost, flag=None, eta_s=None)
    return state


def _still_held(
    folder: Path, said: SlurmState, ended: JobState, clock: Clock
) -> JobState:
    """A job that has told its end, and whose allocation squeue calls running: where
    that lasts, it is flagged.

    What Slurm has started again after the end finds nothing to do, once it has begun.
    """
    told_s, elapsed_s = (
        clock.now() - _modified(exit_record.locate_exit_record(folder)),
        said.elapsed_s or 0.0,
    )
    held_s, patience_s = (
        (told_s, HELD_S) if elapsed_s >= told_s else (elapsed_s, START_S)
    )
    # an epilogue may take its time
    if held_s <= (START_S if said.word == "COMPLETING" else patience_s):
        return ended
    job = job_file.read_job(folder)
    count = job.resources.gpus if job else None
    what = (
        f"{count} GPUs, {count * held_s / 3600:.1f} GPU-hours so far,"
        if count
        else "its allocation"
    )
    flag = (
        f"its Slurm job {said.job} still holds {what}{_on(said.nodes)} {held_s / 60:.0f} min after"
        " its end"
    )
    return replace(
        ended,
        in_queue=True,
        gpus=count,
        node=said.nodes,
        flag=f"{flag}; zsg cancel ends it",
    )


def _gone(
    workspace: Workspace, folder: Path, said: SlurmState, last: Submission, clock: Clock
) -> JobState:
    """A job that has left the queue without a record of its own."""
    state = JobState(
        state=said.state, slurm=said.job, cause=said.detail, evidence=said.evidence
    )
    signs = liveness.read_signs(folder, clock)
    has_begun = signs is not None and signs.attempt.submission == last.id
    if not has_begun and (stopped := _in_setup(workspace, said, last, state)):
        return stopped
    if said.state == State.DONE:
        # sacct's COMPLETED without a record of the job's own is no proof that the work was done.
        return replace(
            state,
            state=State.UNKNOWN,
            cause="Slurm says COMPLETED, but the job left no record",
        )
    if signs is None or not has_begun:
        return state
    if signs.age_s < LOST_S:
        # slurmd may be dead and the ranks alive: no end is told of what may yet go on.
        cause = (
            f"Slurm says {said.detail or said.state}; its last sign of life is {signs.age_s:.0f}"
            " s old"
        )
        return add_progress(
            folder, replace(state, state=State.UNKNOWN, cause=cause, doing=LEAVING)
        )
    return add_progress(folder, state)


def _in_setup(
    workspace: Workspace, said: SlurmState, last: Submission, state: JobState
) -> JobState | None:
    """A job that did not come past its setup lines: the line, and where that is what
    ended it, as its cause."""
    trouble = logs.setup_trouble(_log_of(workspace, said, last))
    if trouble is None:
        return None
    told, has_failed = trouble
    if has_failed or said.state == State.DONE or said.detail == Cause.DIED:
        return replace(state, state=State.FAILED, cause=Cause.SETUP, evidence=told)
    return replace(state, evidence="; ".join(filter(None, (state.evidence, told))))


def _log_of(workspace: Workspace, said: SlurmState, last: Submission) -> Path:
    """The log of a job's script, which is rank 0's too."""
    return workspace.submission(last.id) / f"{said.job}_0_log.out"


def _on(node: str | None) -> str:
    return f" on {node}" if node else ""


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _local(workspace: Workspace, item: str, last: Submission, clock: Clock) -> JobState:
    folder = workspace.root / item
    if is_locked(folder / "lock"):
        return _here(folder, clock)
    # Before the submit's lock: a job that was killed does not wait, however long its submit lives.
    attempt = attempts.read_attempt(folder)
    if attempt and attempt.submission == last.id:
        dead = JobState(
            state=State.FAILED,
            cause=Cause.DIED,
            evidence="the process ended without a record (killed?)",
        )
        # It may have told its end since it was looked for.
        return _ended(folder, last) or add_progress(folder, dead)
    if is_locked(workspace.submission(last.id) / "lock"):
        return JobState(
            state=State.QUEUED if last.kind in ("prepare", "sample") else State.WAITING
        )
    return JobState(state=State.CANCELLED, cause=NEVER_STARTED)


def _here(folder: Path, clock: Clock) -> JobState:
    """A job on this machine, whose lock says that its process lives. Its journal is
    newer than its heartbeat."""
    state, signs = JobState(state=State.RUNNING), liveness.read_signs(folder, clock)
    if signs and signs.beat:
        state = add_liveness(folder, state, signs, job_file.read_job(folder))
        if signs.age_s > LOST_S:
            state = replace(
                state, flag=f"no sign of life for {signs.age_s:.0f} s", eta_s=None
            )
    found = add_progress(folder, replace(state, evidence=None))
    return (
        replace(found, doing=TRAINING)
        if found.step and found.doing == STARTING
        else found
    )


def _explain(
    workspace: Workspace,
    item: str,
    state: JobState,
    of: Callable[[str], JobState | None],
) -> JobState:
    """A job that never started because one that it waits for failed has failed for that reason.

    Slurm cancels it, and accounting may not know that yet. `of` tells the state of the job before.
    """
    if state.state not in (State.CANCELLED, State.UNKNOWN) or state.attempt is not None:
        return state
    for needed in jobs_before(job_file.read_job(workspace.root / item)):
        before = of(needed)
        if before is None or before.in_queue or before.doing == LEAVING:
            continue
        before = _explain(workspace, needed, before, of)
        if before.stopped:
            why = f"a stage before, {needed}, was stopped at step {before.step or 0}"
            return replace(
                state, state=State.WAITING, cause=why, evidence=NEXT, stopped=True
            )
        if (
            before.state not in (State.FAILED, State.CANCELLED, State.UNKNOWN)
            or before.cause == NEVER_STARTED
        ):
            continue
        # Where nobody knows what became of either, that is not known to be the reason.
        became = (
            State.UNKNOWN
            if State.UNKNOWN == before.state == state.state
            else State.FAILED
        )
        cause = _OF_OTHERS[needed.partition("/")[0]]
        why = before.evidence
        if before.cause not in _OF_OTHERS.values():
            why = (
                f"{before.cause or before.state}: {before.evidence or 'it left no record'}"
                f" ({needed})"
            )
        if state.cause == NEVER_STARTED and (
            before.state != State.FAILED or before.cause == Cause.DIED
        ):
            # On this machine the submit was ended with the job: the next one starts both again.
            return replace(state, evidence=why)
        return replace(state, state=became, cause=cause, evidence=why)
    return state


_OF_OTHERS = {
    "prepare": Cause.PREPARE_FAILED,
    "runs": Cause.STAGE_FAILED,
    "canary": Cause.CANARY_FAILED,
}


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
