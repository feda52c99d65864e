"""Loads grids for programs, and finds those that were submitted."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.contract.folder import Workspace
from launcher.api.calls import as_library
from launcher.api.records import Grid, Run
from launcher.grids import starter
from launcher.submission import workflow
from launcher.submission.workflow import ResolvedGrid
from launcher.workspace import workspaces
from zsg_core.errors import UserError

Overrides = Sequence[str] | Mapping[str, Any]


@as_library()
def load_grid(
    file: str | Path,
    overrides: Overrides = (),
    *,
    profile: str | None = None,
    workspace: str | Path | None = None,
    smoke: bool = False,
) -> Grid:
    """Reads a grid file and resolves its runs on a profile; submits and makes nothing.

    Args:
        file: the grid's YAML file.
        overrides: settings laid over its defaults, as {"train.lr": 1e-4} or as texts
            "train.lr=1e-4", like --set of the command line.
        profile: the name or the file of a profile; else the grid's own, or local.
        workspace: the folder of all runs; else the profile's, ZSG_WORKSPACE, or zsg-work here.
        smoke: a small trial of the whole grid, as by --smoke.

    Raises:
        UserError: for whatever is wrong in grid, profile, data or model, with file and line.
    """
    resolved = workflow.resolve_grid(
        Path(file),
        profile,
        Path(workspace) if workspace is not None else None,
        smoke,
        write_overrides(overrides),
        only_looks=True,
    )
    return Grid(
        name=resolved.grid.name,
        file=Path(resolved.opened_by["file"]),
        profile=resolved.opened_by["opened_with"],
        workspace=resolved.site.workspace.root,
        runs=_list_runs(resolved),
        overrides=resolved.grid.overrides,
        smoke=smoke,
        notes=tuple(resolved.notes),
    )


@as_library()
def write_starter(folder: str | Path = ".") -> Path:
    """Writes a first grid, a cluster profile and a small data set, as `zsg init` does;
    overwrites nothing. Returns the grid's file.

    The grid names its data relative to where it is loaded: work in that folder.

    Raises:
        UserError: for what is there already.
    """
    starter.write_starter(Path(folder))
    return Path(folder) / "grid.yaml"


def write_overrides(overrides: Overrides) -> list[str]:
    """Settings as `--set` takes them. UserError for a value that YAML cannot have."""
    if not isinstance(overrides, Mapping):
        return list(overrides)
    try:
        return [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
    except (TypeError, ValueError) as error:
        raise UserError(
            f"overrides: {error}; allowed are numbers, texts, true, false, null, and lists and"
            " mappings of them"
        ) from None


def resolve_again(grid: Grid, *, only_looks: bool) -> ResolvedGrid:
    """A loaded grid, resolved anew. UserError where its runs are others by now."""
    resolved = workflow.resolve_grid(
        grid.file,
        grid.profile,
        grid.workspace,
        grid.smoke,
        grid.overrides,
        only_looks=only_looks,
    )
    if [run.id for run in resolved.runs] != [run.id for run in grid.runs]:
        raise UserError(
            f"{grid.file}: it, its data or its model have changed since it was loaded, so that its"
            " runs are others; load it again"
        )
    return resolved


def find_grid(
    grid: Grid | str, workspace: str | Path | None
) -> tuple[str, Path | None]:
    """The name of a grid and the folder of its runs, where that is known."""
    if isinstance(grid, Grid):
        return grid.name, grid.workspace
    return grid, Path(workspace) if workspace is not None else None


def find_grids(
    grids: Grid | str | Sequence[Grid | str], workspace: str | Path | None
) -> tuple[list[str], Path | None]:
    """The names of grids, one or several, and the folder of their runs, where that is
    known.

    UserError for none, for what is neither a grid nor a name, and for loaded grids of
    several workspaces: a page is of one.
    """
    listed: list[Any] = [grids]
    if isinstance(grids, Iterable) and not isinstance(grids, str):
        listed = list(grids)
    if not listed:
        raise UserError("no grid is named: give one, or several")
    for grid in listed:
        if not isinstance(grid, Grid | str):
            raise UserError(
                f"a grid is a loaded one, or the name of one that was submitted; not {grid!r}"
            )
    names: list[str] = []
    folders: dict[Path, str] = {}
    for grid in listed:
        name, folder = find_grid(grid, workspace)
        names.append(name)
        if folder is not None:
            folders.setdefault(folder.resolve(), name)
    if len(folders) > 1:
        told = ", ".join(f"{name} in {folder}" for folder, name in folders.items())
        raise UserError(
            f"the grids are of several workspaces: {told}; report those of one workspace"
            " together"
        )
    return names, next(iter(folders), None)


def open_workspace(folder: Path | None) -> Workspace:
    """The workspace of a folder, to be read; else that of ZSG_WORKSPACE, or zsg-work here."""
    return workspaces.find_to_read(folder)


def _list_runs(resolved: ResolvedGrid) -> tuple[Run, ...]:
    return tuple(Run(id=run.id, axes=dict(run.axes)) for run in resolved.runs)
