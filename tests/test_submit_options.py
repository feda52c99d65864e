"""Do submit's options do what they say: trials, dry runs, detached runs, questions,
runs taken out of the grid?"""

import json
import os
import pty
import signal
import subprocess
from pathlib import Path

from tests.lib.command_line import Zsg, wait_until
from tests.lib.light_grid import write_local_profile
from tests.lib.mlflow_contents import assert_exactly_once, mlflow_runs
from tests.lib.small_runs import LONG, held, small_grid, submit_forked


def test_a_dry_run_shows_the_plan_and_changes_nothing(zsg: Zsg, tasks: Path) -> None:
    """`submit --dry-run` prints what plan prints; no job, no grid, no ledger comes of it."""
    grid = small_grid(zsg, tasks)

    assert zsg("submit", grid, "--dry-run") == zsg("plan", grid)
    assert not (zsg.work / "ledger.jsonl").exists()
    assert not (zsg.work / "grids").exists()


def test_a_smoke_run_is_another_smaller_experiment(
    zsg: Zsg, tasks: Path, forked: Path
) -> None:
    """`submit --smoke` runs every axis with a tiny model and few steps under other ids
    and another name."""
    grid = small_grid(zsg, tasks, "[random, cluster]")
    real = {row["run"] for row in json.loads(zsg("plan", grid, "--json"))}

    submit_forked(zsg, forked, grid, "--smoke")
    rows = zsg.status()
    assert [(row["grid"], row["state"], row["steps"]) for row in rows] == [
        ("small-smoke", "done", 4)
    ] * 2
    assert [row["axes"]["arrangement.order"] for row in rows] == ["random", "cluster"]
    assert not real & {row["run"] for row in rows}
    assert_exactly_once(zsg.work, "small-smoke", [row["run"] for row in rows])
    assert "2 to submit" in zsg("plan", grid), (
        "a trial must not stand for the real runs"
    )


def test_a_detached_submit_leaves_its_jobs_running(prepared: Zsg, tasks: Path) -> None:
    """`submit --detach` returns while the jobs run; what the grid no longer lists is
    named and goes on."""
    zsg = prepared
    grid, place = small_grid(zsg, tasks, steps=LONG), write_local_profile(zsg)
    said = zsg("submit", grid, "--profile", place, "--detach")
    process = int(said.split("running on as process ")[1].split()[0])
    with held(zsg.work):
        [running] = zsg.status()
        assert running["state"] == "running"

        other = small_grid(zsg, tasks, "[nft]", steps=LONG)
        assert f"no longer in the grid: {running['run']}" in zsg("plan", other)
        assert [row["action"] for row in json.loads(zsg("plan", other, "--json"))] == [
            "submit",
            "unwanted",
        ]
        os.kill(process, signal.SIGINT)

    wait_until(lambda: zsg.status()[0]["state"] == "cancelled")


def test_a_run_taken_out_of_the_grid_stays_in_sight_and_in_mlflow(
    prepared: Zsg, tasks: Path
) -> None:
    """While it runs, status shows it as no longer wanted; its metrics reach MLflow to
    the end, marked as such."""
    zsg = prepared
    grid, place = small_grid(zsg, tasks, steps=LONG), write_local_profile(zsg)
    zsg("submit", grid, "--profile", place, "--detach")
    with held(zsg.work):
        [running] = zsg.status()
        grid = small_grid(zsg, tasks, "[random]")
        zsg("submit", grid, "--profile", place, "--detach")
        assert [
            (row["run"] == running["run"], row["wanted"]) for row in zsg.status()
        ] == [
            (False, True),
            (True, False),
        ]

    wait_until(lambda: [row["state"] for row in zsg.status()] == ["done"])
    zsg("sync")
    assert_exactly_once(
        zsg.work, "small", [*{row["run"] for row in zsg.status()} | {running["run"]}]
    )
    listed = {
        r["tags"]["zsg.run"]: r["tags"]["zsg.listed"]
        for r in mlflow_runs(zsg.work, "small")
        if "zsg.run" in r["tags"]
    }
    assert listed[running["run"]] == "no"


def test_submit_to_slurm_asks_in_a_terminal(zsg_on_slurm: Zsg, tasks: Path) -> None:
    """In a terminal nothing is submitted before a yes; a no leaves no trace."""
    grid = small_grid(zsg_on_slurm, tasks)
    ours, theirs = pty.openpty()
    submit = zsg_on_slurm.start(
        "submit",
        grid,
        "--profile",
        "slurm-minimal",
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    said = b""
    while b" Slurm?" not in said:
        said += os.read(ours, 1000)
    os.write(ours, b"n\n")
    submit.communicate(timeout=60)
    os.close(ours)

    assert submit.returncode == 0
    assert not (zsg_on_slurm.work / "ledger.jsonl").exists()
    assert not (zsg_on_slurm.work / "grids").exists()
