"""The record of every metric: append-only JSONL, written by a thread, read with the
first row counting.

One file per writer, `journal/<attempt>-<role>-<writer>.jsonl`, is never cut and never
appended to by another attempt. A row: {seq, ts (ms), attempt, stage, step, examples,
kind (metric · rewind · event · digest · items), data}.

The folder's owner is the job whose attempt.json lies there. Evaluators are its guests:
each has a file of role `evaluate` in the folder of every run that it scores, and the
owner's attempts neither fence nor rewind it.
"""

import contextlib
import json
import math
import os
import queue
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from jobs.contract import attempt as attempts
from jobs.contract.attempt import Attempt
from jobs.contract.folder import Damaged, to_json
from jobs.files import ownership

# keys that measure the machine, not the model: they never repeat and need not agree
SPEED = "speed/"
# how an attempt computes
WAY = ("device", "world", "zero_stage", "threads", "precision", "compiled")
MOST_OF_A_ROW = 128 << 20  # bytes; a row of thousands of metrics has one of 128
GUEST = "evaluate"  # the role of a writer that does not own the folder
_FILE = re.compile(r"(\d+)-([a-z]+)-(\d+)\.jsonl")


class Journal:
    """Writes one journal file. `row` never waits for the disk; `commit` waits until all
    rows are on it."""

    def __init__(
        self,
        folder: Path,
        attempt: Attempt,
        role: str,
        stage: str,
        writer: int = 0,
        fence: Callable[[], None] | None = None,
    ) -> None:
        """`fence` raises when this writer may write no more; without one that is when
        its attempt is superseded."""
        self._attempt, self._stage = attempt, stage
        self._fence = fence or partial(attempts.check, folder, attempt)
        # what counts of the attempts before this one
        self.before = sizes(folder, before=attempt.attempt)
        path = folder / "journal" / f"{attempt.attempt}-{role}-{writer}.jsonl"
        ownership.make_folder(path.parent)
        self._file = path.open("x", encoding="utf-8", newline="\n")
        self.name = path.name
        self._rows: queue.Queue[str | threading.Event | None] = queue.Queue()
        self._seq = 0
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._write, name="journal", daemon=True)
        self._thread.start()

    def row(self, kind: str, *, step: int, examples: int, data: dict[str, Any]) -> None:
        """Queues a row; its timestamp is fixed now and for ever. Numbers that are not
        finite become texts."""
        self._raise()
        row = {
            "seq": self._seq,
            "ts": attempts.now_ms(),
            "attempt": self._attempt.attempt,
            "stage": self._stage,
        }
        row |= {"step": step, "examples": examples, "kind": kind, "data": plain(data)}
        self._seq += 1
        self._rows.put(to_json(row) + "\n")

    def rewind(self, *, step: int, examples: int) -> None:
        """The first row of a later attempt: from which step it goes on, and what counts
        of those before it."""
        if self._attempt.attempt > 1:
            self.row(
                "rewind", step=step, examples=examples, data={"sizes": self.before}
            )

    def commit(self) -> None:
        """Returns when every row so far is on disk. Raises Superseded, or what the disk said."""
        written = threading.Event()
        self._rows.put(written)
        while not written.wait(0.2) and self._thread.is_alive():
            pass
        self._raise()

    def close(self) -> None:
        """Writes what is left and ends the thread."""
        self._rows.put(None)
        self._thread.join()
        self._file.close()
        self._raise()

    def _raise(self) -> None:
        if self._error:
            raise self._error

    def _write(self) -> None:
        try:
            while self._flush(self._drain()):
                pass
        except BaseException as error:  # handed to the trainer, which stops on it
            self._error = error

    def _drain(self) -> list[str | threading.Event | None]:
        items = [self._rows.get()]
        with contextlib.suppress(queue.Empty):
            while items[-1] is not None:
                items.append(self._rows.get_nowait())
        return items

    def _flush(self, items: list[str | threading.Event | None]) -> bool:
        # Nothing reaches the file unless this writer still may: a late row of a
        # superseded attempt would otherwise come before the rows that already count.
        self._fence()
        self._file.write("".join(item for item in items if isinstance(item, str)))
        self._file.flush()
        waiting = [item for item in items if isinstance(item, threading.Event)]
        if waiting or items[-1] is None:
            os.fsync(self._file.fileno())
        for event in waiting:
            event.set()
        return items[-1] is not None


def read(folder: Path) -> Iterator[dict[str, Any]]:
    """All rows of a run, attempt after attempt, the guests' last. A last line cut by a
    kill is not a row.

    Of an earlier attempt only that counts which was there when the next one began: a
    write that was stuck in the file system and lands later cannot change which row of a
    step is the first. So it is with a guest of whom another has taken work over.
    """
    return chain.from_iterable(by_writer(folder).values())


def by_writer(folder: Path) -> dict[str, Iterator[dict[str, Any]]]:
    """The rows of a run by who wrote them: those of its own attempts under '', a
    guest's under its file's name."""
    limits: dict[str, int] = {}
    own, guests = owned(folder), guest_files(folder)
    firsts = (row for path in own for row in islice(read_file(path), 1))
    for row in chain(firsts, *map(read_file, guests)):
        for name, size in (
            row["data"]["sizes"] if row["kind"] == "rewind" else {}
        ).items():
            limits[name] = min(size, limits[name]) if name in limits else size
    rows = {
        path.name: read_file(path, limits.get(path.name)) for path in [*own, *guests]
    }
    return {
        "": chain.from_iterable(rows[path.name] for path in own),
        **{path.name: rows[path.name] for path in guests},
    }


