"""How fast do journals reach MLflow, how many jobs may write at once, and what does the
record cost a training step?

    python -m benchmarks.tracking --json

All against real servers on sqlite, begun here. Delivery is held against bare
`log_batch` calls of 1,000 metrics to the same server, by turns; clients that write at
once against MLflow's server as it is set up by itself (the peer is what of their
batches it lost) and against `zsg server`; a step's cost is that of its journal row, as
the training thread pays it. The back-fill is of runs that were trained without a route
to the server: 180 checkpoints of ten metrics each.

It takes three to five minutes on two cores with much beside; `--runs 1000 --writers
128` is the whole of it, and takes far longer.
Interrupted or told to end (SIGINT, SIGTERM), it ends its servers first.
"""

import argparse
import contextlib
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from benchmarks.rows import Row, show
from jobs.contract import attempt as attempts
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
from jobs.tracking import mlflow_sync
from jobs.tracking.tracker import MlflowClient, make_store
from launcher.mlflow.mlflow_server import QUIET

RUNS, CHECKPOINTS, METRICS, WRITERS, BATCHES = 20, 180, 10, 32, 4
REPEATS = 3
# seconds that a back-fill may take: for the program to begin, and for each of its runs
BEGIN_S, FILL_S = 10.0, 0.6
SHARE, STEP_MS = 0.9, 0.1
STEPS, POINTS = 20_000, 20_000
# of a server that ends: longer than `zsg server` gives its own processes
STOPS_S = 15.0
STARTS_S = 240.0
RECIPE = {
    "schema": 1,
    "base": {"kind": "tiny"},
    "stages": [{"arrangement": {"order": "nft"}, "train": {"lr": 1e-3}}],
}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tracking", description="How fast MLflow is filled."
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--runs",
        type=int,
        default=RUNS,
        help=f"runs of the back-fill ({RUNS}); the goal grows with them",
    )
    parser.add_argument(
        "--writers",
        type=int,
        default=WRITERS,
        help=f"clients that write at once ({WRITERS})",
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=REPEATS,
        help=f"turns of delivery and bare calls ({REPEATS}); the best of each counts",
    )
    options = parser.parse_args()
    # as an interrupt: what was begun here is ended on the way out
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="zsg-") as place:
        rows = measure(Path(place), options.runs, options.writers, options.repeats)
    show(rows, options.json)


def measure(
    folder: Path, runs: int = RUNS, writers: int = WRITERS, repeats: int = REPEATS
) -> list[Row]:
    """The rows; `folder` takes the workspaces, 200 kB a run, and the servers' databases."""
    rows = [step_cost(folder)]
    stores = [folder / name / "mlflow.db" for name in ("ours", "stock")]
    make_stores(stores)
    with zsg_server(folder / "ours") as uri:
        rows += [throughput(folder, uri, repeats=repeats), back_fill(folder, uri, runs)]
        lost_by_ours = lost(uri, writers)
    with stock_server(folder / "stock") as uri:
        lost_by_stock = lost(uri, writers)
    return [*rows, many_writers(writers, lost_by_ours, lost_by_stock)]


def make_stores(paths: Sequence[Path]) -> None:
    """Makes empty stores of MLflow: the first by MLflow, which takes long, the others
    are copies."""
    first, *copies = paths
    make_store(first)
    for path in copies:
        path.parent.mkdir(parents=True)
        shutil.copy(first, path)


def step_cost(folder: Path, steps: int = STEPS) -> Row:
    """What a step that is no checkpoint pays for its row."""
    run = folder / "step"
    attempt = attempts.begin_attempt(run, "submission")
    journal = Journal(run, attempt, "train", "s")
    data = {"train/loss": 1.2345678, "train/lr": 1e-6, "train/grad_norm": 0.98765}
    taken = []
    for step in range(steps):
        began = time.perf_counter()
        journal.add_row(
            "metric",
            step=step,
            examples=step,
            data={**data, "speed/tokens_per_s": 1e5, "speed/mfu": 0.4},
        )
        taken.append(time.perf_counter() - began)
        time.sleep(0 if step % 100 else 0.001)
    journal.close()
    median = statistics.median(taken) * 1e3
    return Row(
        "the training thread, a step", median, "ms", None, STEP_MS, median <= STEP_MS
    )


