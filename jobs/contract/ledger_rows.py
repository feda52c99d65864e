"""The rows of ledger.jsonl: what the launcher notes of every submission, one event a row.

A field that has its usual value is left out of a row, so that rows of older zsgs, which
lack it, read the same. Rows of an event that this zsg does not know are passed over: a
later one wrote them.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

from jobs.contract.folder import Damaged, name_file_in_errors, to_json


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


class Released(_Row, frozen=True, kw_only=True, omit_defaults=True, tag="released"):
    """All that was to be submitted is in the queue, and may start."""


class Void(_Row, frozen=True, kw_only=True, omit_defaults=True, tag="void"):
    """The submission was given up: it never reached the scheduler."""

    reason: str


LedgerRow = Intent | Submitted | Linked | Cancelled | Released | Void
EVENTS = ("intent", "submitted", "linked", "cancelled", "released", "void")
_decoder = msgspec.json.Decoder(LedgerRow)


def read_rows(path: Path) -> Iterator[LedgerRow]:
    """The rows of a ledger, in order; none if there is no file. Damaged, with the path,
    for a row that is none of a ledger."""
    if not path.exists():
        return
    for line in path.read_bytes().split(b"\n"):
        try:
            yield _decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            row = _read_slowly(path, line)
            if row is not None:
                yield row


def _read_slowly(path: Path, line: bytes) -> LedgerRow | None:
    """A row that the quick decoder refuses: None for one that was cut, or whose event
    is a later zsg's."""
    parsed: Any = None
    # A line cut by a kill was never acted upon: the act comes after the sync. Python's
    # JSON reads halves of characters, which names of files may hold.
    with contextlib.suppress(ValueError, RecursionError):
        parsed = json.loads(line)
    if not isinstance(parsed, dict):
        return None
    row = cast("dict[str, Any]", parsed)
    event = row.get("event")
    if isinstance(event, str) and event not in EVENTS:
        return None
    try:
        return msgspec.convert(row, LedgerRow)
    except msgspec.ValidationError as error:
        text = json.dumps(row)[:200]
        raise Damaged(f"{path}: a row is none of a ledger ({error}): {text}") from None


def append_row(path: Path, row: LedgerRow) -> None:
    """Adds a row; it is on disk when this returns."""
    line = to_json(msgspec.to_builtins(row)).encode() + b"\n"
    with name_file_in_errors(path), path.open("a+b") as file:
        is_cut = file.seek(0, os.SEEK_END) > 0 and _last_byte(file) != b"\n"
        file.write((b"\n" if is_cut else b"") + line)
        file.flush()
        os.fsync(file.fileno())


def _last_byte(file: BinaryIO) -> bytes:
    file.seek(-1, os.SEEK_END)
    return file.read(1)