def sizes(folder: Path, before: int) -> dict[str, int]:
    """The bytes in each of the owner's journal files of the attempts before `before`."""
    return {
        path.name: path.stat().st_size
        for path in owned(folder)
        if int(path.name.split("-")[0]) < before
    }


def files(folder: Path) -> list[Path]:
    """The journal files: those of the folder's owner in the order of attempts, then the guests'."""
    return [*owned(folder), *guest_files(folder)]


def owned(folder: Path) -> list[Path]:
    """The journal files of the folder's owner in the order of attempts."""
    return [path for _, role, path in _listed(folder) if role != GUEST]


def guest_files(folder: Path) -> list[Path]:
    """The journal files of evaluators in a run's folder."""
    return [path for _, role, path in _listed(folder) if role == GUEST]


def _listed(folder: Path) -> list[tuple[tuple[int, int], str, Path]]:
    named = (
        (_FILE.fullmatch(path.name), path)
        for path in (folder / "journal").glob("*.jsonl")
    )
    return sorted(
        ((int(match[1]), int(match[3])), match[2], path)
        for match, path in named
        if match
    )


def read_file(path: Path, limit: int | None = None) -> Iterator[dict[str, Any]]:
    """The whole rows of one journal file, or of its first `limit` bytes."""
    read_so_far = 0
    with path.open("rb") as file:
        while line := file.readline(MOST_OF_A_ROW):
            read_so_far += len(line)
            if len(line) == MOST_OF_A_ROW:
                raise Damaged(
                    f"{path}: no row ends within {MOST_OF_A_ROW:,} bytes; zsg wrote shorter ones"
                    " there"
                )
            if line.endswith(b"\n") and (limit is None or read_so_far <= limit):
                yield _row(path, line)


def last_rows(path: Path, tail: int = 65_536) -> list[dict[str, Any]]:
    """The rows in the last `tail` bytes: what status needs of a run under way."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - tail)
        file.seek(start)
        lines = file.read().splitlines(keepends=True)
    return [
        _row(path, line) for line in lines[1 if start else 0 :] if line.endswith(b"\n")
    ]


def _row(path: Path, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Damaged(
            f"{path}: holds a row that is no JSON any more: {str(error)[:200]}"
        ) from None
    if not isinstance(row, dict) or "kind" not in row or "data" not in row:
        raise Damaged(f"{path}: holds a row that is none of a journal: {line[:80]!r}")
    return row


@dataclass(frozen=True)
class Point:
    """One metric value that counts: the first that was journalled for its key and step."""

    key: str
    step: int
    value: float
    ts: int
    stage: str
    examples: int


def first_points(rows: Iterable[dict[str, Any]]) -> tuple[list[Point], list[str]]:
    """The points that count, in journal order, and where a value recomputed after a
    restart disagrees.

    On the CPU a recomputed value must agree bit for bit; computed by other ranks,
    threads or another ZeRO stage, within 1e-5 in fp32 and 1e-2 in 16 bits; on a GPU
    within 1e-2 (relative).
    """
    points: dict[tuple[str, int], Point] = {}
    disagree: list[str] = []
    tolerance = 0.0
    ways: list[dict[str, Any]] = []
    for row in rows:
        if row["kind"] == "event" and row["data"].get("event") == "start":
            ways.append({key: row["data"].get(key) for key in WAY})
            tolerance = agreement(ways)
        if row["kind"] != "metric":
            continue
        for key, value in row["data"].items():
            point = Point(
                key, row["step"], float(value), row["ts"], row["stage"], row["examples"]
            )
            first = points.setdefault((key, row["step"]), point)
            if not key.startswith(SPEED) and not agree(
                first.value, point.value, tolerance
            ):
                disagree.append(
                    f"{key} at step {point.step}: {first.value!r}, then {point.value!r}"
                )
    return list(points.values()), disagree


def cells(rows: Iterable[dict[str, Any]]) -> frozenset[tuple[int, str]]:
    """(step, key) of every metric."""
    return frozenset(
        (row["step"], key)
        for row in rows
        if row["kind"] == "metric"
        for key in row["data"]
    )


def agreement(ways: Sequence[Mapping[str, Any]]) -> float:
    """How far apart (relative) values may lie that were computed in these ways; see
    `first_points`."""
    if any(way["device"] != "cpu" for way in ways):
        return 1e-2
    if all(way == ways[0] for way in ways):
        return 0.0
    return 1e-2 if ways[0]["precision"] in ("bf16", "fp16") else 1e-5


def agree(first: float, again: float, tolerance: float) -> bool:
    """Whether two values of one cell are the same within a tolerance; NaN is NaN."""
    same = first == again or (math.isnan(first) and math.isnan(again))
    return same or math.isclose(first, again, rel_tol=tolerance)


def plain(value: Any) -> Any:
    """A value with every number that is not finite as a text."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)  # JSON has no NaN; float("nan") reads it back
    return value
