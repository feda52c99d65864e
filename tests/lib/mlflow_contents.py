"""Reads what MLflow holds and what the journals say, to compare the two."""

import re
import warnings
from pathlib import Path
from typing import Any

from jobs.contract import journal

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    # with what sends the token of a zsg server
    from jobs.tracking.tracker import MlflowClient


def mlflow_runs(work: Path, grid: str, uri: str | None = None) -> list[dict[str, Any]]:
    """Every MLflow run of a grid, with all points of all metrics."""
    client = MlflowClient(uri or f"sqlite:///{work}/mlflow.db")
    experiment = client.get_experiment_by_name(grid)
    assert experiment is not None
    return [
        _row(client, run)
        for run in client.search_runs([experiment.experiment_id], max_results=1000)
    ]


def _row(client: MlflowClient, run: Any) -> dict[str, Any]:
    histories = [
        client.get_metric_history(run.info.run_id, key) for key in run.data.metrics
    ]
    points = [
        [m.key, m.step, m.value, m.timestamp] for history in histories for m in history
    ]
    about = {
        "id": run.info.run_id,
        "name": run.info.run_name,
        "status": run.info.status,
    }
    return {**about, "tags": run.data.tags, "params": run.data.params, "points": points}


def child_runs(
    work: Path, grid: str, uri: str | None = None
) -> dict[str, dict[str, Any]]:
    """The MLflow runs that stand for runs, by run id; two of one id are an error."""
    rows = [
        row for row in mlflow_runs(work, grid, uri) if row["tags"]["zsg.kind"] == "run"
    ]
    found = {row["tags"]["zsg.run"]: row for row in rows}
    assert len(found) == len(rows), "a run is in MLflow twice"
    return found


def journal_points(work: Path, run: str) -> list[list[Any]]:
    """The points of a run that count, as its journal has them."""
    points, disagree = journal.first_points(journal.read_journal(work / "runs" / run))
    assert not disagree
    return [[p.key, p.step, p.value, p.ts] for p in points]


def loss_by_step(work: Path, run: str) -> dict[int, float]:
    """A run's loss on the test set by step, from its journal."""
    return {
        step: value
        for key, step, value, _ in journal_points(work, run)
        if key == "loss"
    }


def assert_exactly_once(
    work: Path, grid: str, runs: list[str], uri: str | None = None
) -> None:
    """MLflow holds every point of the journals once, with its timestamp, and nothing
    else.

    Of a journal that lost rows after they were sent, MLflow keeps the points as they
    were and says in a tag how many these are. So many may have an earlier timestamp
    than what the run computed again; of what measures speed also another value.
    """
    held = child_runs(work, grid, uri)
    assert sorted(held) == sorted(runs), f"runs: {sorted(held)} and {sorted(runs)}"
    for run in runs:
        in_mlflow = _by_cell(held[run]["points"])
        in_journal = _by_cell(journal_points(work, run))
        lost = _count_lost(held[run]["tags"])
        unlike = sorted(in_mlflow.keys() ^ in_journal.keys())
        assert not unlike, f"{run}: only in one of the two: {unlike[:9]}"
        # by repr, by which NaN is itself
        differing = [
            cell
            for cell, points in in_mlflow.items()
            if repr(points) != repr(in_journal[cell])
        ]
        told = [(cell, in_mlflow[cell], in_journal[cell]) for cell in differing[:9]]
        assert len(differing) <= lost, f"{run}, {lost} told as lost: {told}"
        for cell in differing:
            _assert_is_the_first(cell, in_mlflow[cell], in_journal[cell])


def _by_cell(points: list[list[Any]]) -> dict[tuple[str, int], list[tuple[Any, int]]]:
    """Values and timestamps by key and step."""
    cells: dict[tuple[str, int], list[tuple[Any, int]]] = {}
    for key, step, value, timestamp in points:
        cells.setdefault((key, step), []).append((value, timestamp))
    return cells


def _count_lost(tags: dict[str, str]) -> int:
    """How many points the run's tag says that its journal has lost."""
    number = re.match(r"MLflow has (\d+) point", tags.get("zsg.rows_lost", ""))
    return int(number[1]) if number else 0


def _assert_is_the_first(
    cell: tuple[str, int],
    in_mlflow: list[tuple[Any, int]],
    in_journal: list[tuple[Any, int]],
) -> None:
    """A point that MLflow was sent before its row was lost: there once, earlier than
    what was computed again, and of the same value."""
    told = f"{cell}: MLflow {in_mlflow}, journal {in_journal}"
    assert len(in_mlflow) == len(in_journal) == 1, told
    (first, sent_at), (again, written_at) = in_mlflow[0], in_journal[0]
    assert sent_at < written_at, told
    if not cell[0].startswith(journal.SPEED):
        assert repr(first) == repr(again), told
