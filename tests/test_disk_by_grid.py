"""Is what each grid takes of the disk told, each byte once?"""

import os
from pathlib import Path

import pytest

from jobs.contract.folder import Workspace
from jobs.contract.grid_record import GridRecord, ListedRun, write_grid_record
from launcher.lifecycle import disk_by_grid
from launcher.lifecycle.disk_by_grid import DiskUse
from launcher.views import disk_view
from zsg_core.errors import UserError

MINE, BOTH, LEFT = "a" * 12, "b" * 12, "c" * 12


def write_bytes(path: Path, size: int) -> Path:
    """A file of so many bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Two grids that share a run, a run of no grid, and an order that was made."""
    workspace = Workspace(tmp_path)
    for name, runs in (("one", [MINE, BOTH]), ("two", [BOTH])):
        workspace.grid(name).mkdir(parents=True)
        rows = [ListedRun(run=run, axes={}) for run in runs]
        write_grid_record(workspace, GridRecord(name=name, runs=rows))
    for run in (MINE, BOTH, LEFT):
        folder = workspace.run(run)
        write_bytes(folder / "state/4/ranks/0.pt", 1000)
        write_bytes(folder / "weights/model.safetensors", 200)
        write_bytes(folder / "snapshots/4/model.safetensors", 30)
        write_bytes(folder / "journal/1.jsonl", 4)
    write_bytes(workspace.root / "arrangements/x/ids", 7)
    return workspace


def measure(workspace: Workspace, grid: str | None = None) -> dict[str, DiskUse]:
    """The lines, by name."""
    lines = disk_by_grid.measure_disk(workspace, grid).lines
    return {line.name: line for line in lines}


def test_what_a_grid_has_alone_is_its_own(workspace: Workspace) -> None:
    """By kind; states and the weights of stages are checkpoints."""
    mine = measure(workspace)["one"]
    record = (workspace.grid("one") / "grid.json").stat().st_size

    assert (mine.runs, mine.checkpoints, mine.snapshots) == (1, 1200, 30)
    assert mine.other == 4 + record


def test_what_grids_share_is_counted_once(workspace: Workspace) -> None:
    """In lines of its own; so is what no grid lists. Together they are all that is there."""
    lines = measure(workspace)
    files = [path for path in workspace.root.rglob("*") if path.is_file()]

    assert lines[disk_by_grid.SHARED_RUNS].total == 1234
    assert lines[disk_by_grid.LEFT_RUNS].total == 1234
    assert lines[disk_by_grid.MADE].total == 7
    assert lines["two"].runs == 0
    assert sum(line.total for line in lines.values()) == sum(
        path.stat().st_size for path in files
    )


def test_of_a_grid_its_own_runs_are_measured(workspace: Workspace) -> None:
    """And what it shares; a grid that is not there is an error."""
    assert measure(workspace, "one").keys() == {"one", disk_by_grid.SHARED_RUNS}
    with pytest.raises(UserError, match="no grid 'three'"):
        measure(workspace, "three")


def test_no_link_is_followed_and_a_file_of_two_names_counts_once(
    workspace: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What lies behind a link is none of the workspace's."""
    elsewhere = write_bytes(tmp_path_factory.mktemp("far") / "f", 5000)
    folder = workspace.run(MINE)
    before = measure(workspace)["one"].total
    (folder / "snapshots/8").symlink_to(elsewhere.parent)
    os.link(folder / "journal/1.jsonl", folder / "journal/2.jsonl")

    assert measure(workspace)["one"].total == before


def test_it_ends_in_time_and_says_what_it_left(workspace: Workspace) -> None:
    """Of ten thousand runs on a slow disk what could be measured is shown."""
    clock = iter([0.0, 1.0, *[100.0] * 50])
    measured = disk_by_grid.measure_disk(workspace, None, lambda: next(clock))

    assert sum(line.runs for line in measured.lines) == 1
    assert measured.left > 3
    [note] = measured.describe_limits()
    assert note.startswith(f"at least so much: {measured.left} folders")


def test_many_grids_take_one_screen(capsys: pytest.CaptureFixture[str]) -> None:
    """The largest first, the others in one line, none wider than 80 columns."""
    lines = [
        DiskUse(f"{'a-long-name-of-a-grid' * 2}{number}", runs=10_000, other=10**15)
        for number in range(100)
    ]
    shared = DiskUse(disk_by_grid.SHARED_RUNS, is_grid=False, snapshots=10**12)
    disk_view.print_disk([*lines, shared], ["a note"])
    shown = capsys.readouterr().out.splitlines()

    assert len(shown) <= 24
    assert max(map(len, shown)) <= 80
    assert "88 smaller grids, 88,000 TB" in shown[-3]
