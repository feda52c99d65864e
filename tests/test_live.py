"""Does a job on a node fill MLflow while it trains, and does it never wait for it?"""

import contextlib
import importlib.machinery
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jobs.contract import job_file
from jobs.contract.folder import Workspace, read_json, write_json
from jobs.contract.job_file import TrackingServer
from jobs.tracking import live, mlflow_sync
from tests.lib.command_line import wait_until
from tests.lib.faulty_proxy import FaultyProxy
from tests.lib.grown_journals import write_grid
from tests.lib.job_records import job_fields
from tests.lib.light_grid import LIGHT
from tests.lib.mlflow_contents import assert_exactly_once, child_runs, journal_points
from zsg_core.digest import digest_ids
from zsg_core.settings.checkpoints import CheckpointSettings

NOWHERE = "http://127.0.0.1:9"  # the port of `discard`: nobody listens
TRAIN = {
    "batch": 2,
    "epochs": 1,
    "lr": 1e-3,
    "lr_floor": 0.1,
    "warmup_steps": 0,
    "precision": "fp32",
}


def write_light_job(
    work: Path, grid: str, uri: str, steps: int, state_every: int | None = None
) -> Path:
    """A train job without torch (light_engine), all that it needs made, of a profile
    that delivers live."""
    place = Workspace(work)
    ids = [f"item-{number}" for number in range(2 * steps)]
    for folder in (place.corpus("c"), place.arrangement("a"), place.base("b")):
        folder.mkdir(parents=True)
        (folder / "COMMIT").touch()
    (place.arrangement("a") / "ids").write_text("".join(f"{one}\n" for one in ids))
    write_json(place.arrangement("a") / "meta.json", {"ids_digest": digest_ids(ids)})
    write_json(place.base("b") / "meta.json", {"digest": "d"})
    write_grid(work, grid, ["light"], uri)
    [row] = (read_json(place.grid(grid) / "grid.json") or {})["runs"]
    train = {**TRAIN, "steps": steps, "tuning": {"method": "full"}}
    recipe = {
        **row["recipe"],
        "stages": [{"arrangement": {"order": "nft"}, "train": train}],
    }
    job: dict[str, Any] = {
        "schema": 1,
        "kind": "train",
        "run_id": "light",
        "submission": "s",
        "stage_id": "1",
    }
    job |= {
        "resources": job_fields()["resources"] | {"kill_wait_s": 30},
        "tracking": {"uri": uri, "live": True},
    }
    job |= {
        "paths": {"workspace": str(work), "base": str(place.base("b"))},
        "code": {"zsg": "0"},
        "recipe": recipe,
    }
    job |= {
        "before": [],
        "makes": [],
        "made": {"corpus": "c", "arrangement": "a", "base": "b"},
        "after": [],
    }
    job |= {
        "checkpoints": CheckpointSettings(every=5, state_every=state_every).model_dump(
            mode="json"
        ),
        "scored": [],
        "micro_tokens": None,
    }
    job |= {"recompute": False, "compile": False, "deepspeed": {}}
    write_json(place.run("light") / "job.json", job)
    return place.run("light")


def start(folder: Path, step_s: float) -> subprocess.Popen[bytes]:
    """The job, as a node starts it."""
    env = {
        **os.environ,
        "PYTHONPATH": str(LIGHT),
        "LIGHT_STEP_S": str(step_s),
        "OMP_NUM_THREADS": "1",
    }
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "jobs.entry", str(folder)],
            env=env,
            stdout=log,
            stderr=log,
        )


