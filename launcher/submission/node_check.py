"""Sends a check of a profile's nodes as one job, the way a train job is sent, and waits
for it: zsg doctor --on-node.

A check that was sent and whose report nobody has read yet is taken up again, so the
command may be cut short at any moment.
"""

import contextlib
import hashlib
import json
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from jobs.contract import exit_record, job_file, node_check
from jobs.contract.folder import Damaged
from jobs.contract.job_file import NodeCheckJob
from jobs.contract.node_check import FOLDER, KIND, NodeCheckRequest
from jobs.contract.states import State
from launcher.clusters import slurm, slurm_retry, submitit_backend
from launcher.clusters.profiles import JobSize, Profile
from launcher.lifecycle import cancel
from launcher.planning.site import Site
from launcher.status.status import collect_states
from launcher.submission import job_files, local, sbatch
from launcher.submission import submit as submits
from launcher.workspace.job_state import JobState
from launcher.workspace.ledger import Ledger, Submission
from launcher.workspace.submit_lock import submit_lock
from zsg_core.errors import ClusterError, UserError

logger = logging.getLogger(__name__)

LOOK_S = 1.0  # between looks at the check's own files
ASK_S = (5.0, 20.0)  # between questions to Slurm: at first, and after QUICK_S
QUICK_S = 120.0
# a job that has told its end waits so long for the other ranks to tell theirs
LAST_RANKS_S = 60.0
# of a job that Slurm says it does not know, before it counts as gone
DOUBT_S = 30.0
NO_REASON = (None, "", "None")  # as squeue tells of a job that it has not looked at yet
AFTER_LIMIT_S = 300.0  # so long after its time limit a job counts as lost


@dataclass(frozen=True)
class Check:
    """A check that was sent: its job's folder, relative to the workspace, and its
    submission."""

    site: Site
    item: str
    submission: Submission
    size: JobSize

    @property
    def folder(self) -> Path:
        """Where everything of it lies."""
        return self.site.workspace.root / self.item

    @property
    def id(self) -> str:
        """By which it is told from others."""
        return self.item.removeprefix(f"{FOLDER}/")

    @property
    def job_id(self) -> str | None:
        """Slurm's number of its job."""
        is_local = self.submission.scheduler == "local"
        return None if is_local or not self.submission.ids else self.submission.ids[0]


class NotStarted(ClusterError):
    """The job is in the queue, or at work, for longer than anybody wanted to wait."""


def choose_size(site: Site, nodes: int | None, minutes: int) -> JobSize:
    """The size of the job: that of a train job of the profile, on so many nodes, with a
    time limit of its own. UserError for what the profile cannot run."""
    profile = site.profile
    if profile.kind == "local" and nodes not in (None, 1):
        raise UserError(
            f"profile {profile.name!r} is local: its jobs run on this machine alone; leave"
            " --nodes out"
        )
    size = profile.train.model_copy(update={"time_min": minutes})
    return size if nodes is None else size.model_copy(update={"nodes": nodes})


def send_check(site: Site, size: JobSize, request: NodeCheckRequest) -> Check:
    """A check of the profile in that size: one that is under way, or has ended and whose
    report nobody has read yet; else a new one. Returns once it is in the queue.

    ClusterError where Slurm refuses it.
    """
    is_local = site.profile.kind == "local"
    if not is_local:
        submits.refuse_without_slurm()
        request = note_scheduling(request, site.profile, size)
    with submit_lock(site.workspace):
        ledger = Ledger(site.workspace)
        if refusal := ledger.find_refusal():
            raise refusal
        submits.settle_submissions(site, ledger)
        unread = None if is_local else find_unread(site, size, request, ledger)
        if unread is not None:
            logger.info(f"job {unread.job_id} of an earlier call is taken up")
            return unread
        item = f"{FOLDER}/{uuid.uuid4().hex[:12]}"
        scheduling: dict[str, Any] = {"scheduler": "local"}
        if not is_local:
            scheduling = site.scheduling
        submission = ledger.intend(kind=KIND, grid="", items=[item], **scheduling)
        job_files.write_node_check(
            site.workspace, item, request, site.profile, submission.id, size
        )
        check = Check(site, item, submission, size)
        if not is_local:
            _send_to_slurm(check, ledger)
        return check


