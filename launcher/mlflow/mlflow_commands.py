"""Does what `sync`, `ui` and `server` ask: fills MLflow, opens its pages, serves it to
a cluster."""

import importlib.util
import logging
import shlex
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from jobs.contract import grid_record
from jobs.contract.folder import Damaged, Workspace
from jobs.files import ownership
from jobs.tracking import server_tokens
from launcher.mlflow import mlflow_server
from launcher.mlflow.mlflow_server import ServerOptions
from launcher.views import show
from launcher.workspace import recorded_grids, workspaces
from zsg_core.errors import ClusterError, UserError
from zsg_core.secrets import hide_in_addresses

logger = logging.getLogger(__name__)


def require_mlflow() -> None:
    """UserError where MLflow is not installed."""
    if importlib.util.find_spec("mlflow") is None:
        raise UserError("mlflow is not installed here: pip install 'zsg[track]'")


def sync_grids(workspace: Workspace, grid: str | None, refill: bool) -> None:
    """Sends to MLflow what it lacks of one grid, or of all; one grid's trouble does not
    keep the others from it."""
    require_mlflow()
    from jobs.tracking import mlflow_sync, tracker

    workspace = workspaces.follow_links(workspace)
    refused: list[ClusterError] = []
    for name in recorded_grids.select_grids(workspace, grid):
        with show.Counting(name) as counting:
            try:
                sent = mlflow_sync.sync_grid(
                    workspace,
                    name,
                    refill=refill,
                    report_progress=counting.show,
                )
            except (tracker.Refused, Damaged) as error:
                refused.append(error)
                continue
        show.print_result(
            f"{name}: sent {sent['points']} points of {sent['runs']} runs to MLflow"
        )
    if refused:
        raise refused[0]


def delete_runs(
    workspace: Workspace, grids: Sequence[str], of_runs: Mapping[str, Collection[str]]
) -> int:
    """Marks as deleted in MLflow the runs of these grids, and of other grids those of
    some runs: `of_runs`, by the grid. Returns how many.

    UserError without MLflow; ClusterError where it does not answer.
    """
    require_mlflow()
    from jobs.tracking.mlflow_sync import Delivery

    recorded = grid_record.list_grids(workspace)
    count = 0
    for name in grids:
        if name in recorded:
            count += Delivery(workspace, name).delete_runs()
    for name, runs in of_runs.items():
        if name not in grids:
            count += Delivery(workspace, name).delete_runs(runs)
    return count


def serve_ui(workspace: Workspace, grid: str | None, port: int) -> None:
    """Serves MLflow's pages over the workspace's store, or names the address of the
    profile's server."""
    require_mlflow()
    from jobs.tracking import mlflow_sync, tracker

    workspace = workspaces.follow_links(workspace)
    name = recorded_grids.select_grids(workspace, grid)[0] if grid else None
    uri = mlflow_sync.tracking_uri(
        workspace,
        recorded_grids.read_grid(
            workspace, name or recorded_grids.select_grids(workspace)[0]
        ),
    )
    page = mlflow_sync.find_grid_page(workspace, name) if name else ""
    if uri.startswith("http"):
        show.print_result(
            f"this grid's MLflow is at {_address(hide_in_addresses(uri), _published(uri), page)}"
        )
        if tracker.Tracker(uri).has_no_page():
            logger.warning(
                "its server has no page there: where it was started with --static-prefix, put the"
                " prefix before the # of the address"
            )
        return
    listening = mlflow_server.open_socket("127.0.0.1", port)
    database = Path(uri.removeprefix(mlflow_server.SQLITE))
    tracker.make_store(database)
    served = ServerOptions(
        uri,
        database.parent / "mlartifacts",
        "127.0.0.1",
        port,
        workers=1,
        passes_artifacts=False,
    )

    # Who follows the address before somebody answers there finds nothing.
    def tell() -> None:
        show.print_result(
            f"MLflow: {_address(served.uri, served.token, page)}  (Ctrl-C ends it)"
        )
        _tell_who(served)
        _tell_stakes(served)

    _serve(served, listening, tell)


