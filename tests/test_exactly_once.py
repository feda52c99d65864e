"""Does MLflow hold every point once, whatever a network, a server under load or a kill
does to the delivery?"""

import math
import multiprocessing
import random
import shutil
import sys
from pathlib import Path

import pytest

from jobs.contract.folder import Workspace, write_json
from jobs.tracking import mlflow_sync
from jobs.tracking.tracker import Refused, Unreachable
from tests.lib.command_line import wait_until
from tests.lib.faulty_proxy import FaultyProxy
from tests.lib.grown_journals import GrowingRun, write_grid, write_run
from tests.lib.mlflow_contents import MlflowClient, assert_exactly_once, child_runs
from zsg_core.retry import ExponentialBackoff

TEST_SEEDS, SOAK_SEEDS, POSTGRESQL_SEEDS = range(8), range(50), range(50, 60)
HASTE = ExponentialBackoff(limit_s=0.5, first_s=0.01, longest_s=0.05)
# a delivery to be killed, which starts in a moment
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["jobs.tracking.mlflow_sync"])


def send(work: Path, grid: str) -> None:
    """One delivery, as a process of its own makes it."""
    try:
        mlflow_sync.Delivery(Workspace(work), grid, HASTE).send()
    except (Unreachable, Refused):
        sys.exit(3)


def send_and_kill(work: Path, grid: str, after_s: float) -> None:
    """A delivery that is killed if it takes longer."""
    process = FORKS.Process(target=send, args=(work, grid))
    process.start()
    process.join(after_s)
    process.kill()
    process.join()


def prove_exactly_once(work: Path, mlflow: str, seed: int) -> None:
    """Journals grow and deliveries fail or are killed, in turn; in the end MLflow
    equals the journals."""
    chance, grid = random.Random(seed), f"grid-{seed}"
    with FaultyProxy(mlflow, seed, share=chance.choice([0.1, 0.3, 0.5])) as proxy:
        runs = [
            GrowingRun(work, f"run-{number}", chance.choice([7, 40, 120]), chance)
            for number in range(2)
        ]
        names = [run.folder.name for run in runs]
        write_grid(work, grid, names, proxy.uri)
        while not all(run.is_done for run in runs):
            for run in runs:
                if not run.is_done and chance.random() < 0.7:
                    run.attempt()
            send_and_kill(work, grid, after_s=chance.uniform(0.05, 0.6))
        proxy.share = 0.1
        wait_until(lambda: is_sent(work, grid), 60)
        assert_exactly_once(work, grid, names, mlflow)
        assert all(
            run["status"] == "FINISHED"
            for run in child_runs(work, grid, mlflow).values()
        )
        proxy.share, proxy.requests = 0.0, []
        assert mlflow_sync.sync_grid(Workspace(work), grid) == {"runs": 0, "points": 0}
        assert [
            path for path in proxy.sent() if path.endswith(("log-batch", "runs/create"))
        ] == []


def is_sent(work: Path, grid: str) -> bool:
    """Whether a delivery came to its end."""
    try:
        mlflow_sync.Delivery(Workspace(work), grid, HASTE).send()
    except (Unreachable, Refused):
        return False
    return True


@pytest.mark.parametrize("seed", TEST_SEEDS)
def test_faults_and_kills(tmp_path: Path, mlflow: str, seed: int) -> None:
    """Drops, delays, errors of an overloaded server, cuts after it committed, and
    kills: every point is there once."""
    prove_exactly_once(tmp_path, mlflow, seed)


def test_a_run_whose_creation_got_no_answer_is_one_run(
    tmp_path: Path, mlflow: str
) -> None:
    """The server made the run and the connection was cut: the next try finds it."""
    write_run(tmp_path, "cut", [[{"loss": 3.0}]])
    with FaultyProxy(mlflow, seed=0, share=0.0) as proxy:
        proxy.befalls["runs/create"] = ["", "cut"]  # the grid's own run, then ours
        write_grid(tmp_path, "cut", ["cut"], proxy.uri)
        mlflow_sync.Delivery(Workspace(tmp_path), "cut", HASTE).send()

    assert_exactly_once(tmp_path, "cut", ["cut"], mlflow)
    assert [path for path in proxy.sent() if path.endswith("runs/create")] == [
        "/api/2.0/mlflow/runs/create"
    ] * 2


