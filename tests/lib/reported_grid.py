"""A grid of recorded runs, and what its report holds."""

import csv
from typing import Any

import numpy as np

from benchmarks.report import listed_run, record_run, write_grid
from jobs.contract.folder import Workspace
from launcher.reporting import report
from launcher.reporting.data.grid_comparison import ReportOptions

STEPS = [0, 10, 20, 30, 40, 50]
TASKS = ["t1", "t1", "t2", "t2", "t3", "t3"]


def losses(level: float) -> Any:
    """Curves of six items that fall to a level; task t2 falls late, at once."""
    table = (
        level + 3 * np.exp(-np.arange(len(STEPS)))[:, None] + np.zeros((1, len(TASKS)))
    )
    table[:4, 2:4] += 0.8
    return table


def make(
    place: Workspace,
    name: str,
    runs: list[tuple[dict[str, Any], int | None, float]],
    **more: Any,
) -> list[str]:
    """A grid of recorded runs, (axes, seed, level) each, all done; their ids."""
    listed = [
        listed_run(f"{name}{number}", axes, seed)
        for number, (axes, seed, _) in enumerate(runs)
    ]
    for row, (_, _, level) in zip(listed, runs, strict=True):
        record_run(place, row, STEPS, TASKS, losses(level))
    write_grid(place, name, listed, **more)
    return [row["run"] for row in listed]


def written(place: Workspace, name: str, **asked: Any) -> str:
    """The report's page."""
    return report.write_report(place, name, ReportOptions(**asked)).read_text(
        encoding="utf-8"
    )


def rows(place: Workspace, name: str, file: str) -> list[dict[str, str]]:
    """A table beside the page."""
    with (place.grid(name) / "report" / file).open(encoding="utf-8") as lines:
        return list(csv.DictReader(lines))
