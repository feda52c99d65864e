"""How long does `zsg status` take where there are very many runs, and how often does it ask Slurm?

    python -m benchmarks.status --json

Whole processes on a workspace of 10,000 runs: half finished and never looked at, 200
with live heartbeats, the rest pending, but for some whose nodes failed. squeue and
sacct are scripts that answer with texts and count their calls: what is measured is zsg.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.rows import Row, show
from jobs.contract import attempt as attempts
from jobs.contract.folder import SCHEMA, Workspace, write_json
from jobs.contract.heartbeat import NAME, TRAINING
from jobs.contract.job_file import (
    CheckpointPlan,
    MadeThings,
    Resources,
    TrainJob,
    TrainPaths,
    write_job,
)
from launcher.status.terminal_cache import RESTED_S
from launcher.submission import workflow
from launcher.workspace.ledger import Ledger
from zsg_core import skills

RUNS, LIVE, ARRAY = 10_000, 200, 1000
# every so many-th of the pending runs has left the queue without a record: accounting knows of it
LOST = 20
REPEATS = 3
FIRST_S, WARM_S, JSON_S, MEMORY_MB = 4.0, 1.5, 2.0, 400
GRID = """\
name: many
defaults:
  data: {{path: {tasks}}}
  train: {{steps: 60}}
grid:
  arrangement.order: [random]
