"""Decides the state of a job on this machine, where locks say which processes live."""

from dataclasses import replace
from pathlib import Path

from jobs.contract import attempt as attempts
from jobs.contract import cancellation, job_file
from jobs.contract.causes import Cause
from jobs.contract.folder import Workspace
from jobs.contract.heartbeat import STARTING, TRAINING
from jobs.contract.states import State
from jobs.files.locks import is_locked
from launcher.status import exit_states, liveness
from launcher.status.liveness import LOST_S, Clock
from launcher.status.progress import add_liveness, add_progress
from launcher.workspace.job_state import NEVER_STARTED, JobState
from launcher.workspace.ledger import Submission


def read_local_state(
    workspace: Workspace, item: str, last: Submission, clock: Clock
) -> JobState:
    """The state of a job of this machine that has told no end."""
    folder = workspace.root / item
    if is_locked(folder / "lock"):
        return _read_running(folder, clock)
    # Before the submit's lock: a job that was killed does not wait, however long its submit lives.
    attempt = attempts.read_attempt(folder)
    if attempt and attempt.submission == last.id:
        died = JobState(
            state=State.FAILED,
            cause=Cause.DIED,
            evidence="the process ended without a record (killed?)",
        )
        # It may have told its end since it was looked for.
        return exit_states.read_end(folder, last) or add_progress(folder, died)
    request = cancellation.read_cancellation(folder, last.id)
    if request is not None and request.is_spared:
        facts = request.facts
        return JobState(
            state=State.CANCELLED, cause=facts["cause"], evidence=facts["evidence"]
        )
    if is_locked(workspace.submission(last.id) / "lock"):
        is_first = last.kind in ("prepare", "sample", "score")
        return JobState(state=State.QUEUED if is_first else State.WAITING)
    return JobState(state=State.CANCELLED, cause=NEVER_STARTED)


def _read_running(folder: Path, clock: Clock) -> JobState:
    """A job whose lock says that its process lives. Its journal is newer than its
    heartbeat."""
    state, signs = JobState(state=State.RUNNING), liveness.read_signs(folder, clock)
    if signs and signs.beat:
        state = add_liveness(folder, state, signs, job_file.read_job(folder))
        if signs.age_s > LOST_S:
            flag = f"no sign of life for {signs.age_s:.0f} s"
            state = replace(state, flag=flag, eta_s=None)
    state = add_progress(folder, replace(state, evidence=None))
    if state.step and state.doing == STARTING:
        return replace(state, doing=TRAINING)
    return state
