"""Decides the state of every job from what the world says, asking the scheduler once.

Truth order: the run's own exit record, sacct's terminal state, squeue, the ledger.
Absence is `unknown`. A job that runs by squeue's word and gives no sign of life is
`unknown` too, and so is one that does after its end was told.
"""

import contextlib
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain

import msgspec

from jobs.contract import cancellation, gpu_hours, job_file
from jobs.contract.causes import Cause
from jobs.contract.continuation import NEXT
from jobs.contract.folder import Damaged, Workspace
from jobs.contract.job_file import jobs_needed
from jobs.contract.states import State
from jobs.files import file_errors
from jobs.files.locks import NoLocks
from jobs.runtime.slurm_calls import Runner, look_with, run_program
from launcher.clusters import slurm
from launcher.clusters.slurm import SlurmState
from launcher.clusters.slurm_retry import get_last_line
from launcher.status import exit_states, local_states, logs, slurm_states
from launcher.status.liveness import Clock
from launcher.status.slurm_states import LEAVING, Sighting
from launcher.status.terminal_cache import Key, RememberedEnd, TerminalCache
from launcher.workspace.job_state import (
    CUT_SHORT,
    HELD_BY_USER,
    NEVER_STARTED,
    RECORD_UNREADABLE,
    JobState,
)
from launcher.workspace.ledger import Ledger, Submission
from launcher.workspace.run_folders import list_names
from launcher.workspace.scheduler_job import Job
from zsg_core.errors import ClusterError

logger = logging.getLogger(__name__)

BEFORE = (
    "prepare",
    "sample",
    "score",
    "canary",
    "look",
)  # kinds of jobs that others wait for
MOST_DONE = 5000  # ids of jobs that are done, in one squeue: a command line has an end
MANY = 100  # job folders, from which on the folder that holds them is listed
# the cause of a job that never started, by the kind of the one that it waited for
CAUSES_BEFORE = {
    "prepare": Cause.PREPARE_FAILED,
    "runs": Cause.STAGE_FAILED,
    "canary": Cause.CANARY_FAILED,
    "looks": Cause.LOOK_FAILED,
}

# what keeps from reading one job and not the others
READ_TROUBLE = (Damaged, OSError, NoLocks)

Links = Mapping[str, list[Job]]  # job folder → its jobs with Slurm


def collect_states(
    workspace: Workspace,
    items: Iterable[str],
    ledger: Ledger,
    run: Runner = run_program,
    *,
    settled: TerminalCache | None = None,
    only_looks: bool = False,
) -> dict[str, JobState]:
    """The state of each job folder (relative to the workspace).

    Raises ClusterError where Slurm cannot be asked, unless whoever asks `only_looks` and
    submits nothing by it: then the files and accounting answer, and that is logged.

    `settled` remembers the ends that were read before; of them it has no checkpoints,
    snapshots or sizes. With it the queue is also searched for jobs that are done, until
    each was seen to have left it: an allocation may outlive its run.
    """
    survey = _Survey(workspace, ledger, settled, only_looks)
    requested = list(items)
    survey.look_for_folders(requested)
    for item in requested:
        survey.read_folder(item)
    survey.read_jobs_before()
    survey.ask_slurm(look_with(run) if only_looks else run)
    return {item: survey.conclude(item) for item in requested}


