"""Looks whether a run's journal is whole: no row lost, none twice, every attempt fenced
off by the next."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jobs.contract import journal
from jobs.contract.folder import Damaged
from jobs.contract.journal import SPEED
from jobs.contract.journal_rows import (
    DigestRow,
    EventRow,
    MetricRow,
    RewindRow,
    Row,
    SnapshotWritten,
    decode_row,
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
    rows = {path: _rows(path) for path in files}
    late = _late(rows)
    points, disagree = journal.first_points(e.rows)
    if disagree:
        raise Differs(f"a value recomputed after a restart is another: {disagree[0]}")
    _refuse_gaps(e, {(point.key, point.step) for point in points})
    summary = (
        f"{len(points)} values of {len(files)} attempt{'s' * (len(files) > 1)}, the first of each"
        " counts"
    )
    summary += f"; {late} bytes came too late and count for nothing" if late else ""
    return summary if e.end else f"{summary}; the run has not ended"


def _rows(path: Path) -> list[Row]:
    """The rows of a file, numbered from 0 and of one attempt; a last line that a kill
    has cut is none."""
    attempt = int(path.name.split("-")[0])
    lines = path.read_bytes().split(b"\n")[:-1]
    rows: list[Row] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = decode_row(path, line)
        except Damaged as error:
            raise Differs(
                f"{path.name}, line {number}: is no row of a journal"
            ) from error
        if (row.seq, row.attempt) != (number - 1, attempt):
            raise Differs(
                f"{path.name}, line {number}: row {row.seq} of attempt {row.attempt}; rows"
                " are missing"
            )
        rows.append(row)
    _refuse_doubles(path, rows)
    return rows


def _refuse_doubles(path: Path, rows: list[Row]) -> None:
    seen: set[tuple[str, int]] = set()
    for row in rows:
        for key in row.data if isinstance(row, MetricRow) else ():
            if (key, row.step) in seen:
                raise Differs(
                    f"{path.name}: {key} of step {row.step} stands twice in one attempt"
                )
            seen.add((key, row.step))


def _late(rows: dict[Path, list[Row]]) -> int:
    """Bytes that an attempt wrote after the next had begun. Differs where a later
    attempt saw more than is there."""
    sizes = {path.name: path.stat().st_size for path in rows}
    limits: dict[str, int] = {}
    for attempt_rows in rows.values():
        if not attempt_rows or attempt_rows[0].attempt == 1:
            continue
        first = attempt_rows[0]
        if not isinstance(first, RewindRow):
            raise Differs(
                f"attempt {first.attempt} does not begin by saying what counts of those"
                " before it"
            )
        for name, size in first.data.sizes.items():
            if sizes.get(name, 0) < size:
                raise Differs(
                    f"{name} had {size} bytes when attempt {first.attempt} began, now"
                    f" {sizes.get(name, 0)}"
                )
            limits[name] = min(size, limits.get(name, size))
    return sum(sizes[name] - size for name, size in limits.items())


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
