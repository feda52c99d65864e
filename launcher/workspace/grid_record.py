"""Keeps what every submitted grid wants, for status, sync and the next plan.

`grids/<name>/grid.json` lists the runs that the grid wants now, and those that it
wanted once: a run that was taken out of the file goes on, so it must not vanish from
sight.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from jobs.contract.folder import Workspace, read_json, write_bytes, write_json
from jobs.files import ownership
from zsg_core.errors import UserError

SMALL = 1 << 20  # bytes

Row = dict[str, Any]


def write_grid_record(
    workspace: Workspace, name: str, file: Path, facts: Row, runs: Sequence[Row]
) -> None:
    """Keeps the grid file and which runs it wants; those it no longer wants are kept as
    `former`."""
    folder = workspace.grid(name)
    ownership.make_folder(folder)
    wanted = {row["run"] for row in [*runs, *facts.get("before", [])]}
    left = [
        row for row in find_former(workspace, name, set()) if row["run"] not in wanted
    ]
    # never through a link in its place
    write_bytes(folder / "grid.yaml", file.read_bytes())
    write_json(
        folder / "grid.json",
        {"schema": 1, "name": name, **facts, "runs": list(runs), "former": left},
    )


def read_kept(workspace: Workspace, name: str) -> Row:
    """What is kept of a grid of that name; nothing if none was submitted."""
    return read_json(workspace.grid(name) / "grid.json") or {}


def find_former(workspace: Workspace, name: str, wanted: Collection[str]) -> list[Row]:
    """The runs that a grid of that name once wanted and that are not among `wanted`."""
    record = read_kept(workspace, name)
    stages = [{**row, "is_stage": True} for row in record.get("before", [])]
    rows = [*record.get("runs", []), *stages, *record.get("former", [])]
    return [row for row in rows if row["run"] not in wanted]


def all_rows(record: Mapping[str, Any]) -> list[Any]:
    """Every run that a grid has or had: those it lists, the stages before them, and
    those it no longer wants."""
    return [*record["runs"], *record.get("before", []), *record.get("former", [])]


def read_grid_record(workspace: Workspace, name: str) -> Row:
    """A grid's record. UserError if there is none such."""
    [name] = select_grids(workspace, name)
    record = read_json(workspace.grid(name) / "grid.json")
    assert record is not None, "select_grids has just seen it"
    return record


class _Listed(TypedDict, total=False):
    run: str
    axes: dict[str, Any]


class _Brief(TypedDict, total=False):
    name: str
    corpora: list[str]
    runs: list[_Listed]
    before: list[_Listed]
    former: list[_Listed]


def read_brief(workspace: Workspace, name: str) -> _Brief:
    """Which runs a grid lists, lists no longer and begins with, without their recipes,
    which are most of the file."""
    path = workspace.grid(name) / "grid.json"
    if path.stat().st_size < SMALL:
        return read_grid_record(workspace, name)  # pyright: ignore[reportReturnType]
    import msgspec  # takes longer to load than a small file to read

    return msgspec.json.decode(path.read_bytes(), type=_Brief)


def list_grids(workspace: Workspace) -> list[str]:
    """The grids of the workspace."""
    return sorted(
        path.parent.name for path in (workspace.root / "grids").glob("*/grid.json")
    )


def select_grids(workspace: Workspace, grid: str | None = None) -> list[str]:
    """The named grid, or all of the workspace. UserError if there is none such."""
    there = list_grids(workspace)
    if grid is None and there:
        return there
    if grid in there:
        return [grid]
    if not there:
        raise UserError(
            f"{workspace.root}: no grid was submitted here; zsg submit GRID.YAML, or name the"
            " --workspace"
        )
    raise UserError(f"no grid {grid!r} in {workspace.root}; known: {', '.join(there)}")