class _Survey:
    """One look at the jobs of a workspace, step by step: their folders, then Slurm, then
    what follows from the jobs that others wait for."""

    def __init__(
        self,
        workspace: Workspace,
        ledger: Ledger,
        cache: TerminalCache | None,
        only_looks: bool,
    ) -> None:
        self._workspace, self._ledger, self._cache = workspace, ledger, cache
        self._only_looks = only_looks
        self._clock = Clock(workspace)
        self._submissions = ledger.by_item()
        self._resubmitted = ledger.find_resubmitted()
        self._states: dict[str, JobState] = {}
        # what cannot be read of a job's folder: the others are told of all the same
        self._troubles: dict[str, str] = {}
        # of which Slurm is asked
        self._asked: dict[str, Submission] = {}
        # of these, the jobs that are done
        self._done: dict[str, Key] = {}
        self._absent: set[str] = set()  # job folders that are not there

    def look_for_folders(self, items: Sequence[str]) -> None:
        """Notes which of many job folders are not there, as those of a new grid, so that
        none of their files is looked for. Few are found sooner one by one."""
        if len(items) < MANY:
            return
        names: dict[str, set[str] | None] = {}
        for item in items:
            kind, _, name = item.rpartition("/")
            if kind not in names:
                names[kind] = list_names(self._workspace.root / kind)
            present = names[kind]
            if present is not None and name not in present:
                self._absent.add(item)

    def read_folder(self, item: str) -> None:
        """What a job's own folder and the ledger tell; notes whether Slurm is asked of
        it."""
        last = self._submissions.get(item)
        try:
            end = self._read_end(item)
        except READ_TROUBLE as error:
            end, self._troubles[item] = None, _describe(error)
        if end is not None:
            self._states[item] = end
        if last is None:
            self._states.setdefault(item, JobState(state=State.ABSENT))
        elif last.scheduler == "slurm":
            self._note_for_slurm(item, last, end)
        elif end is None:
            read = partial(
                local_states.read_local_state,
                self._workspace,
                item,
                last,
                self._clock,
            )
            self._states[item] = self._read_or_note(item, read)

    def _note_for_slurm(
        self, item: str, last: Submission, end: JobState | None
    ) -> None:
        """Notes a job to ask Slurm of: also one that has ended, since Slurm may have
        requeued it, and one that is done, until it was seen to have left the queue."""
        if end is None or end.state != State.DONE:
            self._asked[item] = last
            return
        if self._cache is None or not last.ids or len(self._done) >= MOST_DONE:
            return
        key = self._cache.key(self._workspace.root / item, last.id)
        if key is not None and not self._cache.has_left_queue(item, key):
            self._asked[item], self._done[item] = last, key

    def _read_end(self, item: str) -> JobState | None:
        """The end of a job by its own word, read or remembered."""
        if item in self._absent:
            return None
        end = self._read_or_recall_end(item)
        if end is not None and _has_diverged(end):
            flag = "its last test loss is not a number: it has diverged"
            return replace(end, flag=flag)
        return end

    def _read_or_recall_end(self, item: str) -> JobState | None:
        folder, last = self._workspace.root / item, self._submissions.get(item)
        if self._cache is None:
            return exit_states.read_end(folder, last)
        key = self._cache.key(folder, last.id if last else None)
        if key is None:
            return None  # there is no folder
        is_remembered, remembered = self._cache.recall(item, key)
        if is_remembered:
            return _as_state(remembered) if remembered else None
        end = exit_states.read_end(folder, last)
        brief = _as_remembered(end) if end else None
        self._cache.remember(item, key, brief, self._clock.now())
        return end

    def _read_or_note(
        self,
        item: str,
        read: Callable[[], JobState],
        otherwise: JobState | None = None,
    ) -> JobState:
        """What `read` tells of a job. Where a file of its folder cannot be read, that is
        noted."""
        try:
            return read()
        except READ_TROUBLE as error:
            self._troubles.setdefault(item, _describe(error))
            return otherwise or JobState(state=State.UNKNOWN)

    def read_jobs_before(self) -> None:
        """The prepare jobs and canaries on Slurm, of which what waits may learn that it
        never starts: what they tell of their ends, the others are asked of. Nobody is
        asked where nothing waits."""
        if self._asked.keys() <= self._states.keys():
            return
        for item, last in self._submissions.items():
            if last.kind not in BEFORE or last.scheduler != "slurm":
                continue
            if item not in self._states:
                self._read_end_before(item)
            if item not in self._states:
                self._asked[item] = last

    def _read_end_before(self, item: str) -> None:
        # where it cannot be read, it is asked for like one that has not ended
        with contextlib.suppress(*READ_TROUBLE):
            end = self._read_end(item)
            if end:
                self._states[item] = end

    def ask_slurm(self, run: Runner) -> None:
        """Adds what Slurm says; remembers which jobs that are done have left its queue."""
        try:
            by_slurm = self._decide_by_slurm(run)
        except ClusterError as error:
            is_open = bool(self._asked.keys() - self._done.keys())
            if is_open and not self._only_looks:
                raise
            # what is done can be read where there is no Slurm, too
            by_slurm = self._decide_without_queue(run, error) if is_open else {}
            self._done = {}
        if self._cache:
            for item in self._done.keys() - by_slurm.keys():
                self._cache.remember_left_queue(item, self._done[item])
            self._cache.save()
        self._states |= by_slurm

    def _decide_by_slurm(self, run: Runner) -> dict[str, JobState]:
        """What Slurm adds: all that it is asked of but what has ended and is not in its
        queue again."""
        links = {item: last.jobs_of(item) for item, last in self._asked.items()}
        replaced = self._ledger.replaced({*self._asked, *self._states})
        answers = self._query(links, replaced, run)
        states: dict[str, JobState] = {}
        for item, jobs in links.items():
            state = self._decide_job(item, jobs, answers)
            if state is not None:
                states[item] = state
        for item, jobs in replaced.items():
            in_queue = [job for job in jobs if _is_in_queue(job, answers)]
            if in_queue:
                state = states.get(item) or self._states[item]
                ids = tuple(job.id for job in in_queue)
                states[item] = replace(state, replaced=ids)
        return states

    def _decide_without_queue(
        self, run: Runner, error: ClusterError
    ) -> dict[str, JobState]:
        """What files and accounting tell of jobs, where Slurm cannot be asked for its
        queue; says so."""
        why = f"{slurm_states.NO_ANSWER} ({' '.join(get_last_line(error).split())})"
        logger.warning(
            f"note: {why}: what follows is what jobs have recorded themselves; of others it is not"
            " known whether they wait or run"
        )
        links = {
            item: last.jobs_of(item)
            for item, last in self._asked.items()
            if item not in self._done
        }
        open_jobs = chain(
            *(jobs for item, jobs in links.items() if item not in self._states)
        )
        may_ask_sacct = all(self._asked[item].sacct for item in links)
        answers = slurm.query_ends(list(open_jobs), why, run, sacct=may_ask_sacct)
        unknown = SlurmState(State.UNKNOWN, why, away=True)
        decide = partial(slurm_states.decide_unasked, why=why)
        states: dict[str, JobState] = {}
        for item, jobs in links.items():
            known = {job: answers.get(job, unknown) for job in jobs}
            state = self._decide_job(item, jobs, known, decide)
            if state is not None:
                states[item] = state
        return states

    def _query(
        self, links: Links, replaced: Links, run: Runner
    ) -> Mapping[Job, SlurmState]:
        """What Slurm says of all these jobs, in one question."""
        jobs = [*chain(*links.values()), *chain(*replaced.values())]
        ended = [links[item] for item in links if item in self._states]
        may_ask_sacct = all(last.sacct for last in self._asked.values())
        return slurm.query_states(
            jobs,
            run,
            settled={*chain(*ended), *chain(*replaced.values())},
            sacct=may_ask_sacct,
        )

    def _decide_job(
        self,
        item: str,
        links: list[Job],
        answers: Mapping[Job, SlurmState],
        decide: Callable[[Sighting], JobState] = slurm_states.decide_state,
    ) -> JobState | None:
        """The state of a job that Slurm was asked of; None where Slurm adds nothing."""
        last, end = self._asked[item], self._states.get(item)
        if last.copied_from:
            return None if end else _copied(last.copied_from)
        if not links:
            return JobState(state=State.UNKNOWN, cause=CUT_SHORT)
        job = slurm_states.choose_acting(links, answers)
        if job is None:
            return None
        answer = replace(answers[job], job=job.id)
        sighting = Sighting(
            folder=self._workspace.root / item,
            answer=answer,
            last=last,
            end=end,
            is_link=end is not None and job.id not in (links[0].id, end.slurm),
            log=logs.locate_log(self._workspace, last, job.id),
            clock=self._clock,
        )
        in_queue = answer.state in (State.QUEUED, State.WAITING, State.RUNNING)
        unread = JobState(
            state=State.UNKNOWN, slurm=job.id, in_queue=in_queue or answer.away
        )
        return self._read_or_note(item, partial(decide, sighting), unread)

    def conclude(self, item: str) -> JobState:
        """The state of a job, with what follows from the jobs before it, from its
        cancellation and from what could not be read."""
        state = self._states[item]
        state = self._read_or_note(item, partial(self._explain, item, state), state)
        state = self._add_spent(item, state)
        state = _with_trouble(state, self._troubles.get(item))
        last = self._submissions.get(item)
        return _note_unreleased(_as_cancelled(state, item, last), last)

    def _add_spent(self, item: str, state: JobState) -> JobState:
        """A job that waits to be tried again, with what the attempts before have cost."""
        if state.spent is not None or item not in self._resubmitted:
            return state
        with contextlib.suppress(*READ_TROUBLE):
            spent = gpu_hours.sum_ended(self._workspace.root / item, state.saved)
            return replace(state, spent=spent)
        return state

    def _explain(self, item: str, state: JobState) -> JobState:
        """A job that never started because one that it waits for failed has failed for
        that reason. Slurm cancels it, and accounting may not know that yet."""
        has_not_started = state.attempt is None
        if state.state not in (State.CANCELLED, State.UNKNOWN) or not has_not_started:
            return state
        for needed in jobs_needed(job_file.read_job(self._workspace.root / item)):
            before = self._find_state_before(needed)
            if before is None or before.in_queue or before.doing == LEAVING:
                continue
            explained = _explain_by(state, needed, self._explain(needed, before))
            if explained is not None:
                return explained
        return state

    def _find_state_before(self, item: str) -> JobState | None:
        """The state of a job that others wait for; None where nothing is known."""
        last = self._submissions.get(item)
        if item in self._states:
            return _as_cancelled(self._states[item], item, last)
        end = exit_states.read_end(self._workspace.root / item, last)
        if end is None and last is not None and last.scheduler == "local":
            return local_states.read_local_state(
                self._workspace, item, last, self._clock
            )
        return end


