"""notices.jsonl of a workspace: what there was to tell the user, to whom, and what was
told. How notices are asked for stands in job.json and grid.json, as a list of
receivers.

Rows are only ever added. A notice is noted as seen; a message with some of them is
noted as meant before it is sent, and as told once its receiver has taken it. Who dies
in between leaves a message that is meant and not told: it is sent again, with the same
id and the same words.

No row holds an address: a receiver is known by the name of the variable that has it.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

import msgspec

from jobs.contract.folder import (
    Workspace,
    make_unreadable,
    name_file_in_errors,
    to_json,
)
from jobs.contract.json_values import DECODE_ERRORS
from jobs.files import locks, ownership
from zsg_core.digest import content_id

NAME = "notices.jsonl"
LOCK = "notices.lock"
MOST_BYTES = 64 << 20  # of notices.jsonl; ten thousand failures have a tenth
MOST_LINE = 1 << 20
MOST_WORDS = 12  # by which the lines of two failures are compared


class Kind(StrEnum):
    """What a notice tells of."""

    FAILED = "failed"  # a job has failed
    DONE = "done"  # every run of a grid has ended
    VERDICT = "verdict"  # and what its claims came to
    HANG = "hang"  # a job runs and takes no step
    TEST = "test"  # that a message comes through: zsg doctor --notify


class Way(StrEnum):
    """How a message reaches its receiver."""

    WEBHOOK = "webhook"
    SLACK = "slack"
    COMMAND = "command"


class Receiver(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who is told, and of what.

    `variable`: the environment variable that holds the address, for a webhook and for
    Slack; `command`: the program and its arguments. `user`: who asked for it, which
    counts in a group's workspace.
    """

    way: Way
    variable: str = ""
    command: list[str] = []
    on: list[Kind]
    user: int | None = None

    @property
    def name(self) -> str:
        """By what people know it."""
        name = self.variable or content_id(self.command)
        return f"{self.way}:{name}"

    @property
    def key(self) -> str:
        """By what rows know it; the same for two receivers that are one. Two users of a
        group may have different addresses in variables of one name."""
        return self.name if self.user is None else f"{self.name}@{self.user}"


