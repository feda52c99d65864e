"""Reads what a workspace holds: its grids, the states of their runs, logs and the MLflow page.

Its imports are light: people ask for states all day.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.folder import Workspace
from launcher import grid_record, show, workspaces
from launcher.ledger import Ledger
from launcher.slurm import DONE
from launcher.status import ABSENT, ACTIVE, JobState, collect
from zsg_core.errors import ClusterError, UserError

WATCH_S = 20  # the scheduler is asked no more often
SERVER_STOPS_S = 5.0
VARIABLE = "ZSG_WORKSPACE"


def workspace(path: Path | None, otherwise: str = "zsg-work") -> Workspace:
    """The workspace asked for, that of ZSG_WORKSPACE, or `otherwise`, relative to the current folder."""
    return workspaces.find(path or Path(os.environ.get(VARIABLE) or otherwise))


def status_rows(place: Workspace, grid: str | None) -> list[dict[str, Any]]:
    """The rows of `zsg status`, every grid's in turn; of what a grid no longer wants, what is still active."""
    records = [grid_record.read(place, name) for name in grid_record.names(place, grid)]
    items = {f"runs/{run['run']}" for record in records for run in grid_record.all_rows(record)}
    states = collect(place, sorted(items), Ledger(place))
    return [row for record in records for row in _rows(record, states)]


def _rows(record: dict[str, Any], states: dict[str, JobState]) -> list[dict[str, Any]]:
    rows = show.status_rows(record["name"], record["runs"], states)
    former = show.status_rows(record["name"], record.get("former", []), states, wanted=False)
    begun = [run for run in record.get("before", []) if states[f"runs/{run['run']}"].state not in (ABSENT, DONE)]
    before = show.status_rows(record["name"], begun, states)
    return rows + before + [row for row in former if row["state"] in ACTIVE]


def print_log(place: Workspace, beginning: str, rank: int, follow: bool) -> None:
    """Prints the log of the run whose id begins so; with `follow`, goes on as it grows."""
    path = _log_path(place, find_run(place, beginning), rank)
    with path.open("rb") as file:
        while True:
            chunk = file.read(1 << 16)
            sys.stdout.write(chunk.decode("utf-8", "replace"))
            sys.stdout.flush()
            if not chunk and not follow:
                return
            if not chunk:
                time.sleep(0.5)


def delivery() -> Any:
    """jobs.deliver, which imports MLflow. UserError where MLflow is not installed."""
    try:
        from jobs import deliver
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed here: pip install 'zsg[track]'") from None
    return deliver


def serve_ui(place: Workspace, grid: str | None, port: int) -> None:
    """Serves MLflow's pages over the workspace's store, or names the address of the profile's server."""
    deliver = delivery()
    name = grid_record.names(place, grid)[0] if grid else None
    uri = deliver.tracking_uri(place, grid_record.read(place, name or grid_record.names(place)[0]))
    if uri.startswith("http"):
        show.result(f"this grid's MLflow is at {uri}{deliver.page(uri, name)}")
        return
    page = deliver.page(uri, name)
    show.result(f"MLflow: http://127.0.0.1:{port}/{page}  (Ctrl-C ends it)")
    argv = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    argv += ["--port", str(port), "--workers", "1", "--default-artifact-root", str(place.root / "mlartifacts")]
    # uvicorn looks for modules in the folder it is called in, PYTHONSAFEPATH or not; in the workspace there are none.
    ours = {"UVICORN_APP_DIR": str(place.root), "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    # Its queues judge the answers of language models, which nobody asks for here, and are several processes.
    ours["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    code = _serve(argv, os.environ | ours)
    if code:
        raise ClusterError(f"mlflow server ended with {code}; is port {port} in use? try --port")


def _serve(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Runs a server until it ends, or until this process is told to; then nothing of it stays behind."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    server = subprocess.Popen(argv, env=env, start_new_session=True)
    try:
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        # It has processes of its own: all of them are in its group.
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(server.pid, number)
                server.wait(SERVER_STOPS_S)


def find_run(place: Workspace, beginning: str) -> str:
    """The id of the one run that begins so. UserError if there is none, or are several."""
    known = sorted(path.name for path in (place.root / "runs").glob("*") if path.is_dir())
    found = [run for run in known if run.startswith(beginning)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{beginning!r} begins {len(found)} run ids: {', '.join(found[:5])}; give more of it")
    raise UserError(f"no run {beginning!r} in {place.root}; zsg status shows the ids")


def _log_path(place: Workspace, run: str, rank: int) -> Path:
    from launcher import arrays, local  # submitit and pydantic, which `zsg status` can do without

    last = Ledger(place).last(f"runs/{run}")
    job_id = last.job_id(f"runs/{run}") if last else None
    if last is None or job_id is None:
        raise UserError(f"run {run} was never submitted; it has no log")
    found = [local.log_path(place.run(run))] if last.scheduler == "local" else None
    found = found or arrays.log_files(place.submission(last.id), job_id)
    if rank >= len(found) or not found[rank].exists():
        raise UserError(f"run {run} has no log of rank {rank} yet ({len(found)} logs); it may not have started")
    return found[rank]
