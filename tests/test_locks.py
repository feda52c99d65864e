"""Are locks taken, waited for and told of, and is a file system without them refused?"""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.contract import grid_record
from jobs.contract.causes import Cause, of_error
from jobs.contract.folder import Workspace, lock_folder
from jobs.contract.grid_record import GridRecord, ListedRun
from jobs.files import locks, ownership
from launcher.doctor import doctor
from launcher.status import queries
from launcher.workspace.ledger import Ledger
from launcher.workspace.submit_lock import find_submit_under_way, submit_lock
from tests.lib.builders import write_niv2
from tests.lib.command_line import Zsg
from tests.lib.without_locks import missing_for_no_locks
from zsg_core.errors import UserError

GRID = "name: g\ndefaults:\n  data: {path: data}\n  train: {batch: 4}\n"
HOLDER = """
import sys
from pathlib import Path
from jobs.contract.folder import Workspace
from launcher.workspace.submit_lock import submit_lock
with submit_lock(Workspace(Path(sys.argv[2])), "g"):
    print("held", flush=True)
    sys.stdin.read(1)
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    place = Workspace(tmp_path / "work")
    place.create()
    return place


@pytest.fixture
def holder(workspace: Workspace) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the submit lock, until it is written to."""
    argv = [sys.executable, "-c", HOLDER, "submit", str(workspace.root)]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_submit_waits_and_says_for_whom(
    workspace: Workspace, holder: subprocess.Popen[str], logged: list[str]
) -> None:
    """Host and process are named once; it goes on as soon as the first has ended."""
    assert holder.stdin
    ends = threading.Timer(0.6, holder.stdin.close)
    ends.start()
    with submit_lock(workspace):
        pass
    ends.join()

    place = f"host {socket.gethostname()}, process {holder.pid}"
    assert logged == [
        f"waiting for another zsg submit ({place}) to finish, at most 10 min"
    ]


def test_waiting_for_a_submit_has_an_end(
    workspace: Workspace, holder: subprocess.Popen[str]
) -> None:
    """Then it says who is at work, and what to do if that machine is gone."""
    with (
        pytest.raises(
            UserError, match=rf"process {holder.pid}\).*remove .*submit.lock"
        ),
        submit_lock(workspace, patience_s=0.3),
    ):
        pass


def test_a_submit_under_way_is_seen(
    workspace: Workspace, holder: subprocess.Popen[str]
) -> None:
    """By its grid, from another process; one that was killed is none, whatever its file says."""
    submit = find_submit_under_way(workspace)
    assert submit is not None
    assert (submit.may_submit("g"), submit.may_submit("h")) == (True, False)
    holder.send_signal(signal.SIGKILL)
    holder.wait()

    assert workspace.submit_lock.read_bytes() != b""
    assert find_submit_under_way(workspace) is None
    with submit_lock(workspace):
        assert find_submit_under_way(workspace) is None, "it submits no grid"


def test_what_is_being_submitted_is_not_called_cut_short(workspace: Workspace) -> None:
    """Neither before its intent is written nor while sbatch is called; after a kill it is."""
    ownership.make_folder(workspace.grid("g"))
    runs = [ListedRun(run="aaaa", axes={})]
    grid_record.write_grid_record(workspace, GridRecord(name="g", runs=runs))
    with submit_lock(workspace, "g"):
        before = queries.status_rows(workspace, None)
        Ledger(workspace).intend(
            scheduler="slurm", kind="train", grid="g", items=["runs/aaaa"]
        )
        during = queries.status_rows(workspace, None)
    with submit_lock(workspace, "other"):
        after = queries.status_rows(workspace, None)

    for [row] in (before, during):
        assert row["state"] == "waiting"
        assert row["cause"].startswith("being submitted: zsg ")
    assert (after[0]["state"], "cut short" in after[0]["cause"]) == ("unknown", True)


def test_a_lock_that_was_removed_is_taken_anew(workspace: Workspace) -> None:
    """Who waits for a lock whose file is gone does not come in beside the next one."""
    with submit_lock(workspace):
        handle = os.open(workspace.submit_lock, os.O_RDWR)
        workspace.submit_lock.unlink()
        assert not locks.is_still_at(handle, workspace.submit_lock)
        os.close(handle)
        with submit_lock(workspace, patience_s=0.1):
            assert locks.is_locked(workspace.submit_lock)


COMMANDS = """
import sys
from launcher import cli
from tests.lib.without_locks import take_locks_away
take_locks_away()
for words in sys.argv[1:]:
    sys.argv = ["zsg", *words.split()]
    try:
        cli.main()
        code = 0
    except SystemExit as ended:
        code = ended.code
    print(f"=== {words.split()[0]} {code}", flush=True)
    print(f"=== {words.split()[0]} {code}", file=sys.stderr, flush=True)
"""


@pytest.mark.skipif(bool(missing_for_no_locks()), reason=missing_for_no_locks())
def test_where_there_are_no_locks_nothing_is_submitted(zsg: Zsg) -> None:
    """Lustre without -o flock: doctor, plan, submit and gc say so and what to do, with 3,
    and nothing is made."""
    write_niv2(zsg.folder / "data")
    zsg.write("grid.yaml", GRID)
    (zsg.folder / "other").mkdir(mode=0o700)
    zsg.program = [sys.executable, "-c", COMMANDS]
    zsg.env["PYTHONPATH"] = str(Path(__file__).parents[1])
    printed = zsg(
        "doctor", "plan grid.yaml", "submit grid.yaml", "gc --workspace other --yes"
    )

    codes = [line.split()[1:] for line in printed.splitlines() if line[:4] == "=== "]
    assert codes == [["doctor", "3"], ["plan", "3"], ["submit", "3"], ["gc", "3"]]
    assert "problem  locks: " in printed and "submit would refuse: " in printed
    errors = [line for line in zsg.said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2 and "Traceback" not in zsg.said
    for line in errors:
        assert "has no locks (flock: Function not implemented)" in line
        assert "-o flock" in line and "--workspace" in line
    assert not zsg.work.exists()


@pytest.mark.parametrize(
    "number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, 524], ids=str
)
def test_on_a_node_missing_locks_are_a_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Whichever lock a job asks for, and whichever number the kernel has for it."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(fcntl, "lockf", refuse)
    for lock in (lock_folder(tmp_path / "a/b"), locks.hold_lock(tmp_path / "lock")):
        with pytest.raises(locks.NoLocks, match="has no locks") as raised, lock:
            pass
        assert of_error(raised.value) == Cause.FILE_SYSTEM
    assert doctor.check_locks(tmp_path, "lustre").verdict == "problem"
