"""The record of every metric: append-only JSONL, written by a thread, read with the
first row counting.

One file per writer, `journal/<attempt>-<role>-<writer>.jsonl`, is never cut and never
appended to by another attempt. The rows are in jobs.contract.journal_rows.

The folder's owner is the job whose attempt.json lies there. Evaluators are its guests:
each has a file of role `evaluate` in the folder of every run that it scores, and the
owner's attempts neither fence nor rewind it.

A last line without an end was cut by a kill: it is no row, and nothing is wrong. Any
other line that is no row, or before which rows are missing by their `seq`, is a hole, and
so is the end of a file that is shorter than when a later attempt began: a file system
has lost what was written. Rows before a hole count; none behind it does, in
this file or in one of a later attempt, since nobody knows whether what was lost came
first. Readers raise HoleError there, with file and line. It is closed by the next
attempt, which computes again what comes after: its rewind row says that the file counts
up to the hole only, so that readers never come to it. Of an evaluator's file the next
evaluate job does the same.
"""

import contextlib
import math
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

import msgspec

from jobs.contract import attempt as attempts
from jobs.contract.attempt import Attempt
from jobs.contract.folder import (
    Damaged,
    list_paths,
    make_unreadable,
    sync_to_disk,
    to_json,
)
from jobs.contract.journal_rows import (
    DIGEST,
    EVENT,
    ITEMS,
    METRIC,
    REWIND,
    Event,
    EventRow,
    HoleClosed,
    ItemValues,
    MetricRow,
    Number,
    RewindRow,
    Row,
    Sizes,
    Start,
    as_mapping,
    decode_row,
)
from jobs.files import ownership

# keys that measure the machine, not the model: they never repeat and need not agree
SPEED = "speed/"
# how an attempt computes
WAY = ("device", "world", "zero_stage", "threads", "precision", "compiled")
MOST_OF_A_ROW = 128 << 20  # bytes; a row of thousands of metrics has one of 128
LATELY_S = 3600.0  # after which a system has written what waits, if clocks differ, too
GUEST = "evaluate"  # the role of a writer that does not own the folder
TRAINER = "train"
FOLDER = "journal"
_FILE = re.compile(r"(\d+)-([a-z]+)-(\d+)\.jsonl")


class HoleError(Damaged):
    """A journal has lost rows that were written: `line`, counted from 1, is the first
    that does not count, and begins at byte `offset`."""

    def __init__(self, path: Path, line: int, offset: int, message: str) -> None:
        super().__init__(message)
        self.path, self.line, self.offset = path, line, offset

    @property
    def reason(self) -> str:
        """Why, without the path."""
        return str(self).removeprefix(f"{self.path}: ")


# one answer, when every row before it is on disk
Written = queue.SimpleQueue[bool]


