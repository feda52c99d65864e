"""Finds a job's logs and reads them from their end: of any rank, of any attempt, as they grow.

submitit has Slurm append every start of a job to one file per rank; each attempt marks
where it begins. A job that was submitted again has another folder, which the ledger
knows. Logs may be gigabytes: they are mapped, not read.
"""

import calendar
import contextlib
import mmap
import os
import re
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise
from pathlib import Path
from typing import IO

from jobs.contract import attempt as attempts
from jobs.contract.folder import Workspace, list_paths
from jobs.contract.states import Outcome
from jobs.runtime import log_marks, setup
from jobs.runtime.log_marks import Mark
from launcher.workspace.ledger import Ledger, Submission
from zsg_core.errors import UserError

CHUNK = 1 << 16
LAUNCH_TAIL = 1 << 17  # bytes of a log in which its last start is looked for
POLL_S = 0.5
RANK_LOG = re.compile(r"(.+)_(\d+)_log\.out")  # job with Slurm, rank


@dataclass(frozen=True)
class Part:
    """The bytes of a log file that one attempt wrote, or all of it."""

    path: Path
    begin: int
    end: int

    def tail(self, lines: int | None) -> int:
        """Where its last so many lines begin; None: all."""
        if lines is None or self.begin >= self.end:
            return self.begin
        with self.path.open("rb") as file, _mapped(file) as text:
            offset = (
                self.end - 1 if text[self.end - 1 : self.end] == b"\n" else self.end
            )
            for _ in range(lines):
                offset = text.rfind(b"\n", self.begin, offset)
                if offset < 0:
                    return self.begin
            return offset + 1

    def read(self, begin: int | None = None) -> Iterator[bytes]:
        """Its bytes, piece by piece."""
        with self.path.open("rb") as file:
            offset = file.seek(self.begin if begin is None else begin)
            while offset < self.end and (
                piece := file.read(min(CHUNK, self.end - offset))
            ):
                offset += len(piece)
                yield piece

    def line_number(self, offset: int) -> int:
        """The number, from 1, of the line of the file that holds a byte."""
        whole = Part(self.path, 0, offset)
        return 1 + sum(piece.count(b"\n") for piece in whole.read())


def local_log(folder: Path) -> Path:
    """Where the output of a job on this machine goes."""
    return folder / "log.txt"


def locate_log(workspace: Workspace, submission: Submission, job_id: str) -> Path:
    """Where the output of a job's script goes on Slurm, which is rank 0's, too."""
    return workspace.submission(submission.id) / f"{job_id}_0_log.out"


class JobLogs:
    """Finds the logs of jobs as they are when it first looks: reads the ledger once, and
    lists the folder of a submission's logs once for all of its jobs."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._listings: dict[Path, dict[str, list[Path]]] = {}

    @cached_property
    def ledger(self) -> Ledger:
        """The workspace's ledger, as it was when it was first asked for."""
        return Ledger(self.workspace)

    def find_submissions(self, item: str) -> list[Submission]:
        """The submissions of a job that were not given up, the newest first."""
        submissions = [
            submission
            for submission in self.ledger.submissions.values()
            if submission.void is None and item in submission.indices
        ]
        return submissions[::-1]

    def of_jobs(self, submission: Submission, item: str) -> list[list[Path]]:
        """The logs of a job and of the links behind it, the newest first, each rank by
        rank; those that are there."""
        if submission.scheduler == "local":
            path = local_log(self.workspace.root / item)
            return [[path]] if path.exists() else []
        folder = self.workspace.submission(submission.id)
        if folder not in self._listings:
            self._listings[folder] = list_logs(folder)
        logs_of_job = self._listings[folder]
        logs = [logs_of_job.get(job) for job in reversed(submission.job_ids(item))]
        return [ranks for ranks in logs if ranks]

    def of_newest(self, submission: Submission, item: str) -> list[Path]:
        """The logs of the newest job that began an attempt: a link that finds its run
        done begins none."""
        jobs = self.of_jobs(submission, item)
        return next(
            (ranks for ranks in jobs if any(map(read_marks, ranks))),
            jobs[0] if jobs else [],
        )

    def find_parts(self, item: str, attempt: int | None = None) -> list[Part]:
        """What the newest attempt wrote, or that of a number, rank by rank. UserError if
        there is no such log."""
        submissions = self.find_submissions(item)
        if not submissions:
            raise UserError(f"{item} was never submitted; it has no log")
        if attempt is None:
            return [_newest(path) for path in self.of_newest(submissions[0], item)]
        jobs = [ranks for each in submissions for ranks in self.of_jobs(each, item)]
        for ranks in jobs:
            if parts := _find_parts_of(ranks, attempt):
                return parts
        listing = ", ".join(map(str, _list_attempts(jobs))) or "none"
        raise UserError(
            f"{item} has no log of attempt {attempt}; there are logs of attempts: {listing}"
        )