def throughput(
    folder: Path, uri: str, points: int = POINTS, repeats: int = REPEATS
) -> Row:
    """Metrics a second of one delivery, beside the same number in bare calls; by turns,
    the best of each."""
    ours: list[float] = []
    bare: list[float] = []
    for number in range(repeats):
        grid = f"fast{number}"
        place = workspace(
            folder / grid, grid, uri, runs=1, checkpoints=points // METRICS
        )
        began = time.perf_counter()
        sent = mlflow_sync.sync_grid(place, grid)["points"]
        ours.append(sent / (time.perf_counter() - began))
        bare.append(_bare(uri, points))
    best, ceiling = max(ours), max(bare)
    return Row(
        "delivery, to bare log_batch",
        best,
        "/s",
        ceiling,
        SHARE * ceiling,
        best >= SHARE * ceiling,
    )


def back_fill(folder: Path, uri: str, runs: int) -> Row:
    """Seconds for a whole grid whose nodes never reached the server."""
    place = workspace(folder / "fill", "fill", uri, runs, CHECKPOINTS)
    command = [
        sys.executable,
        "-m",
        "launcher.cli",
        "sync",
        "fill",
        "--workspace",
        str(place.root),
    ]
    began = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    took = time.perf_counter() - began
    assert (
        f"sent {runs * CHECKPOINTS * METRICS} points of {runs} runs" in done.stdout
    ), done.stdout
    goal = BEGIN_S + FILL_S * runs
    return Row(
        f"back-fill of {runs:,} runs × {CHECKPOINTS} × {METRICS}",
        took,
        "s",
        None,
        goal,
        took <= goal,
    )


def many_writers(writers: int, by_ours: float, by_stock: float) -> Row:
    """Batches in a hundred that failed, of clients that all write at once and do not try again."""
    return Row(
        f"lost of what {writers} writers sent at once",
        by_ours,
        "%",
        by_stock,
        0.0,
        by_ours == 0,
    )


def workspace(
    folder: Path, grid: str, uri: str, runs: int, checkpoints: int
) -> Workspace:
    """A grid of done runs with nothing in MLflow."""
    place = Workspace(folder)
    names = [f"{number:012x}" for number in range(runs)]
    rows = [
        {"run": name, "axes": {"train.lr": n}, "recipe": RECIPE, "model": "tiny"}
        for n, name in enumerate(names)
    ]
    write_json(
        place.grid(grid) / "grid.json", {"name": grid, "tracking": uri, "runs": rows}
    )
    job = TrainJob(
        schema=SCHEMA,
        run_id=None,
        submission="submission",
        resources=Resources(
            profile="p", nodes=1, ranks_per_node=1, cpus_per_rank=1, time_min=60
        ),
        paths=TrainPaths(workspace=str(folder), base="b"),
        code=SubmittedCode(zsg="0"),
        stage_id="s",
        recipe=RECIPE,
        checkpoints=CheckpointPlan(every=1),
        made=MadeThings(corpus="c", arrangement="a"),
        deepspeed={},
    )
    data = {"loss": 1.0, **{f"metric/{number}": 1.0 for number in range(METRICS - 1)}}
    for name in names:
        run = place.run(name)
        write_job(run, msgspec.structs.replace(job, run_id=name))
        attempt = attempts.begin_attempt(run, "submission")
        journal = Journal(run, attempt, "train", "s")
        for step in range(checkpoints):
            journal.add_row("metric", step=step, examples=step, data=data)
        journal.close()
        attempts.end_attempt(run, attempt, "done")
    return place