class Journal:
    """Writes one journal file. Adding a row never waits for the disk; `commit` waits
    until all rows are on it."""

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
        self._fence = fence or partial(attempts.check_attempt, folder, attempt)
        # what counts of the attempts before this one
        self.before = measure_journal_files(folder, before=attempt.attempt)
        # where one of them has a hole; from there on they count no more
        self.hole: HoleError | None = None
        if role == TRAINER:
            self.before, self.hole = measure_sound_files(folder, attempt.attempt)
        path = folder_of(folder) / f"{attempt.attempt}-{role}-{writer}.jsonl"
        ownership.make_folder(path.parent)
        self._file = path.open("x", encoding="utf-8", newline="\n")
        self.name = path.name
        # SimpleQueue, also to answer a commit: a signal that raises KeyboardInterrupt
        # inside a queue.Queue or an Event leaves its lock taken, for ever.
        self._rows: queue.SimpleQueue[str | Written | None] = queue.SimpleQueue()
        self._seq = 0
        self._error: BaseException | None = None
        # Nor may a thread be asked whether it lives: interrupted there, Python 3.11
        # takes it for ended while it writes. It tells its end by itself.
        self._has_ended = False
        self._end: Written = queue.SimpleQueue()
        threading.Thread(target=self._write, name="journal", daemon=True).start()

    def add_metrics(
        self, values: Mapping[str, Number], *, step: int, examples: int
    ) -> None:
        """Adds the values of metrics at a step. Numbers that are not finite become texts."""
        self.add_row(METRIC, step=step, examples=examples, data=values)

    def add_event(self, event: Event, *, step: int, examples: int) -> None:
        """Adds something that happened."""
        self.add_row(EVENT, step=step, examples=examples, data=as_mapping(event))

    def add_note(self, text: str) -> None:
        """Adds what a job without steps is doing."""
        self.add_row(EVENT, step=0, examples=0, data={"event": text})

    def add_digests(
        self, digests: Mapping[str, str], *, step: int, examples: int
    ) -> None:
        """Adds the digests of a checkpoint."""
        self.add_row(DIGEST, step=step, examples=examples, data=digests)

    def add_item_values(self, values: ItemValues, *, step: int, examples: int) -> None:
        """Adds the values of the items behind a metric."""
        data = msgspec.to_builtins(values)
        self.add_row(ITEMS, step=step, examples=examples, data=data)

    def add_rewind(
        self,
        sizes: dict[str, int],
        *,
        step: int,
        examples: int,
        hole: HoleError | None = None,
    ) -> None:
        """Adds what counts of other writers: by the name of a file, its bytes. Of one
        that has a `hole`, and counts no more from there on, also that; in one write, so
        that no kill comes between."""
        data = msgspec.to_builtins(Sizes(sizes))
        line = self._make_line(REWIND, step, examples, data)
        if hole:
            closed = HoleClosed(file=hole.path.name, line=hole.line, at=hole.offset)
            line += self._make_line(EVENT, step, examples, as_mapping(closed))
        self._rows.put(line)

    def rewind(self, *, step: int, examples: int) -> None:
        """The first row of a later attempt: from which step it resumes, and what counts
        of those before it."""
        if self._attempt.attempt > 1:
            self.add_rewind(self.before, step=step, examples=examples, hole=self.hole)

    def measure(self) -> dict[str, int]:
        """The bytes that count of the owner's files by now: of those before this one,
        and of this one what is on disk."""
        return {**self.before, self.name: os.fstat(self._file.fileno()).st_size}

    def add_row(
        self, kind: str, *, step: int, examples: int, data: Mapping[str, Any]
    ) -> None:
        """Queues a row; its timestamp is fixed now and for ever. Numbers that are not
        finite become texts."""
        self._rows.put(self._make_line(kind, step, examples, data))

    def _make_line(
        self, kind: str, step: int, examples: int, data: Mapping[str, Any]
    ) -> str:
        """The next line. What cannot be written takes no number."""
        self._raise()
        row = {
            "seq": self._seq,
            "ts": attempts.now_ms(),
            "attempt": self._attempt.attempt,
            "stage": self._stage,
            "step": step,
            "examples": examples,
            "kind": kind,
            "data": spell_nonfinite(data),
        }
        line = to_json(row) + "\n"
        self._seq += 1
        return line

    def commit(self) -> None:
        """Returns when every row so far is on disk. Raises Superseded, or what the disk said."""
        written: Written = queue.SimpleQueue()
        self._rows.put(written)
        while not self._has_ended:
            with contextlib.suppress(queue.Empty):
                written.get(timeout=0.2)
                break
        self._raise()

    def close(self) -> None:
        """Writes what is left and ends the thread."""
        self._rows.put(None)
        while not self._has_ended:
            with contextlib.suppress(queue.Empty):
                self._end.get(timeout=0.2)
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
        finally:
            self._has_ended = True
            self._end.put(True)

    def _drain(self) -> list[str | Written | None]:
        items = [self._rows.get()]
        with contextlib.suppress(queue.Empty):
            while items[-1] is not None:
                items.append(self._rows.get_nowait())
        return items

    def _flush(self, items: list[str | Written | None]) -> bool:
        """Writes what has gathered in the queue; returns False where the writer is to
        end.

        Texts are rows, a `Written` belongs to somebody who waits until all before it is
        on disk, and None, always last, asks for the end. The disk is synced only for
        the latter two. Raises where a newer attempt has taken over.
        """
        # Nothing reaches the file unless this writer still may: a late row of a
        # superseded attempt would otherwise come before the rows that already count.
        self._fence()
        self._file.write("".join(item for item in items if isinstance(item, str)))
        self._file.flush()
        waiting = [item for item in items if isinstance(item, queue.SimpleQueue)]
        if waiting or items[-1] is None:
            os.fsync(self._file.fileno())
        for written in waiting:
            written.put(True)
        return items[-1] is not None


