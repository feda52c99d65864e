"""The command that verifies a run: parses, calls one function, prints."""

from collections import Counter
from typing import Annotated

import typer

from launcher.commands.options import RUN_ID, AsJson, Workspace

MARKS = {"holds": "✓", "differs": "✗", "not checked": "–"}


def verify(
    run: Annotated[
        str,
        typer.Argument(
            help=f"{RUN_ID}; or a run's folder, also a copy",
            metavar="RUN",
        ),
    ],
    workspace: Workspace = None,
    steps: Annotated[
        int,
        typer.Option(
            "--steps", help="how many steps to train again; 0 only reads", min=0
        ),
    ] = 10,
    json: AsJson = False,
) -> None:
    """Check a finished run against its own records. Some steps of it are trained again
    to compare.

    Ids, inputs, order, journal and weights are held against the digests that were
    recorded. The steps are trained from the newest full state, or the beginning, with
    the run's own code and number of ranks, in a folder that is thrown away: on CPUs
    they must be equal to the bit. Ends with 1 if anything differs, with 0 if nothing
    does; what could not be checked is listed with the reason.

    Training again runs the code and loads the state that lie beside the run. Of a
    folder that somebody sent, read the records only: --steps 0.

    \b
    Examples:
      zsg verify 3f2a
      zsg verify 3f2a --steps 0 --json
    """
    from launcher.verification import verify as verifying
    from launcher.verification.finding import DIFFERS, HOLDS, NOT_CHECKED
    from launcher.views import show
    from launcher.workspace import workspaces

    checks = verifying.verify_run(
        run, lambda: workspaces.find_to_read(workspace), steps
    )
    counts = Counter(check.verdict for check in checks)
    if json:
        show.as_json(
            [
                {"check": check.name, "verdict": check.verdict, "says": check.says}
                for check in checks
            ]
        )
    else:
        for check in checks:
            show.print_result(f"{MARKS[check.verdict]} {check.name:13}  {check.says}")
        show.print_result(
            f"{counts[DIFFERS]} differ, {counts[HOLDS]} hold, {counts[NOT_CHECKED]} not checked (–)"
        )
    if counts[DIFFERS]:
        raise typer.Exit(1)
