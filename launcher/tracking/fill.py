"""Does what `sync`, `ui` and `server` ask: fills MLflow, opens its pages, serves it to a cluster."""

import importlib.util
import os
import sys
from collections.abc import Callable

from jobs.folder import Workspace
from launcher.commands import show
from launcher.grids import grid_record
from launcher.tracking import mlflow_server
from launcher.tracking.mlflow_server import Served
from zsg_core.errors import ClusterError, UserError
from zsg_core.secrets import hide_in_addresses


def needs_mlflow() -> None:
    """UserError where MLflow is not installed."""
    if importlib.util.find_spec("mlflow") is None:
        raise UserError("mlflow is not installed here: pip install 'zsg[track]'")


def sync(place: Workspace, grid: str | None, refill: bool) -> None:
    """Sends to MLflow what it lacks of one grid, or of all; one grid's trouble does not keep the others from it."""
    needs_mlflow()
    from jobs.tracking import deliver, tracker

    refused: list[ClusterError] = []
    for name in grid_record.names(place, grid):
        with show.Counting(name) as counting:
            try:
                sent = deliver.sync(place, name, refill=refill, tell=counting.show, say=show.say)
            except tracker.Refused as error:
                refused.append(error)
                continue
        show.result(f"{name}: sent {sent['points']} points of {sent['runs']} runs to MLflow")
    if refused:
        raise refused[0]


def serve_ui(place: Workspace, grid: str | None, port: int) -> None:
    """Serves MLflow's pages over the workspace's store, or names the address of the profile's server."""
    needs_mlflow()
    from jobs.tracking import deliver

    name = grid_record.names(place, grid)[0] if grid else None
    uri = deliver.tracking_uri(place, grid_record.read(place, name or grid_record.names(place)[0]))
    page = deliver.page(place, name) if name else ""
    if uri.startswith("http"):
        show.result(f"this grid's MLflow is at {hide_in_addresses(uri)}{page}")
        return
    mlflow_server.refuse_taken("127.0.0.1", port)
    address = f"http://127.0.0.1:{port}"
    argv = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    argv += ["--port", str(port), "--workers", "1", "--default-artifact-root", str(place.root / "mlartifacts")]
    # uvicorn looks for modules in the folder it is called in, PYTHONSAFEPATH or not; in the workspace there are none.
    env = {**os.environ, **mlflow_server.QUIET, "UVICORN_APP_DIR": str(place.root)}
    # Who follows the address before somebody answers there finds nothing.
    _serve(argv, env, address, lambda: show.result(f"MLflow: {address}/{page}  (Ctrl-C ends it)"), port)


def serve(served: Served) -> None:
    """Serves MLflow to jobs and people until told to end; says how a profile names it once it answers."""
    needs_mlflow()
    from jobs.tracking import tracker

    mlflow_server.prepare(served, tracker.make_store)
    local = "127.0.0.1" if served.host == "0.0.0.0" else served.host

    def tell() -> None:
        show.result(f"MLflow answers at {served.uri}  (Ctrl-C ends it)")
        show.result(f"in a profile: tracking: {{uri: {served.uri}, live: true}}")
        if served.is_open:
            show.result("whoever reaches this port may read and change everything: MLflow asks for no password")

    _serve(served.argv, served.env, f"http://{local}:{served.port}", tell, served.port)


def _serve(argv: list[str], env: dict[str, str], address: str, when_up: Callable[[], None], port: int) -> None:
    code = mlflow_server.run(argv, env, address, when_up)
    if code:
        raise ClusterError(f"mlflow server ended with {code}; is port {port} in use? try --port")