def folder_of(run: Path) -> Path:
    """The folder of a run's journal files."""
    return run / FOLDER


def read_journal(folder: Path) -> Iterator[Row]:
    """All rows of a run, attempt after attempt, the guests' last. A last line cut by a
    kill is not a row. HoleError where rows are lost.

    Of an earlier attempt only that counts which was there when the next one began: a
    write that was stuck in the file system and lands later cannot change which row of a
    step is the first. So it is with a guest of whom another has taken work over.
    """
    return chain.from_iterable(by_writer(folder).values())


def read_own(folder: Path) -> Iterator[Row]:
    """The rows of a run's own attempts that count. HoleError as `read_journal`."""
    return chain.from_iterable(
        read_file(path, limit)
        for path, limit in _list_counted(list_owned_files(folder))
    )


def read_to_hole(folder: Path) -> Iterator[Row]:
    """The rows of a run's own attempts before the first hole: for a question that the
    beginning of a journal answers."""
    with contextlib.suppress(HoleError):
        yield from read_own(folder)


def read_measured(folder: Path, sizes: Mapping[str, int]) -> Iterator[Row]:
    """The rows of the attempts whose files were measured, as far as they count: what an
    attempt has that has not journalled yet from where it resumes."""
    files = [path for path in list_owned_files(folder) if path.name in sizes]
    for path, limit in _list_counted(files):
        size = sizes[path.name]
        yield from read_file(path, size if limit is None else min(size, limit))


def by_writer(folder: Path) -> dict[str, Iterator[Row]]:
    """The rows of a run by who wrote them: those of its own attempts under '', a
    guest's under its file's name."""
    guests = _list_counted(guest_files(folder))
    return {
        "": read_own(folder),
        **{path.name: read_file(path, limit) for path, limit in guests},
    }


def _list_counted(files: Sequence[Path]) -> list[tuple[Path, int | None]]:
    """The files in the order of attempts, each with how many of its bytes count, where a
    later writer has set an end to it; those, too, that one names and that are gone."""
    limits = _find_limits(files)
    names = {path.name for path in files}
    gone = [
        path.parent / name
        for path in files[:1]
        for name, size in limits.items()
        if size and name not in names and _FILE.fullmatch(name)
    ]
    ordered = sorted([*files, *gone], key=_order_of)
    return [(path, limits.get(path.name)) for path in ordered]


def _find_limits(files: Sequence[Path]) -> dict[str, int]:
    """How many bytes of each file count, where a later writer has set an end to it: an
    attempt in its first row, a guest in any."""
    limits: dict[str, int] = {}
    for path in files:
        rows = _read_to_hole(path)
        for row in rows if is_guest_file(path) else islice(rows, 1):
            if isinstance(row, RewindRow):
                for name, size in row.data.sizes.items():
                    limits[name] = min(size, limits.get(name, size))
    return limits


def measure_journal_files(folder: Path, before: int) -> dict[str, int]:
    """The bytes in each of the owner's journal files of the attempts before `before`."""
    return {
        path.name: path.stat().st_size
        for path in list_owned_files(folder)
        if _attempt_of(path) < before
    }


def measure_sound_files(
    folder: Path, before: int
) -> tuple[dict[str, int], HoleError | None]:
    """The bytes that count of each of the owner's files of the attempts before `before`,
    and the first hole in them: behind it nothing counts, of later attempts neither."""
    files = [path for path in list_owned_files(folder) if _attempt_of(path) < before]
    sizes: dict[str, int] = {}
    hole: HoleError | None = None
    for path, limit in _list_counted(files):
        if hole is not None:
            sizes[path.name] = 0
            continue
        size = path.stat().st_size if path.exists() else 0
        end = size if limit is None else limit
        hole = find_hole(path, end)
        sizes[path.name] = hole.offset if hole else end
    return sizes, hole