def deliveries(folder: Path) -> list[int]:
    """The processes that deliver this run."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if (
            b"jobs.tracking.mlflow_sync" in words
            and str(folder.parents[1]).encode() in words
        ):
            found.append(int(process.name))
    return found


def test_points_arrive_while_it_trains(tmp_path: Path, mlflow: str) -> None:
    """MLflow has points before the job has ended; soon after its end it has all, and no
    process is left."""
    folder = write_light_job(tmp_path, "live", mlflow, steps=150)
    job = start(folder, step_s=0.1)
    wait_until(lambda: child_points(tmp_path, mlflow), 120)

    assert job.poll() is None, (folder / "log").read_text()
    assert 0 < len(child_points(tmp_path, mlflow)) < 5 * 150
    lowest = min(19, os.getpriority(os.PRIO_PROCESS, 0) + 19)
    assert os.getpriority(os.PRIO_PROCESS, deliveries(folder)[0]) == lowest
    assert job.wait(120) == 0
    wait_until(lambda: not deliveries(folder), 120)
    assert_exactly_once(tmp_path, "live", ["light"], mlflow)
    run = child_runs(tmp_path, "live", mlflow)["light"]
    assert run["status"] == "FINISHED"
    assert run["tags"]["zsg.attempts"].startswith("1: from step 0 in ")


def child_points(work: Path, uri: str) -> list[Any]:
    """What MLflow has of the run so far; nothing while there is no experiment."""
    try:
        held = child_runs(work, "live", uri)
    except AssertionError:
        return []
    return held["light"]["points"] if held else []


def test_a_server_that_is_not_there_is_waited_for_by_nobody(tmp_path: Path) -> None:
    """The job ends as it would alone, at once though its delivery is still trying,
    which is left behind for seconds."""
    folder = write_light_job(tmp_path, "dead", NOWHERE, steps=20)
    job = start(folder, step_s=0.05)
    assert job.wait(120) == 0
    ended = (read_json(folder / "exit.json") or {})["ended"] / 1000

    assert time.time() - ended < 20
    assert len(journal_points(tmp_path, "light")) >= 20 * 4
    wait_until(lambda: not deliveries(folder), 120)
    assert "does not answer" in (folder / "delivery" / live.LOG).read_text()


def test_a_killed_job_takes_its_delivery_along(tmp_path: Path) -> None:
    """After `kill -9` of the job its delivery ends by itself."""
    folder = write_light_job(tmp_path, "killed", NOWHERE, steps=500)
    job = start(folder, step_s=0.1)
    wait_until(lambda: deliveries(folder), 120)
    job.send_signal(signal.SIGKILL)
    job.wait()

    wait_until(lambda: not deliveries(folder), 120)


def test_a_node_without_mlflow_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    """Where MLflow is not installed nothing is started, and the log says once who delivers."""
    monkeypatch.setattr(importlib.machinery.PathFinder, "find_spec", lambda name: None)
    folder = write_light_job(tmp_path, "lacking", NOWHERE, steps=1)

    assert live.start_delivery(folder, job_file.read_job(folder)) is None
    assert ["zsg sync" in line for line in logged] == [True]


def test_only_what_is_asked_for_is_delivered_live(tmp_path: Path) -> None:
    """Without `tracking.live` a job starts nothing."""
    folder = write_light_job(tmp_path, "quiet", NOWHERE, steps=1)
    job = job_file.read_job(folder)
    quiet = TrackingServer(uri=NOWHERE, live=False)

    assert (
        live.start_delivery(folder, msgspec.structs.replace(job, tracking=quiet))
        is None
    )


@pytest.mark.soak(part="tracking")
@pytest.mark.parametrize("seed", range(5))
def test_jobs_killed_at_random_behind_a_faulty_network(
    tmp_path: Path, mlflow: str, seed: int
) -> None:
    """A job is killed again and again, its requests dropped, refused or cut: in the end
    every point is there once."""
    chance, grid, kills = random.Random(seed), f"storm-{seed}", 0
    with FaultyProxy(mlflow, seed, share=chance.choice([0.1, 0.3, 0.5])) as proxy:
        folder = write_light_job(tmp_path, grid, proxy.uri, steps=120, state_every=5)
        while (read_json(folder / "exit.json") or {}).get("outcome") != "done":
            job = start(folder, step_s=0.05)
            with contextlib.suppress(subprocess.TimeoutExpired):
                job.wait(chance.uniform(3, 7))
            kills += job.poll() is None
            job.kill()
            job.wait()
        wait_until(lambda: not deliveries(folder), 120)
        proxy.share = 0.0
        mlflow_sync.sync_grid(Workspace(tmp_path), grid)

    assert kills
    assert_exactly_once(tmp_path, grid, ["light"], mlflow)
