"""Lays a long table out as plain columns. rich, which folds and colours, takes a second
for every thousand rows."""

from collections.abc import Sequence

from rich.cells import cell_len

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


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        cell + " " * (width - cell_len(cell))
        for cell, width in zip(row[:-1], widths, strict=False)
    ]
    return " ".join([*padded, row[-1]]).rstrip()
