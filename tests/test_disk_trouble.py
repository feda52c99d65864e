"""Is a disk that is full, read-only or forbidden told in one message, and does the same
command work afterwards?"""

import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lib.builders import mounted
from tests.lib.command_line import Zsg
from tests.lib.other_user import as_a_user
from tests.lib.refusals import Ended, Home, assert_refused

USER, CLUSTER = 2, 3
READ_ONLY, FORBIDDEN = 0o500, 0o000


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A user's folder in an otherwise empty one."""
    return Home(tmp_path)


def run(
    home: Home, *argv: str | Path, first: Callable[[], None] | None = None
) -> Ended:
    """`zsg` in a process of its own, which calls `first` before it starts."""
    done = subprocess.run(
        [sys.executable, "-m", "launcher.cli", *map(str, argv)],
        cwd=home.folder,
        env=Zsg(home.folder).env,
        capture_output=True,
        text=True,
        preexec_fn=first,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    "mode", [READ_ONLY, FORBIDDEN], ids=["read-only", "unreadable"]
)
@pytest.mark.parametrize("below", ["", "new/work"], ids=["itself", "to be made in it"])
def test_a_workspace_that_is_closed_to_the_user_is_refused(
    home: Home, mode: int, below: str
) -> None:
    """A folder that may not be read and written is refused before anything is read for
    it or made in it."""
    closed = home.root / "closed"
    closed.mkdir()
    before = home.listing()
    closed.chmod(mode)
    try:
        ended = run(
            home, "submit", "grid.yaml", "--workspace", closed / below, first=as_a_user
        )
    finally:
        closed.chmod(0o700)

    assert_refused(home, before, ended, USER, ["workspace", "closed", "--workspace"])


@pytest.mark.parametrize("name", ["grid.yaml", "data/tasks/task001_add.json", "data"])
def test_an_input_that_is_closed_to_the_user_is_refused(home: Home, name: str) -> None:
    """What may not be read is named."""
    path, before = home.folder / name, home.listing()
    mode = path.stat().st_mode
    path.chmod(0)
    try:
        ended = run(home, "submit", "grid.yaml", first=as_a_user)
    finally:
        path.chmod(mode)

    assert ended.code in (USER, CLUSTER)
    assert_refused(home, before, ended, ended.code, [name, "ermission"])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one page of memory."""
    with mounted("4k", tmp_path / "disk") as folder:
        yield folder


def test_a_full_disk_is_told(home: Home, small_disk: Path) -> None:
    """On a disk without room nothing is submitted, and no half file stays."""
    (small_disk / "filling").write_bytes(bytes(4096))

    ended = run(home, "submit", "grid.yaml", "--workspace", small_disk / "work")

    *said, error = ended.said.splitlines()
    assert (ended.code, [line.partition(":")[0] for line in said]) == (
        CLUSTER,
        ["profile local"],
    ), ended.said
    assert "digests.json: No space left on device" in error
    assert list((small_disk / "work").iterdir()) == []


def test_a_disk_that_turned_read_only_is_told(home: Home, small_disk: Path) -> None:
    """A file system that is mounted read-only is refused, even to root."""
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)

    ended = run(home, "submit", "grid.yaml", "--workspace", small_disk / "work")

    assert (ended.code, ended.said.count("\n")) == (USER, 1), ended.said
    assert f"cannot be made: {small_disk} is not writable" in ended.said


@pytest.mark.parametrize(
    "largest", [0, 150, 1500], ids=["nothing", "no digests", "no record of the grid"]
)
def test_a_file_that_cannot_grow_is_told(home: Home, largest: int) -> None:
    """Whichever file meets the end of the disk, it is named, the code is 3, and nothing
    counts as submitted."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))  # noqa: E731

    ended = run(home, "submit", "grid.yaml", first=limit)

    errors = [line for line in ended.said.splitlines() if line.startswith("error: ")]
    assert (ended.code, len(errors), "Traceback" in ended.said) == (
        CLUSTER,
        1,
        False,
    ), ended.said
    assert f"{home.folder}/zsg-work/" in errors[0] and "File too large" in errors[0]
    assert "g: 1 to submit" in run(home, "plan", "grid.yaml").printed
