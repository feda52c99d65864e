"""Does MLflow hear all that is known of a run: parameters, tags, data sets, tables, snapshots?"""

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs.contract import attempt as attempts
from jobs.contract import item_losses
from jobs.contract.folder import Workspace, read_json, write_json
from jobs.contract.grid_record import ListedRun
from jobs.contract.journal import Journal
from jobs.tracking import item_table, mlflow_metadata, mlflow_sync
from jobs.tracking.tracker import Refused
from tests.lib.grown_journals import RECIPE, write_grid, write_job, write_run
from tests.lib.mlflow_contents import (
    MlflowClient,
    assert_exactly_once,
    child_runs,
    mlflow_runs,
)

STAGES = (("former", 5), ("latter", 9))  # a run for each, and the step of its snapshot
LOSSES = np.array([[3.0, 4.0, 5.0], [2.0, np.nan, 4.0]])


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a run of two attempts, whose items were measured at two steps
    and kept snapshots of both."""
    work = tmp_path_factory.mktemp("recorded")
    folder = write_job(work, "whole")
    corpus = {"train_digest": "t" * 64, "test_digest": "e" * 64}
    meta = {"ids_digest": "i" * 64, "sources": {"corpus_meta": corpus}}
    write_json(Workspace(work).arrangement("a") / "meta.json", meta)
    item_losses.describe_items(
        folder, ["x:1", "x:2", "y:1"], ["x", "x", "y"], [7, 8, 9], {}
    )
    for number, step in enumerate((0, 10)):
        attempt = attempts.begin_attempt(folder, "submission")
        journal = Journal(folder, attempt, "train", "s")
        start = {
            "event": "start",
            "device": "cpu",
            "world": 1,
            "from": step,
            "versions": {"torch": "2.13.0"},
        }
        journal.add_row(
            "event",
            step=step,
            examples=0,
            data=start | {"slurm_job_id": f"12{number}", "nodes": "n[1-2]"},
        )
        item_losses.journal_item_losses(
            journal, "loss", LOSSES[number], step=step, examples=step
        )
        journal.add_row(
            "metric",
            step=step,
            examples=step,
            data={"loss": 4.0 - number, "speed/memory_gb": 1.0},
        )
        journal.add_row(
            "event",
            step=step,
            examples=0,
            data={"event": "snapshot", "digest": f"weights of {step}"},
        )
        journal.close()
    kept = [
        {"step": 0, "kept": True},
        {"step": 10, "kept": True},
        {"step": 5, "kept": False},
    ]
    attempts.end_attempt(folder, attempt, "done", snapshots=kept, skipped=2)
    write_grid(work, "grid", ["whole"])
    path = Workspace(work).grid("grid") / "grid.json"
    record: Any = read_json(path)
    record["runs"][0]["strategy"] = "dmt k=1/4"
    write_json(path, record)
    mlflow_sync.sync_grid(Workspace(work), "grid")
    return work


def test_tags_say_where_numbers_come_from(work: Path) -> None:
    """Strategy, order, digests, every attempt with its Slurm job and nodes, versions,
    lost steps."""
    tags = child_runs(work, "grid")["whole"]["tags"]

    assert tags["zsg.strategy"] == "dmt k=1/4" and tags["zsg.order"] == "nft"
    assert (
        tags["zsg.arrangement.ids_digest"] == "i" * 64
        and tags["zsg.test_digest"] == "e" * 64
    )
    assert (
        tags["zsg.attempts"]
        == "1: from step 0 in 120 n[1-2]; 2: from step 10 in 121 n[1-2]"
    )
    assert tags["zsg.version.torch"] == "2.13.0" and tags["zsg.skipped"] == "2"
    assert tags["zsg.state"] == "done"


def test_data_sets_are_inputs(work: Path) -> None:
    """MLflow knows what the run was trained and tested on, by digest."""
    run = MlflowClient(f"sqlite:///{work}/mlflow.db").get_run(
        child_runs(work, "grid")["whole"]["id"]
    )
    found = {one.tags[0].value: one.dataset.digest for one in run.inputs.dataset_inputs}

    assert found == {"training": "i" * 36, "testing": "e" * 36}


def test_items_and_tasks_are_tables(work: Path) -> None:
    """The artifacts hold the loss of every item and task at every step, as the journal has them."""
    client = MlflowClient(f"sqlite:///{work}/mlflow.db")
    run = child_runs(work, "grid")["whole"]["id"]
    read = lambda name: pq.read_table(  # noqa: E731
        client.download_artifacts(run, f"losses/{name}")
    ).to_pydict()
    items, tasks = read(item_table.ITEMS), read(item_table.TASKS)

    assert items["step"] == [0, 0, 0, 10, 10, 10]
    assert (
        items["item"] == ["x:1", "x:2", "y:1"] * 2 and items["tokens"] == [7, 8, 9] * 2
    )
    assert np.array_equal(items["loss"], LOSSES.ravel(), equal_nan=True)
    assert list(zip(tasks["step"], tasks["task"], tasks["loss"], strict=True)) == [
        (0, "x", 3.5),
        (0, "y", 5.0),
        (10, "x", 2.0),
        (10, "y", 4.0),
    ]


def test_mlflow_finds_the_best_snapshot_of_a_grid(work: Path) -> None:
    """Each kept snapshot is a model with its losses: MLflow's own search puts the best
    first; none twice."""
    client = MlflowClient(f"sqlite:///{work}/mlflow.db")
    for path in (work / "runs/whole/delivery").glob("*.json"):
        path.unlink()  # all is sent once more
    mlflow_sync.sync_grid(Workspace(work), "grid")
    experiment = client.get_experiment_by_name("grid")
    assert experiment
    order = [{"field_name": "metrics.loss", "ascending": True}]
    found = client.search_logged_models([experiment.experiment_id], order_by=order)

    assert [(one.tags["zsg.step"], one.tags["zsg.digest"]) for one in found] == [
        ("10", "weights of 10"),
        ("0", "weights of 0"),
    ]
    assert found[0].tags["zsg.path"].endswith("runs/whole/snapshots/10")
    assert_exactly_once(work, "grid", ["whole"])


def test_a_run_of_two_stages_tells_both(work: Path) -> None:
    """The data of each stage are inputs, and the snapshots of each are models, which
    stay where they are."""
    for run, step in STAGES:
        folder = write_job(work, run)
        job: Any = read_json(folder / "job.json")
        job["made"]["arrangement"], job["before"] = (
            run,
            ["former"] if run == "latter" else [],
        )
        write_json(folder / "job.json", job)
        write_json(
            Workspace(work).arrangement(run) / "meta.json",
            {"ids_digest": f"ids of {run}"},
        )
        attempt = attempts.begin_attempt(folder, "submission")
        journal = Journal(folder, attempt, "train", run)
        journal.add_row("metric", step=step, examples=step, data={"loss": 9.0 - step})
        journal.close()
        attempts.end_attempt(
            folder, attempt, "done", snapshots=[{"step": step, "kept": True}]
        )
    write_grid(work, "staged", ["latter"])
    mlflow_sync.sync_grid(Workspace(work), "staged")

    client = MlflowClient(f"sqlite:///{work}/mlflow.db")
    run = client.get_run(child_runs(work, "staged")["latter"]["id"])
    models = client.search_logged_models([run.info.experiment_id])
    assert {one.dataset.digest for one in run.inputs.dataset_inputs} == {
        "ids of former",
        "ids of latter",
    }
    assert {one.tags["zsg.path"] for one in models} == {
        f"{work}/runs/{run}/snapshots/{step}" for run, step in STAGES
    }


def test_a_flagged_run_is_refilled_once(work: Path, logged: list[str]) -> None:
    """The new MLflow run holds the journal's points; the old one is deleted there, and
    a second refill does nothing."""
    write_run(work, "differs", [[{"loss": 3.0}], [{"loss": 3.5}, {"loss": 2.0}]])
    write_grid(work, "flagged", ["differs"])
    mlflow_sync.sync_grid(Workspace(work), "flagged")
    old = child_runs(work, "flagged")["differs"]["id"]

    assert mlflow_sync.sync_grid(Workspace(work), "flagged", refill=True) == {
        "runs": 1,
        "points": 2,
    }
    assert mlflow_sync.sync_grid(Workspace(work), "flagged", refill=True) == {
        "runs": 0,
        "points": 0,
    }
    new = child_runs(work, "flagged")["differs"]
    assert (
        new["id"] != old
        and new["tags"]["zsg.replaces"] == old
        and "zsg.flag" in new["tags"]
    )
    assert sorted(point[2] for point in new["points"]) == [2.0, 3.0]
    client = MlflowClient(f"sqlite:///{work}/mlflow.db")
    assert client.get_run(old).info.lifecycle_stage == "deleted"
    assert client.get_run(old).data.tags["zsg.replaced_by"] == new["id"]
    assert [old in line and new["id"] in line for line in logged] == [True]


def test_a_refill_that_was_killed_is_finished(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the new run was made and before anything was noted: the next sync
    goes on, and one run is left."""
    write_run(work, "killed", [[{"loss": 3.0}], [{"loss": 3.5}]])
    write_grid(work, "halfway", ["killed"])
    mlflow_sync.sync_grid(Workspace(work), "halfway")
    with monkeypatch.context() as patched:
        patched.setattr(mlflow_metadata, "data_sets", lambda folder: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            mlflow_sync.sync_grid(Workspace(work), "halfway", refill=True)
    mlflow_sync.sync_grid(Workspace(work), "halfway")

    [run] = [
        row for row in mlflow_runs(work, "halfway") if row["tags"]["zsg.kind"] == "run"
    ]
    assert "zsg.replaces" in run["tags"] and [point[2] for point in run["points"]] == [
        3.0
    ]


def test_a_run_has_at_most_a_hundred_keys(work: Path) -> None:
    """Of 200 sources the first 60 are sent; loss, training and speed always are."""
    many = {f"loss/source{number}": 1.0 for number in range(200)}
    write_run(
        work, "many", [[{"loss": 3.0, **many}, {"train/loss": 1.0, "speed/mfu": 0.4}]]
    )
    write_grid(work, "wide", ["many"])
    mlflow_sync.sync_grid(Workspace(work), "wide")

    run = child_runs(work, "wide")["many"]
    keys = {point[0] for point in run["points"]}
    assert run["tags"]["zsg.keys_left_out"].startswith(
        "140, which zsg export has: loss/source60, loss/source61, "
    )
    assert {"loss", "train/loss", "speed/mfu", "loss/source59"} <= keys
    assert len(keys) == 63 <= mlflow_metadata.MOST_KEYS


def test_a_moved_workspace_is_told_as_it_lies_now(work: Path, tmp_path: Path) -> None:
    """Every tag stays but the place; tables lie where it lies by now; the folder that
    it was in is not made anew."""
    old, moved = tmp_path / "here", tmp_path / "there"
    shutil.copytree(work, old)
    assert mlflow_sync.sync_grid(Workspace(old), "grid") == {"runs": 0, "points": 0}
    before = child_runs(old, "grid")["whole"]
    old.rename(moved)
    assert mlflow_sync.sync_grid(Workspace(moved), "grid") == {"runs": 0, "points": 0}

    run = child_runs(moved, "grid")["whole"]
    assert run == {**before, "tags": {**before["tags"], "zsg.workspace": str(moved)}}
    assert not old.exists()
    client = MlflowClient(f"sqlite:///{moved}/mlflow.db")
    assert (
        client.get_run(run["id"]).info.artifact_uri
        == (moved / f"mlartifacts/{run['id']}/artifacts").as_uri()
    )
    assert (
        moved / f"mlartifacts/{run['id']}/artifacts/losses/{item_table.ITEMS}"
    ).is_file()
    models = client.search_logged_models(["1"])
    assert {one.tags["zsg.path"] for one in models} == {
        str(moved / f"runs/whole/snapshots/{step}") for step in (0, 10)
    }
    assert {one.artifact_location.startswith(moved.as_uri()) for one in models} == {
        True
    }


def test_what_is_gone_is_told_as_it_was(work: Path, tmp_path: Path) -> None:
    """Where only runs were copied elsewhere, digests that cannot be read there any more
    stay in MLflow as they were."""
    copied = tmp_path / "copied"
    shutil.copytree(work, copied)
    shutil.rmtree(copied / "arrangements")
    before = child_runs(copied, "grid")["whole"]["tags"]
    for path in (copied / "runs/whole/delivery").glob("*.json"):
        path.unlink()
    mlflow_sync.sync_grid(Workspace(copied), "grid")

    assert child_runs(copied, "grid")["whole"]["tags"] == {
        **before,
        "zsg.workspace": str(copied),
    }
    assert before["zsg.test_digest"] == "e" * 64


def test_artifacts_elsewhere_stay_where_they_are(work: Path, tmp_path: Path) -> None:
    """An experiment that others keep in the store, with artifacts in a place of its
    own, is left as it is."""
    copied = tmp_path / "copied"
    shutil.copytree(work, copied)
    client = MlflowClient(f"sqlite:///{copied}/mlflow.db")
    other = client.create_experiment("theirs", "s3://bucket/mine")
    mlflow_sync.sync_grid(Workspace(copied), "grid")

    assert client.get_experiment(other).artifact_location == "s3://bucket/mine"
    assert (
        client.get_experiment("1").artifact_location
        == (copied / "mlartifacts").as_uri()
    )


@pytest.mark.parametrize("is_link", [True, False], ids=["by a link", "by the database"])
def test_tables_are_written_to_no_folder_elsewhere(
    work: Path, tmp_path: Path, is_link: bool
) -> None:
    """A workspace that was sent may name any folder for its artifacts: the sync says so
    and writes nothing there."""
    copied, home = tmp_path / "copied", tmp_path / "home"
    shutil.copytree(work, copied)
    home.mkdir()
    run = child_runs(copied, "grid")["whole"]["id"]
    if is_link:
        shutil.rmtree(copied / "mlartifacts")
        (copied / "mlartifacts" / run).mkdir(parents=True)
        (copied / "mlartifacts" / run / "artifacts").symlink_to(home)
    else:
        with sqlite3.connect(copied / "mlflow.db") as database:
            database.execute(
                "update runs set artifact_uri = ? where run_uuid = ?",
                (home.as_uri(), run),
            )
        database.close()

    with pytest.raises(
        Refused,
        match=r"nothing is written to file://.*(is a link|is not the folder of artifacts)",
    ):
        mlflow_sync.sync_grid(Workspace(copied), "grid")
    assert list(home.iterdir()) == []


def test_tables_that_cannot_be_kept_are_told_and_kept_later(
    work: Path, tmp_path: Path, logged: list[str]
) -> None:
    """Metrics arrive all the same; once the folder can be written, the next sync keeps
    the tables."""
    copied = tmp_path / "copied"
    shutil.copytree(work, copied)
    shutil.rmtree(copied / "mlartifacts")
    (copied / "mlartifacts").write_text("no folder")
    shutil.rmtree(copied / "runs/whole/delivery")
    sent = mlflow_sync.sync_grid(Workspace(copied), "grid")

    assert sent["runs"] == 1
    assert_exactly_once(copied, "grid", ["whole"])
    [line] = logged
    assert line.startswith(f"grid: artifacts cannot be kept in {copied.as_uri()}")
    assert "see that it may be written" in line and line.endswith(
        "zsg sync tries again"
    )

    (copied / "mlartifacts").unlink()
    assert mlflow_sync.sync_grid(Workspace(copied), "grid") == {"runs": 0, "points": 0}
    assert len(logged) == 1
    assert list((copied / "mlartifacts").rglob(item_table.ITEMS))


def test_what_varies_comes_first(work: Path) -> None:
    """Axes are the first parameters, and no recipe is too wide for a request."""
    wide = {"data": {f"key{number}": number for number in range(250)}}
    row = ListedRun(
        run="broad",
        axes={"train.lr": 0.1},
        model="tiny",
        recipe={**RECIPE, "stages": [{**wide}]},
    )
    assert next(iter(mlflow_metadata.flatten_params(row))) == "train.lr"

    write_run(work, "broad", [[{"loss": 1.0}]])
    write_grid(work, "broad", ["broad"])
    path = Workspace(work).grid("broad") / "grid.json"
    record: Any = read_json(path)
    record["runs"][0]["recipe"]["stages"][0] |= wide
    write_json(path, record)
    mlflow_sync.sync_grid(Workspace(work), "broad")
    assert len(child_runs(work, "broad")["broad"]["params"]) > 250
