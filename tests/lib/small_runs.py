"""What tests of whole runs share: small grids, what their prepare jobs make, a run that
is held under way."""

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from launcher.planning.plan import Prepare
from launcher.submission import job_files
from launcher.submission.workflow import open_grid
from tests.lib.command_line import Zsg, wait_until
from tests.lib.forked_jobs import ForkedJobs

GRID = """
name: small
defaults:
  model: {{name: tiny, hidden: 64, layers: 2, vocab: 600}}
  data: {{path: {tasks}, train_per_task: 4, test_per_task: 2, positive_examples: 0}}
  train: {{batch: 8, lr: 2e-3, max_length: 96, precision: fp32, epochs: {epochs}, steps: {steps}}}
  checkpoints: {{every: 4, state_every: {state_every}}}
grid:
  arrangement.order: {orders}
"""
UGLY = """it's $(touch pwned) `id` "数据" ünï; #&"""
LONG = 96  # steps that leave time to kill something in


def small_grid(
    zsg: Zsg,
    tasks: Path,
    orders: str = "[cluster]",
    steps: int = 12,
    state_every: int | str = "null",
) -> Path:
    """A grid file of small runs, 12 steps of 8 examples in an epoch; a shell would trip
    over the name of their data."""
    data = zsg.folder / UGLY
    data.unlink(missing_ok=True)
    data.symlink_to(tasks)
    quoted, epochs = json.dumps(str(data), ensure_ascii=False), -(-steps // 12)
    text = GRID.format(
        tasks=quoted, orders=orders, epochs=epochs, steps=steps, state_every=state_every
    )
    return zsg.write("small.yaml", text)


def make_needs(zsg: Zsg, tasks: Path, jobs: ForkedJobs) -> None:
    """Makes what small runs need, in every order that a test asks for, by one prepare
    job; no run is planned, none begins."""
    grid = small_grid(zsg, tasks, "[cluster, random, round_robin, nft, fft]")
    opened = open_grid(grid, None, zsg.work)
    workspace = opened.site.workspace
    needs = {need for run in opened.runs for need in run.needs}
    prepare = Prepare("prepare/made", opened.runs, needs)
    job_files.write_prepare(workspace, prepare, opened.site.profile, "s")
    assert jobs.run(workspace.root / prepare.item)["outcome"] == "done"


def submit_forked(zsg: Zsg, forked: Path, grid: Path, *options: str) -> str:
    """Submits runs that nobody disturbs, as forks (see conftest.forked).

    They may end before the delivery beside them has begun: then submit says that MLflow
    lacks something, and what it says is done.
    """
    printed = zsg("submit", grid, *options, "--profile", forked)
    if "MLflow did not get everything" in zsg.said:
        zsg("sync")
    return printed


def wait_for_step(work: Path, step: int) -> int:
    """The process of the one train job, once its journal has reached a step."""

    def reached() -> bool:
        return any(
            f'"step": {step},' in path.read_text()
            for path in work.glob("runs/*/journal/*.jsonl")
        )

    wait_until(reached)
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended while we looked
            if (
                f"jobs.entry\0{work}/runs/".encode()
                in (process / "cmdline").read_bytes()
            ):
                return int(process.name)
    raise AssertionError("the train job is not running")


@contextlib.contextmanager
def held(work: Path) -> Iterator[None]:
    """Within, the one train job stands still after its first steps, so that it neither
    ends nor goes on."""
    process = wait_for_step(work, 1)
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)
