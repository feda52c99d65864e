"""Lays a long table out as plain columns. rich, which folds and colours, takes a second for every thousand rows."""

from collections.abc import Sequence

from rich.cells import cell_len

LONG = 200  # rows from which on nobody reads a table on one screen


def columns(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The lines of a table, each cell on one line, columns as wide as their widest cell; the last is not padded."""
    table = [list(map(_shown, row)) for row in (headings, *rows)]
    widths = [max(map(cell_len, column)) for column in zip(*table, strict=True)]
    return "\n".join(_line(row, widths) for row in table)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell + " " * (width - cell_len(cell)) for cell, width in zip(row[:-1], widths, strict=False)]
    return " ".join([*padded, row[-1]]).rstrip()


def _shown(cell: str) -> str:
    """The cell without what could break a line or deceive a terminal."""
    return cell if cell.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in cell)
