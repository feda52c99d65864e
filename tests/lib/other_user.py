"""A second real user of the machine: made by the suite where it runs as root, gone at its end."""

import ctypes
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2


class OtherUser:
    """A user without a home, a shell or a password; commands run under its name."""

    def __init__(self, name: str) -> None:
        entry = pwd.getpwnam(name)
        self.name, self.uid, self.gid = name, entry.pw_uid, entry.pw_gid

    def run(
        self, *command: str | Path, groups: tuple[int, ...] = (), **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """What a command of that user says; its exit status is the caller's to judge.
        `groups`: further group ids."""
        options = {"cwd": "/", "timeout": 60, "umask": 0o022, **options}
        return subprocess.run(
            list(map(str, command)),
            user=self.uid,
            group=self.gid,
            extra_groups=list(groups),
            text=True,
            capture_output=True,
            **options,
        )

    def can(self, command: str, *arguments: str | Path) -> bool:
        """Whether a line of sh, with the arguments as `$1` …, ends well under that user."""
        return self.run("/bin/sh", "-c", command, "sh", *arguments).returncode == 0

    def owns(self, path: Path) -> None:
        """Gives a file, or a folder with all in it, to that user."""
        for one in [
            path,
            *(path.rglob("*") if path.is_dir() and not path.is_symlink() else ()),
        ]:
            os.chown(one, self.uid, self.gid, follow_symlinks=False)


@contextmanager
def other_user() -> Iterator[OtherUser]:
    """A user of this process's own, so that two suites at once do not meet."""
    name = f"zsgtest{os.getpid()}"
    subprocess.run(
        [
            "useradd",
            "--system",
            "--user-group",
            "--no-create-home",
            "--home-dir",
            "/nonexistent",
            name,
        ],
        check=True,
        capture_output=True,
    )
    try:
        yield OtherUser(name)
    finally:
        subprocess.run(["userdel", name], check=False, capture_output=True)


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that every user of the machine can enter and read; pytest's own are
    closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="zsg-open-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def missing_for_another_user() -> str:
    """Why no second user can be made here; "" where one can."""
    if os.getuid() != 0:
        return "a second user can be made by root only"
    if shutil.which("useradd") is None:
        return "useradd is not installed"
    return ""


def as_a_user() -> None:
    """Gives up what lets root read and write everything, so that a folder's mode counts."""
    if os.getuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for power in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
            assert libc.prctl(PR_CAPBSET_DROP, power, 0, 0, 0) == 0, os.strerror(
                ctypes.get_errno()
            )
