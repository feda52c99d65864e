"""Finds the grids that were submitted to a workspace, and keeps what each lists, for
status, sync and the next plan.

A run that is taken out of a grid's file stays in its record: it may still be running,
and must not vanish from sight.
"""

import os
import shlex
from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec

from jobs.contract import grid_record
from jobs.contract.folder import Damaged, Workspace, write_bytes
from jobs.contract.grid_record import GridOutline, GridRecord, ListedRun, list_grids
from jobs.files import ownership
from launcher.workspace import workspaces
from launcher.workspace.job_state import GRID_FILE
from zsg_core.errors import UserError


def write_grid(
    workspace: Workspace,
    file: Path,
    record: GridRecord,
    plugins: Mapping[str, bytes] | None = None,
) -> None:
    """Keeps the grid file, its plugins beside it, and the grid's record; runs that an
    earlier record lists and this one does not are kept as `former`."""
    folder = workspace.grid(record.name)
    ownership.make_folder(folder)
    listed = {row.run for row in [*record.runs, *record.before]}
    former = find_former(workspace, record.name, listed)
    # never through a link in its place
    write_bytes(folder / "grid.yaml", file.read_bytes())
    for name, content in (plugins or {}).items():
        copy = folder / name
        ownership.make_folder(copy.parent)
        write_bytes(copy, content)
    grid_record.write_grid_record(
        workspace, msgspec.structs.replace(record, former=former)
    )


def find_former(
    workspace: Workspace, name: str, listed: Collection[str]
) -> list[ListedRun]:
    """The runs that a grid of that name once listed and that are not among `listed`."""
    record = grid_record.read_grid_record(workspace, name)
    if record is None:
        return []
    stages = [msgspec.structs.replace(row, is_stage=True) for row in record.before]
    rows = [*record.runs, *stages, *record.former]
    return [row for row in rows if row.run not in listed]


def read_grid(workspace: Workspace, name: str) -> GridRecord:
    """A grid's record. UserError if there is none such."""
    select_grids(workspace, name)
    record = grid_record.read_grid_record(workspace, name)
    assert record is not None, "select_grids has just seen it"
    return record


def read_outline(workspace: Workspace, name: str) -> GridOutline:
    """A grid's record without the recipes. UserError if there is none such."""
    select_grids(workspace, name)
    outline = grid_record.read_grid_outline(workspace, name)
    assert outline is not None, "select_grids has just seen it"
    return outline


def name_file(workspace: Workspace, name: str) -> str:
    """The file of a grid, with the options with which it was submitted to this
    workspace, as a command line takes them.

    `GRID.YAML` where that is not known, and in a group's workspace: any member can
    change what is recorded there, and a profile runs code.
    """
    if ownership.is_group_workspace(workspace.root):
        return GRID_FILE
    try:
        record = grid_record.read_grid_record(workspace, name) if name else None
    except Damaged:
        record = None
    if record is None or not record.file:
        return GRID_FILE
    words = [record.file]
    if record.opened_with:
        words += ["--profile", record.opened_with]
    if record.smoke:
        words.append("--smoke")
    for override in record.overrides:
        words += ["--set", override]
    if not _is_default(workspace, record):
        words += ["--workspace", str(workspace.root)]
    return shlex.join(words)


def _is_default(workspace: Workspace, record: GridRecord) -> bool:
    """Whether a submit of the grid takes this workspace without being told. A profile
    of the user's may name another, unless ZSG_WORKSPACE does."""
    is_shipped = os.sep not in (record.opened_with or "")
    if not is_shipped and not os.environ.get(workspaces.VARIABLE):
        return False
    try:
        default = workspaces.find_workspace(workspaces.choose_folder(None))
    except UserError:
        return False
    return default.root == workspace.root


def select_grids(workspace: Workspace, grid: str | None = None) -> list[str]:
    """The named grid, or all of the workspace. UserError if there is none such."""
    grids = list_grids(workspace)
    if grid is None and grids:
        return grids
    if grid in grids:
        return [grid]
    if not grids:
        raise UserError(
            f"{workspace.root}: no grid was submitted here; zsg submit GRID.YAML, or name the"
            " --workspace"
        )
    raise UserError(f"no grid {grid!r} in {workspace.root}; known: {', '.join(grids)}")
