"""Whole runs on a real Slurm: a profile, waiting for them, and what must be true of them."""

import contextlib
import os
import time
from pathlib import Path
from unittest import mock

import pytest

from jobs.contract.folder import Workspace
from launcher.status import queries
from tests.lib.command_line import Zsg, wait_until
from tests.lib.journal_rows import plain_rows
from tests.lib.light_grid import LIGHT
from tests.lib.slurm_cluster import SlurmCluster
from tests.lib.train_bench import reached

LIGHT_ENGINE = 'environment: {{set: {{PYTHONPATH: {}, LIGHT_STEP_S: "0.05"}}}}'
PROFILE = """
name: cluster
kind: slurm
prepare: {{cpus_per_rank: {prepare_cpus}, time_min: 30}}
train: {{nodes: {nodes}, ranks_per_node: 1, time_min: 60}}
slurm: {{partition: main, array_parallelism: {parallel}}}
deepspeed: {{zero_stage: {zero}}}
"""
LONG = 200  # steps that leave time to disturb a run
ACTIVE = {"waiting", "queued", "running"}


# the engine of a test of what Slurm does with a run of one rank
ENGINES = pytest.mark.parametrize(
    "engine", ["light", pytest.param("deepspeed", marks=pytest.mark.soak(part="slurm"))]
)


def profile(
    zsg: Zsg,
    nodes: int = 1,
    parallel: int = 4,
    prepare_cpus: int = 1,
    zero: int = 1,
    engine: str = "deepspeed",
) -> Path:
    """A profile of the test cluster; `light`: jobs of one rank compute without torch."""
    text = PROFILE.format(
        nodes=nodes, parallel=parallel, prepare_cpus=prepare_cpus, zero=zero
    )
    if engine == "light":
        text += LIGHT_ENGINE.format(LIGHT)
    return zsg.write(f"nodes{nodes}-zero{zero}.yaml", text)


def wait_until_ended(zsg: Zsg, limit_s: float) -> list[dict]:
    """The rows of status once no run is active, and accounting knows of all."""
    until = time.monotonic() + limit_s
    while True:
        rows = status_rows(zsg)
        if not _are_active(rows) and not _are_active(rows := zsg.status()):
            return rows
        assert time.monotonic() < until, f"still active after {limit_s} s: {rows}"
        time.sleep(1)


def status_rows(zsg: Zsg) -> list[dict]:
    """The rows of `zsg status`, without a process: each start of the command line takes
    from the jobs that are waited for."""
    workspace = Workspace(Path(zsg.env.get("ZSG_WORKSPACE", zsg.work)))
    with mock.patch.dict(os.environ, zsg.env, clear=True):
        return queries.status_rows(workspace, None)


def _are_active(rows: list[dict]) -> bool:
    return any(row["state"] in ACTIVE | {"unknown"} for row in rows)


def agree_with_sacct(slurm: SlurmCluster, rows: list[dict]) -> None:
    """Every row is done by zsg and COMPLETED by accounting, under the id that zsg gives.

    A run tells its end before its process has left and Slurm has noticed: accounting is
    given a minute.
    """
    until = time.monotonic() + 60
    for row in rows:
        expected = [f"{row['slurm']}|COMPLETED"]
        while (
            shown := _accounted(slurm, row["slurm"])
        ) != expected and time.monotonic() < until:
            time.sleep(1)
        assert (row["state"], shown) == ("done", expected)


def assert_no_step_twice(zsg: Zsg, run: str, steps: int) -> None:
    """Over all its attempts a run has computed each step once: every later one went on
    where the last had saved."""
    rows = plain_rows(zsg.work / "runs" / run)
    assert [row["step"] for row in rows if "train/loss" in row["data"]] == list(
        range(1, steps + 1)
    )


def _accounted(slurm: SlurmCluster, job: str) -> list[str]:
    return slurm.run("sacct", "-X", "-n", "-P", "-j", job, "-o", "JobID,State").split()


def wait_for_step(zsg: Zsg, step: int) -> str:
    """The Slurm id of the one run, at once when it has reached a step: to ask Slurm
    then would give it a start."""
    wait_until(lambda: status_rows(zsg)[0]["state"] == "running", 240)
    [row] = zsg.status()
    wait_until(lambda: reached(zsg.work / "runs" / row["run"], step), 240)
    return row["slurm"]


def assert_leaves(zsg: Zsg, slurm: SlurmCluster, job: str) -> None:
    """A job's ranks end well before Slurm's KillWait of 30 s; nothing of them stays on a node."""
    started = time.monotonic()
    while slurm.run("squeue", "-h", "-j", job, "-o", "%T") or _ranks(zsg):
        assert time.monotonic() - started < 25
        time.sleep(0.5)


def _ranks(zsg: Zsg) -> list[str]:
    """The processes whose command names the workspace."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            found += [command] if str(zsg.work) in command else []
    return found


def wait_for_state(slurm: SlurmCluster, job: str, state: str) -> None:
    until = time.monotonic() + 60
    while slurm.run("squeue", "-h", "-j", job, "-o", "%T").strip() != state:
        assert time.monotonic() < until
        time.sleep(0.3)
