"""Remembers how jobs ended, so that `zsg status` reads the record of each end once.

ended.json in the workspace is derived: it may be removed at any time. An entry counts
for the submission and for the folder's time of change, which every record that is
written or replaced in it moves on; a folder that changed just now is not remembered,
since a second change could bear the same time.
"""

import contextlib
import json
import uuid
from pathlib import Path
from typing import Any

import msgspec

from jobs.contract.exit_record import Loss
from jobs.contract.folder import SCHEMA, Workspace
from jobs.contract.gpu_hours import Spent
from jobs.contract.json_values import DECODE_ERRORS
from jobs.contract.states import State

RESTED_S = 5.0  # the coarsest clock of a file system, with room

# third in an entry: Slurm's queue has been seen without the job since its end
LEFT = "left"

# submission, the folder's time of change (ns), its inode
Key = tuple[str | None, int, int]


class RememberedEnd(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """What a table shows of a job that has ended: the fields of a JobState. Those that
    came later are left out where there are none."""

    state: State
    attempt: int | None
    step: int | None
    steps: int | None
    first: int
    loss: Loss
    slurm: str | None
    cause: str | None
    evidence: str | None
    saved: int | None
    stopped: bool
    signature: str | None
    notes: tuple[str, ...] = ()
    other_versions: str | None = None
    spent: Spent | None = None


# those that every end has
LATER = ("notes", "other_versions", "spent")
FIELDS = [name for name in RememberedEnd.__struct_fields__ if name not in LATER]


class _Entry(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """An end, and under what it counts. `end`: None for a job that has not ended;
    `queue`: LEFT where that is known."""

    key: Key
    end: RememberedEnd | None
    queue: str | None = None

    def to_json_parts(self) -> list[Any]:
        """The entry as ended.json holds it, with no third part where nothing is known."""
        parts: list[Any] = [list(self.key), msgspec.to_builtins(self.end)]
        return [*parts, self.queue] if self.queue else parts


class _EndsFile(msgspec.Struct):
    """ended.json: the entry of each job folder."""

    schema: int
    fields: list[str]
    ends: dict[str, _Entry]


def _read_entries(path: Path) -> dict[str, _Entry]:
    """What was remembered; nothing where another version of zsg did that, with other
    fields, or the file is damaged."""
    try:
        file = msgspec.json.decode(path.read_bytes(), type=_EndsFile)
    except (OSError, *DECODE_ERRORS):
        return {}
    is_of_this_version = (file.schema, file.fields) == (SCHEMA, FIELDS)
    return file.ends if is_of_this_version else {}


class TerminalCache:
    """The ends that were read before, of all grids of a workspace; None for a job that
    has not ended."""

    def __init__(self, workspace: Workspace) -> None:
        self._path = workspace.ends
        self._is_changed = False
        self._entries = _read_entries(self._path)

    def key(self, folder: Path, submission: str | None) -> Key | None:
        """Under what an end counts; None without a folder."""
        try:
            stat = folder.stat()
        except FileNotFoundError:
            return None
        return (submission, stat.st_mtime_ns, stat.st_ino)

    def recall(self, item: str, key: Key) -> tuple[bool, RememberedEnd | None]:
        """Whether the end of a job is remembered, and the end."""
        entry = self._current(item, key)
        return (True, entry.end) if entry else (False, None)

    def remember(
        self, item: str, key: Key, end: RememberedEnd | None, now: float
    ) -> None:
        """Remembers what was read after `key` was taken."""
        if now - key[1] / 1e9 > RESTED_S:
            self._entries[item] = _Entry(key, end)
            self._is_changed = True

    def has_left_queue(self, item: str, key: Key) -> bool:
        """Whether a job that has ended was seen to have left the scheduler's queue."""
        entry = self._current(item, key)
        return entry is not None and entry.queue == LEFT

    def remember_left_queue(self, item: str, key: Key) -> None:
        """Remembers that a job has left the queue, if its end is remembered."""
        entry = self._current(item, key)
        if entry is not None and entry.queue != LEFT:
            entry.queue = LEFT
            self._is_changed = True

    def _current(self, item: str, key: Key) -> _Entry | None:
        """The entry of a job, if it counts for this key."""
        entry = self._entries.get(item)
        return entry if entry is not None and entry.key == key else None

    def save(self) -> None:
        """Writes what is new. A workspace that may not be written is read anew the next time."""
        if not self._is_changed:
            return
        ends = {item: entry.to_json_parts() for item, entry in self._entries.items()}
        content = {"schema": SCHEMA, "fields": FIELDS, "ends": ends}
        draft = self._path.with_name(f".{self._path.name}.{uuid.uuid4().hex[:8]}")
        try:
            draft.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
            draft.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):  # a disk that may only be read
                draft.unlink()