def list_logs(folder: Path) -> dict[str, list[Path]]:
    """The logs in a submission's folder by the job with Slurm, each rank by rank.

    OSError where the folder may not be read.
    """
    by_rank: dict[str, dict[int, Path]] = {}
    for path in list_paths(folder, "*_log.out"):
        match = RANK_LOG.fullmatch(path.name)
        if match is None:
            continue  # some other file of that end
        job, rank = match[1], int(match[2])
        by_rank.setdefault(job, {})[rank] = path
    logs: dict[str, list[Path]] = {}
    for job, paths in by_rank.items():
        logs[job] = [paths[rank] for rank in sorted(paths)]
    return logs


def read_marks(path: Path) -> list[Mark]:
    """Where the attempts in a log begin, each with what its job's script printed before."""
    with path.open("rb") as file, _mapped(file) as text:
        matches = list(log_marks.PATTERN.finditer(text))
        before = [0, *(match.start() for match in matches)]
        return [
            Mark(int(match[1]), _begin(text, since, match.start()))
            for since, match in zip(before, matches, strict=False)
        ]


def _begin(text: mmap.mmap | bytes, since: int, attempt: int) -> int:
    """Where the start begins in which an attempt does: what its script printed is the
    attempt's, too."""
    starts = [
        match.start() for match in log_marks.START_PATTERN.finditer(text[since:attempt])
    ]
    return since + starts[-1] if starts else attempt


def _list_attempts(jobs: Sequence[list[Path]]) -> list[int]:
    """The attempts that have written to these jobs' logs, in order."""
    marks = chain(*(read_marks(ranks[0]) for ranks in jobs))
    return sorted({mark.attempt for mark in marks})


def _find_parts_of(ranks: Sequence[Path], attempt: int) -> list[Part]:
    """What an attempt wrote to the logs of a job; nothing where it is in none of them."""
    parts = [_part(path, attempt) for path in ranks]
    if not any(parts):
        return []
    return [part or Part(path, 0, 0) for part, path in zip(parts, ranks, strict=True)]


def of_rank(workspace: Workspace, item: str, rank: int, attempt: int | None) -> Part:
    """The log of one rank. UserError if there is none yet."""
    parts = JobLogs(workspace).find_parts(item, attempt)
    if rank >= len(parts):
        raise UserError(
            f"{item} has no log of rank {rank} yet ({len(parts)} logs); it may not have started:"
            f" zsg why {item.removeprefix('runs/')}"
        )
    return parts[rank]


def follow_log(
    workspace: Workspace, item: str, rank: int, lines: int | None
) -> Iterator[bytes]:
    """The last lines of a rank's log and what comes, also from later attempts; ends
    when the job is done."""
    path: Path | None = None
    offset, looked = 0, 0.0
    while True:
        if time.monotonic() - looked > 10 * POLL_S or path is None:
            looked, newest = time.monotonic(), _path(workspace, item, rank)
            if newest and newest != path:
                offset = (
                    Part(newest, 0, newest.stat().st_size).tail(lines)
                    if path is None
                    else 0
                )
                path = newest
        is_done = _is_done(workspace.root / item)
        if path:
            for piece in Part(path, offset, path.stat().st_size).read():
                offset += len(piece)
                yield piece
        if is_done:
            return
        time.sleep(POLL_S)


def _path(workspace: Workspace, item: str, rank: int) -> Path | None:
    logs = JobLogs(workspace)
    last = logs.ledger.last(item)
    ranks = logs.of_newest(last, item) if last else []
    return ranks[rank] if rank < len(ranks) else None


def _is_done(folder: Path) -> bool:
    """Whether the newest attempt has told that the job is done: nothing more will come."""
    end = attempts.end_of_newest(folder)
    return end is not None and end.outcome == Outcome.DONE