@contextlib.contextmanager
def zsg_server(folder: Path) -> Iterator[str]:
    """A server as `zsg server` sets it up."""
    port = _port()
    argv = [
        sys.executable,
        "-m",
        "launcher.cli",
        "server",
        "--folder",
        str(folder),
        "--port",
        str(port),
    ]
    with _started(argv, dict(os.environ), port, folder) as uri:
        yield uri


@contextlib.contextmanager
def stock_server(folder: Path) -> Iterator[str]:
    """A server with MLflow's own settings, but for telemetry and job queues, and of as
    many workers."""
    port, database = _port(), folder / "mlflow.db"
    make_store(database)
    argv = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        f"sqlite:///{database}",
    ]
    argv += [
        "--artifacts-destination",
        str(folder / "artifacts"),
        "--port",
        str(port),
        "--workers",
        "4",
    ]
    with _started(
        argv, {**os.environ, **QUIET, "UVICORN_APP_DIR": str(folder)}, port, folder
    ) as uri:
        yield uri


@contextlib.contextmanager
def _started(
    argv: Sequence[str], env: dict[str, str], port: int, folder: Path
) -> Iterator[str]:
    """The address of a server, once it answers; at the end none of its processes is left."""
    folder.mkdir(parents=True, exist_ok=True)
    uri = f"http://127.0.0.1:{port}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            argv, env=env, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait_until_healthy(uri, process, folder / "log")
        yield uri
    finally:
        _end_group(process)


def _wait_until_healthy(
    uri: str, process: "subprocess.Popen[bytes]", log: Path
) -> None:
    """Returns once a server answers. RuntimeError, with its log, where it does not."""
    until = time.monotonic() + STARTS_S
    while True:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"{uri}/health", timeout=5),
        ):
            return
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(log.read_text())
        time.sleep(0.2)


def _end_group(process: "subprocess.Popen[bytes]") -> None:
    """Ends a process and those of its group, at the latest by SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, number)
            process.wait(STOPS_S)


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _bare(uri: str, points: int) -> float:
    """Metrics a second of bare calls."""
    from mlflow.entities import Metric

    client = MlflowClient(uri)
    run = client.create_run("0").info.run_id
    keys = ["loss", *(f"metric/{number}" for number in range(METRICS - 1))]
    made = [
        Metric(keys[n % METRICS], 1.0, 1_700_000_000_000 + n // METRICS, n // METRICS)
        for n in range(points)
    ]
    began = time.perf_counter()
    for start in range(0, points, 1000):
        client.log_batch(run, metrics=made[start : start + 1000])
    return points / (time.perf_counter() - began)


def lost(uri: str, writers: int) -> float:
    """The batches in a hundred that got an error: each writer makes a run and sends it
    four batches of 50."""
    together = threading.Barrier(writers)
    failed: list[int] = []

    def write(_number: int) -> None:
        together.wait()
        failed.append(_count_lost_batches(uri))

    pool = ThreadPoolExecutor(writers)
    try:
        list(pool.map(write, range(writers)))
    finally:
        # interrupted, it waits for no answer: the server is ended
        together.abort()
        pool.shutdown(wait=False, cancel_futures=True)
    return 100 * sum(failed) / (writers * BATCHES)


def _count_lost_batches(uri: str) -> int:
    """How many of one writer's batches got an error; all where its run could not be made."""
    from mlflow.entities import Metric

    client = MlflowClient(uri)
    try:
        run = client.create_run("0").info.run_id
    except Exception:
        return BATCHES
    count = 0
    for batch in range(BATCHES):
        metrics = [Metric(f"k{n}", 1.0, 1_700_000_000_000, batch) for n in range(50)]
        try:
            client.log_batch(run, metrics=metrics)
        except Exception:
            count += 1
    return count


if __name__ == "__main__":
    main()
