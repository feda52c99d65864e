"""Fits a table into a terminal: each row on one line, however narrow the terminal is.

Where the columns are too wide, extra ones leave, then cells that may be cut are cut,
and then the columns of such cells leave, the last one first.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size

from zsg_core.shown_text import make_showable

GAP = 2  # cells between two columns
CUT = "…"

# a piece of a line, and its style as rich names it
Piece = tuple[str, str]


@dataclass(frozen=True)
class Column:
    """A column of a table.

    `styles`: of each cell; empty where none has one. `least`: the fewest cells of the
    terminal to which its texts may be cut; None: they are shown whole. `is_extra`:
    whether it leaves before anything is cut.
    """

    heading: str
    texts: Sequence[str]
    styles: Sequence[str] = ()
    is_number: bool = False
    least: int | None = None
    is_extra: bool = False


@dataclass(frozen=True)
class FittedTable:
    """A table as it is drawn. `lines`: the headings, then a line for each row; `left`:
    the headings of the columns that had to leave."""

    lines: list[list[Piece]]
    left: list[str]


def fit_table(columns: Sequence[Column], width: int) -> FittedTable:
    """The lines of a table, none wider than `width` cells, as long as the columns that
    are neither cut nor leave fit into it."""
    safe_columns = [_make_showable(column) for column in columns]
    widths = [_measure(column) for column in safe_columns]
    left: list[str] = []
    _drop_extras(safe_columns, widths, width, left)
    while not _cut_widths(safe_columns, widths, width):
        index = _find_last_cut(safe_columns)
        if index is None:
            break
        left.insert(0, safe_columns[index].heading)
        del safe_columns[index], widths[index]
    return FittedTable(_draw(safe_columns, widths), left)


def cut_text(text: str, width: int) -> str:
    """A text that is at most `width` cells wide, with a mark where it was cut."""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width - 1).rstrip() + CUT


def _make_showable(column: Column) -> Column:
    texts = [make_showable(text, keep="") for text in column.texts]
    heading = make_showable(column.heading, keep="")
    return Column(
        heading,
        texts,
        column.styles,
        column.is_number,
        column.least,
        column.is_extra,
    )


def _measure(column: Column) -> int:
    """How wide a column is."""
    widest = max(map(cell_len, column.texts), default=0)
    return max(widest, cell_len(column.heading))


def _sum_widths(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _drop_extras(
    columns: list[Column], widths: list[int], width: int, left: list[str]
) -> None:
    """Takes extra columns away, the last one first, until the others fit or none is
    left."""
    for index in reversed(range(len(columns))):
        if _sum_widths(widths) <= width:
            return
        if columns[index].is_extra:
            left.insert(0, columns[index].heading)
            del columns[index], widths[index]


def _cut_widths(columns: Sequence[Column], widths: list[int], width: int) -> bool:
    """Makes the widest columns that may be cut narrower, as far as needed; False, with
    nothing changed, where that does not suffice."""
    narrowed = list(widths)
    while _sum_widths(narrowed) > width:
        indices = [
            index
            for index, column in enumerate(columns)
            if column.least is not None and narrowed[index] > column.least
        ]
        if not indices:
            return False
        widest = max(indices, key=lambda index: narrowed[index])
        narrowed[widest] -= 1
    widths[:] = narrowed
    return True


def _find_last_cut(columns: Sequence[Column]) -> int | None:
    """The index of the last column that may be cut; None where there is none."""
    indices = [
        index for index, column in enumerate(columns) if column.least is not None
    ]
    return indices[-1] if indices else None


def _draw(columns: Sequence[Column], widths: Sequence[int]) -> list[list[Piece]]:
    """The headings and the rows; nothing is padded behind the last cell of a line."""
    height = max((len(column.texts) for column in columns), default=0)
    lines: list[list[Piece]] = [[] for _ in range(height + 1)]
    for column, width in zip(columns, widths, strict=True):
        pieces = _draw_column(column, width, height)
        for line, piece in zip(lines, pieces, strict=True):
            line.append(piece)
    return [_separate(line) for line in lines]


def _draw_column(column: Column, width: int, height: int) -> Iterator[Piece]:
    """The heading and the cells of a column, each as wide as the column."""
    texts = [column.heading, *column.texts]
    unstyled = [""] * height
    styles = ["bold", *(column.styles or unstyled)]
    for text, style in zip(texts, styles, strict=True):
        cell = cut_text(text, width)
        padded = _pad(cell, width, column.is_number)
        yield padded, style


def _pad(text: str, width: int, is_number: bool) -> str:
    blanks = " " * (width - cell_len(text))
    return blanks + text if is_number else text + blanks


def _separate(cells: Sequence[Piece]) -> list[Piece]:
    """The pieces of a line, with blanks between its cells and none at its end."""
    pieces: list[Piece] = []
    for text, style in cells:
        pieces += [(text, style), (" " * GAP, "")]
    while pieces and not pieces[-1][0].strip():
        pieces.pop()
    if pieces:
        text, style = pieces[-1]
        pieces[-1] = (text.rstrip(), style)
    return pieces
