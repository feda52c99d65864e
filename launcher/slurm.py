"""Asks Slurm: one squeue for what is active, one sacct for what has left the queue, scontrol for the rest.

Commands are argument lists, never shell text; answers are parsed by pure functions. Slurm's `--json` and newer
flags are avoided: they differ between versions.
"""

import os
import re
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from jobs.causes import Cause
from zsg_core.errors import ClusterError

Run = Callable[..., subprocess.CompletedProcess[str]]

WAITING, QUEUED, RUNNING, UNKNOWN = "waiting", "queued", "running", "unknown"
DONE, FAILED, CANCELLED = "done", "failed", "cancelled"

_ACTIVE = {
    "CONFIGURING": RUNNING, "COMPLETING": RUNNING, "RUNNING": RUNNING, "SUSPENDED": RUNNING, "STOPPED": RUNNING,
    "SIGNALING": RUNNING, "STAGE_OUT": RUNNING, "RESIZING": RUNNING, "PENDING": QUEUED, "REQUEUED": QUEUED,
    "REQUEUE_FED": QUEUED, "REQUEUE_HOLD": QUEUED, "RESV_DEL_HOLD": QUEUED, "SPECIAL_EXIT": QUEUED,
}  # fmt: skip
_ENDED = {
    "COMPLETED": (DONE, None), "CANCELLED": (CANCELLED, Cause.CANCELLED), "TIMEOUT": (FAILED, Cause.TIME_LIMIT),
    "NODE_FAIL": (FAILED, Cause.NODE_FAILURE), "BOOT_FAIL": (FAILED, Cause.NODE_FAILURE),
    "DEADLINE": (FAILED, Cause.TIME_LIMIT), "OUT_OF_MEMORY": (FAILED, Cause.OUT_OF_MEMORY),
    "PREEMPTED": (FAILED, Cause.PREEMPTED), "REVOKED": (CANCELLED, Cause.CANCELLED), "FAILED": (FAILED, Cause.DIED),
}  # fmt: skip


@dataclass(frozen=True)
class SlurmState:
    """What Slurm says of one job: a state of ours, the pending reason or the cause of its end, and its own words.

    Of a job that runs: for how long, and where; of one that waits: when it is expected to start (s since the epoch).
    """

    state: str
    detail: str | None = None
    evidence: str | None = None
    elapsed_s: float | None = None
    nodes: str | None = None
    starts: float | None = None
    word: str = field(default="", compare=False)
    job: str = field(default="", compare=False)


def states(
    ids: Sequence[str], run: Run = subprocess.run, *, settled: Collection[str] = (), sacct: bool = True
) -> dict[str, SlurmState]:
    """The state of every id: squeue once, sacct once and only for ids that squeue no longer shows.

    An id that neither knows is `unknown`, never dead: accounting lags, may be off, or may be down. Ids in
    `settled` have told their end themselves; they are in the answer only if they are active again (requeued).
    Where there is no accounting, `sacct` is False and nobody asks it.
    Raises ClusterError if squeue itself fails: then nothing can be said of anything.
    """
    if not ids:
        return {}
    active = parse_squeue(_squeue(_mains(ids), run))
    found = {i: active[i] for i in ids if i in active}
    vanished = [i for i in ids if i not in active and i not in settled]
    if vanished:
        ended = parse_sacct(_sacct(_mains(vanished), run)) if sacct else {}
        nobody = "neither squeue nor sacct knows it" if sacct else "squeue does not know it, and there is no accounting"
        found |= {i: ended.get(i, SlurmState(UNKNOWN, nobody)) for i in vanished}
    return found


def _mains(ids: Iterable[str]) -> str:
    return ",".join(sorted({i.partition("_")[0] for i in ids}))


def parse_squeue(text: str) -> dict[str, SlurmState]:
    """Reads lines `id|STATE|reason|start|elapsed|nodes` of `squeue -r`; the last three may be missing."""
    found = {}
    for line in text.splitlines():
        job, state, *rest = line.split("|")
        more = rest[-3:] if len(rest) >= 4 else ["", "", ""]
        reason = "|".join(rest[:-3] if len(rest) >= 4 else rest)
        ours = _ACTIVE.get(state, RUNNING)  # a state we do not know is still in the queue
        if ours == QUEUED and reason == "Dependency":
            ours = WAITING
        if ours != RUNNING:
            found[job] = SlurmState(ours, reason, starts=_moment(more[0]), word=state)
        else:
            detail = None if state in _ACTIVE else f"Slurm says {state}"
            found[job] = SlurmState(RUNNING, detail, elapsed_s=_seconds(more[1]), nodes=more[2] or None, word=state)
    return found


