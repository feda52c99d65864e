"""Reads what a workspace holds: its grids, the states of their runs, logs and the MLflow page.

Its imports are light: people ask for states all day.
"""

import codecs
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.folder import Workspace
from launcher import grid_record, logs, show, status_view, why, workspaces
from launcher.job_state import ABSENT, JobState
from launcher.ledger import Ledger
from launcher.settled import Settled
from launcher.slurm import DONE, Run
from launcher.status import collect
from zsg_core.errors import ClusterError, UserError

WATCH_S = 20  # the scheduler is asked no more often
SERVER_STOPS_S, SERVER_ASKED_S = 5.0, 0.2
VARIABLE = "ZSG_WORKSPACE"
KINDS = ("runs", "prepare")


def workspace(path: Path | None, otherwise: str = "zsg-work") -> Workspace:
    """The workspace asked for, that of ZSG_WORKSPACE, or `otherwise`, relative to the current folder."""
    return workspaces.find(path or Path(os.environ.get(VARIABLE) or otherwise))


def status_rows(
    place: Workspace, grid: str | None, states: Collection[str] = (), run: Run = subprocess.run
) -> list[dict[str, Any]]:
    """The rows of `zsg status`, every grid's in turn; of what a grid no longer wants, what is still active.

    `states`: only the runs in one of these.
    """
    records = [grid_record.read_brief(place, name) for name in grid_record.names(place, grid)]
    items = dict.fromkeys(f"runs/{run['run']}" for record in records for run in grid_record.all_rows(record))
    found = collect(place, items, Ledger(place), run, settled=Settled(place))
    rows = [row for record in records for row in _rows(record, found)]
    return [row for row in rows if row["state"] in states] if states else rows


def _rows(record: Mapping[str, Any], states: dict[str, JobState]) -> list[dict[str, Any]]:
    rows = status_view.rows_of(record["name"], record["runs"], states)
    former = [run for run in record.get("former", []) if states[f"runs/{run['run']}"].is_active]
    begun = [run for run in record.get("before", []) if states[f"runs/{run['run']}"].state not in (ABSENT, DONE)]
    before = status_view.rows_of(record["name"], begun, states)
    return rows + before + status_view.rows_of(record["name"], former, states, wanted=False)


def print_log(place: Workspace, text: str, rank: int, attempt: int | None, lines: int | None, follow: bool) -> None:
    """Prints the end of a job's log, or all if `lines` is None; with `follow`, goes on as it grows."""
    item = find_item(place, text)
    if follow:
        pieces = logs.follow(place, item, rank, lines)
    else:
        part = logs.of_rank(place, item, rank, attempt)
        pieces = part.read(part.tail(lines))
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    for piece in pieces:
        sys.stdout.write(decode(piece))
        sys.stdout.flush()


def why_run(place: Workspace, text: str) -> dict[str, Any]:
    """Why a run stands where it stands."""
    item = find_item(place, text)
    ledger = Ledger(place)
    last = ledger.last(item)
    state = collect(place, [item], ledger)[item]
    return why.row(item.removeprefix("runs/"), last.grid if last else None, state, why.of_job(place, item, state))


def why_grid(place: Workspace, grid: str) -> list[dict[str, Any]]:
    """The failures of a grid by cause."""
    record = grid_record.read_brief(place, grid)
    runs = {f"runs/{run['run']}": run["run"] for run in grid_record.all_rows(record)}
    states = collect(place, runs, Ledger(place), settled=Settled(place))
    found = {item: why.of_job(place, item, states[item]) for item in runs}
    return why.by_cause(why.row(run, grid, states[item], found[item]) for item, run in runs.items() if found[item])


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
    if _answers(port):
        raise ClusterError(f"port {port} of this machine is in use; try another with --port")
    address = f"MLflow: http://127.0.0.1:{port}/{deliver.page(uri, name)}  (Ctrl-C ends it)"
    argv = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    argv += ["--port", str(port), "--workers", "1", "--default-artifact-root", str(place.root / "mlartifacts")]
    # uvicorn looks for modules in the folder it is called in, PYTHONSAFEPATH or not; in the workspace there are none.
    ours = {"UVICORN_APP_DIR": str(place.root), "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    # Its queues judge the answers of language models, which nobody asks for here, and are several processes.
    ours["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    code = _serve(argv, os.environ | ours, port, address)
    if code:
        raise ClusterError(f"mlflow server ended with {code}; try another --port")


def _serve(argv: Sequence[str], env: Mapping[str, str], port: int, address: str) -> int:
    """Runs a server until it ends, or until this process is told to; then nothing of it stays behind.

    The address is printed when somebody answers there: who follows it before finds nothing.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    # What it says of itself is no result.
    server = subprocess.Popen(argv, env=env, stdout=sys.stderr, start_new_session=True)
    try:
        while server.poll() is None and not _answers(port):
            time.sleep(SERVER_ASKED_S)
        if server.returncode is None:
            show.result(address)
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        # It has processes of its own: all of them are in its group.
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(server.pid, number)
                server.wait(SERVER_STOPS_S)


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def find_item(place: Workspace, text: str) -> str:
    """The folder of the one run whose id begins so, or of the prepare job, named `prepare/…`."""
    kind, _, beginning = text.rpartition("/")
    kind = kind or "runs"
    known = sorted(path.name for path in (place.root / kind).glob("*") if path.is_dir()) if kind in KINDS else []
    found = [name for name in known if name.startswith(beginning)]
    if len(found) == 1 or beginning in found:
        return f"{kind}/{beginning if beginning in found else found[0]}"
    if found:
        raise UserError(f"{text!r} begins {len(found)} run ids: {', '.join(found[:5])}; give more of it")
    raise UserError(f"no run {text!r} in {place.root}; zsg status shows the ids")
