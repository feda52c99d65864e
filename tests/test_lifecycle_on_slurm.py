"""Does a run live through time limits, cancels and retries on a real Slurm without a
human, and stop when told to?"""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from jobs.contract.folder import Workspace, read_json
from jobs.contract.ledger_rows import Retried
from launcher.workspace.ledger import Ledger
from tests.lib.command_line import Zsg, wait_until
from tests.lib.slurm_cluster import SlurmCluster
from tests.lib.slurm_runs import (
    ENGINES,
    LONG,
    agree_with_sacct,
    assert_leaves,
    assert_no_step_twice,
    profile,
    wait_for_state,
    wait_for_step,
    wait_until_ended,
)
from tests.lib.small_runs import small_grid
from tests.lib.train_bench import reached

pytestmark = pytest.mark.slurm

STEPS = 100  # that leave time for a signal, and little to wait for afterwards


def with_settings(place: Path, **settings: object) -> Path:
    """The profile with further settings of Slurm."""
    text = ", ".join(f"{key}: {value}" for key, value in settings.items())
    place.write_text(place.read_text().replace("slurm: {", f"slurm: {{{text}, "))
    return place


def test_a_run_is_requeued_by_itself_at_its_time_limit(
    prepared_on_slurm: Zsg, slurm: SlurmCluster, tasks: Path
) -> None:
    """Told of its time limit a run on two nodes saves, requeues itself, is queued
    meanwhile, and ends as attempt 2."""
    zsg = prepared_on_slurm
    zsg(
        "submit",
        small_grid(zsg, tasks, steps=STEPS),
        "--profile",
        profile(zsg, nodes=2),
    )
    job = wait_for_step(zsg, 4)
    slurm.run("scancel", "--signal=USR2", job)  # as Slurm does before the time limit
    wait_for_state(slurm, job, "PENDING")
    [row] = zsg.status()
    assert (row["state"], row["attempt"], row["slurm"]) == ("queued", 1, job)
    assert row["cause"] == f"stopped at step {row['step']} (time limit)"
    assert "nothing to submit" in zsg(
        "submit", zsg.folder / "small.yaml", "--profile", profile(zsg, nodes=2)
    )
    slurm.start_requeued()
    [row] = wait_until_ended(zsg, 300)

    assert (row["state"], row["attempt"], row["slurm"]) == ("done", 2, job)
    assert_no_step_twice(zsg, row["run"], STEPS)
    agree_with_sacct(slurm, [row])
    # submitit's own records could be of an older start, or left half written: there are none.
    assert not [
        path
        for path in zsg.work.glob("submissions/*/*")
        if "result" in path.name or "save_tmp" in path.name
    ]


@ENGINES
def test_a_chain_takes_over_at_the_time_limit(
    prepared_on_slurm: Zsg, slurm: SlurmCluster, tasks: Path, engine: str
) -> None:
    """Of two runs one is stopped: its own next link goes on at once, and links that
    find a run done end at once."""
    zsg = prepared_on_slurm
    place = with_settings(
        profile(zsg, engine=engine), on_time_limit="chain", max_continues=2
    )
    zsg(
        "submit",
        small_grid(zsg, tasks, "[cluster, random]", steps=LONG),
        "--profile",
        place,
    )
    # By the journals: a heartbeat is up to ten seconds old, and by then a small run may be done.
    begun = lambda: [  # noqa: E731
        folder for folder in (zsg.work / "runs").glob("*") if reached(folder, 4)
    ]
    wait_until(begun, 240)
    first = begun()[0]
    slurm.run(
        "scancel", "--signal=USR2", read_json(first / "attempt.json")["slurm_job_id"]
    )
    rows = wait_until_ended(zsg, 400)
    wait_until(
        lambda: not slurm.run("squeue", "-h", "-r", "--user", "root", "-o", "%i"), 60
    )

    assert [row["state"] for row in rows] == ["done", "done"]
    attempts = {row["run"]: row["attempt"] for row in rows}
    assert attempts == {
        row["run"]: 2 if row["run"] == first.name else 1 for row in rows
    }
    for row in rows:
        assert_no_step_twice(zsg, row["run"], LONG)
    agree_with_sacct(slurm, rows)
    states = slurm.run(
        "sacct",
        "-X",
        "-n",
        "-P",
        "--user",
        "root",
        "-S",
        "now-5minutes",
        "-o",
        "JobName,State",
    )
    links = [
        line
        for line in states.splitlines()
        if line.partition("|")[0].endswith(("-1", "-2"))
    ]
    assert len(links) >= 4
    assert all(line.endswith("COMPLETED") for line in links)


def test_links_behind_a_failed_run_never_start(
    prepared_on_slurm: Zsg, slurm: SlurmCluster, tasks: Path
) -> None:
    """A run of which one rank dies has failed within a minute; the links behind it are
    dropped by Slurm."""
    zsg = prepared_on_slurm
    place = with_settings(profile(zsg, nodes=2), on_time_limit="chain", max_continues=2)
    zsg("submit", small_grid(zsg, tasks, steps=LONG), "--profile", place)
    job = wait_for_step(zsg, 4)
    [attempt] = (zsg.work / "runs").glob("*/attempt.json")
    os.kill(json.loads(attempt.read_text())["pid"], signal.SIGKILL)
    wait_until(
        lambda: not slurm.run("squeue", "-h", "-r", "--user", "root", "-o", "%i"), 60
    )
    [row] = wait_until_ended(zsg, 60)

    assert (row["state"], row["attempt"], row["slurm"]) == ("failed", 1, job)


