"""The arguments and options that several commands share, each declared once."""

from pathlib import Path
from typing import Annotated

import typer

# How a command's help names a run: by its id, or by as much of it as no other run has.
RUN_ID = "run id or unique prefix"

GridFile = Annotated[
    Path, typer.Argument(help="the grid file", metavar="GRID.YAML", readable=False)
]
GridName = Annotated[str, typer.Argument(help="name of a grid", metavar="GRID")]
GridNames = Annotated[
    list[str], typer.Argument(help="name of a grid, or of several", metavar="GRID...")
]
GridNameOrAll = Annotated[
    str | None, typer.Argument(help="name of a grid; default: all", metavar="GRID")
]
ProfileName = Annotated[
    str | None,
    typer.Option("--profile", help="profile name or file; overrides the grid's"),
]
# `readable=False`: what may not be read is for us to say, as one line with what to do.
Workspace = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        help="folder of all runs; else ZSG_WORKSPACE, or zsg-work here",
        readable=False,
    ),
]
# Of commands that read a profile, which may name a workspace as well.
WorkspaceOverProfile = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        help="folder of all runs; overrides the profile's",
        readable=False,
    ),
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="WHICH",
        help=(
            "only these runs: KEY=VALUE of a setting, a prefix of run ids, or state=STATE"
            " (new, failed, …); may be repeated: a run that any of them names"
        ),
    ),
]
Except = Annotated[
    list[str] | None,
    typer.Option(
        "--except",
        metavar="WHICH",
        help="all but these runs, written as for --only; may be repeated",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="do not ask for confirmation")]
Detach = Annotated[
    bool,
    typer.Option("--detach", help="local: return at once, leave the jobs running"),
]
NoLimits = Annotated[
    bool,
    typer.Option(
        "--no-limits",
        help=(
            "Slurm: also submit what limits of partitions, accounts and QoS would not grant, as far"
            " as zsg sees them; Slurm decides"
        ),
    ),
]
AllowPlugins = Annotated[
    bool,
    typer.Option(
        "--allow-plugins",
        help="you have read the grid's plugins, and jobs may run them; asked once each",
    ),
]
Replace = Annotated[
    bool,
    typer.Option("--replace", help="replace the file where it is there already"),
]
