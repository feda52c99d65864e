"""Does a grid run on a real Slurm, over several nodes, exactly as on one machine,
whatever is killed?"""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.lib.builders import break_an_instance, copy_made
from tests.lib.command_line import Zsg
from tests.lib.mlflow_contents import (
    assert_exactly_once,
    child_runs,
    journal_points,
    loss_by_step,
)
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
from tests.lib.small_runs import UGLY, small_grid

pytestmark = pytest.mark.slurm

NIV2 = """
name: niv2-wsd-order
defaults:
  model: {{name: tiny, hidden: {hidden}, layers: {layers}, heads: 6}}
  data: {{set: niv2, path: {data}, train_per_task: {per_task}, test_per_task: 5}}
  train: {{batch: {batch}, lr: 1e-3, max_length: 256, precision: fp32}}
  checkpoints: {{every: {every}}}
grid:
  arrangement.order: [nft, rt, fft]
"""


def some_real_tasks(real: Path, folder: Path, train: int, test: int) -> Path:
    """The first tasks of each split of the real data, in a folder of their own."""
    (folder / "splits/default").mkdir(parents=True)
    (folder / "tasks").symlink_to(real / "niv2/tasks")
    for split, count in (("train", train), ("test", test)):
        names = (
            (real / f"niv2/splits/default/{split}_tasks.txt")
            .read_text()
            .splitlines()[:count]
        )
        (folder / f"splits/default/{split}_tasks.txt").write_text("\n".join(names))
    return folder


@pytest.mark.data
@pytest.mark.soak(part="slurm")
def test_real_data_on_two_nodes(
    zsg_on_slurm: Zsg, slurm: SlurmCluster, real_data: Path, tmp_path: Path
) -> None:
    """A slice of Natural Instructions in two orders on two nodes: done, as sacct says,
    every point once in MLflow."""
    zsg = zsg_on_slurm
    data = some_real_tasks(real_data, tmp_path / "data", train=10, test=4)
    text = NIV2.format(data=data, hidden=96, layers=2, per_task=4, batch=8, every=2)
    zsg(
        "submit",
        zsg.write("grid.yaml", text.replace("nft, rt,", "nft,")),
        "--profile",
        profile(zsg, nodes=2),
    )
    rows = wait_until_ended(zsg, 400)
    zsg("sync")

    agree_with_sacct(slurm, rows)
    assert [(row["step"], row["steps"]) for row in rows] == [(5, 5)] * 2
    assert_exactly_once(zsg.work, "niv2-wsd-order", [row["run"] for row in rows])
    assert list(loss_by_step(zsg.work, rows[0]["run"])) == [0, 2, 4, 5]


@pytest.mark.data
@pytest.mark.soak(part="slurm")
def test_real_data_in_full(
    zsg_on_slurm: Zsg, slurm: SlurmCluster, real_data: Path
) -> None:
    """118 training tasks, 24 held-out tasks × 5, 3.4 million parameters, 207 steps in
    three orders on two nodes."""
    zsg = zsg_on_slurm
    started = time.monotonic()
    text = NIV2.format(
        data=real_data / "niv2", hidden=192, layers=6, per_task=28, batch=16, every=10
    )
    zsg(
        "submit",
        zsg.write("grid.yaml", text),
        "--profile",
        profile(zsg, nodes=2, parallel=1, prepare_cpus=2),
    )
    rows = wait_until_ended(zsg, 2400)
    zsg("sync")

    agree_with_sacct(slurm, rows)
    assert_exactly_once(zsg.work, "niv2-wsd-order", [row["run"] for row in rows])
    for row in rows:
        losses = loss_by_step(zsg.work, row["run"])
        assert list(losses) == [*range(0, 207, 10), 207]
        print(row["axes"], {step: round(loss, 3) for step, loss in losses.items()})
    print(f"three runs in {time.monotonic() - started:.0f} s")


def test_one_and_two_nodes_compute_the_same(
    zsg_on_slurm: Zsg, made: Path, tasks: Path
) -> None:
    """One rank, two nodes, two nodes with ZeRO-3: the same digest, losses within 1e-5
    over 20 steps in fp32."""
    zsg = zsg_on_slurm
    works = {
        (nodes, zero): zsg.folder / f"work{nodes}-{zero}"
        for nodes, zero in ((1, 1), (2, 1), (2, 3))
    }
    ended, losses = {}, {}
    for where, work in works.items():
        copy_made(made, work)
        zsg.env["ZSG_WORKSPACE"] = str(work)
        zsg(
            "submit",
            small_grid(zsg, tasks, steps=20),
            "--profile",
            profile(zsg, where[0], zero=where[1]),
        )
        [row] = wait_until_ended(zsg, 300)
        ended[where] = json.loads(
            (work / "runs" / row["run"] / "exit.json").read_text()
        )
        losses[where] = {
            (k, s): v for k, s, v, _ in journal_points(work, row["run"]) if "loss" in k
        }

    assert [ended[where]["world"] for where in works] == [1, 2, 2]
    assert len({ended[where]["digest"] for where in works}) == 1
    alone = losses[1, 1]
    assert len(alone) == 20 + 2 * 6
    for where in works:
        assert max(abs(alone[key] - losses[where][key]) for key in alone) <= 1e-5


