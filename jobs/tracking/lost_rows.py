"""Which points has MLflow of rows that a journal has lost since, and what becomes of them?

A machine that fails may lose the end of a journal that MLflow was sent already, and a
file system rows in its middle. What is lost is computed again, at another time: sent
as it then stands in the journal, it would stand in MLflow twice. So MLflow's own copy
of a lost row goes on to count there: the value that was computed again takes its place
and its time, and sending it changes nothing. Where the two differ the run is flagged.
"""

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from jobs.contract import journal
from jobs.contract.delivery_cursor import LostRow
from jobs.contract.journal import Point
from jobs.contract.journal_rows import Row, find_starts

Cell = tuple[str, int]


def find_lost_rows(
    held: Iterable[LostRow], by_writer: Mapping[str, Sequence[Point]]
) -> list[LostRow]:
    """What MLflow holds that is no point of the journals any more. Where it holds the
    journal's own point of a key and step, another one beside it is none of zsg's."""
    names = {
        (point.key, point.step, point.ts)
        for points in by_writer.values()
        for point in points
    }
    cells: set[Cell] = set()
    unknown: list[LostRow] = []
    for row in held:
        if (row.key, row.step, row.ts) in names:
            cells.add((row.key, row.step))
        else:
            unknown.append(row)
    lost = [row for row in unknown if (row.key, row.step) not in cells]
    return sorted(lost, key=lambda row: (row.step, row.key, row.ts))


def put_back(
    by_writer: Mapping[str, Sequence[Point]],
    lost: Sequence[LostRow],
    agree: Callable[[float, float], bool],
) -> tuple[dict[str, list[Point]], list[str]]:
    """The points with lost rows in the place of what was computed again, and where the
    two do not `agree`."""
    rows_by_cell: dict[Cell, LostRow] = {}
    for row in lost:
        rows_by_cell.setdefault((row.key, row.step), row)
    disagreements: list[str] = []

    def choose_point(point: Point) -> Point:
        """The point as it is to be sent: where MLflow's first row is still there, with
        that one's value and time, so that a repeated step does not change what was
        seen.

        Values that do not agree are noted in `disagreements`; speeds never agree, and
        are not compared.
        """
        row = rows_by_cell.get((point.key, point.step))
        if row is None:
            return point
        first, again = float(row.value), _keep_in_range(point.value)
        if not point.key.startswith(journal.SPEED) and not agree(first, again):
            disagreements.append(
                f"{point.key} at step {point.step}: {first!r}, then {point.value!r}"
            )
        return replace(point, ts=row.ts, value=first)

    chosen = {
        writer: [choose_point(point) for point in points]
        for writer, points in by_writer.items()
    }
    return chosen, disagreements


def make_comparison(rows: Iterable[Row]) -> Callable[[float, float], bool]:
    """Whether two values agree, as a run computes them whose rows these are."""
    environments = [journal.computed_by(start) for _, start in find_starts(rows)]
    tolerance = journal.choose_tolerance(environments)
    return lambda first, again: journal.values_agree(first, again, tolerance)


def describe_lost_rows(lost: Sequence[LostRow]) -> str:
    """How many there are, and which is the first."""
    first = lost[0]
    points = "1 point" if len(lost) == 1 else f"{len(lost)} points"
    return (
        f"{points} of rows that the journal has lost since, first {first.key} at step"
        f" {first.step}"
    )


def _keep_in_range(value: float) -> float:
    """A value as MLflow gives it back: an infinity is the largest number there is."""
    if math.isnan(value):
        return value
    return max(-sys.float_info.max, min(sys.float_info.max, value))
