"""Does what only looks answer on a disk that may only be read?"""

import fcntl
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.contract import attempt as attempts
from jobs.contract.folder import Workspace
from jobs.contract.grid_record import GridRecord, ListedRun
from launcher.clusters import slurm
from launcher.lifecycle import explain
from launcher.status import queries
from launcher.workspace import recorded_grids, workspaces
from launcher.workspace.ledger import Ledger
from tests.lib.builders import mounted
from tests.lib.recorded_run import ITEM, begins, submitted
from zsg_core.errors import ClusterError, UserError


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own."""
    with mounted("1m", tmp_path / "disk") as folder:
        yield folder


def remount_read_only(disk: Path) -> None:
    """Makes a file system one that nobody, not even root, may write."""
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)


def without_slurm(*_: object, **__: object) -> None:
    """A machine that has no Slurm."""
    raise ClusterError("squeue cannot be started here")


@pytest.mark.parametrize("scheduler", ["slurm", "local"])
def test_status_why_and_logs_answer_on_a_disk_that_may_only_be_read(
    disk: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str], scheduler: str
) -> None:
    """Of an end that nobody has looked at yet, and of a local job whose lock is looked
    at; that nothing is kept is told. Where there is no Slurm either."""
    disk.chmod(0o700)
    workspace = Workspace(disk)
    submission = submitted(workspace, scheduler, ("7",))
    record = GridRecord(name="g", runs=[ListedRun(run="r", axes={})])
    grid = disk / "g.yaml"
    grid.write_text("name: g\n")
    recorded_grids.write_grid(workspace, grid, record)
    begins(workspace, "step 3\n")
    if scheduler == "local":
        lock = workspace.root / ITEM / "lock"
        log = workspace.root / ITEM / "log.txt"
        log.write_text("step 3\n")
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            [row] = queries.status_rows(workspace, "g")
            assert row["state"] == "running"
    else:
        attempt = attempts.read_attempt(workspace.root / ITEM)
        assert attempt is not None
        folder = workspace.root / ITEM
        attempts.end_attempt(folder, attempt, "failed", cause="disk full", evidence="x")
    long_ago = time.time() - 60
    for path in [*disk.rglob("*"), disk]:
        os.utime(path, (long_ago, long_ago))
    remount_read_only(disk)
    monkeypatch.setattr(slurm, "query_states", without_slurm)

    place = workspaces.find_to_look(disk)
    assert logged[-1].endswith("may only be read here: it is read anew each time")
    [row] = queries.status_rows(place, None)
    told = explain.why_run(place, "r")
    cause = "disk full" if scheduler == "slurm" else "died"
    assert (row["state"], row["cause"], told["cause"]) == ("failed", cause, cause)
    printed = "".join(queries.read_log(place, "r", 0, None, 5, follow=False))
    assert printed.endswith("step 3\n")
    assert Ledger(place).last(ITEM).id == submission.id  # type: ignore[union-attr]
    with pytest.raises(UserError, match="--out FOLDER writes elsewhere"):
        workspaces.find_own(disk, elsewhere="--out FOLDER")
