"""Reads what MLflow holds and what the journals say, to compare the two."""

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
    """MLflow holds every point of the journals once, with its timestamp, and nothing else."""
    held = child_runs(work, grid, uri)
    assert sorted(held) == sorted(runs)
    for run in runs:
        in_mlflow, in_journal = held[run]["points"], journal_points(work, run)
        # by which NaN is itself
        assert sorted(map(repr, in_mlflow)) == sorted(map(repr, in_journal))
