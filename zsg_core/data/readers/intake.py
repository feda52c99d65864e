"""Decides what becomes of a row that cannot be read: an error that names it, or one
that is counted and told."""

import gzip
import zlib
from collections import Counter
from pathlib import Path

from zsg_core.errors import BadData

SHOWN = 20  # skipped rows that are remembered with their reason; all are counted


class Malformed(ValueError):
    """Why a row is no example."""


class Intake:
    """What a reading has met so far: rows passed over, things left out, and how many
    examples each task has.

    `skip` is the setting `on_bad_row: skip`; without it the first bad row is BadData.
    """

    def __init__(self, skip: bool = False) -> None:
        self.skip = skip
        self.skipped = 0
        self.reasons: list[str] = []
        self.notes: Counter[str] = Counter()
        # nulls that are read as absence, by their key; counted where rows are passed over
        self.nulls: Counter[str] = Counter()
        # rows by the split that they say they are of
        self.splits: Counter[str] = Counter()
        self.met_key = False  # whether a key of `keys` was met since it was last asked
        self._numbers: Counter[str] = Counter()

    def refuse_row(self, location: str, reason: object) -> None:
        """Refuses a row, or counts it. BadData with the place, the reason and what is allowed."""
        if not self.skip:
            raise BadData(
                f"{location}: {reason}. Repair the row, or set data.on_bad_row: skip to count it"
                " and go on"
            )
        self.skipped += 1
        if len(self.reasons) < SHOWN:
            self.reasons.append(f"{location}: {reason}")

    def note(self, omission: str) -> None:
        """Counts a part that a rule of the format leaves out of an example that is
        otherwise read."""
        self.notes[omission] += 1

    def note_nulls(self, **values: object) -> None:
        """Counts the nulls among values, by their keys: they are read as absence, and
        where rows are passed over an older zsg passed over such a row."""
        if self.skip:
            self.nulls.update(key for key, value in values.items() if value is None)

    def take_met_key(self) -> bool:
        """Whether a key of the tables of `keys` was met since this was asked before."""
        met, self.met_key = self.met_key, False
        return met

    def next_id(self, task: str) -> str:
        """The next example's id in its task: `<task>:<how many came before>`. Malformed
        for an unsafe name."""
        count = self._numbers[task]
        if not count and not (task and task.isprintable()):
            raise Malformed(
                f"{task!r} is no name of a task: it must be printable and not empty"
            )
        self._numbers[task] = count + 1
        return f"{task}:{count}"

    def facts(self) -> dict[str, object]:
        """What is told of the reading: counts, the first reasons."""
        return {
            "skipped": self.skipped,
            "reasons": self.reasons,
            "left_out": dict(sorted(self.notes.items())),
            **({"nulls": dict(sorted(self.nulls.items()))} if self.nulls else {}),
        }


def read_whole(path: Path, limit: int) -> bytes:
    """All bytes of a file, unpacked where it is gzipped. BadData for one of more than
    `limit`, which is not read; OSError for one that cannot be read or unpacked."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        try:
            text = file.read(limit + 1)
        except (EOFError, zlib.error) as error:
            raise OSError(str(error)) from error
    if len(text) > limit:
        raise broken_file(
            path,
            f"has more than {limit:,} bytes; zsg reads such a file of up to so many",
        )
    return text


def broken_file(path: Path, reason: object) -> BadData:
    """A file that cannot be read as what it should be, whatever is done with bad rows."""
    return BadData(f"{path}: {reason}")
