"""Says where runs stand, for programs. Its imports are light: people ask all day."""

from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.contract.folder import Workspace
from launcher.api.calls import as_library
from launcher.api.records import RunStatus
from launcher.status import queries
from launcher.workspace import workspaces

if TYPE_CHECKING:  # a loaded grid brings its module with it
    from launcher.api.records import Grid

FIELDS = [field.name for field in fields(RunStatus) if field.name != "details"]


@as_library()
def status(
    grid: "Grid | str | None" = None,
    *,
    states: Collection[str] = (),
    workspace: str | Path | None = None,
) -> list[RunStatus]:
    """Where the runs of a grid stand, or those of all grids. Asks the scheduler once.

    Args:
        grid: a loaded grid, or the name of one that was submitted; None for all.
        states: only the runs in one of these.
        workspace: the folder of all runs, for a name; else ZSG_WORKSPACE, or zsg-work here.

    Raises:
        UserError: if no such grid was submitted.
    """
    folder = Path(workspace) if workspace is not None else None
    name = grid if isinstance(grid, str) or grid is None else grid.name
    if grid is not None and not isinstance(grid, str):
        folder = grid.workspace
    return list_states(workspaces.find_to_look(folder), name, states)


def list_states(
    workspace: Workspace, grid: str | None, states: Collection[str] = ()
) -> list[RunStatus]:
    """The rows of `zsg status --json` as records."""
    return [_make_status(row) for row in queries.status_rows(workspace, grid, states)]


def _make_status(row: Mapping[str, Any]) -> RunStatus:
    """A row of `zsg status --json` as the record of the Python interface: the
    documented fields as attributes, everything in `details`."""
    # a state is a text of its own kind, which prints otherwise within a record
    plain_row: dict[str, Any] = {**row, "state": str(row["state"])}
    values: dict[str, Any] = {name: plain_row[name] for name in FIELDS}
    return RunStatus(**values, details=plain_row)
