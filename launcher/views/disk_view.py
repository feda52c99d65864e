"""Shows what grids take of the disk: a line each, at most a screen of them."""

from collections.abc import Sequence
from typing import Protocol

from launcher.views import show
from launcher.views.columns import BETWEEN, cut_middle
from launcher.workspace.disk_usage import format_bytes
from zsg_core.shown_text import make_showable

MOST_GRIDS = 12
HEADINGS = ("runs", "checkpoints", "snapshots", "other", "total")
WIDTHS = (6, 11, 9, 8, 8)  # with the blanks between: 80 columns in all
FIRST = 26  # columns of a grid's name


class DiskLine(Protocol):
    """What is shown in a line."""

    name: str
    is_grid: bool
    runs: int
    checkpoints: int
    snapshots: int
    other: int

    @property
    def total(self) -> int: ...


def print_disk(lines: Sequence[DiskLine], notes: Sequence[str]) -> None:
    """The table of what grids take of the disk, of many the largest; below it what is to
    be known of it. `lines`: the largest first."""
    grids = [line for line in lines if line.is_grid]
    beside = [line for line in lines if not line.is_grid]
    show.print_result(_join_cells("disk by grid", HEADINGS))
    for line in grids[:MOST_GRIDS]:
        show.print_result(_format_line(line))
    smaller = grids[MOST_GRIDS:]
    if smaller:
        size = sum(line.total for line in smaller)
        show.print_result(
            f"… and {len(smaller):,} smaller grids, {format_bytes(size)} (--json has all)"
        )
    for line in beside:
        show.print_result(_format_line(line))
    for note in notes:
        show.print_result(note)


def _format_line(line: DiskLine) -> str:
    """A line of the table of `zsg disk`: name, runs (– for what belongs to none) and
    the sizes of checkpoints, snapshots, all else and the sum."""
    sizes = (line.checkpoints, line.snapshots, line.other, line.total)
    runs = f"{line.runs:,}" if line.runs else "–"
    cells = [runs, *map(format_bytes, sizes)]
    return _join_cells(line.name, cells)


def _join_cells(name: str, cells: Sequence[str]) -> str:
    """A line: the name at the left, figures at the right of their columns."""
    shown = make_showable(name, keep="")
    first = cut_middle(shown, FIRST)
    figures = [cell.rjust(width) for cell, width in zip(cells, WIDTHS, strict=True)]
    return BETWEEN.join([first.ljust(FIRST), *figures])
