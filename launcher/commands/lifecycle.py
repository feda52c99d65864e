"""The commands that stop runs, try failed ones again, and free what no run needs."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated

import typer

from launcher.commands.options import (
    RUN_ID,
    AllowPlugins,
    AsJson,
    Detach,
    Except,
    GridName,
    NoLimits,
    Only,
    Workspace,
    Yes,
)
from zsg_core.shown_text import name_few

if TYPE_CHECKING:
    from jobs.contract.folder import Workspace as WorkspaceFolder
    from launcher.lifecycle.cancel import Decision
    from launcher.lifecycle.forget import Forgetting
    from launcher.lifecycle.garbage import Piece

MOST_PATHS = 8  # of a kind in what zsg gc prints

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
    import logging

    from launcher.grids.selection import Selection
    from launcher.lifecycle import cancel as cancels
    from launcher.views import asking
    from launcher.workspace import workspaces
    from launcher.workspace.submit_lock import await_submit

    logger = logging.getLogger(__name__)
    workspace_folder = workspaces.find_own(workspace)
    selection = Selection.parse(only, except_)
    agreed = None
    if asking.can_ask(yes):
        await_submit(workspace_folder)
        agreed = cancels.plan_cancellation(workspace_folder, names, selection, force)
        if not _ask_to_stop(agreed):
            return
    decision, troubles = cancels.cancel_selected(
        workspace_folder, names, selection, force, save, agreed
    )
    while troubles is None:
        logger.warning("the states changed meanwhile: there is more to stop")
        agreed = decision
        if not _ask_to_stop(agreed):
            return
        decision, troubles = cancels.cancel_selected(
            workspace_folder, names, selection, force, save, agreed
        )
    if agreed is None:
        _print_left_alone(decision.left)
    elif decision != agreed:
        _print_left_alone(decision.left)
        logger.warning("the states changed meanwhile: this is what was stopped")
    logger.debug(f"in full: {', '.join(map(_name_item, decision.stop))}")
    for trouble in troubles:
        logger.warning(f"note: {trouble}")
    _print_stopped(decision, save)


def _ask_to_stop(decision: "Decision") -> bool:
    """Whether somebody at a terminal agrees to what would stop; says what is left alone."""
    import logging

    from launcher.views import asking, show

    _print_left_alone(decision.left)
    if not decision.stop:
        show.print_result("nothing to stop")
        return False
    if asking.make_consent(yes=False)(f"{_describe_stop(decision)}: stop?"):
        return True
    logging.getLogger(__name__).info("nothing was stopped")
    return False


def _print_left_alone(reasons: Mapping[str, str]) -> None:
    """What was chosen and is not stopped, and why."""
    from launcher.views import show

    for item, why in reasons.items():
        show.print_result(f"{item} is left alone: {why}")


def _describe_stop(decision: "Decision") -> str:
    """What stops, and which Slurm jobs end."""
    return "; ".join(filter(None, _name_stopped(decision)))


def _name_stopped(decision: "Decision") -> tuple[str, str]:
    """What stops, and which Slurm jobs outlive what has ended."""
    items = [item for item in decision.stop if item not in decision.ended]
    return _name_items(items), _name_ended(decision.ended)


def _print_stopped(decision: "Decision", save: bool) -> None:
    """What was told to stop, and how it is taken up again."""
    from launcher.views import show

    to_stop, to_end = _name_stopped(decision)
    if to_stop:
        hint = ""
        if any(map(_is_run, set(decision.stop) - set(decision.ended))):
            hint = "; zsg retry GRID --only state=cancelled resumes them"
        show.print_result(f"told to {'save and ' * save}stop: {to_stop}{hint}")
    if to_end:
        show.print_result(f"ended {to_end}; how those ended stays as it is")
    if not decision.stop:
        show.print_result("nothing to stop")


def _is_run(item: str) -> bool:
    return item.startswith("runs/")


def _name_item(item: str) -> str:
    """A run by its id, another job by its folder."""
    return item.removeprefix("runs/")


def _name_items(items: Sequence[str]) -> str:
    """How many runs, which, and the jobs of other kinds; empty where there are none."""
    if not items:
        return ""
    runs = [_name_item(item) for item in items if _is_run(item)]
    jobs = [item for item in items if not _is_run(item)]
    text = f"{len(runs)} run{'s' * (len(runs) != 1)} ({name_few(runs)})"
    return f"{text} and {name_few(jobs)}" if jobs else text


def _name_ended(items: Sequence[str]) -> str:
    """The jobs that Slurm still has though what they ran has ended; empty where none is."""
    if not items:
        return ""
    names = name_few([_name_item(item) for item in items])
    return f"Slurm jobs that outlive what has ended ({names})"


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
    no_limits: NoLimits = False,
    detach: Detach = False,
    allow_plugins: AllowPlugins = False,
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
    from launcher.submission import plugin_consent, workflow
    from launcher.views import asking, show
    from launcher.workspace import workspaces
    from zsg_core.errors import ClusterError

    if failed and not only:
        only = ["state=failed"]
    workspace_folder = workspaces.find_own(workspace)
    choice = retries.choose_retries(
        workspace_folder,
        grid,
        Selection.parse(only, except_),
        retries.known_causes(cause or ()),
        force,
    )
    _print_passed_over(choice.refused, choice.describe_left(grid))
    if not choice.runs:
        show.print_result(f"{grid}: nothing to retry")
        return
    opened = workflow.reopen_grid(workspace_folder, grid)
    run_ids = set(map(attrgetter("id"), opened.runs))
    retries.refuse_changed(str(opened.grid.path), choice.runs, run_ids)
    plugin_consent.settle_consent(
        opened.grid, allows=allow_plugins, ask=asking.find_asker(yes)
    )
    allow = Allow(
        retry=True, selection=Selection.of_ids(choice.runs), limits=not no_limits
    )
    if detach and opened.site.profile.kind == "local":
        arguments = [word for word in sys.argv[1:] if word != "--detach"]
        workflow.submit_detached(opened, allow, arguments)
        return
    if workflow.submit_grid(opened, allow, asking.make_consent(yes)):
        raise typer.Exit(ClusterError.exit_code)


def _print_passed_over(refused: Mapping[str, str], notes: Iterable[str]) -> None:
    """Which runs are not retried, and why; and notes on others."""
    from launcher.views import show

    for run, why in refused.items():
        show.print_result(
            f"{run} is not retried: {why} (--force retries it all the same)"
        )
    for line in notes:
        show.print_result(line)


def forget(
    names: Annotated[
        list[str] | None,
        typer.Argument(help=f"names of grids, or {RUN_ID}", metavar="GRID|RUN"),
    ] = None,
    workspace: Workspace = None,
    mlflow: Annotated[
        bool,
        typer.Option("--mlflow", help="also mark their MLflow runs as deleted"),
    ] = False,
    yes: Annotated[
        bool,
        typer.Option(
            "--yes", "-y", help="remove it without a question; at no terminal: needed"
        ),
    ] = False,
) -> None:
    """Remove grids and runs, and what only they need.

    Journals, snapshots, answers, corpora and logs go. It cannot be undone.

    What other grids or runs need stays, and is told. Nothing is removed while something
    of it is queued or running. Killed, it is run again, also without names, and carries
    on.

    \b
    Examples:
      zsg forget wsd-order
      zsg forget 3f2a --mlflow
    """
    from launcher.lifecycle import forget as forgets
    from launcher.views import show
    from launcher.workspace import workspaces
    from zsg_core.errors import ClusterError, UserError

    folder = workspaces.find_own(workspace)
    unfinished = forgets.find_unfinished(folder)
    if not names and not unfinished:
        raise UserError(
            "name a grid or a run: zsg forget GRID|RUN; zsg status shows both"
        )
    if unfinished:
        show.print_result(
            f"carrying on with a forget that was cut short: {name_few(unfinished)}"
        )
    chosen = forgets.plan_forgetting(folder, names or [])
    _print_forgetting(chosen)
    if not _agrees_to_forget(chosen, yes):
        return

    def mark_deleted(decision: "Forgetting") -> None:
        if mlflow:
            _mark_deleted(folder, decision)

    _, troubles = forgets.forget(folder, names or [], chosen, mark_deleted)
    if troubles:
        raise ClusterError(
            f"not all of it could be removed: {'; '.join(troubles)}; once that is mended,"
            " zsg forget carries on"
        )
    show.print_result(f"removed, {_megabytes(chosen.size)} are free")


def _agrees_to_forget(chosen: "Forgetting", yes: bool) -> bool:
    """Whether there is something to remove, and the user wants it removed."""
    from launcher.views import asking, show

    if chosen.is_empty:
        show.print_result("nothing to remove")
        return False
    if yes:
        return True
    if not asking.can_ask(yes):
        show.print_result("nothing was removed: --yes removes it")
        return False
    if asking.confirm_loss("Remove it?"):
        return True
    show.print_result("nothing was removed")
    return False


def _print_forgetting(chosen: "Forgetting") -> None:
    """What goes and what stays, and why."""
    from launcher.views import show

    by_reason: dict[str, list[str]] = {}
    for name, reason in chosen.left.items():
        by_reason.setdefault(reason, []).append(name)
    for reason, names in by_reason.items():
        show.print_result(f"stays: {name_few(names)}: {reason}")
    record = chosen.record
    runs = [_name_item(item) for item in record.items if _is_run(item)]
    beside = len(record.items) - len(runs)
    grids = ""
    if record.grids:
        grids = f"grids {name_few(record.grids)}; "
    counted = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    if runs:
        counted = f"{counted} ({name_few(runs)})"
    show.print_result(
        f"goes: {grids}{counted}, jobs beside them: {beside},"
        f" made for them: {len(record.things)}: {_megabytes(chosen.size)}"
    )
    for run, grid in chosen.listed.items():
        show.print_result(
            f"{grid} goes on listing {run}: the next zsg submit trains it anew"
        )
    if chosen.claims:
        show.print_result(
            f"{chosen.claims} claim{'s' * (chosen.claims != 1)} and when they were made go, too:"
            " submitted again they count as made then"
        )


def _mark_deleted(workspace: "WorkspaceFolder", chosen: "Forgetting") -> None:
    """Marks as deleted what MLflow has of what goes."""
    from launcher.mlflow import mlflow_commands
    from launcher.views import show

    of_runs: dict[str, list[str]] = {}
    for run, grid in chosen.listed.items():
        of_runs.setdefault(grid, []).append(run)
    count = mlflow_commands.delete_runs(workspace, chosen.record.grids, of_runs)
    show.print_result(f"marked as deleted in MLflow: {count} runs")


def _megabytes(size: int) -> str:
    """Bytes as people read them."""
    return f"{size / 1e6:,.1f} MB"


def gc(
    grid: Annotated[
        str | None,
        typer.Argument(help="only what this grid's runs have left", metavar="GRID"),
    ] = None,
    workspace: Workspace = None,
    disk: Annotated[
        bool,
        typer.Option("--disk", help="only what each grid takes of the disk"),
    ] = False,
    json: AsJson = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="free it; without, it is only shown")
    ] = False,
) -> None:
    """Show what no run needs any more, and free it with --yes. What could be needed
    again can be made again. Below it: what each grid takes of the disk.

    Snapshots follow what the grids, as they were submitted last, keep.

    \b
    Examples:
      zsg gc
      zsg gc --yes
      zsg gc --disk
    """
    import logging

    from launcher.lifecycle import garbage
    from launcher.views import show
    from launcher.workspace import workspaces
    from zsg_core.errors import UserError

    logger = logging.getLogger(__name__)

    def report_piece(piece: garbage.Piece) -> None:
        logger.info(f"freeing {piece.path}")

    if disk and yes:
        raise UserError("--disk only shows; zsg gc --yes frees what no run needs")
    if disk:
        _show_disk(workspaces.find_to_read(workspace), grid, json)
        return
    if yes:
        pieces = garbage.free_garbage(
            workspaces.find_own(workspace), grid, report_piece
        )
    else:
        pieces = garbage.find_garbage(workspaces.find_to_read(workspace), grid)
    if json:
        rows = [
            {"kind": p.kind, "path": str(p.path), "bytes": p.size, "reason": p.reason}
            for p in pieces
        ]
        show.as_json(rows)
        return
    _print_garbage(pieces, is_freed=yes)
    if not yes:
        _show_disk(workspaces.find_to_read(workspace), grid, json)


def _print_garbage(pieces: "Sequence[Piece]", is_freed: bool) -> None:
    """What is free or could be, by kind, with the first paths of each."""
    from launcher.lifecycle import garbage
    from launcher.views import show
    from launcher.workspace.disk_usage import format_bytes

    for kind, (count, size, reasons) in garbage.sum_by_kind(pieces).items():
        show.print_result(
            f"{kind}: {count}, {format_bytes(size)}: {'; '.join(reasons)}"
        )
        paths = [piece.path for piece in pieces if piece.kind == kind]
        for path in paths[:MOST_PATHS]:
            show.print_result(f"  {path}")
        hidden = len(paths) - MOST_PATHS
        if hidden > 0:
            show.print_result(f"  … and {hidden:,} more (--json has all)")
    total = format_bytes(sum(piece.size for piece in pieces))
    show.print_result(
        f"freed {total}"
        if is_freed
        else f"{total} could be freed; zsg gc --yes frees it"
    )


def _show_disk(folder: "WorkspaceFolder", grid: str | None, json: bool) -> None:
    """What each grid takes of the disk."""
    from dataclasses import asdict

    from launcher.lifecycle import disk_by_grid
    from launcher.views import disk_view, show

    measured = disk_by_grid.measure_disk(folder, grid)
    if json:
        rows = [asdict(line) | {"total": line.total} for line in measured.lines]
        show.as_json(rows)
        return
    disk_view.print_disk(measured.lines, measured.describe_limits())