def _note_unreleased(state: JobState, last: Submission | None) -> JobState:
    """A held job, with whether its own submit has not released it yet."""
    if state.reason != HELD_BY_USER or last is None:
        return state
    return replace(state, unreleased=last.is_unfinished)


def _describe(trouble: Exception) -> str:
    """What is wrong with a file, in words."""
    if isinstance(trouble, OSError):
        return file_errors.describe_error(trouble)
    return str(trouble)


def _has_diverged(end: JobState) -> bool:
    if end.state != State.DONE or end.loss is None:
        return False
    return not math.isfinite(float(end.loss))


def _as_state(remembered: RememberedEnd) -> JobState:
    return JobState(**msgspec.structs.asdict(remembered))


def _as_remembered(end: JobState) -> RememberedEnd:
    """What a table shows of a job that has ended."""
    names = RememberedEnd.__struct_fields__
    return RememberedEnd(**{name: getattr(end, name) for name in names})


def _is_in_queue(job: Job, answers: Mapping[Job, SlurmState]) -> bool:
    return job in answers and not answers[job].is_leaving


def _copied(workspace: str) -> JobState:
    """A job whose submission another workspace made."""
    cause = f"it was submitted from {workspace}, of which this workspace is a copy"
    return JobState(state=State.UNKNOWN, cause=cause)


