"""The rows of ledger.jsonl: what the launcher notes of every submission, one event a row.

A field that has its usual value is left out of a row, so that rows of older zsgs, which
lack it, read the same. Rows of an event that this zsg does not know are passed over: a
later one wrote them.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

from jobs.contract.folder import Damaged, name_file_in_errors, to_json
from jobs.contract.json_values import DECODE_ERRORS, convert_json
from jobs.files import ownership


class Retried(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The failure before a retry. `signature`: equal for failures of one kind; `nodes`:
    those that failed under it."""

    cause: str | None
    signature: str | None = None
    nodes: list[str] = []


class _Row(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="event"
):
    """`submission`: the launcher's id of it; `ts`: ms since the epoch."""

    submission: str
    ts: int = 0


class Intent(_Row, frozen=True, kw_only=True, omit_defaults=True, tag="intent"):
    """These jobs are about to be submitted. `items`: their folders, relative to the
    workspace.

    `sacct`: whether accounting may be asked about them; `chain`: how many links are to
    wait behind each; `retries`: the failure before it of every job that is tried again;
    `exclude`: nodes that no job is to run on; `cluster` and `named`: those of a
    scheduler's job; `root`: the workspace that submits; `user`: who, in a group's
    workspace; `created`: ms since the epoch.
    """

    scheduler: str
    kind: str
    grid: str
    items: list[str]
    sacct: bool = True
    chain: int = 0
    retries: dict[str, Retried] = {}
    exclude: list[str] = []
    cluster: str | None = None
    named: bool = False
    root: str | None = None
    user: int | None = None
    created: int
    host: str


class Submitted(_Row, frozen=True, kw_only=True, omit_defaults=True, tag="submitted"):
    """The jobs are in the queue under these ids, in the order of the items; `cluster`:
    where sbatch says that it has put them."""

    ids: list[str]
    cluster: str | None = None
    named: bool = False


class Linked(_Row, frozen=True, kw_only=True, omit_defaults=True, tag="linked"):
    """The next link of the chain is in the queue."""

    ids: list[str]


class Cancelled(_Row, frozen=True, kw_only=True, omit_defaults=True, tag="cancelled"):
    """These jobs are about to be stopped, because the user wants it."""

    items: list[str]


class Forgotten(_Row, frozen=True, kw_only=True, omit_defaults=True, tag="forgotten"):
    """The user has had these jobs of a submission forgotten: it counts for them no
    more."""

    items: list[str]


class Released(_Row, frozen=True, kw_only=True, omit_defaults=True, tag="released"):
    """All that was to be submitted is in the queue, and may start."""


class Void(_Row, frozen=True, kw_only=True, omit_defaults=True, tag="void"):
    """The submission was given up: it never reached the scheduler."""

    reason: str


LedgerRow = Intent | Submitted | Linked | Cancelled | Forgotten | Released | Void
EVENTS = (
    "intent",
    "submitted",
    "linked",
    "cancelled",
    "forgotten",
    "released",
    "void",
)
_decoder = msgspec.json.Decoder(LedgerRow)


@dataclass(frozen=True)
class NumberedRow:
    """A row, and the number of its line, counted from 1."""

    number: int
    row: LedgerRow


@dataclass(frozen=True)
class LostLine:
    """A line that a kill has not cut and that is no row any more: what it told is lost."""

    number: int
    reason: str


def read_lines(path: Path) -> Iterator[NumberedRow | LostLine]:
    """The lines of a ledger, in order; none if there is no file. Damaged, with path and
    line, for a row that is none of a ledger.

    A line that a kill has cut is passed over: it was never acted upon, since the act
    comes after the sync.
    """
    if not path.exists():
        return
    *lines, last = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            yield NumberedRow(number, _decoder.decode(line))
        except DECODE_ERRORS:
            slow = _read_slowly(path, line, number)
            if slow is not None:
                yield slow
    # a row without an end is whole all the same if only its end was cut
    with contextlib.suppress(*DECODE_ERRORS):
        yield NumberedRow(len(lines) + 1, _decoder.decode(last))


def _read_slowly(path: Path, line: bytes, number: int) -> NumberedRow | LostLine | None:
    """A line that the quick decoder refuses: None for one that was cut, or whose event
    is a later zsg's."""
    try:
        # Python's JSON reads halves of characters, which names of files may hold
        parsed: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        if _is_cut(line):
            return None
        zeros = line.count(0)
        return LostLine(number, f"{zeros} zero bytes" if zeros else str(error)[:200])
    row = cast("dict[str, Any]", parsed) if isinstance(parsed, dict) else None
    if row is None:
        return LostLine(number, f"no row of a ledger: {line[:80]!r}")
    event = row.get("event")
    if isinstance(event, str) and event not in EVENTS:
        return None
    try:
        return NumberedRow(number, convert_json(row, LedgerRow))
    except msgspec.ValidationError as error:
        text = json.dumps(row)[:200]
        raise Damaged(
            f"{path}: a row is none of a ledger ({error}), line {number}: {text}"
        ) from None


def _is_cut(line: bytes) -> bool:
    """Whether a line is the beginning of a row, or nothing."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data":
            return False
        text = line[: error.start].decode()
    if not text or text == "{":
        return True
    if not text.startswith("{"):
        return False
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return _is_at_end(text, error)
    except (ValueError, RecursionError):
        return False
    return True


def _is_at_end(text: str, error: json.JSONDecodeError) -> bool:
    """Whether what is wrong with a text is only that it ends too early."""
    ending = text[error.pos :]
    if error.msg.startswith("Unterminated string") or not ending.strip():
        return True
    is_escape = error.msg.startswith("Invalid \\") and len(ending) < len("\\u0000")
    return is_escape or any(
        word.startswith(ending) for word in ("true", "false", "null", "-")
    )


def append_row(path: Path, row: LedgerRow) -> None:
    """Adds a row; it is on disk when this returns."""
    line = to_json(msgspec.to_builtins(row)).encode() + b"\n"
    with name_file_in_errors(path), _open_to_append(path) as file:
        is_cut = file.seek(0, os.SEEK_END) > 0 and _last_byte(file) != b"\n"
        file.write((b"\n" if is_cut else b"") + line)
        file.flush()
        os.fsync(file.fileno())


def _open_to_append(path: Path) -> BinaryIO:
    """In a group's workspace also where the file is another member's."""
    return os.fdopen(
        ownership.open_or_make(path, os.O_APPEND | os.O_RDWR, 0o666), "a+b"
    )


def _last_byte(file: BinaryIO) -> bytes:
    file.seek(-1, os.SEEK_END)
    return file.read(1)