def _newest(path: Path) -> Part:
    """From the last mark on, looked for from the end."""
    size = path.stat().st_size
    with path.open("rb") as file, _mapped(file) as text:
        offset = size
        while (offset := text.rfind(b"=== zsg attempt ", 0, offset)) >= 0:
            if log_marks.PATTERN.match(text, offset):
                before = max(0, text.rfind(b"=== zsg attempt ", 0, offset))
                return Part(path, _begin(text, before, offset), size)
        starts = [match.start() for match in log_marks.START_PATTERN.finditer(text)]
        return Part(path, starts[-1] if starts else 0, size)


@dataclass(frozen=True)
class Launch:
    """What a job's script has printed since Slurm started it last, where no attempt has
    begun since.

    `begin`: where in its log that begins, in bytes; `started` (s since the epoch, by its
    node's clock) and `node`, where the script has told them; `modified`: when it last
    printed, by the clock of the file system.
    """

    text: bytes
    begin: int
    started: float | None
    node: str | None
    modified: float


def read_launch(log: Path) -> Launch | None:
    """What a job's script has printed, where no attempt has begun since its last start;
    None where one has, or there is no log."""
    try:
        with log.open("rb") as file:
            begin = max(0, file.seek(0, os.SEEK_END) - LAUNCH_TAIL)
            file.seek(begin)
            text = file.read()
            modified = os.fstat(file.fileno()).st_mtime
    except OSError:
        return None
    start = _last_start(text)
    if start is None and begin > 0 and not log_marks.SETUP_PATTERN.search(text):
        return None  # it began before what was read
    if start is not None:
        text, begin = text[start.start() :], begin + start.start()
    if log_marks.PATTERN.search(text):
        return None
    if start is None:
        return Launch(text, begin, None, None, modified)
    node, moment = (group.decode("utf-8", "replace") for group in start.groups())
    return Launch(text, begin, _parse_moment(moment), node, modified)


def _last_start(text: bytes) -> re.Match[bytes] | None:
    """The mark of the last start of a script in what it has printed."""
    starts = list(log_marks.START_PATTERN.finditer(text))
    return starts[-1] if starts else None


def _parse_moment(text: str) -> float | None:
    """A time of a mark, in s since the epoch."""
    try:
        return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError:
        return None


def setup_trouble(log: Path) -> tuple[str, bool] | None:
    """The setup line that a job's last start did not come past, and whether the script saw it fail.

    None where the setup lines were passed, or there is no log. A line that ends the
    script, or hangs until the job is ended, is not seen to fail.
    """
    launch = read_launch(log)
    return None if launch is None else find_setup_trouble(launch)


def find_setup_trouble(launch: Launch) -> tuple[str, bool] | None:
    """The same of what a script has printed."""
    lines = list(log_marks.SETUP_PATTERN.finditer(launch.text))
    if not lines or f"\n{log_marks.SETUP_DONE}\n".encode() in launch.text:
        return None
    line, command = (group.decode("utf-8", "replace") for group in lines[-1].groups())
    ended = log_marks.SETUP_ENDED_PATTERN.search(launch.text)
    how = (
        f"ended with {ended[2].decode('utf-8', 'replace')}"
        if ended
        else "is the last that began"
    )
    return setup.describe_failure(
        f"{line} {how}: {command}", setup.find_output(launch.text)
    ), ended is not None


def _part(path: Path, attempt: int) -> Part | None:
    """What one attempt wrote to a log that several append to: from its mark to the next
    mark or the end of the file. Of an attempt that was marked twice it is the last
    part; None where it has no mark."""
    marks = read_marks(path)
    offsets = [*(mark.offset for mark in marks), path.stat().st_size]
    spans = zip(marks, pairwise(offsets), strict=True)
    whole = [Part(path, *span) for mark, span in spans if mark.attempt == attempt]
    return whole[-1] if whole else None


@contextlib.contextmanager
def _mapped(file: IO[bytes]) -> Generator[mmap.mmap | bytes]:
    """A file as bytes that are read when they are looked at."""
    number = file.fileno()
    if os.fstat(number).st_size == 0:
        yield b""  # an empty file cannot be mapped
        return
    with mmap.mmap(number, 0, access=mmap.ACCESS_READ) as text:
        yield text
