"""The commands that stop runs, try failed ones again, and free what no run needs."""

from pathlib import Path
from typing import Annotated

import typer

Place = Annotated[
    Path | None,
    typer.Option("--workspace", help="folder of all runs; else ZSG_WORKSPACE, or zsg-work here", readable=False),
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", help="only runs of this: KEY=VALUE, the beginning of an id, state=STATE; again for more"),
]
Except = Annotated[list[str] | None, typer.Option("--except", help="not the runs of this; again for more")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="do not ask before doing it")]


def cancel(
    names: Annotated[list[str], typer.Argument(help="grids, or runs by how their ids begin", metavar="GRID|RUN…")],
    workspace: Place = None, only: Only = None, except_: Except = None,
    save: Annotated[bool, typer.Option("--save", help="let them save first what they have trained")] = False,
    force: Annotated[bool, typer.Option("--force", help="also what another grid wants or runs wait for")] = False,
    yes: Yes = False,
) -> None:  # fmt: skip
    """Stop runs for good: no requeue and no late start revives them. zsg submit --retry takes them up again.

    Examples: zsg cancel wsd-order --only seed=2, or zsg cancel 3f2a --save
    """
    from launcher import asking, reading, show
    from launcher import cancel as cancels
    from launcher.selection import Selection

    place = reading.workspace(workspace)
    decision = cancels.plan(place, names, Selection.parse(only, except_), force)
    for item, why in decision.left.items():
        show.result(f"{item} is left alone: {why}")
    runs = [item.removeprefix("runs/") for item in decision.stop if item.startswith("runs/")]
    if not decision.stop:
        show.result("nothing to stop")
        return
    helpers = [item for item in decision.stop if not item.startswith("runs/")]
    also = f" and {', '.join(helpers)}" if helpers else ""
    what = f"{len(runs)} run{'s' * (len(runs) != 1)} ({', '.join(runs)}){also}"
    if not asking.agreed(yes)(f"{what}: stop?"):
        show.say("nothing was stopped")
        return
    for trouble in cancels.carry_out(place, decision.stop, save):
        show.say(f"note: {trouble}")
    show.result(f"told to {'save and ' * save}stop: {what}; zsg submit --retry takes them up again")
