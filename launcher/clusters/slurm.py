"""Asks Slurm: one squeue for what is active, one sacct for what has left the queue,
scontrol for the rest.

A number alone does not say whose a job is: Slurm gives numbers anew, each cluster has
its own, a wrapper may print any. So a job is ours if its number, its name and its user
fit, and nothing else is ever touched. Commands are argument lists, never shell text;
answers are parsed by pure functions. Slurm's `--json` and newer flags are avoided: they
differ between versions.
"""

import contextlib
import datetime
import logging
import os
import re
import shlex
import subprocess
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from jobs.contract.causes import Cause
from jobs.contract.states import State
from jobs.files.ownership import find_user_name
from jobs.runtime import slurm_calls, slurm_environment
from jobs.runtime.slurm_calls import (
    ACCOUNTING_S,
    ASK_S,
    CHANGE_S,
    SEARCH_S,
    NoAnswer,
    Runner,
    run_program,
)
from launcher.clusters.slurm_retry import is_unreachable
from launcher.workspace.job_state import HELD_BY_ADMIN
from launcher.workspace.scheduler_job import Job
from zsg_core.errors import ClusterError

logger = logging.getLogger(__name__)

_DENIED = "permission denied"
_OVER = ("Job has already finished", "Invalid job id")

_ACTIVE = {
    "CONFIGURING": State.RUNNING,
    "POWER_UP_NODE": State.RUNNING,
    "COMPLETING": State.RUNNING,
    "RUNNING": State.RUNNING,
    "SUSPENDED": State.RUNNING,
    "STOPPED": State.RUNNING,
    "SIGNALING": State.RUNNING,
    "STAGE_OUT": State.RUNNING,
    "RESIZING": State.RUNNING,
    "PENDING": State.QUEUED,
    "REQUEUED": State.QUEUED,
    "EXPEDITING": State.QUEUED,
    "REQUEUE_FED": State.QUEUED,
    "REQUEUE_HOLD": State.QUEUED,
    "RESV_DEL_HOLD": State.QUEUED,
    "SPECIAL_EXIT": State.QUEUED,
}
_ENDED = {
    "COMPLETED": (State.DONE, None),
    "CANCELLED": (State.CANCELLED, Cause.CANCELLED),
    "TIMEOUT": (State.FAILED, Cause.TIME_LIMIT),
    "NODE_FAIL": (State.FAILED, Cause.NODE_FAILURE),
    "BOOT_FAIL": (State.FAILED, Cause.NODE_FAILURE),
    "DEADLINE": (State.FAILED, Cause.TIME_LIMIT),
    "OUT_OF_MEMORY": (State.FAILED, Cause.OUT_OF_MEMORY),
    "PREEMPTED": (State.FAILED, Cause.PREEMPTED),
    "REVOKED": (State.CANCELLED, Cause.CANCELLED),
    "FAILED": (State.FAILED, Cause.DIED),
}
# What accounting alone calls an end.
_ENDED_IN_ACCOUNTING = _ENDED | {
    "LAUNCH_FAILED": (State.FAILED, Cause.LAUNCH_FAILED),
    "RECONFIG_FAIL": (State.FAILED, Cause.NODE_FAILURE),
}
# Words of squeue for nodes that are made ready, and for a job whose processes have ended.
BOOTING = ("CONFIGURING", "POWER_UP_NODE")
LEAVING = ("COMPLETING", "STAGE_OUT")
PAUSED = ("SUSPENDED", "STOPPED")

MOST_CHARACTERS = 30_000  # of ids in one command