@ENGINES
def test_what_is_cancelled_is_not_revived(
    prepared_on_slurm: Zsg, slurm: SlurmCluster, tasks: Path, engine: str
) -> None:
    """Cancelled while it waits for its requeue a run is gone; put back by an
    administrator it leaves at once."""
    zsg = prepared_on_slurm
    place = profile(zsg, engine=engine)
    zsg("submit", small_grid(zsg, tasks, steps=LONG), "--profile", place)
    job = wait_for_step(zsg, 4)
    slurm.run("scancel", "--signal=USR2", job)
    wait_for_state(slurm, job, "PENDING")
    zsg("cancel", "small", "--yes")
    assert_leaves(zsg, slurm, job)
    [row] = zsg.status()
    assert (row["state"], row["attempt"], row["evidence"]) == (
        "cancelled",
        1,
        "by zsg cancel",
    )

    slurm.run("scontrol", "requeue", job)
    exit_record = zsg.work / "runs" / row["run"] / "exit.json"

    def started_again() -> bool:
        # which Slurm may only put on it once the job has left its node
        slurm.start_requeued()
        return json.loads(exit_record.read_text())["attempt"] == 2

    wait_until(started_again, 120)
    [again] = wait_until_ended(zsg, 60)
    assert (again["state"], again["step"]) == ("cancelled", row["step"])
    assert "nothing to submit" in zsg(
        "submit", zsg.folder / "small.yaml", "--profile", place
    )


def test_a_running_run_is_cancelled_within_killwait(
    prepared_on_slurm: Zsg, slurm: SlurmCluster, tasks: Path
) -> None:
    """No rank on any node outlives the cancel; with --save the run keeps what it has
    trained, and is not requeued."""
    zsg = prepared_on_slurm
    grid, place = small_grid(zsg, tasks, steps=LONG), profile(zsg, nodes=2)
    zsg("submit", grid, "--profile", place)
    job = wait_for_step(zsg, 4)
    zsg("cancel", "small", "--yes", "--save")
    assert_leaves(zsg, slurm, job)
    [row] = wait_until_ended(zsg, 60)
    assert (row["state"], row["evidence"]) == ("cancelled", "by zsg cancel")

    zsg("submit", grid, "--profile", place, "--retry")
    job = wait_for_step(zsg, row["step"] + 2)
    zsg("cancel", row["run"][:6], "--yes")
    assert_leaves(zsg, slurm, job)
    [row] = wait_until_ended(zsg, 60)
    assert (row["state"], row["attempt"]) == ("cancelled", 2)


def test_a_retry_is_kept_off_failed_nodes(
    zsg_on_slurm: Zsg, slurm: SlurmCluster, tasks: Path
) -> None:
    """What is tried again within a day of a node's failure is submitted without that
    node, and plan says so."""
    zsg = zsg_on_slurm
    # jobs wait instead of running
    slurm.run("scontrol", "update", "partitionname=main", "state=down")
    zsg("submit", small_grid(zsg, tasks), "--profile", profile(zsg))
    [row] = zsg.status()
    slurm.run("scancel", "--user", "root")
    [row] = wait_until_ended(zsg, 60)
    ledger, item = Ledger(Workspace(zsg.work)), f"runs/{row['run']}"
    failure = {item: Retried(cause="node failure", nodes=["n1"])}
    earlier = ledger.intend(
        scheduler="slurm", kind="train", grid="small", items=[item], retries=failure
    )
    ledger.void(earlier, "sbatch failed")

    printed = zsg("retry", "small", "--yes")
    assert (
        f"nodes left out of what is retried: n1 (node failure under {item}"
        in " ".join(printed.split())
    )
    assert set(
        slurm.run("squeue", "-h", "-r", "--user", "root", "-o", "%x").split()
    ) == {"n1"}


@pytest.mark.soak(part="slurm")
@pytest.mark.parametrize("how", ["requeue", "chain"])
def test_a_run_longer_than_its_time_limit_finishes_by_itself(
    prepared_on_slurm: Zsg, slurm: SlurmCluster, tasks: Path, how: str
) -> None:
    """With a limit of a minute, a run of some minutes is done after one submit, and no
    step is computed twice."""
    zsg, steps = prepared_on_slurm, 3000
    place = with_settings(
        profile(zsg), on_time_limit=how, max_continues=15, signal_before_end_s=10
    )
    place.write_text(place.read_text().replace("time_min: 60", "time_min: 1"))
    grid = small_grid(zsg, tasks, steps=steps)
    grid.write_text(grid.read_text().replace("every: 4,", "every: 100,"))
    zsg("submit", grid, "--profile", place)
    seen, until = set(), time.monotonic() + 1200
    while (row := zsg.status()[0])["state"] in {
        "waiting",
        "queued",
        "running",
        "unknown",
    }:
        seen.add(row["state"])
        slurm.start_requeued()
        assert (
            time.monotonic() < until and row["evidence"] != "zsg submit resumes it"
        ), row
        time.sleep(3)

    print(f"done after {row['attempt']} attempts; seen {sorted(seen)}")
    assert row["state"] == "done"
    assert row["attempt"] > 1
    assert_no_step_twice(zsg, row["run"], steps)
