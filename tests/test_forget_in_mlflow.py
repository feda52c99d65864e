"""Does a forget mark the runs of what goes as deleted in a real MLflow, and no others?"""

import json
from functools import partial
from pathlib import Path

import pytest

from jobs.contract.folder import Workspace, write_json
from jobs.tracking import mlflow_sync, tracker
from launcher.commands import lifecycle
from launcher.mlflow import mlflow_commands
from tests.lib.grown_journals import write_grid, write_run
from tests.lib.mlflow_contents import MlflowClient, mlflow_runs
from tests.lib.shared_grids import Shared
from zsg_core.errors import ClusterError
from zsg_core.retry import ExponentialBackoff


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a store, of which a test has its own grids."""
    return tmp_path_factory.mktemp("forgotten")


def make_grid(work: Path, grid: str, *runs: str) -> None:
    """A grid of runs that are done, all of it in MLflow."""
    for run in runs:
        write_run(work, run, [[{"loss": 3.0}, {"loss": 2.0}]])
    write_grid(work, grid, list(runs))
    mlflow_sync.sync_grid(Workspace(work), grid)


def list_in_mlflow(work: Path, grid: str) -> set[str]:
    """The runs of a grid that MLflow shows, and `grid` for the one that stands for it."""
    return {row["tags"].get("zsg.run", "grid") for row in mlflow_runs(work, grid)}


def test_a_grids_runs_are_marked_and_can_be_restored(work: Path) -> None:
    """With the one that stands for the grid; those of other grids stay."""
    make_grid(work, "goes", "1" * 12, "2" * 12)
    make_grid(work, "stays", "3" * 12)
    [first, *_] = mlflow_runs(work, "goes")
    count = mlflow_commands.delete_runs(Workspace(work), ["goes"], {})

    assert count == 2
    assert list_in_mlflow(work, "goes") == set()
    assert list_in_mlflow(work, "stays") == {"grid", "3" * 12}
    client = MlflowClient(f"sqlite:///{work}/mlflow.db")
    client.restore_run(first["id"])
    assert len(mlflow_runs(work, "goes")) == 1


def test_a_run_goes_alone_and_one_that_is_deleted_already_is_no_error(
    work: Path,
) -> None:
    """The grid's own goes with the last of its runs."""
    first, second = "4" * 12, "5" * 12
    make_grid(work, "two-runs", first, second)
    by_grid = {"two-runs": [first]}
    assert mlflow_commands.delete_runs(Workspace(work), [], by_grid) == 1
    assert list_in_mlflow(work, "two-runs") == {"grid", second}
    assert mlflow_commands.delete_runs(Workspace(work), [], by_grid) == 0
    client = MlflowClient(f"sqlite:///{work}/mlflow.db")
    for row in mlflow_runs(work, "two-runs"):
        if row["tags"].get("zsg.run") == second:
            client.delete_run(row["id"])
    assert mlflow_commands.delete_runs(Workspace(work), ["two-runs"], {}) == 0
    assert list_in_mlflow(work, "two-runs") == set()


def test_a_server_that_cannot_be_reached_keeps_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing goes before its runs are marked."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    soon_tired = partial(ExponentialBackoff, limit_s=0.1)
    monkeypatch.setattr(tracker, "ExponentialBackoff", soon_tired)
    shared = Shared(tmp_path)
    record = shared.workspace.grid("one") / "grid.json"
    fields = json.loads(record.read_text())
    write_json(record, fields | {"tracking": "http://127.0.0.1:9"})
    before = shared.list_folders()
    with pytest.raises(ClusterError, match=r"127\.0\.0\.1:9"):
        lifecycle.forget(
            ["one"], workspace=shared.workspace.root, mlflow=True, yes=True
        )

    assert shared.list_folders() == before
