"""Is what ends badly on a real Slurm told with its cause, and is nothing left of it?"""

import contextlib
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from jobs.contract.folder import Workspace
from launcher.grids.selection import EVERYTHING
from launcher.lifecycle import cancel
from launcher.status import queries, slurm_states
from launcher.workspace.ledger import Ledger
from tests.lib.builders import copy_made
from tests.lib.command_line import Zsg, wait_until
from tests.lib.light_grid import LIGHT
from tests.lib.slurm_cluster import SlurmCluster, processes_of
from tests.lib.slurm_runs import wait_until_ended
from tests.lib.small_runs import small_grid
from tests.lib.train_bench import reached

pytestmark = pytest.mark.slurm

PROFILE = """
name: ends
kind: slurm
prepare: {{time_min: 30}}
train: {{nodes: 1, ranks_per_node: 1, time_min: 30}}
slurm: {{partition: main}}
environment: {{set: {{PYTHONPATH: {light}, LIGHT_STEP_S: "{step_s}"}}}}
setup: {setup}
"""


def light_profile(zsg: Zsg, setup: str = "[]", step_s: float = 0) -> Path:
    """A profile whose train jobs compute nothing, so that they start and end in a moment."""
    return zsg.write(
        "ends.yaml", PROFILE.format(light=LIGHT, setup=setup, step_s=step_s)
    )


def test_a_setup_line_that_fails_ends_the_job(
    zsg_on_slurm: Zsg, tasks: Path, made: Path
) -> None:
    """Of a prepare job and of a run: cause `setup` with the line and what it printed;
    mended, retry runs it."""
    zsg, failing = zsg_on_slurm, "['module load cuda/12.1', export A=1]"
    zsg("submit", small_grid(zsg, tasks), "--profile", light_profile(zsg, failing))
    [row] = wait_until_ended(zsg, 120)
    told = (
        "setup line 1 of 2 ended with 127: module load cuda/12.1 (it printed: module: command not"
        " found)"
    )
    assert (row["state"], row["cause"]) == ("failed", "prepare failed")
    assert row["evidence"].startswith(f"setup: {told} (prepare/")

    copy_made(made, zsg.work)
    zsg("retry", "small", "--yes")
    [row] = wait_until_ended(zsg, 120)
    assert (row["state"], row["cause"], row["evidence"]) == ("failed", "setup", told)
    why = json.loads(zsg("why", row["run"], "--json"))
    assert (why["cause"], why["evidence"]) == ("setup", told)
    assert "module: command not found" in zsg("logs", row["run"])

    light_profile(zsg, "[export A=1]")
    zsg("retry", "small", "--yes")
    [row] = wait_until_ended(zsg, 120)
    assert row["state"] == "done"


def steps_of(slurm: SlurmCluster, job: str) -> list[int]:
    """The slurmstepd of a job's script; other clusters of this machine have jobs of its
    number, too."""
    found = []
    for pid in processes_of(slurm.folder):
        process = Path(f"/proc/{pid}")
        with contextlib.suppress(OSError):  # it ended while we looked
            # It has written `[7.batch]` over its own words, as far as there is room.
            if (
                (process / "cmdline")
                .read_bytes()
                .startswith(f"slurmstepd: [{job}.b".encode())
            ):
                found.append(int(process.name))
    return found


def test_an_allocation_that_outlives_its_run_is_flagged_and_freed(
    prepared_on_slurm: Zsg,
    slurm: SlurmCluster,
    tasks: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its script's slurmstepd is killed with -9: the run is done, its job stays; status
    says so, cancel ends it."""
    zsg = prepared_on_slurm
    zsg(
        "submit",
        small_grid(zsg, tasks, steps=80),
        "--profile",
        light_profile(zsg, step_s=0.1),
    )
    begun = lambda: [  # noqa: E731
        folder for folder in (zsg.work / "runs").glob("*") if reached(folder, 2)
    ]
    wait_until(begun, 120)
    job = json.loads((begun()[0] / "attempt.json").read_text())["slurm_job_id"]
    number = slurm.run("squeue", "-h", "-j", job, "-o", "%A").strip()
    [stepd] = steps_of(slurm, number)
    os.kill(stepd, signal.SIGKILL)
    [row] = wait_until_ended(zsg, 120)
    assert (row["state"], row["flag"]) == ("done", None)  # it may be on its way out

    monkeypatch.setattr(slurm_states, "HELD_S", 2.0)
    for key in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(key, zsg.env[key])
    flags: list[dict[str, Any]] = []

    def is_flagged() -> bool:
        flags[:] = [
            one
            for one in queries.status_rows(Workspace(zsg.work), "small")
            if one["flag"]
        ]
        return bool(flags)

    wait_until(is_flagged, 30)
    assert (
        flags[0]["state"],
        f"Slurm job {job} still holds its allocation on n" in flags[0]["flag"],
    ) == ("done", True)
    decision = cancel.plan_cancellation(
        Workspace(zsg.work), ["small"], EVERYTHING, force=False
    )
    assert decision.stop == decision.ended == [f"runs/{row['run']}"]
    cancel.carry_out(
        Workspace(zsg.work), decision.stop, save=False, ended=decision.ended
    )
    wait_until(
        lambda: not slurm.run("squeue", "-h", "-r", "--user", "root", "-o", "%i"), 60
    )
    [row] = zsg.status()
    assert (row["state"], row["flag"]) == ("done", None)


def test_a_prepare_job_that_is_killed_is_made_again(
    zsg_on_slurm: Zsg, slurm: SlurmCluster, tasks: Path, made: Path
) -> None:
    """Ended from outside it leaves no record; its run has failed for it, with the
    proof, and retry makes it again."""
    zsg = zsg_on_slurm
    shutil.copytree(made / "bases", zsg.work / "bases")  # which takes torch to make
    zsg("submit", small_grid(zsg, tasks), "--profile", light_profile(zsg, "[sleep 60]"))
    logs = lambda: zsg.work.glob("submissions/*/*_log.out")  # noqa: E731
    wait_until(lambda: any("setup line 1" in log.read_text() for log in logs()), 90)
    slurm.run("scancel", "--name", _prepare_name(zsg))
    rows: list[dict[str, Any]] = []

    def has_failed() -> bool:
        rows[:] = zsg.status()
        return rows[0]["state"] == "failed"

    wait_until(has_failed, 90)
    assert rows[0]["cause"] == "prepare failed"
    assert rows[0]["evidence"].startswith(
        "cancelled: setup line 1 of 1 is the last that began: sleep 60 "
    )
    assert "(prepare/" in rows[0]["evidence"]
    wait_until(
        lambda: (
            "CANCELLED AT"
            in json.loads(zsg("why", rows[0]["run"], "--json"))["evidence"]
        ),
        60,
    )
    assert not list(zsg.work.glob("prepare/*/exit.json"))

    light_profile(zsg)
    plan = zsg(
        "plan",
        zsg.folder / "small.yaml",
        "--profile",
        zsg.folder / "ends.yaml",
        "--retry",
        "--all",
    )
    assert "makes arrangements/" in plan.replace("\n", " ")
    zsg("retry", "small", "--yes")
    [row] = wait_until_ended(zsg, 240)
    assert row["state"] == "done", row


def _prepare_name(zsg: Zsg) -> str:
    """The name of the newest prepare job."""
    found = [
        one
        for one in Ledger(Workspace(zsg.work)).submissions.values()
        if one.kind == "prepare"
    ]
    return found[-1].name
