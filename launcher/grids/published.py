"""Reads published numbers that ship with zsg, which a claim may be laid beside.

templates/published/NAME.csv are curves: lines that begin with # say what they were
read off; then a column `step` and one for each curve, with gaps. Those below tables/
are tables, with columns of their own; tables/not-found.csv says of each paper what was
looked for in vain.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from launcher.workspace.shipped import find_shipped

NOT_FOUND = "not-found"


@dataclass(frozen=True)
class PublishedCurves:
    """Curves by name, each (steps, values), and where they are from."""

    source: str
    curves: Mapping[str, tuple[list[float], list[float]]]


@dataclass(frozen=True)
class PublishedTable:
    """A table as it was printed, and where it is from."""

    source: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


def list_published() -> list[str]:
    """The names that `read_published` knows."""
    return sorted(
        path.stem for path in (find_shipped("templates") / "published").glob("*.csv")
    )


def read_published(name: str) -> PublishedCurves:
    """The curves of that name, one of `list_published`."""
    source, heading, rows = _read_csv(f"{name}.csv")
    curves = dict[str, tuple[list[float], list[float]]]()
    for column, curve in enumerate(heading[1:], start=1):
        points = [(float(row[0]), float(row[column])) for row in rows if row[column]]
        curves[curve] = ([step for step, _ in points], [value for _, value in points])
    return PublishedCurves(source, curves)


def list_tables() -> list[str]:
    """The names that `read_table` knows."""
    folder = find_shipped("templates") / "published/tables"
    return sorted(path.stem for path in folder.glob("*.csv") if path.stem != NOT_FOUND)


def read_table(name: str) -> PublishedTable:
    """The table of that name, one of `list_tables`."""
    return PublishedTable(*_read_csv(f"tables/{name}.csv"))


def list_not_found(source: str) -> list[str]:
    """What was looked for in vain of the papers that a source begins with the names of."""
    _, _, rows = _read_csv(f"tables/{NOT_FOUND}.csv")
    return [
        f"{paper}: {lacking}" for paper, lacking in rows if source.startswith(paper)
    ]


def _read_csv(path: str) -> tuple[str, list[str], list[list[str]]]:
    """The comments, the heading and the rows of a file of templates/published."""
    text = (find_shipped("templates") / "published" / path).read_text(encoding="utf-8")
    lines = text.splitlines()
    comments = [line.lstrip("# ") for line in lines if line.startswith("#")]
    heading, *rows = csv.reader(line for line in lines if not line.startswith("#"))
    return " ".join(comments), heading, rows
