"""The commands of MLflow: fill it, open its pages, serve it to a cluster."""

from pathlib import Path
from typing import Annotated

import typer

from launcher.commands.options import GridNameOrAll, Workspace


def sync(
    grid: GridNameOrAll = None,
    workspace: Workspace = None,
    refill: Annotated[
        bool,
        typer.Option(
            "--refill", help="make flagged runs anew in MLflow, from their journals"
        ),
    ] = False,
) -> None:
    """Send to MLflow what it lacks, from the runs' journals. Sending twice adds
    nothing; killed, it is run again.

    \b
    Examples:
      zsg sync wsd-order
      zsg sync wsd-order --refill
    """
    from launcher.lifecycle import notices
    from launcher.mlflow import mlflow_commands as tracking
    from launcher.workspace import workspaces

    place = workspaces.find_own(workspace)
    # who is to be told of failures need not wait for MLflow
    notices.tell_grids(place, grid)
    tracking.sync_grids(place, grid, refill)


def ui(
    grid: Annotated[
        str | None, typer.Argument(help="name of a grid to open at", metavar="GRID")
    ] = None,
    workspace: Workspace = None,
    port: Annotated[
        int, typer.Option("--port", help="port on this machine", min=1, max=65535)
    ] = 5000,
) -> None:
    """Open the MLflow comparison of a workspace, until Ctrl-C.

    MLflow acts with your rights on your files, and every user reaches its port. So only
    who has the address that is printed gets in: it holds a secret, new at every start,
    which your browser keeps. From another computer, use the ssh -L line that is
    printed. Files are served from the workspace's folder mlartifacts only, and through
    no link.

    \b
    Example:
      zsg ui wsd-order
    """
    from launcher.mlflow import mlflow_commands as tracking
    from launcher.workspace import workspaces

    tracking.serve_ui(workspaces.find_own(workspace), grid, port)


def server(
    folder: Annotated[
        Path,
        typer.Option(
            "--folder",
            help="where its database and artifacts lie, on a disk of this machine",
        ),
    ] = Path("zsg-mlflow"),
    backend: Annotated[
        str | None,
        typer.Option(
            "--backend",
            envvar="ZSG_BACKEND",
            show_envvar=False,
            help=(
                "its database; default: sqlite in the folder; or postgresql://…; with a password:"
                " as ZSG_BACKEND"
            ),
        ),
    ] = None,
    host: Annotated[
        str, typer.Option("--host", help="address to listen on; 0.0.0.0 = all")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", help="port to listen on", min=1, max=65535)
    ] = 5000,
    workers: Annotated[
        int, typer.Option("--workers", help="processes that answer", min=1)
    ] = 4,
    allowed: Annotated[
        list[str] | None,
        typer.Option(
            "--allow",
            metavar="NAME",
            help="a further name that nodes know this machine by; may be repeated",
        ),
    ] = None,
) -> None:
    """Serve MLflow to a cluster's jobs, until Ctrl-C. Prints what a profile's
    `tracking` is to say once it answers.

    MLflow acts with your rights on your files, so only who knows its token gets in. The
    token stands in the folder's file `token`, for you alone to read, and stays until
    you remove that. Your jobs and zsg sync find it in ~/.zsg while the server runs. It
    travels over plain http, as all that is sent does.

    Every user of the machine reads command lines. A database whose address holds a
    password is named by the variable ZSG_BACKEND.

    \b
    Examples:
      zsg server
      zsg server --host 0.0.0.0 --folder /local/mlflow
    """
    import logging

    from jobs.files.paths import expand_home
    from launcher.mlflow import mlflow_commands as tracking
    from launcher.mlflow import mlflow_server

    logger = logging.getLogger(__name__)
    if (
        backend
        and mlflow_server.has_password(backend)
        and mlflow_server.is_on_command_line(backend)
    ):
        logger.warning(
            "every user of this machine could read the password of --backend in the list of"
            " processes until now; name the database by the variable ZSG_BACKEND instead"
        )
        mlflow_server.leave_command_line(backend)
    server_folder = expand_home(folder).resolve()
    database = mlflow_server.resolve_backend(backend, server_folder)
    token = mlflow_server.read_or_make_token(server_folder)
    served = mlflow_server.ServerOptions(
        database,
        server_folder / "artifacts",
        host,
        port,
        workers,
        allowed or [],
        token=token,
    )
    tracking.serve_cluster(served, server_folder)