@dataclass(frozen=True)
class SlurmState:
    """What Slurm says of one job: a state of ours, the pending reason or the cause of
    its end, and its own words.

    Of a job that runs: for how long, and where; of one that waits: when it is expected
    to start (s since the epoch). `away`: its cluster cannot be asked here, so that it
    may well be at work. `began`: when Slurm started it last. `elapsed_s` stands still
    while a job is suspended and once its processes have ended. `exit_code`: sacct's,
    such as `0:53`.
    """

    state: State
    detail: str | None = None
    evidence: str | None = None
    elapsed_s: float | None = None
    nodes: str | None = None
    starts: float | None = None
    away: bool = False
    word: str = field(default="", compare=False)
    job: str = field(default="", compare=False)
    began: float | None = field(default=None, compare=False)
    exit_code: str | None = field(default=None, compare=False)

    @property
    def is_leaving(self) -> bool:
        """Whether its processes have ended or been told to, and Slurm only has its node cleaned."""
        return self.word in LEAVING

    @property
    def is_booting(self) -> bool:
        """Whether Slurm still makes its nodes ready: nothing of it runs yet."""
        return self.word in BOOTING


@dataclass(frozen=True)
class JobLine:
    """What a line of squeue or sacct says of a job, and whose it is."""

    state: SlurmState
    user: str
    name: str


@dataclass
class JobQueue:
    """What squeue says of jobs.

    `active`: those in the queue that are ours. `strangers`: those whose number is
    another job's, with whose. `away`: those on a cluster that cannot be asked here,
    with the reason. `asked`: the cluster that each was asked of, None for the default
    one. `waiting`: by such a cluster, the ids of all tasks that wait, of the arrays of
    the jobs.
    """

    active: dict[Job, SlurmState] = field(default_factory=dict[Job, SlurmState])
    strangers: dict[Job, str] = field(default_factory=dict[Job, str])
    away: dict[Job, str] = field(default_factory=dict[Job, str])
    asked: dict[Job, str | None] = field(default_factory=dict[Job, str | None])
    waiting: dict[str | None, set[str]] = field(
        default_factory=dict[str | None, set[str]]
    )


def query_queue(
    jobs: Sequence[Job],
    run: Runner = run_program,
    *,
    settled: Collection[Job] = (),
) -> JobQueue:
    """Which of the jobs are in the queue of their clusters, by one squeue for each cluster.

    A job that the default cluster does not show may be on another: the machine that
    submitted it may have had another default. Then that one is asked by its name. Jobs
    in `settled` have told their end and are not searched for so. Raises ClusterError if
    squeue of the default cluster fails: then nothing can be said of anything.
    """
    queue = JobQueue()
    for job in jobs:
        queue.asked[job] = job.cluster if job.named else None
    _ask_queues(queue, jobs, run)
    moved = _find_moved(queue, jobs, settled, run)
    for job in moved:
        queue.asked[job] = job.cluster
        queue.strangers.pop(job, None)
    _ask_queues(queue, moved, run)
    return queue


def _find_moved(
    queue: JobQueue, jobs: Sequence[Job], settled: Collection[Job], run: Runner
) -> list[Job]:
    """The jobs that the default cluster did not show and that were sent to another."""
    missing = [job for job in jobs if job not in settled and _is_missing(job, queue)]
    default = default_cluster(run) if missing else None
    if default is None:
        return []
    return [job for job in missing if job.cluster != default]


def _is_missing(job: Job, queue: JobQueue) -> bool:
    """Whether the default cluster did not show a job that may be on another."""
    asked_default = queue.asked[job] is None
    return asked_default and bool(job.cluster) and job not in queue.active


def _ask_queues(queue: JobQueue, jobs: Sequence[Job], run: Runner) -> None:
    """Asks the cluster of each job once, and adds what it says."""
    for cluster, group in _group_by_cluster(jobs, queue.asked).items():
        mains = ",".join(_main_ids(job.id for job in group))
        try:
            answer = parse_squeue(_squeue(mains, cluster, run))
        except ClusterError as error:
            if cluster is None:
                raise
            why = f"on cluster {cluster}, which cannot be asked here: {str(error).strip()}"
            queue.away |= dict.fromkeys(group, why)
            continue
        queue.waiting.setdefault(cluster, set()).update(_list_waiting(answer))
        for job in group:
            lines = answer.get(job.id, [])
            if len(lines) == 1 and _is_ours(lines[0], job):
                queue.active[job] = lines[0].state
            elif lines:
                queue.strangers[job] = _whose(job, lines)