def test_a_run_that_appears_after_all_is_deleted(
    tmp_path: Path, mlflow: str, logged: list[str]
) -> None:
    """A server that made the run only after a second one was made: the delivery deletes
    the empty one and says so."""
    write_run(tmp_path, "late", [[{"loss": 3.0}]], outcome=None)
    with FaultyProxy(mlflow, seed=0, share=0.0) as proxy:
        proxy.befalls["runs/create"] = ["", "drop"]
        write_grid(tmp_path, "late", ["late"], proxy.uri)
        mlflow_sync.Delivery(Workspace(tmp_path), "late", HASTE).send()
        client = MlflowClient(mlflow)
        experiment = client.get_experiment_by_name("late")
        assert experiment
        made = client.search_runs(
            [experiment.experiment_id], "tags.`zsg.kind` = 'run'"
        )[0].data.tags
        tags = {
            key: made[key] for key in ("zsg.kind", "zsg.run", "zsg.grid", "zsg.began")
        }
        client.create_run(experiment.experiment_id, tags=tags)
        write_run(tmp_path, "late", [[{"loss": 3.0}, {"loss": 2.0}]])
        mlflow_sync.Delivery(Workspace(tmp_path), "late", HASTE).send()

    assert_exactly_once(tmp_path, "late", ["late"], mlflow)
    assert any("had its run twice" in line for line in logged)


def test_a_server_that_is_down_costs_nothing_but_time(
    tmp_path: Path, mlflow: str
) -> None:
    """With no server a delivery says so and keeps what it has to send; once it is back
    everything arrives."""
    write_run(tmp_path, "down", [[{"loss": 3.0}, {"loss": 2.0}]])
    with FaultyProxy(mlflow, seed=0, share=0.0) as proxy:
        write_grid(tmp_path, "down", ["down"], proxy.uri)
        proxy.is_down = True
        with pytest.raises(Unreachable, match="run zsg sync again"):
            mlflow_sync.Delivery(Workspace(tmp_path), "down", HASTE).send()
        proxy.is_down = False
        mlflow_sync.Delivery(Workspace(tmp_path), "down", HASTE).send()

    assert_exactly_once(tmp_path, "down", ["down"], mlflow)


def test_a_run_that_mlflow_refuses_does_not_keep_the_others(
    tmp_path: Path, mlflow: str
) -> None:
    """A permanent error is not tried again; the other runs arrive, and the error is
    raised in the end."""
    names = ["good", "bad", "fine"]
    for name in names:
        write_run(tmp_path, name, [[{"loss": 3.0}]])
    with FaultyProxy(mlflow, seed=0, share=0.0) as proxy:
        proxy.befalls["log-batch"] = ["refusal"]  # of whichever comes first
        write_grid(tmp_path, "refused", names, proxy.uri)
        with pytest.raises(Refused, match="no such thing"):
            mlflow_sync.Delivery(Workspace(tmp_path), "refused", HASTE).send()
        asked = len(proxy.requests)
        held = child_runs(tmp_path, "refused", mlflow)
        mlflow_sync.Delivery(Workspace(tmp_path), "refused", HASTE).send()

    assert sorted(len(run["points"]) for run in held.values()) == [0, 1, 1]
    assert asked < 40
    assert_exactly_once(tmp_path, "refused", names, mlflow)


