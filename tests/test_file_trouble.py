"""Is it told in one line whose a file is, and that a file system has failed, and do the
other runs stay in sight?"""

import errno
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from jobs.contract import attempt, exit_record, grid_record, journal
from jobs.contract.causes import Cause, of_error, of_line
from jobs.contract.folder import Unreadable, Workspace, list_paths
from jobs.contract.grid_record import GridRecord, ListedRun
from jobs.files import ownership
from launcher import cli
from launcher.status import journal_checks, logs, queries
from launcher.status.status import collect_states
from launcher.workspace import disk
from launcher.workspace.ledger import Ledger
from tests.lib.other_user import OtherUser, as_a_user
from zsg_core.errors import BadData, ClusterError

FAILED = (errno.EIO, errno.ESTALE, errno.EROFS, errno.EREMOTEIO)
OF_FILES = (errno.ETIMEDOUT, errno.ENOTCONN, errno.ESHUTDOWN, errno.EHOSTDOWN)


def os_error(number: int, path: str | None = None) -> OSError:
    text = os.strerror(number)
    return OSError(number, text, path) if path else OSError(number, text)


@pytest.mark.parametrize("number", [*FAILED, *OF_FILES], ids=errno.errorcode.get)
def test_a_file_system_that_failed_is_a_cause(number: int) -> None:
    """Of a file it is always one; behind bad data it is not the data's fault; and its
    line in a log is known."""
    error = os_error(number, "/disk/x")
    try:
        raise BadData("/disk/x: cannot be read") from error
    except BadData as caught:
        behind = caught

    assert (of_error(error), of_error(behind)) == (Cause.FILE_SYSTEM,) * 2
    if number in (*FAILED, errno.ETIMEDOUT, errno.ESHUTDOWN):
        name = type(error).__name__
        assert of_line(f"{name}: {error}") == Cause.FILE_SYSTEM


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (os_error(errno.ETIMEDOUT), Cause.FILE_SYSTEM),  # a read names no file
        (os_error(errno.ESTALE), Cause.FILE_SYSTEM),
        (os_error(errno.ENOSPC, "/disk/x"), Cause.DISK_FULL),
        (os_error(errno.ENOTCONN), Cause.TRACEBACK),
    ],
    ids=["time-out", "stale", "full", "a socket"],
)
def test_which_errors_are_a_file_systems(error: OSError, cause: Cause) -> None:
    """What names no file may be a connection's."""
    assert of_error(error) == cause


def test_a_server_that_does_not_answer_is_no_file_system() -> None:
    """A judge's time-out has the same number."""
    try:
        raise ClusterError("the judge does not answer") from os_error(errno.ETIMEDOUT)
    except ClusterError as error:
        assert of_error(error) == Cause.CLUSTER


@pytest.mark.parametrize("number", [*FAILED, *OF_FILES], ids=errno.errorcode.get)
def test_on_the_login_node_it_is_one_line(number: int) -> None:
    """The file, the system's words, and what to do; the code is the cluster's."""
    told = disk.explain_disk_error(os_error(number, "/disk/x"))

    assert told.exit_code == 3
    assert str(told).startswith(f"/disk/x: {os.strerror(number)}: the file system")
    assert "\n" not in str(told) and "run the same command again" in str(told)


