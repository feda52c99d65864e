"""Measures what each grid of a workspace takes of the disk.

What several grids share, their common runs and what is made for runs, is counted once,
in lines of its own: it is free only when the last of them goes.
"""

import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jobs.contract import grid_record, snapshots
from jobs.contract.folder import Damaged, Workspace
from launcher.workspace import recorded_grids

MOST_S = 20.0  # as long as anybody waits for a table
STATE = "state"
# rows that are no grid's alone
SHARED_RUNS = "runs of several grids"
LEFT_RUNS = "runs of no grid"
MADE = "made for runs, logs, code"


@dataclass
class DiskUse:
    """The bytes of one line: saved states and the weights of stages, snapshots, and all
    else; `runs`: how many were measured."""

    name: str
    is_grid: bool = True
    runs: int = 0
    checkpoints: int = 0
    snapshots: int = 0
    other: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.checkpoints + self.snapshots + self.other

    def add(self, kind: str, size: int) -> None:
        """Adds bytes of a folder of a run, by its name."""
        if kind == snapshots.FOLDER:
            self.snapshots += size
        elif kind in (STATE, snapshots.WEIGHTS):
            self.checkpoints += size
        else:
            self.other += size


@dataclass
class MeasuredDisk:
    """The lines of a workspace, the largest first. `left`: how many folders there was no
    time to measure; `unreadable`: how many could not be read."""

    lines: list[DiskUse] = field(default_factory=list[DiskUse])
    left: int = 0
    unreadable: int = 0

    @property
    def total(self) -> int:
        """The bytes of all lines."""
        return sum(line.total for line in self.lines)

    def describe_limits(self) -> list[str]:
        """What is not in the lines, in words."""
        notes: list[str] = []
        if self.left:
            notes.append(
                f"at least so much: {self.left:,} folders were not measured in"
                f" {MOST_S:.0f} s"
            )
        if self.unreadable:
            notes.append(f"{self.unreadable:,} folders or files cannot be read by you")
        return notes


def measure_disk(
    workspace: Workspace,
    grid: str | None = None,
    get_time: Callable[[], float] = time.monotonic,
) -> MeasuredDisk:
    """What each grid takes of the disk; with a grid, what it takes, and what it shares.

    Ends after MOST_S seconds with what it has measured. UserError for a grid that is not
    there.
    """
    until = get_time() + MOST_S
    names = recorded_grids.select_grids(workspace, grid)
    grids_by_run = _list_grids_by_run(workspace)
    walk = _Walk()
    disk = MeasuredDisk()
    lines: dict[str, DiskUse] = {}
    for folder in _list_measured(workspace, grids_by_run, grid):
        if get_time() > until:
            disk.left += 1
            continue
        name = _name_line(folder, grids_by_run)
        line = lines.setdefault(name, DiskUse(name))
        if folder.parent.name == "runs":
            line.runs += 1
        walk.measure(folder, line)
    for name, line in lines.items():
        line.is_grid = name not in (SHARED_RUNS, LEFT_RUNS, MADE)
    for name in names:
        lines.setdefault(name, DiskUse(name))
    disk.unreadable = walk.unreadable
    by_size = sorted(lines.values(), key=lambda line: -line.total)
    disk.lines = sorted(by_size, key=lambda line: not line.is_grid)
    return disk


def _list_grids_by_run(workspace: Workspace) -> Mapping[str, list[str]]:
    """By run, the grids that have it or had it. What of a grid cannot be read counts as
    nobody's."""
    grids_by_run: dict[str, list[str]] = {}
    for name in grid_record.list_grids(workspace):
        try:
            outline = grid_record.read_grid_outline(workspace, name)
        except Damaged:
            continue
        if outline is None:
            continue
        for row in outline.all_runs:
            names = grids_by_run.setdefault(row.run, [])
            if name not in names:
                names.append(name)
    return grids_by_run


def _list_measured(
    workspace: Workspace,
    grids_by_run: Mapping[str, list[str]],
    grid: str | None,
) -> Iterator[Path]:
    """The folders and files that are measured: all that lies in the workspace, each run
    by itself; of a grid its runs and its own folder."""
    runs = workspace.root / "runs"
    for path in _list_entries(runs):
        if grid is None or grid in grids_by_run.get(path.name, ()):
            yield path
    for path in _list_entries(workspace.root / "grids"):
        if grid in (None, path.name):
            yield path
    if grid is not None:
        return
    for path in _list_entries(workspace.root):
        if path.name not in ("runs", "grids"):
            yield path


def _list_entries(folder: Path) -> list[Path]:
    """What lies in a folder, in order; nothing where it cannot be read, or is a link."""
    if folder.is_symlink():
        return []
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _name_line(path: Path, grids_by_run: Mapping[str, list[str]]) -> str:
    """The line in which a folder counts."""
    if path.parent.name == "grids":
        return path.name
    if path.parent.name != "runs":
        return MADE
    grids = grids_by_run.get(path.name, [])
    if not grids:
        return LEFT_RUNS
    if len(grids) > 1:
        return SHARED_RUNS
    return grids[0]


class _Walk:
    """Measures folders. Follows no link, and counts a file of several names once."""

    def __init__(self) -> None:
        self.unreadable = 0
        self._counted = set[tuple[int, int]]()

    def measure(self, folder: Path, line: DiskUse) -> None:
        """Adds to a line what lies in a folder, or a file."""
        self._measure_entry(os.fspath(folder), "", line)

    def _measure_entry(self, path: str, kind: str, line: DiskUse) -> None:
        """`kind`: the name of the folder of a run that it lies in."""
        try:
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode):
                line.add(kind, self._get_size(status))
            if not stat.S_ISDIR(status.st_mode):
                return
            with os.scandir(path) as entries:
                inner = [(entry.path, kind or entry.name) for entry in entries]
        except FileNotFoundError:
            return
        except OSError:
            self.unreadable += 1
            return
        for inner_path, inner_kind in inner:
            self._measure_entry(inner_path, inner_kind, line)

    def _get_size(self, status: os.stat_result) -> int:
        """The bytes of a file; 0 where another name of it was counted."""
        if status.st_nlink == 1:
            return status.st_size
        key = (status.st_dev, status.st_ino)
        if key in self._counted:
            return 0
        self._counted.add(key)
        return status.st_size
