"""How long after its snapshot can a checkpoint's metric be read from MLflow, while the run trains?

A real MLflow server, a train job and an evaluate job beside it, both of which send to
the server while they work. A snapshot counts from its commit, a value from the first
time that the server, asked over and over, gives it to a reader.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.rows import Row

ASKED_EVERY_S = 0.2
LIMIT_S = 900.0


def rows(run: Path, job: Path, uri: str, grid: str, key: str) -> list[Row]:
    """The median and the longest lag of a run's snapshots, both jobs being started now."""
    return summed(measured(run, job, uri, grid, key), evaluations_s(run))


def measured(run: Path, job: Path, uri: str, grid: str, key: str) -> dict[int, float]:
    """Seconds from a snapshot's commit until a reader has its value, by step.
    RuntimeError where a job ended badly."""
    jobs = [
        subprocess.Popen(
            [sys.executable, "-m", "jobs.entry", str(one)], stderr=subprocess.DEVNULL
        )
        for one in (run, job)
    ]
    until, seen, values = (
        time.monotonic() + LIMIT_S,
        dict[int, float](),
        reader(uri, grid, run.name, key),
    )
    try:
        while (
            any(one.poll() is None for one in jobs) or set(committed(run)) - seen.keys()
        ):
            now = time.time()
            for step in values() - seen.keys():
                seen[step] = now
            if time.monotonic() > until or any(
                one.poll() not in (None, 0) for one in jobs
            ):
                raise RuntimeError(
                    f"the jobs did not end well: {[one.poll() for one in jobs]}"
                )
            time.sleep(ASKED_EVERY_S)
    finally:
        for one in jobs:
            one.terminate()
            one.wait(60)
    return {step: seen[step] - began for step, began in committed(run).items()}


def committed(run: Path) -> dict[int, float]:
    """When each snapshot of a run was committed."""
    return {
        int(path.parent.name): path.stat().st_mtime
        for path in (run / "snapshots").glob("[0-9]*/COMMIT")
    }


def reader(uri: str, grid: str, run: str, key: str) -> Callable[[], set[int]]:
    """Asks the server of which steps it has a run's metric."""
    from jobs.tracking.tracker import MlflowClient

    client, found = MlflowClient(uri), list[str]()

    def steps() -> set[int]:
        if not found:
            experiment = client.get_experiment_by_name(grid)
            of_run = f"tags.`zsg.run` = '{run}' and tags.`zsg.kind` = 'run'"
            there = (
                client.search_runs([experiment.experiment_id], of_run)
                if experiment
                else []
            )
            found.extend(one.info.run_id for one in there)
        return (
            {point.step for point in client.get_metric_history(found[0], key)}
            if found
            else set()
        )

    return steps


def evaluations_s(run: Path) -> float:
    """The median of the seconds that the evaluation of a snapshot took, as the
    evaluator tells; step 0 is none."""
    lines = [
        line
        for path in (run / "journal").glob("*-evaluate-*.jsonl")
        for line in path.read_text().splitlines()
    ]
    told, there = [json.loads(line) for line in lines], committed(run)
    of = [
        row["data"]
        for row in told
        if "generate_s" in row["data"] and row["step"] in there
    ]
    return statistics.median(one["swap_s"] + one["generate_s"] for one in of)


def summed(lags: dict[int, float], alone_s: float) -> list[Row]:
    """The rows; the peer is what the evaluation itself takes, without which no value
    can be there."""
    what = f"from a snapshot to its metric in MLflow, {len(lags)} snapshots of a run under way"
    both: list[tuple[str, Any]] = [("median", statistics.median), ("longest", max)]
    return [
        Row(f"{what}, {name}", of(lags.values()), "s", alone_s, None, None)
        for name, of in both
    ]