def serve_cluster(served: ServerOptions, folder: Path) -> None:
    """Serves MLflow to jobs and people until told to end; says how a profile names it
    once it answers."""
    require_mlflow()
    from jobs.tracking import tracker

    listening = mlflow_server.open_socket(served.host, served.port)
    mlflow_server.prepare_store(served, tracker.make_store)
    published, trouble = _publish(served)

    def tell() -> None:
        show.print_result(
            f"MLflow: {_address(served.uri, served.token)}  (Ctrl-C ends it)"
        )
        _tell_who(served)
        _tell_stakes(served)
        if trouble:
            logger.warning(f"your jobs and zsg sync do not find the token: {trouble}")
        else:
            show.print_result(
                f"your jobs and zsg sync take the token from {server_tokens.locate_tokens()}"
                " while this runs"
            )
        for line in _elsewhere(served, folder):
            show.print_result(line)
        show.print_result(f"in a profile: tracking: {{uri: {served.uri}, live: true}}")

    try:
        _serve(served, listening, tell)
    finally:
        server_tokens.withdraw_token(published, served.token)


def _publish(served: ServerOptions) -> tuple[list[Path], str]:
    """The files that have the token for the user's jobs, and why there are none."""
    try:
        return server_tokens.publish_token(served.places, served.token), ""
    except (server_tokens.Exposed, OSError) as error:
        return [], str(error)


def _elsewhere(served: ServerOptions, folder: Path) -> list[str]:
    """How nodes with another home, or a colleague, get the token, and what is at stake
    on its way."""
    token = shlex.quote(str(folder / mlflow_server.TOKEN_FILE))
    token_file = f"~/.zsg/mlflow/{urlsplit(served.uri).netloc.lower()}"
    lines = [
        "nodes with another home, and a colleague, take it from a copy of the file, made there by:",
        f"  (umask 077; mkdir -p ~/.zsg/mlflow; cat > {token_file}) < {token}",
    ]
    if served.is_open:
        lines.append(
            "the token goes over the network unencrypted: who can listen to that can use it"
        )
    return lines


def _address(uri: str, token: str | None, page: str = "") -> str:
    """The address that a browser opens; with the token, which it then keeps as a cookie."""
    return f"{uri.rstrip('/')}/{f'?token={token}' if token else ''}{page}"


def _published(uri: str) -> str | None:
    try:
        return server_tokens.find_token(uri)
    except server_tokens.Exposed as error:
        logger.warning(str(error))
        return None


def _tell_who(served: ServerOptions) -> None:
    local_address, port = urlsplit(served.local_uri).netloc, served.port
    same = (
        "the same address"
        if local_address == urlsplit(served.uri).netloc
        else f"it with 127.0.0.1:{port} as its host"
    )
    user = ownership.find_login_name() or "USER"
    show.print_result(
        "the address lets in whoever has it: keep it to yourself. On your own computer call"
    )
    show.print_result(f"  ssh -N -L {port}:{local_address} {user}@{_this_machine()}")
    show.print_result(f"and open {same} there")


def _this_machine() -> str:
    name = socket.getfqdn()
    return socket.gethostname() if name.startswith("localhost") else name


def _tell_stakes(served: ServerOptions) -> None:
    reached = (
        "every machine of this network"
        if served.is_open
        else "every user of this machine"
    )
    show.print_result(
        f"{reached} reaches the port: without the token nobody reads or writes a file, or changes a"
        " run."
    )
    show.print_result(
        f"With it, all runs here and all files in {served.artifacts} can be read, written and"
        " deleted"
    )


def _serve(
    served: ServerOptions, listening: socket.socket, when_up: Callable[[], None]
) -> None:
    code = mlflow_server.run_server(served, listening, when_up)
    if code:
        raise ClusterError(f"MLflow's server ended with {code}; what it said is above")
