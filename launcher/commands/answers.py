"""The commands of answers that are scored elsewhere: each parses, calls one function, prints."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help=(
        "Take out what models answered at checkpoints.\n\nExample: zsg answers export wsd-order >"
        " answers.jsonl"
    ),
)

Place = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        help="folder of all runs; else ZSG_WORKSPACE, or zsg-work here",
        readable=False,
    ),
]


@app.callback()
def answers() -> None:
    """Take out what models answered at checkpoints."""


@app.command()
def export(
    which: Annotated[
        str,
        typer.Argument(
            help="name of a grid, or run id, or its beginning", metavar="GRID|RUN"
        ),
    ],
    workspace: Place = None,
    step: Annotated[
        list[int] | None,
        typer.Option("--step", help="only this step; again for more", min=0),
    ] = None,
) -> None:
    """Print the answers of all checkpoints, a JSON line each, for a judge or a machine
    that zsg does not know.

    What comes back goes to zsg score. Example: zsg answers export wsd-order --step 40 >
    answers.jsonl
    """
    from launcher.evaluation import answers
    from launcher.workspace import workspaces

    answers.export(workspaces.find_to_read(workspace), which, step)


def score(
    file: Annotated[
        Path,
        typer.Argument(
            help="JSON lines: run, step, id, metric, score", metavar="SCORES.JSONL"
        ),
    ],
    workspace: Place = None,
) -> None:
    """Take scores that answers were given elsewhere into the runs; zsg sync then sends
    them to MLflow.

    Scoring twice adds nothing: what a checkpoint has already stays. Example: zsg score scores.jsonl
    """
    from launcher.evaluation import answers
    from launcher.workspace import workspaces

    answers.score(workspaces.find_own(workspace), file)
