"""Asks Slurm: one squeue for what is active, one sacct for what has left the queue, scontrol for the rest.

Commands are argument lists, never shell text; answers are parsed by pure functions. Slurm's `--json` and newer
flags are avoided: they differ between versions.
"""

import contextlib
import datetime
import os
import re
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from jobs.causes import Cause
from zsg_core.errors import ClusterError

Run = Callable[..., subprocess.CompletedProcess[str]]

LAUNCH_FAILED = "launch failed requeued held"  # squeue's reason
_OVER = ("Job has already finished", "Invalid job id")

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


MOST_CHARACTERS = 30_000  # of ids in one command


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


def nodes(ids: Sequence[str], since: float, run: Run = subprocess.run) -> dict[str, list[str]]:
    """The nodes on which jobs ran that ended after `since`, seconds since the epoch; empty without accounting."""
    if not ids:
        return {}
    argv = ["sacct", "-X", "-P", "-n", "-j", _mains(ids), "-o", "JobID,End,NodeList"]
    wanted = set(ids)
    return {job: of for job, of in parse_nodes(quiet(argv, run), since).items() if job in wanted}


def parse_nodes(text: str, since: float) -> dict[str, list[str]]:
    """Reads lines `id|2026-01-31T10:00:00|n[1-2],m3`, the time by this machine's clock."""
    found = {}
    for line in text.splitlines():
        job, end, names = line.split("|", 2)
        with contextlib.suppress(ValueError):  # Unknown: it has not ended
            if datetime.datetime.fromisoformat(end).timestamp() >= since:
                found[job] = hosts(names)
    return found


def hosts(names: str) -> list[str]:
    """The nodes of `n[01-03,7],m3`, one by one; none of `None assigned`."""
    found: list[str] = []
    for name in re.findall(r"[^,\[\s]+(?:\[[^\]]*\])?", names if " " not in names else ""):
        stem, bracket, spans = name.partition("[")
        for span in spans.rstrip("]").split(",") if bracket else [""]:
            low, _, high = span.partition("-")
            numbers = range(int(low), int(high or low) + 1) if bracket else []
            found += [f"{stem}{number:0{len(low)}}" for number in numbers] if bracket else [stem]
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
    if done.returncode and not any(word in done.stderr for word in _OVER):
        raise ClusterError(f"scontrol release {' '.join(mains)} failed: {done.stderr.strip()}; run zsg submit again")


def release_tasks(ids: Sequence[str], run: Run = subprocess.run) -> None:
    """Lets just these jobs or tasks start, and no other task of their arrays."""
    for job_id in ids:
        done = _start(["scontrol", "release", job_id], run)
        if done.returncode and not any(word in done.stderr for word in _OVER):
            raise ClusterError(f"scontrol release {job_id} failed: {done.stderr.strip()}; run zsg submit again")


def cancel(ids: Sequence[str], save: bool = False, run: Run = subprocess.run) -> None:
    """Ends jobs, in few calls; with `save` those that run are told by USR1 to save and leave. What has ended is let be.

    Raises ClusterError if Slurm does not answer: what was asked of it before stays asked.
    """
    for spans in _batches(compact(ids)):
        if not save:
            _scancel(spans, run)
        else:
            _scancel(["--state=PENDING", *spans], run)
            _scancel(["--signal=USR1", "--state=RUNNING", *spans], run)


def compact(ids: Iterable[str]) -> list[str]:
    """Ids with the tasks of an array as one: `7_0 7_1 7_2 7_5 9` are `7_[0-2,5]` and `9`."""
    tasks: dict[str, set[int]] = {}
    for job_id in ids:
        main, _, task = job_id.partition("_")
        tasks.setdefault(main, set()).update([int(task)] if task else [])
    return [f"{main}_[{_spans(sorted(of))}]" if of else main for main, of in tasks.items()]


def _spans(numbers: Sequence[int]) -> str:
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


def _scancel(words: Sequence[str], run: Run) -> None:
    done = _start(["scancel", "--quiet", *words], run)
    gone = ("Invalid job id", "already completing or completed", "Job has already finished")
    bad = [line for line in done.stderr.splitlines() if line.strip() and not any(word in line for word in gone)]
    if done.returncode and bad:
        raise ClusterError(f"scancel failed: {bad[0].strip()}; run zsg cancel again")


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
