"""Tries the workspace as the ranks use it: do all see at once what one has written, is a
file that is replaced always whole, do locks hold from node to node, how fast is it?"""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jobs.contract.folder import write_bytes
from jobs.contract.node_check import Finding
from jobs.files import locks, ownership
from jobs.node_check.agreement import Meeting
from jobs.node_check.context import CheckContext
from jobs.node_check.findings import report_ok, report_problem, report_warning

GB = 1e9
FOLDER = "shared"  # of the bench
SEEN = "seen"
REPLACED = "replaced"
LOCKED = "locked"
POLL_S = 0.05
# after which a file that another node has written is not coming (NFS: acdirmax, 60 s)
LONGEST_S = 75.0
SOON_S = 5.0
REPLACING_S, REPLACED_BYTES = 1.0, 1 << 16
CHUNK_BYTES, CHUNKS, WRITING_S = 8 << 20, 16, 3.0
COMMITS = 20
FREE_BYTES = 20e9
CLOCKS_S = 5.0

UNSEEN_ADVICE = (
    "have all nodes mount the workspace from one server, or set profile.workspace to a"
    " folder that they share"
)
LATE_ADVICE = (
    "mount it with a shorter attribute cache (NFS: actimeo=1); until then evaluators"
    " and zsg status see snapshots late"
)
LOCK_ADVICE = (
    "have it mounted with locks that reach all nodes (Lustre: -o flock, not localflock;"
    " NFS: without nolock), or use a workspace on another file system"
)


@dataclass(frozen=True)
class Reads:
    """How often a file that is replaced was read whole, in parts, and not at all."""

    whole: int = 0
    torn: int = 0
    missing: int = 0


def check_visibility(context: CheckContext) -> list[Finding]:
    """Rank 0 writes a file, and replaces it: how long until this rank reads the new
    bytes; all ranks call it together."""
    meeting = _get_meeting(context)
    folder = _make_folder(context)
    path = folder / SEEN
    first_s = _share_text(meeting, path, "first")
    second_s = _share_text(meeting, path, "second, which is longer")
    return _judge_visibility(path, first_s, second_s)


def _judge_visibility(
    path: Path, first_s: float | None, second_s: float | None
) -> list[Finding]:
    if first_s is None or second_s is None:
        unseen = "a file" if first_s is None else "what replaced a file"
        return [
            report_problem(
                f"{path}: {unseen} that rank 0 has written is not seen here within"
                f" {LONGEST_S:.0f} s",
                UNSEEN_ADVICE,
            )
        ]
    text = (
        f"what rank 0 writes into the workspace is seen after {first_s:.2f} s, and"
        f" what it replaces after {second_s:.2f} s"
    )
    figures = {"seen_s": first_s, "replaced_seen_s": second_s}
    if max(first_s, second_s) > SOON_S:
        return [report_warning(text, LATE_ADVICE, **figures)]
    return [report_ok(text, **figures)]


def _share_text(meeting: Meeting, path: Path, text: str) -> float | None:
    """Has rank 0 write a text; the seconds until this rank reads it, None if it never
    does."""
    if meeting.ranks.is_main:
        write_bytes(path, text.encode())
    meeting.exchange(f"{path.name}, {text}", "written")
    seconds = _await_text(path, text.encode())
    # rank 0 may replace it only now: a rank that was slow to look has seen it, too
    meeting.exchange(f"{path.name}, {text}, read", "")
    return seconds


def _await_text(path: Path, expected: bytes) -> float | None:
    started = time.monotonic()
    while time.monotonic() - started < LONGEST_S:
        if _read_file(path) == expected:
            return time.monotonic() - started
        time.sleep(POLL_S)
    return None


def check_replacing(context: CheckContext) -> list[Finding]:
    """Rank 0 replaces a file again and again while all read it: each must find it
    whole; all ranks call it together."""
    meeting = _get_meeting(context)
    path = _make_folder(context) / REPLACED
    if meeting.ranks.is_main:
        write_bytes(path, bytes(REPLACED_BYTES))
    meeting.exchange(REPLACED, "written")
    _await_text(path, bytes(REPLACED_BYTES))
    meeting.exchange(f"{REPLACED}, read", "begins")
    if not meeting.ranks.is_main:
        return judge_reads(path, read_repeatedly(path))
    with replacing(path):
        return judge_reads(path, read_repeatedly(path))


@contextmanager
def replacing(path: Path) -> Iterator[None]:
    """Replaces a file all the time, each time with other bytes."""
    is_over = threading.Event()

    def replace_repeatedly() -> None:
        number = 0
        while not is_over.is_set():
            number += 1
            write_bytes(path, bytes([number % 256]) * REPLACED_BYTES)

    thread = threading.Thread(target=replace_repeatedly)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def read_repeatedly(path: Path) -> Reads:
    """What a second of reading a file comes to."""
    whole = torn = missing = 0
    until = time.monotonic() + REPLACING_S
    while time.monotonic() < until:
        content = _read_file(path)
        if content is None:
            missing += 1
        elif len(content) == REPLACED_BYTES and len(set(content)) == 1:
            whole += 1
        else:
            torn += 1
    return Reads(whole, torn, missing)


