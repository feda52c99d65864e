"""Decides the state of every job from what the world says, asking the scheduler once.

Truth order: the run's own exit record, sacct's terminal state, squeue, the ledger. Absence is `unknown`.
"""

import fcntl
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jobs import cancellation, journal
from jobs.attempt import CONTINUE
from jobs.causes import Cause
from jobs.folder import Workspace, read_json
from jobs.going_on import NEXT
from jobs.state import newest_step
from launcher import slurm
from launcher.ledger import Ledger, Submission
from launcher.slurm import CANCELLED, DONE, FAILED, QUEUED, RUNNING, UNKNOWN, WAITING

ABSENT = "absent"  # never submitted
NEVER_STARTED = "never started: the zsg submit that was to run it has ended"
ACTIVE = (WAITING, QUEUED, RUNNING)


@dataclass(frozen=True, kw_only=True)
class JobState:
    """What is known of one job folder. `checkpoints` are the steps where a finished run has the loss of all items."""

    state: str
    attempt: int | None = None
    step: int | None = None
    steps: int | None = None
    first: int = 0  # steps of the stages before this one
    loss: float | None = None
    slurm: str | None = None
    cause: str | None = None
    evidence: str | None = None
    checkpoints: tuple[int, ...] = ()
    quick: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # where quick sets were measured, by their key
    snapshots: tuple[dict[str, Any], ...] = ()  # those a finished run has written: step, probe_loss, kept
    saved: int | None = None  # the step from which a run that has not finished can go on
    under: dict[str, Any] = field(default_factory=dict)  # the size and checkpoints of a run that can go on
    stopped: bool = False  # by its time limit or a preemption: it waits for the next submit


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
        if last is not None and last.scheduler == "slurm" and (ended is None or ended.state != DONE):
            asked[item] = last  # also what has ended: Slurm may have requeued it since
        elif ended is not None:
            continue
        elif last is None:
            states[item] = JobState(state=ABSENT)
        else:
            states[item] = _local(workspace, item, last)
    states |= _slurm(workspace, asked, states, run)
    states = {item: _explain(workspace, item, state) for item, state in states.items()}
    return {item: _as_wished(state, item, known.get(item)) for item, state in states.items()}


def _as_wished(state: JobState, item: str, last: Submission | None) -> JobState:
    """What `zsg cancel` has stopped is cancelled, whatever became of it; what is still on its way out runs."""
    if last is None or item not in last.cancelled or state.state == DONE:
        return state
    if state.state in ACTIVE and not state.stopped:
        return state if state.cause else replace(state, cause="is being cancelled")
    return replace(state, state=CANCELLED, stopped=False, **cancellation.TOLD)


def _ended(folder: Path, last: Submission | None) -> JobState | None:
    """The exit record, if it belongs to the newest submission and to the newest attempt."""
    record = read_json(folder / "exit.json")
    if record is None or (last is not None and record["submission"] != last.id):
        return None
    attempt = read_json(folder / "attempt.json") or {}
    if attempt.get("nonce") != record["nonce"]:
        return None  # requeued since
    outcome = record["outcome"]
    stopped = outcome == CONTINUE
    reached = record["step"] or record.get("saved") or 0  # stopped while it started, it is where it was
    return JobState(
        state=WAITING if stopped else outcome,
        attempt=record["attempt"],
        step=reached if stopped else record["step"],
        steps=record.get("steps"),
        first=record.get("first", 0),
        loss=record.get("loss"),
        slurm=record["slurm_job_id"],
        cause=f"stopped at step {reached} ({_stopped_by(record)})" if stopped else record["cause"],
        evidence=_next_step(record) if stopped else record["evidence"],
        checkpoints=tuple(record.get("checkpoints", ())),
        quick={key: tuple(steps) for key, steps in record.get("quick", {}).items()},
        snapshots=tuple(record.get("snapshots", ())),
        saved=record.get("saved"),
        under=_under(folder) if outcome != DONE and record.get("saved") is not None else {},
        stopped=stopped,
    )


def _stopped_by(record: Mapping[str, Any]) -> str:
    return record["cause"] if "goes_on" in record else "time limit or preemption"


def _next_step(record: Mapping[str, Any]) -> str:
    """What a stopped run waits for; where it was to go on by itself, it is seen that it does not."""
    return record["evidence"] if record.get("goes_on", "") is None else NEXT


def _under(folder: Path) -> dict[str, Any]:
    job = read_json(folder / "job.json") or {}
    size = {key: job["resources"][key] for key in ("nodes", "ranks_per_node") if key in job.get("resources", {})}
    told = job.get("checkpoints", {})
    return size | {key: told[key] for key in ("every", "quick", "snapshots") if key in told}


