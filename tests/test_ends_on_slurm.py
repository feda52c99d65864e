"""Is what ends badly on a real Slurm told with its cause, and is nothing left of it?"""

import json
from pathlib import Path

import pytest
from builders import copy_made
from conftest import Zsg
from small_runs import small_grid
from test_on_slurm import wait_until_ended

pytestmark = pytest.mark.slurm

LIGHT = Path(__file__).with_name("light_engine")
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
    return zsg.write("ends.yaml", PROFILE.format(light=LIGHT, setup=setup, step_s=step_s))


def test_a_setup_line_that_fails_ends_the_job(zsg_on_slurm: Zsg, tasks: Path, made: Path) -> None:
    """Of a prepare job and of a run: cause `setup` with the line and what it printed; mended, retry runs it."""
    zsg, failing = zsg_on_slurm, "['module load cuda/12.1', export A=1]"
    zsg("submit", small_grid(zsg, tasks), "--profile", light_profile(zsg, failing))
    [row] = wait_until_ended(zsg, 120)
    told = "setup line 1 of 2 ended with 127: module load cuda/12.1 (it printed: module: command not found)"
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