def note_scheduling(
    request: NodeCheckRequest, profile: Profile, size: JobSize
) -> NodeCheckRequest:
    """The request with what Slurm is asked for as a digest: by that a check is told from
    one with another partition, other setup lines or another time limit."""
    parameters = submitit_backend.make_parameters(profile, size, "", None, KIND)
    python = submitit_backend.make_python_command(profile)
    text = json.dumps([parameters, python], sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return msgspec.structs.replace(request, asked=digest)


def find_unread(
    site: Site,
    size: JobSize,
    request: NodeCheckRequest,
    ledger: Ledger,
    look: Callable[[Check], JobState] | None = None,
) -> Check | None:
    """The newest check that asks for the same, and is in the queue or has ended without
    a report. One in the queue that asks for something else is told, and stays."""
    look = look or look_at
    for submission in reversed(ledger.submissions.values()):
        check = Check(site, submission.items[0], submission, size)
        job = _read_unread(check)
        if job is None:
            continue
        state = look(check)
        if not _may_tell(state):
            continue
        if job.request == request:
            return check
        if state.is_active or state.in_queue:
            logger.warning(
                f"job {check.job_id}, a check of this profile as it was, or by other options, is"
                f" in the queue and stays there: scancel {check.job_id} ends it"
            )
    return None


def _read_unread(check: Check) -> NodeCheckJob | None:
    """The job of a check of the same profile that was sent by this user, was neither
    cancelled nor has a report; None for all else."""
    submission = check.submission
    is_check = submission.kind == KIND and submission.void is None
    is_own = submission.user in (None, os.getuid())
    if not (is_check and is_own and submission.jobs):
        return None
    if check.item in submission.cancelled or node_check.has_report(check.folder):
        return None
    job = job_file.read_job_if_sound(check.folder)
    if not isinstance(job, NodeCheckJob):
        return None
    return job if job.resources.profile == check.site.profile.name else None


def _may_tell(state: JobState) -> bool:
    """Whether a job has found something, or still may: not one that was cancelled, nor
    one that nobody knows any more."""
    if state.state == State.CANCELLED:
        return False
    return state.in_queue or state.state != State.UNKNOWN


def _send_to_slurm(check: Check, ledger: Ledger) -> None:
    """Submits the job, held as all are, and releases it."""
    submitter = sbatch.SbatchSubmitter(check.site.workspace, ledger)
    submitter.send_submission(check.site.profile, check.submission, check.size, None)
    jobs = check.submission.jobs
    answer = slurm_retry.retry_while_unreachable(lambda: slurm.release_jobs(jobs))
    for refusal in answer.refused:
        logger.warning(refusal.words)
    if answer.is_settled(jobs):
        ledger.released(check.submission)


def run_here(check: Check) -> JobState:
    """Runs the check on this machine, to its end. KeyboardInterrupt ends it."""
    site = check.site
    lock = submits.hold_submission(site, check.submission)
    try:
        with submit_lock(site.workspace):
            ledger = Ledger(site.workspace)
            ledger.submitted(check.submission, ["local"])
            ledger.released(check.submission)
        jobs = [local.LocalJob(check.item)]
        local.run_all(site.workspace, site.profile, jobs, _Teller(check))
    finally:
        os.close(lock)
    return look_at(check)


def look_at(check: Check) -> JobState:
    """Where its job stands, by its files and by Slurm."""
    workspace = check.site.workspace
    states = collect_states(workspace, [check.item], Ledger(workspace), only_looks=True)
    return states[check.item]


def end_interrupted(site: Site, since: int) -> Iterator[Check]:
    """The checks that this user has sent since a moment, in ms since the epoch; one that
    was still being sent is found in Slurm, and ended while it is held."""
    if not _list_sent(Ledger(site.workspace), since):
        return  # and no other submit need be waited for
    with submit_lock(site.workspace):
        ledger = Ledger(site.workspace)
        submits.settle_submissions(site, ledger)
    for submission in _list_sent(ledger, since):
        check = Check(site, submission.items[0], submission, site.profile.train)
        if _read_unread(check) is not None:
            yield check


def _list_sent(ledger: Ledger, since: int) -> list[Submission]:
    """The checks of nodes that were sent since a moment, in ms since the epoch."""
    return [
        submission
        for submission in ledger.submissions.values()
        if submission.kind == KIND and submission.created >= since
    ]


def cancel_check(check: Check) -> list[str]:
    """Ends the job for good; returns what could not be reached, in words."""
    workspace = check.site.workspace
    with submit_lock(workspace):
        return cancel.carry_out(workspace, [check.item], save=False)


class _Teller:
    """Tells where a check stands, whenever that changes."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._told = set[str]()

    def __call__(self) -> None:
        """Tells which check rank 0 is at. What cannot be read at this moment is told by
        the report."""
        with contextlib.suppress(Damaged):
            record = node_check.read_rank_record(self._check.folder, 0)
            if record is not None and record.at_work:
                self.tell(f"checking {record.at_work}")

    def tell(self, text: str) -> None:
        """Says a text once."""
        if text not in self._told:
            self._told.add(text)
            logger.info(text)


class Waiter:
    """Waits until a check has ended, and tells meanwhile where its job stands.

    `start_s`: how long it may wait for the job to start.
    """

    def __init__(
        self,
        check: Check,
        start_s: float,
        look: Callable[[Check], JobState] = look_at,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._check, self._start_s = check, start_s
        self._look, self._sleep, self._clock = look, sleep, clock
        self._teller = _Teller(check)
        self._nodes: str | None = None  # of its job, which its end does not tell
        self._began = clock()
        self._ran_since: float | None = None
        self._lost_since: float | None = None

    def wait(self) -> JobState:
        """The state in which the job has ended. NotStarted where the wait has lasted
        too long: the job stays where it is."""
        while True:
            asked = self._clock()
            state = self._look(self._check)
            self._nodes = state.node or self._nodes
            if self._has_ended(state):
                return replace(state, node=self._nodes)
            self._teller.tell(_describe_state(self._check, state))
            self._refuse_longer(state)
            while self._clock() - asked < self._pause_s and not self._has_told_end():
                self._teller()
                self._sleep(LOOK_S)

    @property
    def _pause_s(self) -> float:
        """For how long Slurm is not asked again."""
        return ASK_S[self._clock() - self._began > QUICK_S]

    def _has_told_end(self) -> bool:
        """Whether the job itself has said that it has ended: then Slurm is asked at
        once."""
        try:
            record = exit_record.read_if_sound(self._check.folder)
        except Damaged:
            return False
        return record is not None and record.submission == self._check.submission.id

    def _has_ended(self, state: JobState) -> bool:
        """Whether nothing more is to come. What nobody knows is asked again for a
        while: Slurm may be away, and a job that has just left not be accounted for."""
        if state.state == State.DONE:
            return self._have_all_ranks_ended()
        if state.state in (State.FAILED, State.CANCELLED):
            return True
        if state.is_active:
            self._lost_since = None
            return False
        if self._lost_since is None:
            self._lost_since = self._clock()
        return self._clock() - self._lost_since > DOUBT_S

    def _have_all_ranks_ended(self) -> bool:
        """Rank 0 tells the end of the job; others may need a moment more."""
        if self._lost_since is None:
            self._lost_since = self._clock()
        records, _ = node_check.read_rank_records(self._check.folder)
        world = self._check.size.nodes * self._check.size.ranks_per_node
        ended = sum(record.ended for record in records)
        return ended >= world or self._clock() - self._lost_since > LAST_RANKS_S

    def _refuse_longer(self, state: JobState) -> None:
        """Raises NotStarted where the job has had its time."""
        now = self._clock()
        if state.state == State.RUNNING and self._ran_since is None:
            self._ran_since = now
        if self._ran_since is not None:
            limit_s = 60.0 * self._check.size.time_min + AFTER_LIMIT_S
            if now - self._ran_since > limit_s:
                raise NotStarted(_explain_wait(self._check, state, "has not ended"))
            return
        if now - self._began > self._start_s:
            raise NotStarted(_explain_wait(self._check, state, "has not started"))


def _describe_state(check: Check, state: JobState) -> str:
    """Where a job stands, in a line."""
    is_running = state.state == State.RUNNING
    text = f"job {check.job_id}: {state.state}"
    if is_running and state.node:
        text += f" on {state.node}"
    reasons = [word for word in (state.reason, state.cause) if word not in NO_REASON]
    if reasons:
        text += f" ({'; '.join(map(str, reasons))})"
    if state.starts and not is_running:
        text += f", expected to start at {_spell_time(state.starts)}"
    return text


def _spell_time(seconds: float) -> str:
    """A moment by this machine's clock; `seconds` since the epoch."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _explain_wait(check: Check, state: JobState, lack: str) -> str:
    """Why nobody waits any longer, and how the user gets at what is found."""
    return (
        f"the check {lack}, and is not waited for any longer:"
        f" {_describe_state(check, state)}. It stays in the queue: the same command goes on"
        f" waiting, and shows what was found once it has ended; scancel {check.job_id} ends it"
    )