def _list_waiting(answer: Mapping[str, Sequence[JobLine]]) -> list[str]:
    """The ids of the jobs and tasks that wait, of all that squeue has shown."""
    return [
        job_id
        for job_id, lines in answer.items()
        if any(line.state.state in (State.QUEUED, State.WAITING) for line in lines)
    ]


def _group_by_cluster(
    jobs: Iterable[Job], asked: Mapping[Job, str | None]
) -> dict[str | None, list[Job]]:
    """The jobs by the cluster to ask; None is the default one."""
    groups: dict[str | None, list[Job]] = {}
    for job in jobs:
        groups.setdefault(asked[job], []).append(job)
    return groups


def _is_ours(line: JobLine, job: Job) -> bool:
    return line.name == job.name and line.user == str(
        os.getuid() if job.user is None else job.user
    )


def _is_mine(job: Job) -> bool:
    return job.user in (None, os.getuid())


def _whose(job: Job, lines: Sequence[JobLine]) -> str:
    stranger = next((line for line in lines if not _is_ours(line, job)), lines[0])
    return (
        f"job {job.id} is not {job.name}, but {stranger.name} of user {stranger.user}"
    )


def default_cluster(run: Runner = run_program) -> str | None:
    """The name of the cluster that is asked where none is named; None where nobody tells."""
    try:
        config = call_slurm(["scontrol", "show", "config"], run)
    except ClusterError:
        return None
    match = re.search(r"^ClusterName\s*=\s*(\S+)", config, flags=re.M)
    return match[1] if match else None


def query_states(
    jobs: Sequence[Job],
    run: Runner = run_program,
    *,
    settled: Collection[Job] = (),
    sacct: bool = True,
) -> dict[Job, SlurmState]:
    """The state of every job: squeue once, sacct once and only for jobs that squeue no
    longer shows.

    A job that neither knows is `unknown`, never dead: accounting lags, may be off, or
    may be down; and so is one whose number is another's now. Jobs in `settled` have
    told their end themselves; they are in the answer only if they are active again
    (requeued). Where there is no accounting, `sacct` is False and nobody asks it.
    Raises ClusterError if squeue itself fails: then nothing can be said of anything.
    """
    if not jobs:
        return {}
    queue = query_queue(jobs, run, settled=settled)
    states = dict(queue.active)
    for job, why in queue.away.items():
        if job not in settled:
            states[job] = SlurmState(State.UNKNOWN, why, away=True)
    vanished = [job for job in jobs if job not in states and job not in settled]
    if vanished:
        states |= _explain_vanished(vanished, queue, run, sacct=sacct)
    return states


def _explain_vanished(
    jobs: Sequence[Job], queue: JobQueue, run: Runner, *, sacct: bool
) -> dict[Job, SlurmState]:
    """How jobs ended that squeue does not show; unknown where accounting does not say."""
    ended, silent = _query_ended(jobs, queue.asked, run) if sacct else ({}, {})
    nobody = (
        "not known to squeue or sacct"
        if sacct
        else "not known to squeue, and there is no accounting"
    )
    states: dict[Job, SlurmState] = {}
    for job in jobs:
        why = queue.strangers.get(job) or silent.get(job) or nobody
        states[job] = ended.get(job, SlurmState(State.UNKNOWN, why))
    return states


