"""On a real Slurm: do jobs of every kind run the copies of a grid's plugins, whatever
becomes of the files that were submitted, and whatever lies on the path of a node?"""

from pathlib import Path

import pytest

from tests.lib.builders import copy_made
from tests.lib.command_line import Zsg
from tests.lib.light_grid import LIGHT
from tests.lib.slurm_cluster import SlurmCluster
from tests.lib.slurm_runs import (
    assert_no_step_twice,
    wait_for_state,
    wait_for_step,
    wait_until_ended,
)

pytestmark = pytest.mark.slurm

STEPS = 120
HELPER = '''"""What the plugin imports."""


def measure(text):
    return len(text)
'''
PLUGIN = '''"""An order of our own, of which a file beside it is a part."""

import zsg

from lengths import measure


@zsg.order("longest_first", seeded=False)
def put_longest_first(items, seed):
    """The longest answer first."""
    return sorted(range(len(items)), key=lambda place: -measure(items[place].answer))

'''
BROKEN = 'raise SystemExit("this was edited after the submit")\n'
GRID = """
name: own
plugins: [own_orders.py, lengths.py]
defaults:
  model: {{name: tiny, hidden: 64, layers: 2, vocab: 600}}
  data: {{path: {tasks}, train_per_task: 4, test_per_task: 2, positive_examples: 0}}
  train: {{batch: 8, lr: 2e-3, max_length: 96, precision: fp32, epochs: 10, steps: {steps}}}
  checkpoints: {{every: 20, state_every: 5}}
grid: {{arrangement.order: [longest_first]}}
"""
# a folder with other files of the plugins' names comes first on the path of every job
PROFILE = """
name: cluster
kind: slurm
prepare: {{time_min: 30}}
train: {{nodes: 1, ranks_per_node: 1, time_min: 30}}
slurm: {{partition: main, array_parallelism: 4}}
environment: {{set: {{PYTHONPATH: {path}, LIGHT_STEP_S: "0.05"}}}}
"""


def write_plugin(folder: Path, plugin: str = PLUGIN, helper: str = HELPER) -> None:
    """The plugin and what it imports, in a folder."""
    (folder / "own_orders.py").write_text(plugin)
    (folder / "lengths.py").write_text(helper)


def test_jobs_run_what_was_submitted_whatever_became_of_the_files(
    zsg_on_slurm: Zsg, slurm: SlurmCluster, made: Path, tasks: Path, tmp_path: Path
) -> None:
    """Both files are broken before any job begins, and broken ones lie first on the path
    of all nodes: the prepare job runs the copies, a requeued run begins with them, and
    `verify` makes the order again by them. A submit of an edited file asks again, for
    another run."""
    zsg = zsg_on_slurm
    copy_made(made, zsg.work)
    zsg.env["HOME"] = str(zsg.folder)
    write_plugin(zsg.folder)
    (first := tmp_path / "first").mkdir()
    write_plugin(first, BROKEN, BROKEN)
    grid = zsg.write("grid.yaml", GRID.format(tasks=tasks, steps=STEPS))
    place = zsg.write("cluster.yaml", PROFILE.format(path=f"{first}:{LIGHT}"))
    slurm.run("scontrol", "update", "partitionname=main", "state=down")
    zsg("submit", grid, "--profile", place, "--allow-plugins")
    write_plugin(zsg.folder, BROKEN, BROKEN)
    slurm.run("scontrol", "update", "partitionname=main", "state=up")

    job = wait_for_step(zsg, 8)
    slurm.run("scontrol", "requeue", job)
    wait_for_state(slurm, job, "PENDING")
    slurm.start_requeued()
    [row] = wait_until_ended(zsg, 300)
    assert (row["state"], row["attempt"], row["slurm"]) == ("done", 2, job)
    assert_no_step_twice(zsg, row["run"], STEPS)

    edited = PLUGIN.replace("key=lambda place: -", "key=lambda place: +")
    write_plugin(zsg.folder, edited)
    zsg("submit", grid, "--profile", place, code=2)
    assert "own_orders.py" in zsg.said and "not allowed yet" in zsg.said
    assert "own: 1 to submit, 0 done" in zsg("plan", grid, "--profile", place)
    verified = zsg("verify", row["run"], "--steps", "0")
    assert "✓ plugin order   longest_first by the copy in" in verified