def _seconds(elapsed: str) -> float | None:
    """squeue's `1-02:03:04`, `02:03:04` or `3:04`; None for anything else."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", elapsed)
    if not found:
        return None
    days, hours, whole, seconds = (int(part or 0) for part in found.groups())
    return 60 * (60 * (24 * days + hours) + whole) + seconds


def _moment(text: str) -> float | None:
    """squeue's `2026-11-25T10:00:00`, in the time zone that it runs in too; None for `N/A`."""
    try:
        return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return None


def parse_sacct(text: str) -> dict[str, SlurmState]:
    """Reads lines `id|STATE|exit` of `sacct -X -P -n`; `CANCELLED by 0` is CANCELLED."""
    found = {}
    for line in text.splitlines():
        job, state, code = line.split("|", 2)
        word = state.split(" ")[0]
        if word in _ENDED:
            ours, cause = _ENDED[word]
            said = SlurmState(ours, cause, f"Slurm says {state}, exit {code}" if ours == FAILED else None)
        else:
            said = SlurmState(UNKNOWN, f"accounting says {state}, squeue nothing")
        found |= dict.fromkeys(_tasks(job), said)
    return found


def find(name: str, run: Run = subprocess.run, *, sacct: bool = True) -> list[str]:
    """The ids of all jobs of that name, queued or ended, an array's tasks in order of their index."""
    shown = call(["squeue", "--noheader", "--array", "--name", name, "--format", "%i"], run).split()
    if not shown and sacct:
        shown = quiet(["sacct", "-X", "-P", "-n", "--name", name, "-o", "JobID", "-S", "now-7days"], run).split()
    return sorted(
        {task for job in shown for task in _tasks(job)}, key=lambda i: [int(part) for part in re.findall(r"\d+", i)]
    )


def release(ids: Sequence[str], run: Run = subprocess.run) -> None:
    """Lets held jobs start. A job that is no longer held, or has ended, is left as it is."""
    mains = sorted({i.partition("_")[0] for i in ids})
    done = _start(["scontrol", "release", *mains], run)
    if done.returncode and "Job has already finished" not in done.stderr and "Invalid job id" not in done.stderr:
        raise ClusterError(f"scontrol release {' '.join(mains)} failed: {done.stderr.strip()}; run zsg submit again")


def _tasks(job: str) -> list[str]:
    """The ids that `12_[0-2,5-9:2%3]` stands for: so accounting shows tasks that never started."""
    main, bracket, tasks = job.partition("_[")
    if not bracket:
        return [job]
    # A long list ends in `…,1...]`, its last number cut: only what a comma or the end follows is whole.
    spans = re.findall(r"(\d+)(?:-(\d+)(?::(\d+))?)?(?=[,\]]|$)", tasks.partition("%")[0])
    return [f"{main}_{n}" for low, high, by in spans for n in range(int(low), int(high or low) + 1, int(by or 1))]


def _squeue(mains: str, run: Run) -> str:
    argv = ["squeue", "--noheader", "--array", "--jobs", mains, "--format", "%i|%T|%r|%S|%M|%N"]
    done = _start(argv, run, env=os.environ | {"SLURM_BITSTR_LEN": "0", "SLURM_TIME_FORMAT": "standard"})
    # Once every job of the list has left its memory, squeue calls the list invalid.
    if done.returncode and "Invalid job id" in done.stderr:
        return ""
    return _checked(argv, done)


def _sacct(mains: str, run: Run) -> str:
    return quiet(["sacct", "-X", "-P", "-n", "-j", mains, "-o", "JobID,State,ExitCode"], run)


def quiet(argv: list[str], run: Run) -> str:
    """sacct's answer, or nothing where accounting is off, down or not installed."""
    try:
        done = run(argv, capture_output=True, text=True)
    except OSError:
        return ""
    return "" if done.returncode else done.stdout


def call(argv: list[str], run: Run) -> str:
    """What a command of Slurm prints. ClusterError if it fails or is not there."""
    return _checked(argv, _start(argv, run))


def _start(argv: list[str], run: Run, **options: Any) -> subprocess.CompletedProcess[str]:
    try:
        return run(argv, capture_output=True, text=True, **options)
    except OSError as error:
        raise ClusterError(f"{argv[0]} cannot be started here: {error}") from error


def _checked(argv: list[str], done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode:
        raise ClusterError(f"{argv[0]} failed: {done.stderr.strip() or f'exit {done.returncode}'}")
    return done.stdout
