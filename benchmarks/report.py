"""How long does `zsg report` take on many runs, against parsing their journals and nothing else?

    python -m benchmarks.report --json

A grid of 1,000 runs, 5 orders × 200 seeds, written by the journal itself: of each run
200 training rows, and 20 checkpoints with the loss and five more keys and the losses of
595 items of 119 tasks. The peer is `json.loads` of every line of the same files. Whole
processes, by turns; the memory is the report's at most.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.rows import Row, show
from jobs.contract import attempt as attempts
from jobs.contract import item_losses
from jobs.contract.folder import SCHEMA, Workspace, write_json
from jobs.contract.job_file import (
    CheckpointPlan,
    MadeThings,
    Resources,
    SubmittedCode,
    TrainJob,
    TrainPaths,
    write_job,
)
from jobs.contract.journal import Journal

RUNS, STEPS, EVERY = 1000, 200, 10
TASKS, ITEMS_PER_TASK = 119, 5
ORDERS = ("nft", "rt", "fft", "random", "cluster")
OTHERS = ("loss_token_mean", "loss_quick_120", "rouge1", "rougeL", "exact_match")
GOAL_S, MEMORY_MB, PAGE_MB = 30.0, 1500, 5.0
PARSE = """
import json, pathlib, sys
for path in pathlib.Path(sys.argv[1]).glob("runs/*/journal/*.jsonl"):
    for line in path.open(encoding="utf-8"):
        json.loads(line)
"""


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report", description="How long zsg report takes."
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--runs", type=int, default=RUNS, help="runs of the grid")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        show(measure(Path(folder), asked.runs), asked.json)


def measure(folder: Path, runs: int = RUNS) -> list[Row]:
    """The rows; `folder` takes the workspace, 120 kB a run."""
    place = many_runs(folder / "work", runs)
    peer, _ = _taken([sys.executable, "-c", PARSE, str(place.root)])
    command = [
        sys.executable,
        "-m",
        "launcher.cli",
        "report",
        "many",
        "--workspace",
        str(place.root),
    ]
    seconds, memory = _taken(command)
    page = (place.grid("many") / "report" / "report.html").stat().st_size / 1e6
    what = f"zsg report of {runs} runs"
    return [
        Row(
            f"{what}; peer: parsing their journals",
            seconds,
            "s",
            peer,
            GOAL_S,
            seconds <= GOAL_S,
        ),
        Row(
            f"{what}: its memory at most",
            memory,
            "MB",
            None,
            MEMORY_MB,
            memory <= MEMORY_MB,
        ),
        Row(f"{what}: the page", page, "MB", None, PAGE_MB, page <= PAGE_MB),
    ]


def _taken(command: Sequence[str]) -> tuple[float, float]:
    """Seconds and megabytes of a process."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    )
    _, code, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}")
    return time.perf_counter() - began, used.ru_maxrss / 1024


def many_runs(root: Path, runs: int) -> Workspace:
    """A workspace of one grid, whose curves fall to a level of their order with noise
    of their seed."""
    place, listed = Workspace(root), []
    steps = range(0, STEPS + 1, EVERY)
    tasks = [
        f"task{number:03}" for number in range(TASKS) for _ in range(ITEMS_PER_TASK)
    ]
    for number in range(runs):
        order, seed = number % len(ORDERS), number // len(ORDERS)
        row = listed_run(
            f"{number:012x}", {"arrangement.order": ORDERS[order], "seed": seed}, seed
        )
        rng = np.random.default_rng(number)
        fall = 1 + 0.05 * order + 3 * np.exp(-np.arange(len(steps)) / 3)
        losses = fall[:, None] + rng.normal(0, 0.05, (len(steps), len(tasks)))
        record_run(place, row, list(steps), tasks, losses, others=OTHERS)
        listed.append(row)
    write_grid(place, "many", listed)
    return place


def listed_run(
    run: str, axes: dict[str, Any], seed: int | None = None
) -> dict[str, Any]:
    """A run as a grid's record lists it; order and rate are those of its axes, the seed
    that of its arrangement."""
    order = {
        "order": axes.get("arrangement.order", "random"),
        **({} if seed is None else {"seed": seed}),
    }
    train = {"lr": axes.get("train.lr", 1e-6)}
    stage = {
        "data": {"reader": "niv2", "digest": "d" * 64},
        "arrangement": order,
        "train": train,
    }
    return {
        "run": run,
        "axes": axes,
        "recipe": {"base": {"kind": "tiny"}, "stages": [stage]},
        "model": "tiny",
    }


def write_grid(
    place: Workspace, name: str, listed: Sequence[dict[str, Any]], **more: Any
) -> None:
    """The record of a submitted grid."""
    record = {
        "schema": 1,
        "name": name,
        "tracking": None,
        "before": [],
        "runs": list(listed),
        "former": [],
        **more,
    }
    write_json(place.grid(name) / "grid.json", record)


def record_run(
    place: Workspace,
    listed: dict[str, Any],
    steps: Sequence[int],
    tasks: Sequence[str],
    losses: NDArray[np.float64],
    *,
    others: Sequence[str] = (),
    outcome: str | None = "done",
    trained: bool = True,
    before: Sequence[str] = (),
    first: int = 0,
    **ended: Any,
) -> None:
    """A run's folder with what a train job writes: `losses` (steps, items) at
    checkpoints, a row for every step.

    A stage after others says which runs have those, and after which step it begins.
    """
    folder = place.run(listed["run"])
    code = SubmittedCode(commit="c0ffee", dirty=False)
    job = TrainJob(
        schema=SCHEMA,
        run_id=folder.name,
        submission="submission",
        resources=Resources(
            profile="p", nodes=1, ranks_per_node=1, cpus_per_rank=1, time_min=60
        ),
        paths=TrainPaths(workspace=str(place.root), base="b"),
        code=code,
        stage_id="1",
        recipe={},
        before=list(before),
        checkpoints=CheckpointPlan(every=1),
        made=MadeThings(corpus="c", arrangement="a"),
        deepspeed={},
    )
    write_job(folder, job)
    attempt = attempts.begin_attempt(folder, "submission")
    item_losses.describe_items(
        folder,
        [f"{task}:{n}" for n, task in enumerate(tasks)],
        list(tasks),
        [5] * len(tasks),
        {},
    )
    journal = Journal(folder, attempt, "train", "1")
    start = {
        "event": "start",
        "device": "cpu",
        "world": 1,
        "precision": "fp32",
        "code": code.facts,
    }
    journal.add_row("event", step=first, examples=16 * first, data=start)
    for step in range(first, steps[-1] + 1):
        if trained and step > first:
            speed = {
                "train/loss": 2.0,
                "train/lr": 1e-6,
                "train/tokens": 1000 + step,
                "speed/tokens_per_s": 6789.17,
            }
            journal.add_row("metric", step=step, examples=16 * step, data=speed)
        if step in steps:
            means = losses[steps.index(step)]
            item_losses.journal_item_losses(
                journal, "loss", means, step=step, examples=16 * step
            )
            data = {
                "loss": float(np.mean(means)),
                **dict.fromkeys(others, float(means[0])),
            }
            journal.add_row("metric", step=step, examples=16 * step, data=data)
    journal.close()
    if outcome:
        attempts.end_attempt(folder, attempt, outcome, **{"step": steps[-1], **ended})


if __name__ == "__main__":
    main()
