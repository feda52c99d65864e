"""`import zsg` on a real Slurm: are a program's runs handed over, followed and read as
those of the command line?"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lib.command_line import Zsg
from tests.lib.slurm_runs import profile
from tests.lib.small_runs import small_grid

pytestmark = [pytest.mark.slurm, pytest.mark.soak(part="slurm")]

PROGRAM = """
import json, sys, time
import zsg

file, profile = sys.argv[1:]
grid = zsg.load_grid(file, profile=profile)
planned = zsg.plan(grid)
first = zsg.submit(planned)
again = zsg.plan(grid)
until = time.monotonic() + 600
while zsg.status(grid, states=["waiting", "queued", "running"]):
    assert time.monotonic() < until, zsg.status(grid)
    time.sleep(2)
frame = zsg.metrics(grid)
told = {
    "workspace": str(grid.workspace),
    "planned": [run.action for run in planned.runs],
    "first": [run.state for run in first],
    "again": [run.action for run in again.runs],
    "ends": [[run.run, run.state, run.step] for run in zsg.status(grid)],
    "jobs": [run.details["slurm"] for run in zsg.status(grid)],
    "steps": sorted(int(step) for step in set(frame["step"])),
    "page": zsg.report(grid, out="page").stat().st_size,
}
print(json.dumps(told))
"""


def test_a_program_submits_follows_and_reads_runs(
    prepared_on_slurm: Zsg, tasks: Path
) -> None:
    """submit returns once the jobs are handed over; planned again they are under way;
    what came of them is what the command line shows."""
    zsg = prepared_on_slurm
    grid = small_grid(zsg, tasks, "[cluster, random]")
    program = [sys.executable, "-c", PROGRAM, str(grid), str(profile(zsg))]

    ended = subprocess.run(
        program,
        cwd=zsg.folder,
        env=zsg.env,
        text=True,
        capture_output=True,
        timeout=900,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)  # zsg itself has printed nothing
    assert told["workspace"] == str(zsg.work)
    assert told["planned"] == ["submit", "submit"]
    assert {"queued", "running", "waiting"} >= set(told["first"])
    assert told["again"] == ["skip", "skip"]
    assert all(state == "done" and step == 12 for _, state, step in told["ends"])
    assert all(told["jobs"])
    assert told["steps"] == list(range(13))
    assert told["page"] > 10_000
    rows = [[row["run"], row["state"], row["step"]] for row in zsg.status()]
    assert rows == told["ends"]
