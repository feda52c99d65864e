"""Reads published curves that ship with zsg, which a claim may be drawn beside:
templates/published/NAME.csv.

Lines that begin with # say what they were read off; then a column `step` and one for
each curve, with gaps.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass

from launcher.workspace.shipped import find_shipped


@dataclass(frozen=True)
class PublishedCurves:
    """Curves by name, each (steps, values), and where they are from."""

    source: str
    curves: Mapping[str, tuple[list[float], list[float]]]


def list_published() -> list[str]:
    """The names that `read_published` knows."""
    return sorted(
        path.stem for path in (find_shipped("templates") / "published").glob("*.csv")
    )


def read_published(name: str) -> PublishedCurves:
    """The curves of that name, one of `list_published`."""
    lines = (
        (find_shipped("templates") / "published" / f"{name}.csv")
        .read_text(encoding="utf-8")
        .splitlines()
    )
    comments = [line.lstrip("# ") for line in lines if line.startswith("#")]
    heading, *rows = csv.reader(line for line in lines if not line.startswith("#"))
    curves = dict[str, tuple[list[float], list[float]]]()
    for column, curve in enumerate(heading[1:], start=1):
        points = [(float(row[0]), float(row[column])) for row in rows if row[column]]
        curves[curve] = ([step for step, _ in points], [value for _, value in points])
    return PublishedCurves(" ".join(comments), curves)
