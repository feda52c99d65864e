"""Remembers how jobs ended, so that `zsg status` reads the record of each end once.

ended.json in the workspace is derived: it may be removed at any time. An entry counts
for the submission and for the folder's time of change, which every record that is
written or replaced in it moves on; a folder that changed just now is not remembered,
since a second change could bear the same time.
"""

import json
import uuid
from pathlib import Path
from typing import Any

import msgspec

from jobs.contract.folder import SCHEMA, Workspace

RESTED_S = 5.0  # the coarsest clock of a file system, with room

# third in an entry: Slurm's queue has been seen without the job since its end
LEFT = "left"

Key = list[Any]  # submission, time of change, inode


# of an end
FIELDS = "state attempt step steps first loss slurm cause evidence saved stopped signature".split()


def _read(path: Path) -> dict[str, list[Any]]:
    """What was remembered; nothing where another version of zsg did that, with other
    fields, or the file is damaged."""
    try:
        cache = msgspec.json.decode(path.read_bytes(), type=_Cache)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return {}
    return cache.ends if (cache.schema, cache.fields) == (SCHEMA, FIELDS) else {}


class _Cache(msgspec.Struct):
    schema: int
    fields: list[str]
    ends: dict[str, list[Any]]


class TerminalCache:
    """The ends that were read before, of all grids of a workspace; None for a job that
    has not ended."""

    def __init__(self, workspace: Workspace) -> None:
        self._path = workspace.ends
        self._changed = False
        self._entries: dict[str, list[Any]] = _read(self._path)

    def key(self, folder: Path, submission: str | None) -> Key | None:
        """Under what an end counts; None without a folder."""
        try:
            now = folder.stat()
        except FileNotFoundError:
            return None
        return [submission, now.st_mtime_ns, now.st_ino]

    def recall(self, item: str, key: Key) -> tuple[bool, dict[str, Any] | None]:
        """Whether the end of a job is remembered, and the end."""
        entry = self._entries.get(item)
        return (True, entry[1]) if entry and entry[0] == key else (False, None)

    def keep(self, item: str, key: Key, end: dict[str, Any] | None, now: float) -> None:
        """Remembers what was read after `key` was taken."""
        if now - key[1] / 1e9 > RESTED_S:
            self._entries[item] = [key, end]
            self._changed = True

    def has_left(self, item: str, key: Key) -> bool:
        """Whether a job that has ended was seen to have left the scheduler's queue."""
        entry = self._entries.get(item)
        return entry is not None and entry[0] == key and entry[2:] == [LEFT]

    def leaves(self, item: str, key: Key) -> None:
        """Remembers that a job has left the queue, if its end is remembered."""
        entry = self._entries.get(item)
        if entry is not None and entry[0] == key and entry[2:] != [LEFT]:
            self._entries[item] = [*entry[:2], LEFT]
            self._changed = True

    def save(self) -> None:
        """Writes what is new. A workspace that may not be written is read anew the next time."""
        if not self._changed:
            return
        draft = self._path.with_name(f".{self._path.name}.{uuid.uuid4().hex[:8]}")
        try:
            draft.write_text(
                json.dumps(
                    {"schema": SCHEMA, "fields": FIELDS, "ends": self._entries},
                    ensure_ascii=False,
                ),
                encoding="utf-8",
            )
            draft.replace(self._path)
        except OSError:
            draft.unlink(missing_ok=True)
