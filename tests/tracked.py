"""Reads what MLflow holds and what the journals say, to compare the two."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from jobs import journal

_READ = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1])
experiment = client.get_experiment_by_name(sys.argv[2])
rows = []
for run in client.search_runs([experiment.experiment_id], max_results=1000):
    points = [[m.key, m.step, m.value, m.timestamp] for key in run.data.metrics
              for m in client.get_metric_history(run.info.run_id, key)]
    rows.append({"tags": run.data.tags, "params": run.data.params, "status": run.info.status, "points": points,
                 "id": run.info.run_id, "name": run.info.run_name})
print(json.dumps(rows))
"""


def mlflow_runs(work: Path, grid: str, uri: str | None = None) -> list[dict[str, Any]]:
    """Every MLflow run of a grid, with all points of all metrics; read in a process of its own."""
    import json

    command = [sys.executable, "-W", "ignore", "-c", _READ, uri or f"sqlite:///{work}/mlflow.db", grid]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def child_runs(work: Path, grid: str, uri: str | None = None) -> dict[str, dict[str, Any]]:
    """The MLflow runs that stand for runs, by run id; two of one id are an error."""
    rows = [row for row in mlflow_runs(work, grid, uri) if row["tags"]["zsg.kind"] == "run"]
    found = {row["tags"]["zsg.run"]: row for row in rows}
    assert len(found) == len(rows), "a run is in MLflow twice"
    return found


def journal_points(work: Path, run: str) -> list[list[Any]]:
    """The points of a run that count, as its journal has them."""
    points, disagree = journal.first_points(journal.read(work / "runs" / run))
    assert not disagree
    return [[p.key, p.step, p.value, p.ts] for p in points]


def loss_by_step(work: Path, run: str) -> dict[int, float]:
    """A run's loss on the test set by step, from its journal."""
    return {step: value for key, step, value, _ in journal_points(work, run) if key == "loss"}


def assert_exactly_once(work: Path, grid: str, runs: list[str]) -> None:
    """MLflow holds every point of the journals once, with its timestamp, and nothing else."""
    held = child_runs(work, grid)
    assert sorted(held) == sorted(runs)
    for run in runs:
        assert sorted(held[run]["points"]) == sorted(journal_points(work, run))