@pytest.mark.parametrize("number", OF_FILES, ids=errno.errorcode.get)
def test_what_is_read_through_an_open_file_is_one_line_too(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names no file, and may as well be a connection's: still no traceback."""
    code = cli._tell_error(OSError(number, os.strerror(number)))
    said = " ".join(capsys.readouterr().err.split())

    assert code == 3
    assert f"{os.strerror(number)}: the server of a file system, or another" in said
    assert "Traceback" not in said


def test_an_error_of_the_system_that_is_no_disks_is_a_bug(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is shown as every bug, with exit code 1."""
    code = cli._tell_error(OSError(errno.EBADF, "Bad file descriptor"))

    assert code == 1
    assert "Bad file descriptor" in capsys.readouterr().err


@pytest.fixture
def work(open_to_all: Path) -> Workspace:
    """A folder for a group, with a grid of two runs that have ended, which zsg made for
    its owner alone."""
    place = Workspace(open_to_all / "w")
    place.root.mkdir(mode=0o755)
    ledger = Ledger(place)
    items = ["runs/aaaa", "runs/bbbb"]
    given = ledger.intend(scheduler="local", kind="train", grid="g", items=items)
    ledger.submitted(given, ["local", "local"])
    for item in items:
        ownership.make_folder(place.root / item)
        began = attempt.begin_attempt(place.root / item, given.id)
        attempt.end_attempt(place.root / item, began, exit_record.Outcome.DONE)
    ownership.make_folder(place.grid("g"))
    rows = [ListedRun(run=name, axes={}) for name in ("aaaa", "bbbb")]
    grid_record.write_grid_record(place, GridRecord(name="g", runs=rows))
    (place.root / "grids").chmod(0o755)
    (place.root / "runs").chmod(0o755)
    place.ledger.chmod(0o644)
    return place


def test_one_run_that_cannot_be_read_hides_no_other(work: Workspace) -> None:
    """The disk answers with an error of its own for one record: that run is unknown, and
    the reason names the file."""
    path = work.run("aaaa") / "exit.json"
    path.unlink()
    path.symlink_to("/proc/self/mem")  # of which a read is an I/O error
    states = collect_states(work, ["runs/aaaa", "runs/bbbb"], Ledger(work))

    assert [state.state for state in states.values()] == ["unknown", "done"]
    assert states["runs/aaaa"].cause == f"{path}: Input/output error"
    with pytest.raises(Unreadable):
        exit_record.read_if_sound(work.run("aaaa"))


@pytest.mark.parametrize("is_folder", [True, False])
def test_a_journal_that_cannot_be_read_hides_no_other_run(
    work: Workspace, is_folder: bool
) -> None:
    """The system refuses a run's journal, or the folder of its journals: status goes on
    with the others."""
    path = work.run("aaaa") / "journal"
    shutil.rmtree(path, ignore_errors=True)
    (work.run("aaaa") / "exit.json").unlink()
    if is_folder:
        path.symlink_to(path)
    else:
        path.mkdir()
        path /= "1-train-0.jsonl"
        path.symlink_to("/proc/self/mem")
    states = collect_states(work, ["runs/aaaa", "runs/bbbb"], Ledger(work))
    states = journal_checks.flag_journals(work, states)

    assert states["runs/bbbb"].state == "done"
    with pytest.raises(Unreadable, match=re.escape(f"{path}: ")):
        list(journal.read_journal(work.run("aaaa")))


CALLS = """
import sys
from launcher import cli
for words in sys.argv[1:]:
    sys.argv = ["zsg", *words.split()]
    try:
        cli.main()
        code = 0
    except SystemExit as ended:
        code = ended.code
    print(f"code {words.split()[0]} {code}", file=sys.stderr, flush=True)
"""
ASKED = """
from subprocess import CompletedProcess
from launcher.clusters import cluster

def answer(argv, **options):
    print(*argv)
    return CompletedProcess(argv, 0, "AccountingStorageEnforce = limits\\n", "")

cluster.query_cluster(answer)
"""
NAMELESS = "54321"  # a user's number that nobody has a name for


def run_python(
    code: str, *argv: str, env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """What a program of Python says, in an environment of its own."""
    variables = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "COLUMNS": "200",
    }
    prefix = options.pop("prefix", ())
    return subprocess.run(
        [*prefix, sys.executable, "-c", code, *argv],
        cwd="/",
        env={**variables, **(env or {})},
        capture_output=True,
        text=True,
        **options,
    )


def test_a_colleague_is_told_whose_it_is(stranger: OtherUser, work: Workspace) -> None:
    """What zsg has made for its owner alone is not called absent by status, why and
    report: it is told whose it is."""
    stranger.owns(work.root)
    commands = (f"{words} --workspace {work.root}" for words in COLLEAGUES)
    done = run_python(CALLS, *commands, preexec_fn=as_a_user)

    said = done.stderr.splitlines()
    errors = [line for line in said if line.startswith("error: ")]
    assert [line for line in said if line.startswith("code ")] == [
        f"code {words.split()[0]} 3" for words in COLLEAGUES
    ], said
    assert len(errors) == len(COLLEAGUES)
    for line in errors:
        assert f"/grids/g may not be read by you: it is {stranger.name}'s" in line


COLLEAGUES = (
    "status",
    "status g",
    "why g",
    "report g --out /tmp/none",
    "export g --out /tmp/none",
)


def test_a_colleague_sees_what_may_be_read(
    work: Workspace, stranger: OtherUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listings end in an error, not in nothing, where a folder is closed."""
    monkeypatch.setattr(os, "listdir", _refuse)
    with pytest.raises(PermissionError):
        list_paths(work.grid("g"), "*")
    for ask in (
        lambda: logs.list_logs(work.submission("s")),
        lambda: queries.find_item(work, "aaaa"),
    ):
        with pytest.raises(PermissionError):
            ask()
    with pytest.raises(Unreadable, match=r"aaaa/journal: Permission denied"):
        journal.list_journal_files(work.run("aaaa"))


def _refuse(path: Path) -> list[str]:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


@pytest.mark.engine
def test_a_user_without_a_name_goes_on_by_the_number(open_to_all: Path) -> None:
    """In a container, or while a directory service is away: Slurm is asked by number, and
    doctor and status do what they do for others, without a home, too."""
    commands = ("doctor", "status", "plan grid.yaml --workspace ~/w")
    prefix = ("unshare", "--user", f"--map-user={NAMELESS}", f"--map-group={NAMELESS}")
    env = {"ZSG_WORKSPACE": str(open_to_all / "w")}
    done = run_python(CALLS, *commands, env=env, prefix=prefix)

    codes = [line for line in done.stderr.splitlines() if line.startswith("code ")]
    assert codes == ["code doctor 0", "code status 2", "code plan 2"], done.stderr
    assert "Traceback" not in done.stderr
    asked = run_python(ASKED, prefix=prefix)
    assert f"users={NAMELESS}" in asked.stdout, asked.stderr
