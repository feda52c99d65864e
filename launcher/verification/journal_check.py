"""Looks whether a run's journal is whole: no row lost, none twice, every attempt fenced
off by the next."""

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jobs.contract import journal
from jobs.contract.journal import SPEED, HoleError
from jobs.contract.journal_rows import (
    DigestRow,
    EventRow,
    HoleClosed,
    MetricRow,
    RewindRow,
    Row,
    SnapshotWritten,
    find_events,
)
from jobs.contract.states import Outcome
from launcher.verification.evidence import Evidence
from launcher.verification.finding import Differs, NotChecked
from zsg_core.training import schedule

SNAPSHOT = "digest of the snapshot"


def check_journal(e: Evidence) -> str:
    """What the journal has. Differs for the first thing that is not as a trainer writes it."""
    files = journal.list_owned_files(e.folder)
    if not files:
        raise NotChecked(f"{e.folder / 'journal'} has no files")
    _refuse_holes(e)
    closed = [hole for _, hole in find_events(e.rows, HoleClosed)]
    ends = {hole.file: hole.at for hole in closed}
    rows = {path: _rows(path, ends.get(path.name)) for path in files}
    late = _count_late_bytes(rows, ends)
    points, disagree = journal.first_points(e.rows)
    if disagree:
        raise Differs(f"a value recomputed after a restart is another: {disagree[0]}")
    _refuse_gaps(e, {(point.key, point.step) for point in points})
    summary = (
        f"{len(points)} values of {len(files)} attempt{'s' * (len(files) > 1)}, the first of each"
        " counts"
    )
    summary += f"; {late} bytes came too late and count for nothing" if late else ""
    for hole in closed:
        lost = f"{hole.file} had lost rows from line {hole.line} on"
        summary += f"; {lost}, which were computed again"
    return summary if e.end else f"{summary}; the run has not ended"


def _refuse_holes(e: Evidence) -> None:
    """Differs where rows are lost, also of evaluators."""
    holes = journal.find_holes(e.folder)
    if not holes:
        return
    is_own = not journal.is_guest_file(holes[0].path)
    lack = "the run is trained" if is_own else "what it lacks is evaluated"
    raise Differs(
        f"{holes[0]}; what stands before it counts. zsg submit GRID.YAML --retrain: {lack}"
        f" again; zsg why {e.folder.name} names the file"
    )


def _rows(path: Path, end: int | None) -> list[Row]:
    """The rows of a file, or of its first `end` bytes, numbered from 0 and of one
    attempt; a last line that a kill has cut is none."""
    attempt = int(path.name.split("-")[0])
    rows: list[Row] = []
    # where a hole was to be told, it was: other files that have one count for nothing
    with contextlib.suppress(HoleError):
        for number, row in enumerate(journal.read_file(path, end), start=1):
            if (row.seq, row.attempt) != (number - 1, attempt):
                raise Differs(
                    f"{path.name}, line {number}: row {row.seq} of attempt {row.attempt};"
                    " rows are missing"
                )
            rows.append(row)
    _refuse_doubles(path, rows)
    return rows


def _refuse_doubles(path: Path, rows: list[Row]) -> None:
    """Raises Differs where one attempt journalled the same value of a step twice. Of
    two attempts' files both may have it: a later one repeats the steps behind its
    state."""
    seen: set[tuple[str, int]] = set()
    for row in rows:
        for key in row.data if isinstance(row, MetricRow) else ():
            if (key, row.step) in seen:
                raise Differs(
                    f"{path.name}: {key} of step {row.step} stands twice in one attempt"
                )
            seen.add((key, row.step))


def _count_late_bytes(rows: dict[Path, list[Row]], ends: Mapping[str, int]) -> int:
    """Bytes that an attempt wrote after the next had begun. Differs where a later
    attempt saw more than is there. `ends`: where files had lost rows."""
    sizes = {path.name: path.stat().st_size for path in rows}
    limits: dict[str, int] = {}
    firsts = [attempt_rows[0] for attempt_rows in rows.values() if attempt_rows]
    for first in map(_get_rewind, (row for row in firsts if row.attempt > 1)):
        for name, size in first.data.sizes.items():
            if name not in ends:
                _refuse_shorter(name, size, sizes.get(name, 0), first.attempt)
            limits[name] = min(size, limits.get(name, size))
    # what is behind a hole did not come late, nor did what counts for nothing after it
    late = {name: size for name, size in limits.items() if size}
    return sum(sizes[name] - late[name] for name in late.keys() - ends.keys())


def _get_rewind(row: Row) -> RewindRow:
    """The first row of a later attempt. Differs for one of another kind."""
    if isinstance(row, RewindRow):
        return row
    raise Differs(
        f"attempt {row.attempt} does not begin by saying what counts of those before it"
    )


def _refuse_shorter(name: str, before: int, now: int, attempt: int) -> None:
    if now < before:
        raise Differs(
            f"{name} had {before} bytes when attempt {attempt} began, now {now}"
        )


def _refuse_gaps(e: Evidence, cells: set[tuple[str, int]]) -> None:
    """Every step up to the last has a loss; of a run that is done, every checkpoint, too."""
    for step in range(e.first + 1, e.last + 1):
        if ("train/loss", step) not in cells:
            raise Differs(f"train/loss of step {step} is missing")
    if e.end is None or e.end.outcome != Outcome.DONE:
        return
    if e.last != e.end.step:
        raise Differs(
            f"the run ended after step {e.end.step}, the last journalled is {e.last}"
        )
    _refuse_missing_checkpoints(e, cells)


def _refuse_missing_checkpoints(e: Evidence, cells: set[tuple[str, int]]) -> None:
    """Raises Differs where a step of the schedule has no loss: the schedule is computed
    anew from the job's strides, over the steps of this stage alone."""
    when = e.job.checkpoints.strides
    for key, steps in schedule.list_measured_steps(e.last - e.first, *when).items():
        # a later stage begins with what the stage before has measured
        due = [step for step in steps if step or not e.first]
        for step in due:
            if (key, e.first + step) not in cells:
                raise Differs(
                    f"{key} of step {e.first + step}, a checkpoint, is missing"
                )


def replayable_values(rows: Iterable[Row]) -> dict[tuple[int, str], Any]:
    """Everything that a replay must find again, by step and name, in the order of the
    steps; the first counts.

    Metrics but those of speed; the digests of the ids consumed and of the weights, also
    of snapshots.
    """
    values_of: dict[tuple[int, str], Any] = {}
    for row in rows:
        for key, value in _values_of_row(row).items():
            values_of.setdefault((row.step, key), value)
    return dict(sorted(values_of.items(), key=lambda item: item[0][0]))


def _values_of_row(row: Row) -> dict[str, float | str]:
    """What a replay must find again of one row, by its name."""
    if isinstance(row, MetricRow):
        return {
            key: float(value)
            for key, value in row.data.items()
            if not key.startswith(SPEED)
        }
    if isinstance(row, DigestRow):
        return {f"digest of {key}": value for key, value in row.data.items()}
    if isinstance(row, EventRow) and isinstance(row.data, SnapshotWritten):
        return {SNAPSHOT: row.data.digest}
    return {}