def find_holes(folder: Path) -> list[HoleError]:
    """The holes in a run's journal that no later writer has closed: of each file the
    first."""
    files = list_owned_files(folder)
    return [*_find_holes_in(files), *find_guest_holes(folder)]


def find_guest_holes(folder: Path) -> list[HoleError]:
    """Those of `find_holes` that are in files of evaluators."""
    return _find_holes_in(guest_files(folder))


def _find_holes_in(files: Sequence[Path]) -> list[HoleError]:
    holes = (find_hole(path, limit) for path, limit in _list_counted(files))
    return [hole for hole in holes if hole]


def limit_to_hole(hole: HoleError) -> dict[str, int]:
    """What a rewind says of a guest's file that has a hole: its own bytes that count,
    and what it has said of others' behind the hole, as far as that can be read."""
    sizes: dict[str, int] = {}
    # whoever found the hole may have had the file removed since
    with contextlib.suppress(FileNotFoundError):
        for row in read_sound_rows(hole.path):
            if isinstance(row, RewindRow):
                sizes |= row.data.sizes
    return sizes | {hole.path.name: hole.offset}


def find_hole(path: Path, limit: int | None = None) -> HoleError | None:
    """The first hole in a file, or in its first `limit` bytes; None if there is none."""
    try:
        for _ in read_file(path, limit):
            pass
    except HoleError as hole:
        return hole
    return None


def _order_of(path: Path) -> tuple[int, int]:
    """The attempt whose file it is, and the number of the writer."""
    attempt, _, writer = path.name.removesuffix(".jsonl").split("-")
    return int(attempt), int(writer)


def _attempt_of(path: Path) -> int:
    """The attempt whose file it is."""
    return _order_of(path)[0]


def list_journal_files(folder: Path) -> list[Path]:
    """The journal files: those of the folder's owner in the order of attempts, then the guests'."""
    return [*list_owned_files(folder), *guest_files(folder)]


def list_owned_files(folder: Path) -> list[Path]:
    """The journal files of the folder's owner in the order of attempts."""
    return [path for _, role, path in _listed(folder) if role != GUEST]


def find_newest_attempt(folder: Path) -> int:
    """The number of the newest attempt of the folder's owner that has a journal; 0
    before there is one."""
    return max(map(_attempt_of, list_owned_files(folder)), default=0)


def guest_files(folder: Path) -> list[Path]:
    """The journal files of evaluators in a run's folder."""
    return [path for _, role, path in _listed(folder) if role == GUEST]


def is_guest_file(path: Path) -> bool:
    """Whether a journal file is an evaluator's, by its name."""
    return f"-{GUEST}-" in path.name


def read_guests(folder: Path) -> Iterator[Row]:
    """The rows of all evaluators in a run's folder, one after the other. HoleError as
    `read_journal`."""
    for path, limit in _list_counted(guest_files(folder)):
        yield from read_file(path, limit)


def _listed(folder: Path) -> list[tuple[tuple[int, int], str, Path]]:
    """The journal files of a folder in the order of attempts, each with (attempt,
    number within it), role and path. Names that are none of a journal are left out: an
    editor's copy, a file of a network file system. Raises where the folder cannot be
    read."""
    with _name_unreadable(folder_of(folder)):
        paths = list_paths(folder_of(folder), "*.jsonl")
    named = ((_FILE.fullmatch(path.name), path) for path in paths)
    return sorted(
        ((int(match[1]), int(match[3])), match[2], path)
        for match, path in named
        if match
    )


def bring_to_disk(folder: Path) -> None:
    """Brings what was written of a run's journal lately to the disk, by whichever
    process of this machine. Unreadable where the system refuses."""
    for path in list_journal_files(folder):
        with _name_unreadable(path):
            if time.time() - path.stat().st_mtime < LATELY_S:
                sync_to_disk(path)


def read_file(path: Path, limit: int | None = None) -> Iterator[Row]:
    """The whole rows of one journal file, or of its first `limit` bytes, which it must
    have. HoleError where rows are lost: see above; Unreadable for what the system
    refuses."""
    if limit == 0:
        return
    if limit and not path.exists():
        raise HoleError(path, 1, 0, _describe_end(path, 1, 0, limit))
    with _name_unreadable(path), path.open("rb") as file:
        yield from _read_rows(path, file, limit)


