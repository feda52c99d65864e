"""Lays a long table out as plain columns. rich, which folds and colours, takes a second
for every thousand rows."""

from collections.abc import Mapping, Sequence

from rich.cells import cell_len, set_cell_size

from zsg_core.shown_text import make_showable

LONG = 200  # rows from which on nobody reads a table on one screen


def format_columns(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The lines of a table, each cell on one line, columns as wide as their widest
    cell; the last is not padded."""
    table = [
        [make_showable(cell, keep="") for cell in row] for row in (headings, *rows)
    ]
    widths = [max(map(cell_len, column)) for column in zip(*table, strict=True)]
    return "\n".join(_line(row, widths) for row in table)


def _line(row: Sequence[str], widths: Sequence[int], between: str = " ") -> str:
    padded = [
        cell + " " * (width - cell_len(cell))
        for cell, width in zip(row[:-1], widths, strict=False)
    ]
    return between.join([*padded, row[-1]]).rstrip()


BETWEEN = "  "
NARROWEST = 4  # what a column of values is shortened to at most
# what is left to the last column, which says most, before others are shortened
LAST = 20


def fit_columns(
    headings: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> list[str]:
    """The lines of a table of which none is wider than `width`: where there is no room,
    texts of the last column are cut at their ends, values of the widest columns between
    them in their middles. The first column stays whole: by it a run is asked for."""
    table = [
        [make_showable(cell, keep="") for cell in row] for row in (headings, *rows)
    ]
    natural = [max(map(cell_len, column)) for column in zip(*table, strict=True)]
    widths = _choose_widths(natural, width)
    lines = list[str]()
    for row in table:
        cells = list(row)
        for number, room in enumerate(widths):
            if cell_len(cells[number]) > room:
                is_last = number == len(widths) - 1
                cut = cut_end if is_last else cut_middle
                cells[number] = cut(cells[number], room)
        lines.append(cut_end(_line(cells, widths, BETWEEN), width))
    return lines


def _choose_widths(natural: Sequence[int], width: int) -> list[int]:
    """How wide each column may be for all of them to fit."""
    first = list(natural)
    last = first.pop()
    room = width - len(BETWEEN) * len(first)
    least_last = min(last, LAST)
    between = range(1, len(first))
    while sum(first) + least_last > room:
        widest = max(between, key=lambda number: first[number], default=None)
        if widest is None or first[widest] <= NARROWEST:
            break
        first[widest] -= 1
    if not first:
        return [last]
    for_last = room - sum(first)
    for_last = max(for_last, NARROWEST)
    return [*first, min(last, for_last)]


def align_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as indented lines: the first column at the left, the others, which are
    numbers, at the right. A row of one cell is a remark, and widens no column."""
    table = [[make_showable(cell, keep="") for cell in row] for row in rows]
    widths: dict[int, int] = {}
    for row in table:
        if len(row) == 1:
            continue
        for column, cell in enumerate(row):
            widths[column] = max(widths.get(column, 0), cell_len(cell))
    return [_align_row(row, widths) for row in table]


def _align_row(row: Sequence[str], widths: Mapping[int, int]) -> str:
    """One row, its numbers at the right of their columns."""
    first, *numbers = row
    line = f"{BETWEEN}{first}"
    if not numbers:
        return line
    line += " " * (widths[0] - cell_len(first))
    for column, cell in enumerate(numbers, start=1):
        blanks = " " * (widths[column] - cell_len(cell))
        line += f"{BETWEEN}{blanks}{cell}"
    return line


def set_ends(left: str, right: str, width: int) -> list[str]:
    """A line with a text at each end, or two lines where there is no room for both."""
    texts = [make_showable(text, keep="") for text in (left, right)]
    blanks = width - sum(map(cell_len, texts))
    if blanks < len(BETWEEN):
        return texts
    return [(" " * blanks).join(texts)]


def cut_end(text: str, room: int) -> str:
    """The text, or as much of its beginning as there is room for, with a sign that more
    follows."""
    if cell_len(text) <= room:
        return text
    return set_cell_size(text, room - 1).rstrip() + "…"


def cut_middle(text: str, room: int) -> str:
    """The text, or its two ends: values of one axis often differ in their last letters."""
    if cell_len(text) <= room:
        return text
    end = (room - 1) // 2
    return set_cell_size(text, room - 1 - end).rstrip() + "…" + text[len(text) - end :]