def _slurm(
    workspace: Workspace, asked: dict[str, Submission], ended: Mapping[str, JobState], run: slurm.Run
) -> dict[str, JobState]:
    """What Slurm adds: all of `asked` but those of `ended` that are not in its queue again."""
    ids = {item: last.job_ids(item) for item, last in asked.items()}
    settled = {job_id for item, links in ids.items() if item in ended for job_id in links}
    told = slurm.states([job_id for links in ids.values() for job_id in links], run, settled=settled)
    states = {}
    for item, links in ids.items():
        job_id = _acting(links, told)
        if not links:
            states[item] = JobState(state=UNKNOWN, cause="its submission was cut short; zsg submit again settles it")
        elif job_id and item in ended:
            is_link = job_id not in (links[0], ended[item].slurm)
            states[item] = _again(workspace.root / item, job_id, told[job_id], ended[item], is_link)
        elif job_id:
            states[item] = _told(workspace.root / item, job_id, told[job_id])
    return states


def _acting(links: Sequence[str], told: Mapping[str, slurm.SlurmState]) -> str | None:
    """The job of a chain that is at work or comes next; of one that has ended, the first that did not end well."""
    known = [job_id for job_id in links if job_id in told]
    for wanted in ((RUNNING,), (QUEUED,), (WAITING,), (FAILED, CANCELLED, UNKNOWN)):
        for job_id in known:
            if told[job_id].state in wanted:
                return job_id
    return known[0] if known else None


def _again(folder: Path, job_id: str, said: slurm.SlurmState, ended: JobState, is_link: bool) -> JobState:
    """The state of a job that has told its end and that Slurm has in its queue again, or whose next link it has.

    A job that was put back waits anew for what it waited for at first, so its reason does not tell it from a link.
    """
    if said.state == RUNNING:
        return _told(folder, job_id, said)
    if not ended.stopped:
        # Of one that has failed Slurm may not have dropped the links yet; they never start.
        never = is_link and said.detail is not None and said.detail.startswith("Dependency")
        return ended if never else _told(folder, job_id, said)
    return replace(
        ended, state=said.state, stopped=False, slurm=job_id,
        evidence=f"goes on by itself (Slurm: {said.detail})",
    )  # fmt: skip


def _told(folder: Path, job_id: str, said: slurm.SlurmState) -> JobState:
    if said.state == DONE:
        # sacct's COMPLETED without a record of the job's own is no proof that the work was done.
        return JobState(state=UNKNOWN, slurm=job_id, cause="Slurm says COMPLETED, but the job left no record")
    state = JobState(state=said.state, slurm=job_id, cause=said.detail, evidence=said.evidence)
    return progress(folder, state) if said.state in (RUNNING, FAILED) else state


def _local(workspace: Workspace, item: str, last: Submission) -> JobState:
    folder = workspace.root / item
    if is_locked(folder / "lock"):
        return progress(folder, JobState(state=RUNNING))
    if is_locked(workspace.submission(last.id) / "lock"):
        return JobState(state=QUEUED if last.kind == "prepare" else WAITING)
    attempt = read_json(folder / "attempt.json") or {}
    if attempt.get("submission") == last.id:
        dead = JobState(state=FAILED, cause=Cause.DIED, evidence="the process ended without a record (killed?)")
        return progress(folder, dead)
    return JobState(state=CANCELLED, cause=NEVER_STARTED)


def _explain(workspace: Workspace, item: str, state: JobState) -> JobState:
    """A job that never started because one that it waits for failed has failed for that reason.

    Slurm cancels it, and accounting may not know that yet.
    """
    if state.state not in (CANCELLED, UNKNOWN) or state.attempt is not None:
        return state
    for needed in (read_json(workspace.root / item / "job.json") or {}).get("after", []):
        if read_json(workspace.root / needed / "exit.json") is None:
            explained = _explain(workspace, needed, state)
            if explained != state:
                return explained
        record = read_json(workspace.root / needed / "exit.json")
        if record and record["outcome"] == FAILED:
            why = f"{record['cause']}: {record['evidence']} ({needed})"
            cause = Cause.PREPARE_FAILED if needed.startswith("prepare/") else Cause.STAGE_FAILED
            return replace(state, state=FAILED, cause=cause, evidence=why)
        if record and record["outcome"] == CONTINUE:
            why = f"a stage before, {needed}, was stopped at step {record['step'] or 0}"
            return replace(state, state=WAITING, cause=why, evidence=NEXT, stopped=True)
    return state


def progress(folder: Path, state: JobState) -> JobState:
    """Adds attempt, step and last loss from the end of the newest journal; of a prepare job, what it is doing."""
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
        step=max((row["step"] for row in rows), default=None),  # a snapshot is told of when training is past it
        steps=starts[-1]["steps"] if starts else None,
        loss=losses[-1] if losses else None,
        evidence=state.evidence or _note(rows, starts),
        saved=newest_step(folder),
    )


def _note(rows: list[dict[str, Any]], starts: list[dict[str, Any]]) -> str | None:
    """What a prepare job is doing, or why a run has not gone on from the state that it has."""
    if starts:
        return starts[-1].get("passed_over")
    return rows[-1]["data"].get("event") if rows else None


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
