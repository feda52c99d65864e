"""Reads the newest training losses of runs under way, for small curves beside them."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from jobs.contract import journal
from jobs.contract.folder import Damaged, Workspace
from jobs.contract.journal_rows import find_metrics
from jobs.contract.states import State
from launcher.status.last_loss import TRAIN_LOSS, as_number
from launcher.status.status_view import CURVE

POINTS = 10  # of a curve
MOST_RUNS = 100  # whose journals are looked into at each look


def add_curves(
    workspace: Workspace, rows: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """The rows of status, with the newest losses of those that run."""
    with_curves: list[Mapping[str, Any]] = []
    remaining = MOST_RUNS
    for row in rows:
        is_run = "/" not in row["run"]
        if row["state"] != State.RUNNING or not is_run or remaining == 0:
            with_curves.append(row)
            continue
        remaining -= 1
        curve = read_curve(workspace.run(row["run"]))
        with_curves.append({**row, CURVE: curve})
    return with_curves


def read_curve(folder: Path) -> list[float]:
    """The newest training losses of a run, the last one last, each the mean of as many
    steps; none where the journal cannot be read."""
    try:
        files = journal.list_owned_files(folder)
        rows = journal.read_tail(files[-1]).rows if files else []
    except (Damaged, OSError):
        return []
    numbers = [as_number(value) for _, value in find_metrics(rows, TRAIN_LOSS)]
    return thin_out([number for number in numbers if number is not None], POINTS)


def thin_out(values: Sequence[float], most: int) -> list[float]:
    """At most so many values, each the mean of about as many of the given ones."""
    if len(values) <= most:
        return list(values)
    bounds = [number * len(values) // most for number in range(most + 1)]
    means: list[float] = []
    for begin, end in pairwise(bounds):
        means.append(sum(values[begin:end]) / (end - begin))
    return means