def _with_trouble(state: JobState, trouble: str | None) -> JobState:
    """A job of which a file cannot be read: nobody knows how it ended; one under way
    continues all the same."""
    if trouble is None:
        return state
    if state.is_active:
        return replace(state, flag=f"{RECORD_UNREADABLE}: {trouble}")
    return replace(state, state=State.UNKNOWN, cause=trouble, evidence=None)


def _as_cancelled(state: JobState, item: str, last: Submission | None) -> JobState:
    """What `zsg cancel` has stopped is cancelled, whatever became of it; what is still
    on its way out is not yet."""
    if last is None or item not in last.cancelled or state.state == State.DONE:
        return state
    if (state.is_active and not state.stopped) or state.doing == LEAVING:
        return state if state.cause else replace(state, cause="is being cancelled")
    return replace(
        state, state=State.CANCELLED, stopped=False, in_queue=False, **cancellation.TOLD
    )


def _explain_by(state: JobState, needed: str, before: JobState) -> JobState | None:
    """A job that never started, by the one that it waited for; None where that one is
    not the reason."""
    if before.stopped:
        cause = f"a stage before, {needed}, was stopped at step {before.step or 0}"
        return replace(
            state, state=State.WAITING, cause=cause, evidence=NEXT, stopped=True
        )
    has_failed = before.state in (State.FAILED, State.CANCELLED, State.UNKNOWN)
    if not has_failed or before.cause == NEVER_STARTED:
        return None
    reason = _name_reason(needed, before)
    if state.cause == NEVER_STARTED and not _has_failed_itself(before):
        # On this machine the submit was ended with the job: the next one starts both again.
        return replace(state, evidence=reason)
    # Where nobody knows what became of either, that is not known to be the reason.
    is_known = not (before.state == state.state == State.UNKNOWN)
    return replace(
        state,
        state=State.FAILED if is_known else State.UNKNOWN,
        cause=CAUSES_BEFORE[needed.partition("/")[0]],
        evidence=reason,
    )


def _has_failed_itself(before: JobState) -> bool:
    return before.state == State.FAILED and before.cause != Cause.DIED


def _name_reason(needed: str, before: JobState) -> str | None:
    """Why the first of the jobs before failed, which those behind it hand on."""
    if before.cause in CAUSES_BEFORE.values():
        return before.evidence
    evidence = before.evidence or "it left no record"
    return f"{before.cause or before.state}: {evidence} ({needed})"