def run_without_queue(
    argv: Sequence[str], *, env: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Runs a program of Slurm, but for squeue: for one command whose controller has just
    not answered."""
    if argv[0] == "squeue":
        raise ClusterError("squeue was not asked: Slurm did not answer before")
    return run_program(argv, env=env, timeout=timeout)


def query_ends(
    jobs: Sequence[Job], why: str, run: Runner = run_program, *, sacct: bool = True
) -> dict[Job, SlurmState]:
    """How jobs have ended by accounting alone, while nobody can be asked for the queue.

    Of the others nothing is known, for the reason `why`: they may well be at work.
    """
    asked = {job: job.cluster if job.named else None for job in jobs}
    ended, _ = _query_ended(jobs, asked, run) if sacct else ({}, {})
    unknown = SlurmState(State.UNKNOWN, why, away=True)
    known = {job: end for job, end in ended.items() if end.state != State.UNKNOWN}
    return {job: known.get(job, unknown) for job in jobs}


def _query_ended(
    jobs: Sequence[Job], asked: Mapping[Job, str | None], run: Runner
) -> tuple[dict[Job, SlurmState], dict[Job, str]]:
    """What accounting says of jobs that squeue does not show, asked of the same
    clusters; and of which jobs it did not answer in time, in words."""
    states: dict[Job, SlurmState] = {}
    silent: dict[Job, str] = {}
    for cluster, group in _group_by_cluster(jobs, asked).items():
        mains = ",".join(_main_ids(job.id for job in group))
        try:
            answer = parse_sacct(_sacct(mains, cluster, run))
        except NoAnswer as error:
            why = f"not known to squeue, and accounting did not answer ({error})"
            silent |= dict.fromkeys(group, why)
            continue
        for job in group:
            lines = [line for line in answer.get(job.id, []) if _is_ours(line, job)]
            if lines:
                states[job] = lines[-1].state
    return states, silent


def _main_ids(ids: Iterable[str]) -> list[str]:
    """The ids of the arrays that tasks belong to; of a job that is no task its own."""
    return sorted({job_id.partition("_")[0] for job_id in ids})


_ID = re.compile(r"[0-9]{1,18}(_([0-9]{1,18}|\[.*))?")
# of an array, the largest MaxArraySize; also of nodes that one line names
MOST_TASKS = 4_000_001


def _rows(text: str, columns: int) -> Iterator[list[str]]:
    """The fields of each line that begins with a job's id and has so many columns; a
    site may print other lines."""
    for line in text.split("\n"):
        fields = line.split("|")
        if len(fields) >= columns and _ID.fullmatch(fields[0]):
            yield fields


def parse_squeue(text: str) -> dict[str, list[JobLine]]:
    """Reads lines `id|STATE|reason|start|elapsed|nodes|uid|name` of `squeue -r`; what
    has ended is not in the queue."""
    lines: dict[str, list[JobLine]] = {}
    for job, state, *reasons, start, elapsed, nodes, user, name in _rows(text, 8):
        if state in _ENDED:
            continue
        # a state we do not know is still in the queue
        ours = _ACTIVE.get(state, State.RUNNING)
        reason = "|".join(reasons)
        if ours == State.QUEUED and reason == "Dependency":
            ours = State.WAITING
        if ours != State.RUNNING:
            job_state = SlurmState(ours, reason, starts=_moment(start), word=state)
        else:
            job_state = SlurmState(
                State.RUNNING,
                None if state in _ACTIVE else f"Slurm says {state}",
                elapsed_s=_seconds(elapsed),
                nodes=nodes or None,
                word=state,
                began=_moment(start),
            )
        lines.setdefault(job, []).append(JobLine(job_state, user, name))
    return lines


def _seconds(elapsed: str) -> float | None:
    """squeue's `1-02:03:04`, `02:03:04` or `3:04`; None for anything else."""
    match = re.fullmatch(
        r"(?:([0-9]{1,9})-)?(?:([0-9]{1,9}):)?([0-9]{1,9}):([0-9]{1,9})", elapsed
    )
    if not match:
        return None
    days, hours, minutes, seconds = (int(number or 0) for number in match.groups())
    return 60 * (60 * (24 * days + hours) + minutes) + seconds


def _moment(text: str) -> float | None:
    """squeue's `2026-11-25T10:00:00`, in the time zone that it runs in too; None for `N/A`."""
    try:
        return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    except (ValueError, OverflowError):
        return None


def parse_sacct(text: str) -> dict[str, list[JobLine]]:
    """Reads lines `id|STATE|exit|uid|name` of `sacct -X -P -n`; `CANCELLED by 0` is CANCELLED."""
    lines: dict[str, list[JobLine]] = {}
    for job, words, code, user, *names in _rows(text, 5):
        state = _read_end(words, code)
        for task in _tasks(job):
            lines.setdefault(task, []).append(JobLine(state, user, "|".join(names)))
    return lines


def _read_end(words: str, code: str) -> SlurmState:
    """The state that sacct's words and exit code tell of."""
    end = _ENDED_IN_ACCOUNTING.get(words.split(" ")[0])
    if end is None:
        unknown = f"accounting says {words}, squeue nothing"
        return SlurmState(State.UNKNOWN, unknown)
    state, cause = end
    evidence = f"Slurm says {words}, exit {code}" if state == State.FAILED else None
    return SlurmState(state, cause, evidence, exit_code=code)


def find_nodes(
    jobs: Sequence[Job], since: float, run: Runner = run_program
) -> dict[Job, list[str]]:
    """The nodes on which jobs ran that ended after `since`, seconds since the epoch;
    empty without accounting."""
    nodes: dict[Job, list[str]] = {}
    cluster_of = {job: job.cluster if job.named else None for job in jobs}
    for cluster, group in _group_by_cluster(jobs, cluster_of).items():
        argv = [
            "sacct",
            "-X",
            "-P",
            "-n",
            "-j",
            ",".join(_main_ids(job.id for job in group)),
            "-o",
            "JobID,End,NodeList,UID,JobName",
        ]
        answer = parse_nodes(call_accounting(argv, run, cluster), since)
        for job in group:
            key = (job.id, str(os.getuid()), job.name)
            if key in answer:
                nodes[job] = answer[key]
    return nodes


def parse_nodes(text: str, since: float) -> dict[tuple[str, str, str], list[str]]:
    """Reads lines `id|2026-01-31T10:00:00|n[1-2],m3|uid|name`, the time by this clock;
    by id, uid and name."""
    nodes: dict[tuple[str, str, str], list[str]] = {}
    for job, end, names, user, *name in _rows(text, 5):
        with contextlib.suppress(ValueError):  # Unknown: it has not ended
            if datetime.datetime.fromisoformat(end).timestamp() >= since:
                nodes[job, user, "|".join(name)] = parse_hosts(names)
    return nodes


def parse_hosts(names: str) -> list[str]:
    """The nodes of `n[01-03,7],m3`, one by one; none of `None assigned`."""
    if " " in names:
        return []
    hosts: list[str] = []
    for name in re.findall(r"[^,\[\s]+(?:\[[^\]]*\])?", names):
        stem, bracket, spans = name.partition("[")
        if not bracket:
            hosts.append(stem)
            continue
        for span in spans.rstrip("]").split(","):
            hosts += [f"{stem}{number}" for number in _numbers_of_span(span, names)]
    return hosts


def _numbers_of_span(span: str, names: str) -> list[str]:
    """The numbers of `01-03`, as wide as its first; `names` is what an error quotes."""
    low, _, high = span.partition("-")
    numbers = range(int(low), int(high or low) + 1)
    if numbers.stop - numbers.start > MOST_TASKS or len(low) > 18:
        raise ValueError(f"{names[:80]!r} names more nodes than any cluster has")
    return [f"{number:0{len(low)}}" for number in numbers]


def find_job_ids(
    name: str,
    run: Runner = run_program,
    *,
    sacct: bool = True,
    cluster: str | None = None,
) -> list[str]:
    """The ids of all our jobs of that name, queued or ended, an array's tasks in order
    of their index.

    `cluster`: the one to ask, if not the default one. Names are seen by all, and
    anybody may give a job the same.
    """
    user = str(os.getuid())
    squeue = ["squeue", "--noheader", "--array", "--all", "--name", name]
    squeue += ["--user", user, "--format", "%i|%U|%j"]
    ids = _ids_of_name(call_slurm(squeue, run, cluster), user, name)
    if not ids and sacct:
        argv = ["sacct", "-X", "-P", "-n", "--name", name, "--user", user]
        argv += ["-o", "JobID,UID,JobName", "-S", "now-7days"]
        answer = call_accounting(argv, run, cluster, SEARCH_S)
        ids = _ids_of_name(answer, user, name)
    tasks = {task for job_id in ids for task in _tasks(job_id)}
    return sorted(
        tasks, key=lambda task: [int(number) for number in re.findall(r"\d+", task)]
    )


def _ids_of_name(text: str, user: str, name: str) -> list[str]:
    return [fields[0] for fields in _rows(text, 3) if fields[1:] == [user, name]]


@dataclass(frozen=True)
class Refusal:
    """Why Slurm does not let go of a held job or array: its complaint, and its word for
    why the job waits."""

    id: str
    complaint: str
    reason: str

    @property
    def is_administrators(self) -> bool:
        """Whether only an administrator can let it start."""
        return self.reason == HELD_BY_ADMIN or _DENIED in self.complaint.lower()

    @property
    def words(self) -> str:
        """What there is to say of it."""
        why = f"({self.reason}: {self.complaint})"
        if self.is_administrators:
            return (
                f"job {self.id} is held by an administrator {why}: it starts once they release"
                " it; the others go on"
            )
        return (
            f"job {self.id} could not be released {why}; the others go on, and the next zsg"
            " submit tries again"
        )


@dataclass(frozen=True)
class ReleaseAnswer:
    """What did not start of held jobs: those that are not ours, in words, and those that
    Slurm does not let go of."""

    untouched: list[str]
    refused: list[Refusal]

    def is_refused(self, job: Job) -> bool:
        """Whether Slurm does not let go of a job, or of its array."""
        refused = {refusal.id for refusal in self.refused}
        return not refused.isdisjoint({job.id, *_main_ids([job.id])})

    def is_settled(self, jobs: Iterable[Job]) -> bool:
        """Whether another try would change nothing for these jobs."""
        again = {each.id for each in self.refused if not each.is_administrators}
        names = {job.id for job in jobs}
        return again.isdisjoint({*names, *_main_ids(names)})


def release_jobs(
    jobs: Sequence[Job], run: Runner = run_program, *, whole_arrays: bool = True
) -> ReleaseAnswer:
    """Lets held jobs start; returns what did not.

    With `whole_arrays` all tasks of a job's array start; else just these jobs or tasks.
    Many are released by one call. A job that is no longer held, or has ended, is left as
    it is. That one is refused keeps no other from its start. ClusterError if Slurm does
    not answer.
    """
    queue = query_queue(jobs, run)
    complaints: dict[str, str] = {}
    for cluster, ids in _by_cluster(queue):
        names = _main_ids(ids)
        if not whole_arrays:
            names = _join_arrays(ids, queue.waiting.get(cluster, set()))
        for batch in _batches(names):
            complaints |= _release(batch, cluster, run)
    refused = _find_refusals(complaints, jobs, run) if complaints else []
    return ReleaseAnswer(_untouched(queue), refused)


def _join_arrays(ids: Sequence[str], waiting: Collection[str]) -> list[str]:
    """Jobs and tasks by as few names as there can be: an array's own name where it has
    no waiting task beside them. `waiting`: all tasks that wait, of these arrays."""
    split_arrays = set(_main_ids(set(waiting).difference(ids)))
    names: dict[str, None] = {}
    for job_id in ids:
        [array] = _main_ids([job_id])
        names[job_id if array in split_arrays else array] = None
    return list(names)


def _release(ids: Sequence[str], cluster: str | None, run: Runner) -> dict[str, str]:
    """Lets jobs start; of those that Slurm does not let go of, what it complains."""
    answer = _start(["scontrol", "release", *ids], run, cluster, CHANGE_S)
    if not answer.returncode:
        return {}
    complaint = " ".join(answer.stderr.split()) or f"exit {answer.returncode}"
    failure = ClusterError(f"scontrol release {' '.join(ids)} failed: {complaint}")
    if is_unreachable(failure):
        raise failure
    if len(ids) == 1:
        is_over = any(word in complaint for word in _OVER)
        return {} if is_over else {ids[0]: complaint}
    # one of them may have kept the others
    complaints: dict[str, str] = {}
    for job_id in ids:
        complaints |= _release([job_id], cluster, run)
    return complaints


def _find_refusals(
    complaints: Mapping[str, str], jobs: Sequence[Job], run: Runner
) -> list[Refusal]:
    """Of the jobs and arrays of which Slurm has complained those that still wait, each
    with the reason."""
    reasons: dict[str, str] = {}
    for job, state in query_queue(jobs, run).active.items():
        if state.state != State.RUNNING:
            for name in (job.id, *_main_ids([job.id])):
                reasons.setdefault(name, state.detail or state.word)
    return [
        Refusal(name, complaint, reasons[name])
        for name, complaint in complaints.items()
        if name in reasons
    ]


def cancel_jobs(
    jobs: Sequence[Job], save: bool = False, run: Runner = run_program
) -> list[str]:
    """Ends jobs, in few calls; with `save` those that run are told by USR1 to save and
    leave. What has ended is let be.

    Returns what was not touched since it is not ours, or cannot be reached from here, in words.
    Raises ClusterError if Slurm does not answer: what was asked of it before stays asked.
    """
    queue = query_queue(jobs, run)
    for cluster, ids in _by_cluster(queue):
        for spans in _batches(compact_ids(ids)):
            if not save:
                _scancel(spans, run, cluster)
            else:
                _scancel(["--state=PENDING", *spans], run, cluster)
                _scancel(["--signal=USR1", "--state=RUNNING", *spans], run, cluster)
    return _untouched(queue)


def _by_cluster(queue: JobQueue) -> list[tuple[str | None, list[str]]]:
    """The ids of our jobs in the queue, by the cluster that calls for them must name."""
    own_jobs = filter(_is_mine, queue.active)
    groups = _group_by_cluster(own_jobs, queue.asked)
    return [(cluster, [job.id for job in group]) for cluster, group in groups.items()]


def _untouched(queue: JobQueue) -> list[str]:
    away = [f"job {job.id} is {why}" for job, why in queue.away.items()]
    foreign = [
        f"job {job.id} is that of {find_user_name(job.user)}"
        for job in queue.active
        if job.user and not _is_mine(job)
    ]
    return [*queue.strangers.values(), *away, *foreign]


def compact_ids(ids: Iterable[str]) -> list[str]:
    """Ids with the tasks of an array as one: `7_0 7_1 7_2 7_5 9` are `7_[0-2,5]` and `9`."""
    tasks: dict[str, set[int]] = {}
    for job_id in ids:
        main, _, task = job_id.partition("_")
        tasks.setdefault(main, set()).update([int(task)] if task else [])
    return [
        f"{main}_[{_spans(sorted(numbers))}]" if numbers else main
        for main, numbers in tasks.items()
    ]


def _spans(numbers: Sequence[int]) -> str:
    """Rising numbers as Slurm writes the tasks of an array: 1, 2, 3 and 7 are `1-3,7`."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in spans)


def _batches(words: Sequence[str]) -> Iterator[list[str]]:
    """The words in groups short enough for a command line."""
    group: list[str] = []
    for word in words:
        if group and sum(map(len, group)) + len(word) > MOST_CHARACTERS:
            yield group
            group = []
        group.append(word)
    yield from [group] if group else []


def _scancel(words: Sequence[str], run: Runner, cluster: str | None) -> None:
    answer = _start(["scancel", "--quiet", *words], run, cluster, CHANGE_S)
    gone = (
        "Invalid job id",
        "already completing or completed",
        "Job has already finished",
    )
    complaints = [
        line
        for line in answer.stderr.splitlines()
        if line.strip() and not any(word in line for word in gone)
    ]
    if answer.returncode and complaints:
        raise ClusterError(
            f"scancel failed: {complaints[0].strip()}; run zsg cancel again"
        )


def _tasks(job_id: str) -> list[str]:
    """The ids that `12_[0-2,5-9:2%3]` stands for: so accounting shows tasks that never started."""
    main, bracket, tasks = job_id.partition("_[")
    if not bracket:
        return [job_id]
    # A long list ends in `…,1...]`, its last number cut: only what a comma or the end
    # follows is whole.
    spans = re.findall(
        r"([0-9]{1,18})(?:-([0-9]{1,18})(?::([0-9]{1,18}))?)?(?=[,\]]|$)",
        tasks.partition("%")[0],
    )
    ranges = [
        range(int(low), int(high or low) + 1, int(step or 1) or 1)
        for low, high, step in spans
    ]
    sizes = [max(0, span.stop - span.start) // span.step for span in ranges]
    if sum(sizes) > MOST_TASKS:
        raise ClusterError(
            f"Slurm tells of more tasks of {main} than an array can have: {job_id[:80]}"
        )
    return [f"{main}_{number}" for span in ranges for number in span]


def _squeue(mains: str, cluster: str | None, run: Runner) -> str:
    # --all: a user's own jobs in partitions that are hidden are shown only so.
    argv = ["squeue", "--noheader", "--array", "--all", "--jobs", mains]
    argv += ["--format", "%i|%T|%r|%S|%M|%N|%U|%j"]
    answer = _start(argv, run, cluster, ASK_S)
    # Once every job of the list has left its memory, squeue calls the list invalid.
    if answer.returncode and "Invalid job id" in answer.stderr:
        return ""
    return _checked(argv, answer)


def _sacct(mains: str, cluster: str | None, run: Runner) -> str:
    columns = "JobID,State,ExitCode,UID,JobName"
    argv = ["sacct", "-X", "-P", "-n", "-j", mains, "-o", columns]
    return _ask_accounting(argv, run, cluster, ACCOUNTING_S)


def call_accounting(
    argv: list[str],
    run: Runner,
    cluster: str | None = None,
    limit_s: float = ACCOUNTING_S,
) -> str:
    """sacct's answer, or nothing where accounting is off, down, slow or not installed."""
    try:
        return _ask_accounting(argv, run, cluster, limit_s)
    except NoAnswer as error:
        logger.warning(f"note: {error}; what accounting knows was not looked at")
        return ""


def _ask_accounting(
    argv: list[str], run: Runner, cluster: str | None, limit_s: float
) -> str:
    """sacct's answer, or nothing where accounting is off, down or not installed.
    NoAnswer where it does not answer in time."""
    try:
        answer = _start(argv, run, cluster, limit_s)
    except NoAnswer:
        raise
    except ClusterError:
        return ""
    return "" if answer.returncode else answer.stdout


def call_slurm(argv: list[str], run: Runner, cluster: str | None = None) -> str:
    """What a command of Slurm prints, of the cluster that is named. ClusterError if it
    fails or is not there."""
    return _checked(argv, _start(argv, run, cluster, ASK_S))


def _start(
    argv: list[str], run: Runner, cluster: str | None, limit_s: float
) -> subprocess.CompletedProcess[str]:
    """Every call of a program of Slurm goes through here: in a clean environment, of
    the cluster that is meant, and within a time limit."""
    env = slurm_environment.make_call_environment(cluster)
    words = [argv[0], "-M", cluster, *argv[1:]] if cluster else argv
    began = time.monotonic()
    answer = slurm_calls.call_program(words, limit_s, env, run)
    seconds = time.monotonic() - began
    logger.debug(f"{shlex.join(words)}: exit {answer.returncode} in {seconds:.2f} s")
    return answer


def _checked(argv: list[str], answer: subprocess.CompletedProcess[str]) -> str:
    if answer.returncode:
        complaint = answer.stderr.strip() or f"exit {answer.returncode}"
        raise ClusterError(f"{argv[0]} failed: {complaint}")
    return answer.stdout