def judge_reads(path: Path, reads: Reads) -> list[Finding]:
    """Whether all reads were whole."""
    count = reads.whole + reads.torn + reads.missing
    if reads.torn:
        return [
            report_problem(
                f"{path}: while it was replaced, {reads.torn} of {count} reads found it"
                " in part; renaming is not atomic here",
                "use a workspace on another file system",
            )
        ]
    if reads.missing:
        return [
            report_warning(
                f"{path}: while it was replaced, {reads.missing} of {count} reads did"
                " not find it",
                "zsg reads again; a newer client of the file system may mend it",
            )
        ]
    return [report_ok(f"a file that is replaced is whole in all of {count} reads")]


def check_locks(context: CheckContext) -> list[Finding]:
    """Rank 0 holds a lock, which no other may then take, on any node; all ranks call it
    together."""
    meeting = _get_meeting(context)
    path = _make_folder(context) / LOCKED
    missing = locks.find_missing_locks(path.parent)
    troubles = meeting.exchange("locks", str(missing or ""))
    if any(troubles):
        trouble = meeting.describe_answers(troubles)
        return [report_problem(trouble, LOCK_ADVICE)]
    if not meeting.ranks.is_main:
        meeting.exchange(LOCKED, "held")
        findings = judge_lock(path, is_held=locks.is_locked(path))
        meeting.exchange(f"{LOCKED}, tried", "")
        return findings
    with locks.hold_lock(path):
        meeting.exchange(LOCKED, "held")
        findings = judge_lock(path, is_held=locks.is_locked(path))
        meeting.exchange(f"{LOCKED}, tried", "")
    return findings


def judge_lock(path: Path, *, is_held: bool) -> list[Finding]:
    """Whether a lock that rank 0 holds is seen here."""
    if is_held:
        return [report_ok("a file that rank 0 has locked is locked here")]
    return [
        report_problem(
            f"{path}: rank 0 holds its lock, and it is free here: locks do not reach"
            " this node",
            LOCK_ADVICE,
        )
    ]


def check_writing(context: CheckContext) -> list[Finding]:
    """How fast all ranks write at once, how long a small commit takes, how much room
    there is, and whose clock is right."""
    folder = _make_folder(context)
    path = folder / f"written-{context.ranks.rank}"
    speed = measure_write_speed(path)
    commit_s = measure_commits(path)
    skew_s = measure_clock_skew(path)
    path.unlink()
    text = (
        f"this rank writes {speed / GB:.2f} GB/s into the workspace beside the others,"
        f" and a small commit takes {1000 * commit_s:.1f} ms"
    )
    return [
        report_ok(text, "speed", write_gb_per_s=speed / GB, commit_s=commit_s),
        *judge_room(context.workspace, shutil.disk_usage(folder).free),
        *judge_clocks(skew_s),
    ]


def measure_write_speed(path: Path) -> float:
    """Bytes a second that are written and on the disk."""
    chunk = os.urandom(CHUNK_BYTES)
    written = 0
    started = time.perf_counter()
    with path.open("wb") as file:
        while written < CHUNKS * CHUNK_BYTES:
            written += file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
            if time.perf_counter() - started > WRITING_S:
                break
    return written / (time.perf_counter() - started)


def measure_commits(path: Path) -> float:
    """Seconds until a line that was added to a file is on the disk, as of a journal."""
    started = time.perf_counter()
    with path.open("ab") as file:
        for _ in range(COMMITS):
            file.write(b"x" * 256 + b"\n")
            file.flush()
            os.fsync(file.fileno())
    return (time.perf_counter() - started) / COMMITS


def measure_clock_skew(path: Path) -> float:
    """How many seconds the clock that dates files is before this node's."""
    path.touch()
    return path.stat().st_mtime - time.time()


def judge_room(folder: Path, free: int) -> list[Finding]:
    """Whether there is room for snapshots; of quotas nothing is known here."""
    text = f"{folder}: {free / GB:.0f} GB are free (a quota may be less)"
    if free >= FREE_BYTES:
        return [report_ok(text, "room", free_gb=free / GB)]
    advice = "zsg gc shows what may go; zsg plan tells what a grid takes"
    return [report_warning(text, advice, "room", free_gb=free / GB)]


def judge_clocks(skew_s: float) -> list[Finding]:
    """Whether files are dated by a clock that agrees with the node's."""
    if abs(skew_s) <= CLOCKS_S:
        return []
    side = "ahead of" if skew_s > 0 else "behind"
    return [
        report_warning(
            f"the clock of the workspace's server is {abs(skew_s):.0f} s {side} this"
            " node's",
            "have the site synchronise them: zsg tells silent jobs by their files' times",
            "clock",
            skew_s=skew_s,
        )
    ]


def _get_meeting(context: CheckContext) -> Meeting:
    assert context.meeting, "collective checks come after the ranks have met"
    return context.meeting


def _make_folder(context: CheckContext) -> Path:
    folder = context.bench / FOLDER
    ownership.make_folder(folder)
    return folder


def _read_file(path: Path) -> bytes | None:
    """What a file holds; None where it is not there, or is gone while it is read."""
    try:
        return path.read_bytes()
    except OSError:
        return None