"""
ORDERS = ("nft", "rt", "fft", "random", "cluster")
PROGRAM = "#!/bin/sh\necho {name} >> '{folder}/calls'\ncat '{folder}/{name}.txt'\n"


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.status", description="How long zsg status takes."
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--runs", type=int, default=RUNS, help="runs of the grid")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        show(measure(Path(folder), asked.runs), asked.json)


def measure(folder: Path, runs: int = RUNS, live: int = LIVE) -> list[Row]:
    """The rows; `folder` takes a workspace and the scripts that stand for Slurm."""
    place = many_runs(folder, runs, live)
    first_s, first_mb = _status(folder, place)
    squeue, sacct = _calls(folder)
    warm_s, warm_mb = min(_status(folder, place) for _ in range(REPEATS))
    json_s, json_mb = min(_status(folder, place, "--json") for _ in range(REPEATS))
    most_mb = max(first_mb, warm_mb, json_mb)
    size = f"zsg status of {runs} runs"
    return [
        Row(f"{size}, the first time", first_s, "s", None, FIRST_S, first_s <= FIRST_S),
        Row(f"{size}, again", warm_s, "s", None, WARM_S, warm_s <= WARM_S),
        Row(f"{size}, --json", json_s, "s", None, JSON_S, json_s <= JSON_S),
        Row("its memory at most", most_mb, "MB", None, MEMORY_MB, most_mb <= MEMORY_MB),
        Row("squeue calls of one status", squeue, "", None, 1, squeue == 1),
        Row("sacct calls of one status", sacct, "", None, 1, sacct <= 1),
    ]


def many_runs(folder: Path, runs: int, live: int) -> Workspace:
    """A workspace of one grid on Slurm: half of its runs done, `live` under way, the
    rest pending."""
    skills.write_tasks(folder / "tasks", per_task=2)
    (folder / "grid.yaml").write_text(
        GRID.format(tasks=folder / "tasks"), encoding="utf-8"
    )
    [run] = workflow.open_grid(folder / "grid.yaml", "local", folder / "work").runs
    place = Workspace(folder / "work")
    ids = [f"{number:012x}" for number in range(runs)]
    axes = [
        {"arrangement.order": ORDERS[n % len(ORDERS)], "seed": n // len(ORDERS)}
        for n in range(runs)
    ]
    rows = [
        {"run": i, "axes": a, "recipe": run.recipe, "model": "tiny"}
        for i, a in zip(ids, axes, strict=True)
    ]
    write_json(
        place.grid("many") / "grid.json",
        {"schema": 1, "name": "many", "before": [], "runs": rows, "former": []},
    )
    job = TrainJob(
        schema=SCHEMA,
        run_id=None,
        submission="submission",
        resources=Resources(
            profile="p",
            nodes=2,
            ranks_per_node=8,
            cpus_per_rank=1,
            time_min=60,
            gpus_per_node=8,
            hang_min=20,
        ),
        paths=TrainPaths(workspace=str(place.root), base="b"),
        stage_id="1",
        recipe=run.recipe,
        checkpoints=CheckpointPlan(every=2),
        made=MadeThings(corpus="c", arrangement="a"),
        deepspeed={},
    )
    queue, accounted = [], []
    ledger = Ledger(place)
    for start in range(0, runs, ARRAY):
        of = ids[start : start + ARRAY]
        submission = ledger.intend(
            scheduler="slurm",
            kind="train",
            grid="many",
            items=[f"runs/{i}" for i in of],
        )
        jobs = [f"{7000 + start // ARRAY}_{task}" for task in range(len(of))]
        ledger.submitted(submission, jobs)
        ours = f"{os.getuid()}|{submission.name}"
        for number, (run_id, job_id) in enumerate(zip(of, jobs, strict=True), start):
            path = place.run(run_id)
            path.mkdir(parents=True)
            write_job(path, msgspec.structs.replace(job, run_id=run_id))
            if number < runs // 2:
                _begin(path, submission.id, job_id, done=True)
            elif number < runs // 2 + live:
                _begin(path, submission.id, job_id, done=False)
                queue.append(
                    f"{job_id}|RUNNING|None|2026-11-25T10:00:00|2:00:00|n[1-2]|{ours}"
                )
            elif number % LOST == 0:
                accounted.append(f"{job_id}|NODE_FAIL|1:0|{ours}")
            else:
                queue.append(f"{job_id}|PENDING|Resources|N/A|0:00||{ours}")
    _programs(folder, queue, accounted)
    time.sleep(RESTED_S)  # what was written just now is not remembered
    return place


def _begin(path: Path, submission: str, job_id: str, done: bool) -> None:
    nonce = path.name * 2
    row = {
        "attempt": 1,
        "submission": submission,
        "slurm_job_id": job_id,
        "restart_count": 0,
        "nonce": nonce,
    }
    row |= {"host": "n1", "started": attempts.now_ms(), "schema": 1}
    (path / "attempt.json").write_text(json.dumps(row), encoding="utf-8")
    ended: dict[str, Any] = {
        "step": 60,
        "steps": 60,
        "loss": 1.4,
        "checkpoints": list(range(0, 61, 2)),
    }
    ended |= {
        "cause": None,
        "evidence": None,
        "ended": attempts.now_ms(),
        "outcome": "done",
        **row,
    }
    beat = {
        "schema": 1,
        "attempt": 1,
        "nonce": nonce,
        "doing": TRAINING,
        "doing_s": 9,
        "step": 30,
        "steps": 60,
    }
    beat |= {
        "step_s": 2,
        "loss": 1.9,
        "train_loss": 2.0,
        "note": None,
        "longest_s": {},
        "ts": attempts.now_ms(),
    }
    beat |= {"steps_per_s": 0.01, "tokens_per_s": 12345.6}
    name, told = ("exit.json", ended) if done else (NAME, beat)
    (path / name).write_text(json.dumps(told), encoding="utf-8")


def _programs(folder: Path, queue: Sequence[str], accounted: Sequence[str]) -> None:
    (folder / "bin").mkdir()
    for name, answer in (("squeue", queue), ("sacct", accounted)):
        (folder / f"{name}.txt").write_text(
            "".join(f"{line}\n" for line in answer), encoding="utf-8"
        )
        (folder / "bin" / name).write_text(
            PROGRAM.format(name=name, folder=folder), encoding="utf-8"
        )
        (folder / "bin" / name).chmod(0o755)


def _calls(folder: Path) -> tuple[int, int]:
    called = (folder / "calls").read_text(encoding="utf-8").split()
    return called.count("squeue"), called.count("sacct")


def _status(folder: Path, place: Workspace, *options: str) -> tuple[float, float]:
    """Seconds and megabytes of one `zsg status`, with every live run's heart beating."""
    for path in place.root.glob(f"runs/*/{NAME}"):
        os.utime(path)
    env = os.environ | {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "120",
    }
    command = [
        sys.executable,
        "-m",
        "launcher.cli",
        "status",
        "--workspace",
        str(place.root),
        *options,
    ]
    began = time.perf_counter()
    process = subprocess.Popen(
        command, env=env, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    )
    _, code, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}")
    return time.perf_counter() - began, used.ru_maxrss / 1024


if __name__ == "__main__":
    main()