class Notice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing to tell. `id`: the same for whoever sees it; `alike`: equal for notices
    that are told together; `item`: the job's folder, None of a grid; `attempt`: 0 where
    it never began; `at`: ms since the epoch; `more`: further lines."""

    id: str
    kind: Kind
    grid: str
    alike: str
    item: str | None = None
    attempt: int = 0
    step: int | None = None
    cause: str | None = None
    evidence: str | None = None
    more: list[str] = []
    at: int


class _Row(msgspec.Struct, frozen=True, kw_only=True, tag_field="row"):
    """`to`: the key of a receiver; `at`: ms since the epoch."""

    to: str
    at: int


class Seen(_Row, frozen=True, kw_only=True, tag="seen"):
    """There is this to tell."""

    notice: Notice


class Meant(_Row, frozen=True, kw_only=True, tag="meant"):
    """A message with the notices of these ids, in this order, is about to be sent."""

    message: str
    ids: list[str]


class Told(_Row, frozen=True, kw_only=True, tag="told"):
    """The receiver has taken a message."""

    message: str


class Missed(_Row, frozen=True, kw_only=True, tag="missed"):
    """The receiver has not taken a message, and why; it is sent again."""

    message: str
    why: str


NoticeRow = Seen | Meant | Told | Missed
_decoder = msgspec.json.Decoder(NoticeRow)


@dataclass
class Message:
    """A message to one receiver. `misses`: how often it was not taken; `last`: when it
    was last sent, ms since the epoch."""

    id: str
    ids: list[str]
    is_told: bool = False
    misses: int = 0
    last: int = 0


@dataclass
class Outbox:
    """What one receiver is to be told and was told. `notices`: all of them by their
    ids; `seen`: when each was first noted, ms since the epoch; `of_notice`: the message
    that each is in."""

    notices: dict[str, Notice] = field(default_factory=dict[str, Notice])
    seen: dict[str, int] = field(default_factory=dict[str, int])
    messages: dict[str, Message] = field(default_factory=dict[str, Message])
    of_notice: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def waiting(self) -> list[Notice]:
        """The notices that are in no message yet, the oldest first."""
        waiting: list[Notice] = []
        for name, notice in self.notices.items():
            if name not in self.of_notice:
                waiting.append(notice)
        return waiting

    @property
    def untold(self) -> list[Message]:
        """The messages that were meant and of which it is not known that they were
        taken, the oldest first."""
        untold: list[Message] = []
        for message in self.messages.values():
            if not message.is_told:
                untold.append(message)
        return untold

    def take(self, row: NoticeRow) -> None:
        """Adds what a row says.

        The first word counts: a notice that was noted twice is what it was at first,
        and is in the first message that names it.
        """
        if isinstance(row, Seen):
            self._take_seen(row)
        elif isinstance(row, Meant):
            self._take_meant(row)
        else:
            self._take_answer(row)

    def _take_seen(self, row: Seen) -> None:
        """Adds a notice."""
        name = row.notice.id
        self.notices.setdefault(name, row.notice)
        self.seen.setdefault(name, row.at)

    def _take_meant(self, row: Meant) -> None:
        """Adds a message; none where all its notices are in earlier ones, or lost."""
        if row.message in self.messages:
            return
        names: list[str] = []
        for name in row.ids:
            if name in self.notices and name not in self.of_notice:
                names.append(name)
                self.of_notice[name] = row.message
        if names:
            self.messages[row.message] = Message(row.message, names)

    def _take_answer(self, row: Told | Missed) -> None:
        """Adds what came of sending a message."""
        message = self.messages.get(row.message)
        if message is None:
            return
        message.last = row.at
        if isinstance(row, Told):
            message.is_told = True
        else:
            message.misses += 1


def locate_notices(workspace: Workspace) -> Path:
    """Where the rows are."""
    return workspace.root / NAME


def locate_lock(workspace: Workspace) -> Path:
    """The file that whoever sends has locked."""
    return workspace.root / LOCK


def read_outboxes(workspace: Workspace) -> dict[str, Outbox]:
    """What each receiver is to be told and was told, by its key; empty without a file.

    A line that is no row is passed over: a kill has cut it, or a later zsg wrote it.
    Unreadable for what the system refuses.
    """
    outboxes: dict[str, Outbox] = {}
    for row in _read_rows(locate_notices(workspace)):
        outboxes.setdefault(row.to, Outbox()).take(row)
    return outboxes


def _read_rows(path: Path) -> Iterator[NoticeRow]:
    try:
        # a pipe in its place would not end; opened so, it cannot keep this waiting
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError(errno.EINVAL, "is no ordinary file")
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        return
    except OSError as error:
        raise make_unreadable(path, error) from error
    for line in content.split(b"\n"):
        if line and len(line) <= MOST_LINE:
            with contextlib.suppress(*DECODE_ERRORS):
                yield _decoder.decode(line)


def is_full(workspace: Workspace) -> bool:
    """Whether no more can be noted: what was told would be forgotten, and told again."""
    try:
        return locate_notices(workspace).stat().st_size > MOST_BYTES - MOST_LINE
    except OSError:
        return False


def append_rows(workspace: Workspace, rows: Sequence[NoticeRow]) -> None:
    """Adds rows, all at once; they are on disk when this returns.

    Two processes may add at the same time: each waits for the other. NoLocks, OSError.
    """
    if not rows:
        return
    text = "".join(map(_write_line, rows))
    path = locate_notices(workspace)
    with name_file_in_errors(path), _open_to_append(path) as file:
        locks.wait_for_lock(file.fileno(), path)
        if _ends_within_line(file):
            text = f"\n{text}"
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def _write_line(row: NoticeRow) -> str:
    """A row as a line of the file."""
    fields = msgspec.to_builtins(row)
    return f"{to_json(fields)}\n"


def _open_to_append(path: Path) -> BinaryIO:
    """The file, opened to be read and added to; in a group's workspace also where it is
    another member's. A link in its place is not followed."""
    flags = os.O_APPEND | os.O_RDWR | os.O_NOFOLLOW
    handle = ownership.open_or_make(path, flags, 0o666)
    return os.fdopen(handle, "a+b")


def _ends_within_line(file: BinaryIO) -> bool:
    """Whether a kill has cut the last line of a file."""
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        return False
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"


def name_job_notice(kind: Kind, item: str, submission: str, attempt: int) -> str:
    """The id of what befell a job: the same for whoever sees it.

    Args:
        kind: what befell it.
        item: the job's folder, relative to the workspace.
        submission: the launcher's id of the submission that the attempt was of.
        attempt: which of the job's attempts; 0 for one that never began.
    """
    return f"{kind}:{item}:{submission}:{attempt}"


def name_grid_notice(kind: Kind, grid: str, submissions: Collection[str]) -> str:
    """The id of what a grid has come to: the same for whoever sees it, and another one
    once more of the grid was submitted.

    Args:
        kind: what it has come to.
        grid: its name.
        submissions: the newest submission of each of its runs.
    """
    distinct = sorted(set(submissions))
    return f"{kind}:{grid}:{content_id(distinct)}"


def tell_alike(kind: Kind, grid: str, cause: str | None, evidence: str | None) -> str:
    """By what notices are told together: what failed of one grid for one reason.

    Of the line that proves the reason only whole words count, as numbers, paths and
    addresses differ from job to job.
    """
    words: list[str] = []
    for word in (evidence or "").split():
        if word.isalpha():
            words.append(word)
    return content_id([kind, grid, cause, words[:MOST_WORDS]])
