"""The commands that stop runs, try failed ones again, and free what no run needs."""

import sys
from typing import Annotated

import typer

from launcher.commands.options import (
    RUN_ID,
    AsJson,
    Detach,
    Except,
    GridName,
    Only,
    Workspace,
    Yes,
)

Causes = Annotated[
    list[str] | None,
    typer.Option(
        "--cause",
        metavar="CAUSE",
        help="only what ended for this reason, as zsg status shows it; may be repeated",
    ),
]


def cancel(
    names: Annotated[
        list[str],
        typer.Argument(help=f"names of grids, or {RUN_ID}", metavar="GRID|RUN"),
    ],
    workspace: Workspace = None,
    only: Only = None,
    except_: Except = None,
    save: Annotated[
        bool, typer.Option("--save", help="let them save first what they have trained")
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="also what another grid wants or runs wait for"),
    ] = False,
    yes: Yes = False,
) -> None:
    """Cancel runs permanently: nothing requeues or starts them again. Only zsg retry
    GRID --only state=cancelled submits them anew. Where a run has ended and its Slurm
    job has not, the job is ended.

    \b
    Examples:
      zsg cancel wsd-order --only seed=2
      zsg cancel 3f2a --save
    """
    from launcher.grids.selection import Selection
    from launcher.lifecycle import cancel as cancels
    from launcher.views import asking, show
    from launcher.workspace import workspaces

    place = workspaces.find_own(workspace)
    decision = cancels.plan_cancellation(
        place, names, Selection.parse(only, except_), force
    )
    for item, why in decision.left.items():
        show.print_result(f"{item} is left alone: {why}")
    if not decision.stop:
        show.print_result("nothing to stop")
        return
    stopped = [item for item in decision.stop if item not in decision.ended]
    runs = [item.removeprefix("runs/") for item in stopped if item.startswith("runs/")]
    helpers = [item for item in stopped if not item.startswith("runs/")]
    also = f" and {', '.join(helpers)}" if helpers else ""
    what = f"{len(runs)} run{'s' * (len(runs) != 1)} ({', '.join(runs)}){also}"
    freed = ", ".join(item.removeprefix("runs/") for item in decision.ended)
    ended = f"Slurm jobs that outlive what has ended ({freed})"
    asked = "; ".join([what] * bool(stopped) + [ended] * bool(decision.ended))
    if not asking.make_consent(yes)(f"{asked}: stop?"):
        show.print_progress("nothing was stopped")
        return
    for trouble in cancels.carry_out(place, decision.stop, save, decision.ended):
        show.print_progress(f"note: {trouble}")
    if stopped:
        again = (
            "; zsg retry GRID --only state=cancelled takes them up again"
            if runs
            else ""
        )
        show.print_result(f"told to {'save and ' * save}stop: {what}{again}")
    if decision.ended:
        show.print_result(f"ended {ended}; how those ended stays as it is")


def retry(
    grid: GridName,
    workspace: Workspace = None,
    only: Only = None,
    except_: Except = None,
    cause: Causes = None,
    failed: Annotated[
        bool,
        typer.Option(
            "--failed", help="only failed runs, as without --only and --cause"
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="also runs that would fail again")
    ] = False,
    detach: Detach = False,
    yes: Yes = False,
) -> None:
    """Submit failed runs again. The grid's file, settings and profile are those of its
    last submit.

    A failure that a run causes itself would come again: such a run is retried once or
    not at all. --only state=cancelled retries cancelled runs, --only ID a run as it
    stands. Runs that are passed over are listed, with the option that retries them.

    \b
    Example:
      zsg retry wsd-order --cause 'node failure'
    """
    from launcher.grids.selection import Selection
    from launcher.lifecycle import retry as retries
    from launcher.planning.plan import Allow
    from launcher.submission import workflow
    from launcher.views import asking, show
    from launcher.workspace import workspaces
    from zsg_core.errors import ClusterError

    place = workspaces.find_own(workspace)
    selection = Selection.parse(
        [*(only or ()), *(["state=failed"] if failed and not only else [])], except_
    )
    choice = retries.choose_retries(
        place, grid, selection, retries.known_causes(cause or ()), force
    )
    for run, why in choice.refused.items():
        show.print_result(
            f"{run} is not tried again: {why} (--force tries it all the same)"
        )
    for line in choice.told(grid):
        show.print_result(line)
    if not choice.runs:
        show.print_result(f"{grid}: nothing to try again")
        return
    opened = workflow.reopen_grid(place, grid)
    retries.refuse_changed(
        str(opened.grid.path), choice.runs, {run.id for run in opened.runs}
    )
    allow = Allow(retry=True, selection=Selection.of_ids(choice.runs))
    if detach and opened.site.profile.kind == "local":
        workflow.submit_detached(
            opened, allow, [word for word in sys.argv[1:] if word != "--detach"]
        )
        return
    if workflow.submit_grid(opened, allow, asking.make_consent(yes)):
        raise typer.Exit(ClusterError.exit_code)


def gc(
    grid: Annotated[
        str | None,
        typer.Argument(help="only what this grid's runs have left", metavar="GRID"),
    ] = None,
    workspace: Workspace = None,
    json: AsJson = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="free it; without, it is only shown")
    ] = False,
) -> None:
    """Show what no run needs any more, and free it with --yes. What could be needed
    again can be made again.

    \b
    Examples:
      zsg gc
      zsg gc --yes
    """
    from launcher.lifecycle import garbage
    from launcher.views import show
    from launcher.workspace import workspaces

    def tell(piece: garbage.Piece) -> None:
        show.print_progress(f"freeing {piece.path}")

    place = (
        workspaces.find_own(workspace) if yes else workspaces.find_to_read(workspace)
    )
    pieces = (
        garbage.free_garbage(place, grid, show.print_progress, tell)
        if yes
        else garbage.find_garbage(place, grid, show.print_progress)
    )
    if json:
        rows = [
            {"kind": p.kind, "path": str(p.path), "bytes": p.size, "reason": p.reason}
            for p in pieces
        ]
        show.as_json(rows)
        return
    for kind, (count, size, reasons) in garbage.sum_by_kind(pieces).items():
        show.print_result(f"{kind}: {count}, {size / 1e6:.1f} MB: {'; '.join(reasons)}")
        for piece in pieces:
            if piece.kind == kind:
                show.print_result(f"  {piece.path}")
    total = sum(piece.size for piece in pieces) / 1e6
    show.print_result(
        f"freed {total:.1f} MB"
        if yes
        else f"{total:.1f} MB could be freed; zsg gc --yes frees it"
    )
