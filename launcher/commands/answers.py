"""The commands of answers that are scored elsewhere: each parses, calls one function, prints."""

from pathlib import Path
from typing import Annotated

import typer

from launcher.commands.options import RUN_ID, Workspace

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help=(
        "Take out what models answered at checkpoints.\n\n"
        "\b\nExample:\n  zsg answers export wsd-order > answers.jsonl"
    ),
)


@app.callback()
def answers() -> None:
    """Take out what models answered at checkpoints."""


@app.command()
def export(
    which: Annotated[
        str,
        typer.Argument(help=f"name of a grid, or {RUN_ID}", metavar="GRID|RUN"),
    ],
    workspace: Workspace = None,
    step: Annotated[
        list[int] | None,
        typer.Option(
            "--step", help="only this step; may be repeated", metavar="STEP", min=0
        ),
    ] = None,
) -> None:
    """Print the answers of all checkpoints, one JSON line each. They are for a judge or
    a machine that zsg does not know; scores come back by zsg score.

    \b
    Example:
      zsg answers export wsd-order --step 40 > answers.jsonl
    """
    from launcher.evaluation import answers
    from launcher.workspace import workspaces

    answers.export_answers(workspaces.find_to_read(workspace), which, step)


def score(
    file: Annotated[
        Path,
        typer.Argument(
            help="JSON lines: run, step, id, metric, score", metavar="SCORES.JSONL"
        ),
    ],
    workspace: Workspace = None,
) -> None:
    """Take scores that answers were given elsewhere into the runs. zsg sync then sends
    them to MLflow.

    Scoring twice adds nothing: what a checkpoint has already stays.

    \b
    Example:
      zsg score scores.jsonl
    """
    from launcher.evaluation import answers
    from launcher.workspace import workspaces

    answers.record_scores(workspaces.find_own(workspace), file)
