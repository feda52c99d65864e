"""A grid whose claims are looked at while held-out splits come in, for jobs that train by
the light engine, and what its prepare jobs make."""

from pathlib import Path

from launcher.planning.plan import Prepare
from launcher.submission import job_files
from launcher.submission.workflow import open_grid
from tests.lib.command_line import Zsg
from tests.lib.forked_jobs import ForkedJobs

SPLITS = 6  # that are prepared
GRID = """
name: looked
defaults:
  model: {{name: tiny, hidden: 64, layers: 2, vocab: 600}}
  data:
    path: {tasks}
    train_per_task: 4
    test_per_task: 2
    positive_examples: 0
    held_out: {{by: seed, tasks: 6}}
  train: {{batch: 8, max_length: 96, precision: fp32, steps: {steps}}}
  checkpoints: {{every: 2, state_every: 2}}
grid:
  arrangement.order: [cluster, random]
  data.held_out.seed: {splits}
claims:
  looks: {{at: {at}}}
  list:
    - {{claim: rises, of: area, along: arrangement.order, values: [cluster, random]}}
"""


def write_looked_grid(zsg: Zsg, tasks: Path, at: list[int], steps: int = 6) -> Path:
    """A grid of two orders on each of so many held-out splits, looked at after each
    number of `at`."""
    splits = list(range(at[-1]))
    text = GRID.format(tasks=tasks, splits=splits, at=at, steps=steps)
    return zsg.write("looked.yaml", text)


def make_splits(zsg: Zsg, tasks: Path, jobs: ForkedJobs) -> None:
    """Makes what runs of the grid need on every split, by a prepare job for each; no run
    is planned, none begins."""
    grid = write_looked_grid(zsg, tasks, [4, SPLITS])
    opened = open_grid(grid, None, zsg.work)
    workspace = opened.site.workspace
    for corpus in sorted({run.corpus_id for run in opened.runs}):
        runs = [run for run in opened.runs if run.corpus_id == corpus]
        needs = {need for run in runs for need in run.needs}
        prepare = Prepare(f"prepare/{corpus}", runs, needs)
        job_files.write_prepare(workspace, prepare, opened.site.profile, "s")
        assert jobs.run(workspace.root / prepare.item)["outcome"] == "done"