def test_runs_that_share_new_data_are_told_side_by_side(
    tmp_path: Path, mlflow: str
) -> None:
    """The first delivery of eight runs on the same data arrives whole: their data set
    is made once, by one of them."""
    names = [f"run-{number}" for number in range(8)]
    for name in names:
        write_run(tmp_path, name, [[{"loss": 3.0}]])
    corpus = {"test_digest": "e" * 36}
    meta = {"ids_digest": "i" * 36, "sources": {"corpus_meta": corpus}}
    write_json(Workspace(tmp_path).arrangement("a") / "meta.json", meta)
    write_grid(tmp_path, "shared", names, mlflow)

    assert mlflow_sync.sync_grid(Workspace(tmp_path), "shared") == {
        "runs": 8,
        "points": 8,
    }
    assert_exactly_once(tmp_path, "shared", names, mlflow)
    told = [
        MlflowClient(mlflow).get_run(run["id"]).inputs
        for run in child_runs(tmp_path, "shared", mlflow).values()
    ]
    digests = [
        sorted(one.dataset.digest for one in inputs.dataset_inputs) for inputs in told
    ]
    assert digests == [["e" * 36, "i" * 36]] * 8


def test_a_row_that_another_machine_has_just_made_is_tried_again(
    tmp_path: Path, mlflow: str
) -> None:
    """A server that another delivery was quicker at says that the row is there: the
    next try finds it."""
    write_run(tmp_path, "beaten", [[{"loss": 3.0}, {"loss": float("nan")}]])
    write_json(
        Workspace(tmp_path).arrangement("a") / "meta.json", {"ids_digest": "i" * 36}
    )
    with FaultyProxy(mlflow, seed=0, share=0.0) as proxy:
        proxy.befalls = {"log-inputs": ["twice"], "log-batch": ["twice", "", "twice"]}
        write_grid(tmp_path, "beaten", ["beaten"], proxy.uri)
        mlflow_sync.Delivery(Workspace(tmp_path), "beaten", HASTE).send()

    assert_exactly_once(tmp_path, "beaten", ["beaten"], mlflow)


@pytest.mark.parametrize("befalls", ["a lost cursor", "a lost answer"])
def test_a_nan_sent_twice_to_an_older_server_is_one(
    tmp_path: Path, mlflow: str, befalls: str
) -> None:
    """MLflow before 3.15 refuses a NaN that it has, with all beside it: it is left out,
    and the others arrive."""
    write_run(
        tmp_path,
        "odd",
        [[{"loss": 3.0}, {"loss": float("nan")}, {"loss": float("inf")}]],
        outcome=None,
    )
    with FaultyProxy(mlflow, seed=0, share=0.0) as proxy:
        proxy.knows_nans = False
        proxy.befalls["log-batch"] = ["cut"] if befalls == "a lost answer" else []
        grid = befalls.replace(" ", "-")
        write_grid(tmp_path, grid, ["odd"], proxy.uri)
        mlflow_sync.Delivery(Workspace(tmp_path), grid, HASTE).send()
        if befalls == "a lost cursor":
            shutil.rmtree(tmp_path / "runs/odd/delivery")
        write_run(
            tmp_path,
            "odd",
            [
                [
                    {"loss": 3.0},
                    {"loss": float("nan")},
                    {"loss": float("inf")},
                    {"loss": 1.0},
                ]
            ],
        )
        mlflow_sync.Delivery(Workspace(tmp_path), grid, HASTE).send()

    points = {
        step: value
        for _, step, value, _ in child_runs(tmp_path, grid, mlflow)["odd"]["points"]
    }
    assert len(child_runs(tmp_path, grid, mlflow)["odd"]["points"]) == 4
    assert (points[0], points[2], points[3]) == (
        3.0,
        sys.float_info.max,
        1.0,
    ) and math.isnan(points[1])
    assert child_runs(tmp_path, grid, mlflow)["odd"]["status"] == "FINISHED"


@pytest.mark.soak(part="tracking")
@pytest.mark.parametrize("seed", SOAK_SEEDS)
def test_more_faults_and_kills(tmp_path: Path, mlflow: str, seed: int) -> None:
    """The same, for fifty seeds."""
    prove_exactly_once(tmp_path, mlflow, seed)


@pytest.mark.soak(part="tracking")
@pytest.mark.parametrize("seed", POSTGRESQL_SEEDS)
def test_faults_and_kills_on_postgresql(
    tmp_path: Path, mlflow_on_postgresql: str, seed: int
) -> None:
    """The same of a server whose database is PostgreSQL."""
    prove_exactly_once(tmp_path, mlflow_on_postgresql, seed)