@contextlib.contextmanager
def _name_unreadable(path: Path) -> Generator[None]:
    """Unreadable for what the system refuses; one that is not there is none."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise make_unreadable(path, error) from error


def _read_rows(path: Path, file: BinaryIO, limit: int | None) -> Iterator[Row]:
    """The rows of an open file; see `read_file`. Millions come by: nothing is made here
    for a row but the row."""
    # A row is told once the next one proves that nothing is lost between: the loss of
    # some bytes can join the beginning of one row to the end of another.
    pending: Row | None = None
    begins = offset = number = 0  # where `pending` begins, and where `line` does
    due = 0  # the next row's number: a file may have lost those at its beginning
    last = math.inf if limit is None else limit
    while line := file.readline(MOST_OF_A_ROW):
        end = offset + len(line)
        if end > last:
            break
        is_ended = line[-1:] == b"\n"
        if not is_ended and len(line) < MOST_OF_A_ROW:
            break  # the last line, which a kill has cut, is no row
        number += 1
        try:
            if not is_ended:
                _refuse_endless(path, number)
            row = decode_row(path, line, number)
        except Damaged as error:
            if pending is not None:
                yield pending
            raise HoleError(path, number, offset, str(error)) from None
        if row.seq > due:
            message = _describe_gap(path, number, due, row.seq)
            raise HoleError(path, max(1, number - 1), begins, message)
        if pending is not None:
            yield pending
        pending, begins, offset, due = row, offset, end, row.seq + 1
    if pending is not None:
        yield pending
    _refuse_early_end(path, number, offset, len(line), limit)


def _refuse_early_end(
    path: Path,
    number: int,
    offset: int,
    cut: int,
    limit: int | None,
) -> None:
    """HoleError where a file ends before `limit`: after so many lines and bytes, and
    `cut` bytes of a line that has no end."""
    size = offset + cut
    if limit and size < limit:
        message = _describe_end(path, number + 1, size, limit)
        raise HoleError(path, number + 1, offset, message)


def _refuse_endless(path: Path, number: int) -> NoReturn:
    """Damaged: a line has no end."""
    raise Damaged(
        f"{path}: no row ends within {MOST_OF_A_ROW:,} bytes, line {number}; zsg wrote"
        " shorter ones there"
    )


def _describe_end(path: Path, number: int, size: int, limit: int) -> str:
    return (
        f"{path}: ends at line {number}, after {size:,} bytes; it had {limit:,} when a later"
        " attempt began, and what was behind is lost"
    )


def _describe_gap(path: Path, number: int, due: int, seq: int) -> str:
    return (
        f"{path}: holds a row that is not the next one, line {number}: it is row {seq},"
        f" row {due} is due, and what was between is lost"
    )


def _read_to_hole(path: Path) -> Iterator[Row]:
    """The rows of a file before its first hole."""
    with contextlib.suppress(HoleError):
        yield from read_file(path)


def read_sound_rows(path: Path) -> Iterator[Row]:
    """The rows of one journal file that can be read, past those that cannot.

    For questions whose answer is in many rows; what counts once is read by read_file.
    """
    with _name_unreadable(path), path.open("rb") as file:
        while line := file.readline(MOST_OF_A_ROW):
            if line.endswith(b"\n"):
                with contextlib.suppress(Damaged):
                    yield decode_row(path, line)


@dataclass(frozen=True)
class Tail:
    """The rows at the end of a journal file; of lines there that are no rows, what the
    first is and in which file."""

    rows: list[Row]
    trouble: str | None = None


def read_tail(path: Path, tail: int = 65_536) -> Tail:
    """The rows in the last `tail` bytes: what status needs of a run under way.
    Unreadable for what the system refuses."""
    with _name_unreadable(path), path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - tail)
        file.seek(start)
        lines = file.read().split(b"\n")
    # the last was not ended, and nobody knows where the first began
    offset = start + len(lines[0]) + 1 if start else 0
    rows: list[Row] = []
    trouble: str | None = None
    for line in lines[1 if start else 0 : -1]:
        try:
            rows.append(decode_row(path, line))
        except Damaged:
            trouble = trouble or _explain_line(path, line, offset)
        offset += len(line) + 1
    return Tail(rows, trouble)


def _explain_line(path: Path, line: bytes, offset: int) -> str | None:
    """Why a line that begins at a byte is no row, with its number."""
    try:
        decode_row(path, line, _count_lines(path, offset) + 1)
    except Damaged as error:
        return str(error)
    return None


def _count_lines(path: Path, until: int) -> int:
    """How many lines end before byte `until`."""
    count = 0
    with path.open("rb") as file:
        while piece := file.read(min(1 << 20, until - file.tell())):
            count += piece.count(b"\n")
    return count


@dataclass(frozen=True)
class Point:
    """One metric value that counts: the first that was journalled for its key and step."""

    key: str
    step: int
    value: float
    ts: int
    stage: str
    examples: int


def first_points(rows: Iterable[Row]) -> tuple[list[Point], list[str]]:
    """The points that count, in journal order, and where a value recomputed after a
    restart disagrees.

    On the CPU a recomputed value must agree bit for bit; computed by other ranks,
    threads or another ZeRO stage, within 1e-5 in fp32 and 1e-2 in 16 bits; on a GPU
    within 1e-2 (relative).
    """
    points: dict[tuple[str, int], Point] = {}
    disagree: list[str] = []
    tolerance = 0.0
    environments: list[dict[str, Any]] = []
    for row in rows:
        if isinstance(row, MetricRow):
            disagree += _add_points(points, row, tolerance)
        if isinstance(row, EventRow) and isinstance(row.data, Start):
            environments.append(computed_by(row.data))
            tolerance = choose_tolerance(environments)
    return list(points.values()), disagree


def _add_points(
    points: dict[tuple[str, int], Point], row: MetricRow, tolerance: float
) -> list[str]:
    """Adds the row's values that are the first of their key and step; returns where
    others disagree with the first. Damaged for a value that is no number of a double."""
    disagree: list[str] = []
    step = row.step
    for key, value in row.data.items():
        try:
            number = float(value)
        except (ValueError, OverflowError):
            text = repr(value[:40]) if isinstance(value, str) else "an endless integer"
            raise Damaged(
                f"the journal of attempt {row.attempt} has, in its row {row.seq}, {key} = {text}"
                f" at step {step}, which is no number"
            ) from None
        point = Point(key, step, number, row.ts, row.stage, row.examples)
        first = points.setdefault((key, step), point)
        if first is point or key.startswith(SPEED):
            continue
        if not values_agree(first.value, point.value, tolerance):
            disagree.append(
                f"{key} at step {step}: {first.value!r}, then {point.value!r}"
            )
    return disagree


def computed_by(start: Start) -> dict[str, Any]:
    """How an attempt computes, as `choose_tolerance` compares it."""
    facts = as_mapping(start)
    return {key: facts.get(key) for key in WAY}


def list_metric_cells(rows: Iterable[Row]) -> frozenset[tuple[int, str]]:
    """(step, key) of every metric."""
    return frozenset(
        (row.step, key)
        for row in rows
        if isinstance(row, MetricRow)
        for key in row.data
    )


def choose_tolerance(environments: Sequence[Mapping[str, Any]]) -> float:
    """How far apart (relative) values may lie that were computed in these ways; see
    `first_points`."""
    if any(environment["device"] != "cpu" for environment in environments):
        return 1e-2
    if all(environment == environments[0] for environment in environments):
        return 0.0
    return 1e-2 if environments[0]["precision"] in ("bf16", "fp16") else 1e-5


def values_agree(first: float, again: float, tolerance: float) -> bool:
    """Whether two values of one cell are the same within a tolerance; NaN is NaN."""
    same = first == again or (math.isnan(first) and math.isnan(again))
    return same or math.isclose(first, again, rel_tol=tolerance)


def spell_nonfinite(value: Any) -> Any:
    """A value with every number that is not finite as a text."""
    if isinstance(value, Mapping):
        items = cast("Mapping[str, Any]", value)
        return {key: spell_nonfinite(item) for key, item in items.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)  # JSON has no NaN; float("nan") reads it back
    return value