MORE_ROWS = [
    pytest.param(rows, marks=pytest.mark.soak(part="slurm")) for rows in (1, 2, 3, 5, 6)
]


@pytest.mark.parametrize("rows", [4, *MORE_ROWS])
def test_a_submit_killed_anywhere_leaves_one_job_per_run(
    zsg_on_slurm: Zsg, slurm: SlurmCluster, tasks: Path, rows: int
) -> None:
    """`kill -9` once the ledger has so many rows, then submit again: Slurm holds each job once."""
    zsg = zsg_on_slurm
    # jobs wait instead of running
    slurm.run("scontrol", "update", "partitionname=main", "state=down")
    grid, place = small_grid(zsg, tasks, "[cluster, random, round_robin]"), profile(zsg)
    submit = zsg.start(
        "submit",
        grid,
        "--profile",
        place,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _kill_at(submit, zsg.work / "ledger.jsonl", rows)
    zsg("submit", grid, "--profile", place)

    queued = slurm.run(
        "squeue", "-h", "-r", "--user", "root", "-o", "%i %j %r"
    ).splitlines()
    assert len(queued) == 1 + 3  # prepare, and one job per run
    assert not [line for line in queued if line.endswith("JobHeldUser")]
    assert sorted(row["slurm"] for row in zsg.status()) == sorted(
        line.split()[0] for line in queued if "-train-" in line
    )
    assert "nothing to submit" in zsg("submit", grid, "--profile", place)


@ENGINES
def test_adopted_jobs_run(
    zsg_on_slurm: Zsg, slurm: SlurmCluster, made: Path, tasks: Path, engine: str
) -> None:
    """An sbatch that submits and then says "Socket timed out" is believed by what Slurm
    holds, and the jobs run."""
    zsg = zsg_on_slurm
    shutil.copytree(made / "bases", zsg.work / "bases")  # which takes torch to make
    broken = zsg.folder / "bin"
    broken.mkdir()
    real = subprocess.run(
        ["which", "sbatch"], capture_output=True, text=True, env=zsg.env, check=True
    ).stdout.strip()
    (broken / "sbatch").write_text(
        f'#!/bin/sh\n{real} "$@" >/dev/null\necho "Socket timed out" >&2\nexit 1\n'
    )
    (broken / "sbatch").chmod(0o755)
    path = zsg.env["PATH"]
    zsg.env["PATH"] = f"{broken}{os.pathsep}{path}"
    zsg(
        "submit",
        small_grid(zsg, tasks, "[cluster, random]", steps=4),
        "--profile",
        profile(zsg, engine=engine),
    )
    zsg.env["PATH"] = path

    rows = wait_until_ended(zsg, 300)
    assert [row["state"] for row in rows] == ["done", "done"]
    assert "2 done" in zsg(
        "submit", zsg.folder / "small.yaml", "--profile", profile(zsg, engine=engine)
    )
    agree_with_sacct(slurm, rows)
    names = {name for row in rows for name in _names(slurm, row["slurm"])}
    assert len(names) == 1
    assert (
        len(
            slurm.run(
                "sacct", "-X", "-n", "-P", "--name", names.pop(), "-o", "JobID"
            ).split()
        )
        == 2
    )


@ENGINES
def test_a_requeued_run_goes_on(
    prepared_on_slurm: Zsg, slurm: SlurmCluster, tasks: Path, engine: str
) -> None:
    """Requeued in the middle, a run goes on where it was as its second attempt, and
    adds no point twice."""
    zsg = prepared_on_slurm
    zsg(
        "submit",
        small_grid(zsg, tasks, steps=LONG, state_every=5),
        "--profile",
        profile(zsg, engine=engine),
    )
    job = wait_for_step(zsg, 8)
    slurm.run("scontrol", "requeue", job)
    wait_for_state(slurm, job, "PENDING")
    assert zsg.status()[0]["state"] == "queued", (
        "a run that waits to start again has not ended"
    )
    slurm.start_requeued()
    [row] = wait_until_ended(zsg, 300)
    zsg("sync")

    assert (row["state"], row["attempt"], row["slurm"]) == ("done", 2, job)
    assert_no_step_twice(zsg, row["run"], LONG)
    assert_exactly_once(zsg.work, "small", [row["run"]])
    assert "zsg.flag" not in child_runs(zsg.work, "small")[row["run"]]["tags"]


@pytest.mark.soak(part="slurm")
def test_a_run_goes_on_after_its_time_limit_and_after_scancel(
    prepared_on_slurm: Zsg, slurm: SlurmCluster, tasks: Path
) -> None:
    """Not to go on by itself a run waits for the next submit, cancelled for --retry; no
    step is lost, no rank left."""
    zsg = prepared_on_slurm
    grid, place = (
        small_grid(zsg, tasks, steps=LONG, state_every=50),
        profile(zsg, nodes=2),
    )
    place.write_text(place.read_text().replace("{par", "{on_time_limit: none, par"))
    zsg("submit", grid, "--profile", place)
    job = wait_for_step(zsg, 4)
    slurm.run("scancel", "--signal=USR2", job)  # as Slurm does before the time limit
    assert_leaves(zsg, slurm, job)
    [row] = zsg.status()
    assert (row["state"], row["evidence"]) == ("waiting", "zsg submit resumes it")
    assert row["cause"] == f"stopped at step {row['step']} (time limit or preemption)"
    assert f"resumes from step {row['step']}" in zsg("plan", grid, "--profile", place)

    zsg("submit", grid, "--profile", place)
    job = wait_for_step(zsg, row["step"] + 50)
    slurm.run("scancel", job)
    assert_leaves(zsg, slurm, job)
    [row] = zsg.status()
    assert row["state"] == "cancelled"
    assert f"and resumes from step {row['step']}" in zsg(
        "plan", grid, "--profile", place
    )

    zsg("submit", grid, "--profile", place, "--retry")
    [row] = wait_until_ended(zsg, 300)
    zsg("sync")
    assert (row["state"], row["attempt"]) == ("done", 3)
    assert_no_step_twice(zsg, row["run"], LONG)
    assert_exactly_once(zsg.work, "small", [row["run"]])


@pytest.mark.soak(part="slurm")
def test_a_preempted_run_goes_on(
    prepared_on_slurm: Zsg, slurm: SlurmCluster, tasks: Path
) -> None:
    """A job of a higher partition takes the nodes; afterwards the run goes on where it
    was, by itself."""
    zsg = prepared_on_slurm
    zsg(
        "submit",
        small_grid(zsg, tasks, steps=LONG, state_every=5),
        "--profile",
        profile(zsg, nodes=2),
    )
    job = wait_for_step(zsg, 8)
    slurm.run(
        "sbatch",
        "-p",
        "urgent",
        "-N2",
        "--exclusive",
        "-o",
        "/dev/null",
        "--wrap",
        "true",
    )
    wait_for_state(slurm, job, "PENDING")
    assert zsg.status()[0]["state"] == "queued"
    slurm.start_requeued()
    [row] = wait_until_ended(zsg, 300)

    assert (row["state"], row["attempt"], row["slurm"]) == ("done", 2, job)
    assert_no_step_twice(zsg, row["run"], LONG)


def test_a_failed_prepare_fails_its_runs(
    zsg_on_slurm: Zsg, tasks: Path, tmp_path: Path
) -> None:
    """Runs whose prepare job failed never stay pending: they are `failed`, with the
    line that says why."""
    zsg = zsg_on_slurm
    broken = break_an_instance(tasks, tmp_path / "broken")
    path = zsg.folder / UGLY / broken.relative_to(tmp_path / "broken")
    zsg(
        "submit",
        small_grid(zsg, tmp_path / "broken", "[cluster, random]"),
        "--profile",
        profile(zsg),
    )
    rows = wait_until_ended(zsg, 120)

    assert {(row["state"], row["cause"]) for row in rows} == {
        ("failed", "prepare failed")
    }
    assert all(f"{path}: Instances[3]: Expected" in row["evidence"] for row in rows)


def _names(slurm: SlurmCluster, job: str) -> list[str]:
    return slurm.run("sacct", "-X", "-n", "-P", "-j", job, "-o", "JobName").split()


def _kill_at(submit: subprocess.Popen, ledger: Path, rows: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and submit.poll() is None:
        if ledger.exists() and ledger.read_bytes().count(b"\n") >= rows:
            time.sleep(random.random() * 0.02)
            submit.send_signal(signal.SIGKILL)
            break
    submit.wait()
