"""Reads and writes files below one folder, without following a link on the way, at no time.

MLflow keeps the address of each run's artifacts in its database, and takes any: whoever
wrote the database, or may call the server, names a folder of the user's, or one with a
link in it. So files are reached from the one folder that is allowed, name by name, each
opened relative to the last and none of them through a link. What is swapped for a link
meanwhile is not followed either.
"""

import contextlib
import os
import shutil
import stat
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

UNDER_WAY = ".zsg-part."  # begins the name of a file that is being written
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# a pipe of that name would never open
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Parts = Sequence[str]


class NotBelow(Exception):
    """A path that leads out of the folder, through a link, or to what is no plain file."""


@dataclass(frozen=True)
class Entry:
    """What lies in a folder; `size` in bytes, None of a folder."""

    name: str
    is_folder: bool
    size: int | None


def split_path(path: str) -> list[str]:
    """The names of a path relative to the folder. NotBelow for one that is not."""
    names = [name for name in path.split("/") if name not in ("", ".")]
    if path.startswith("/") or ".." in names or "\0" in path:
        raise NotBelow(f"{path!r} leads out of the folder of artifacts")
    return names


def split_below(root: Path, path: str) -> list[str]:
    """The names from `root` to an absolute path that is `root` or lies below it.
    NotBelow for all others."""
    if ".." not in path.split("/"):
        for folder in (root, root.resolve()):
            with contextlib.suppress(ValueError):
                return split_path(Path(path).relative_to(folder).as_posix())
    raise NotBelow(f"{path} is not the folder of artifacts, {root}, nor below it")


def list_entries(root: Path, names: Parts) -> list[Entry]:
    """What lies in a folder, by name; nothing where there is no such folder. Links are not told."""
    entries: list[Entry] = []
    try:
        with _opened(root, names) as folder, os.scandir(folder) as scanned:
            for item in scanned:
                if item.is_symlink() or item.name.startswith(UNDER_WAY):
                    continue
                is_folder = item.is_dir(follow_symlinks=False)
                size = None if is_folder else item.stat(follow_symlinks=False).st_size
                entries.append(Entry(item.name, is_folder, size))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(entries, key=lambda entry: entry.name)


def is_folder(root: Path, names: Parts) -> bool:
    """Whether there is such a folder, and no link on the way."""
    try:
        with _opened(root, names):
            return True
    except (OSError, NotBelow):
        return False


def read_file(root: Path, names: Parts, to: Path) -> None:
    """Copies a file to `to`. FileNotFoundError where there is none."""
    with _opened(root, names[:-1]) as folder:
        file = _open(names[-1], _READ, folder)
        with os.fdopen(file, "rb") as source:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise NotBelow(f"{'/'.join(names)} is no plain file")
            with to.open("wb") as target:
                shutil.copyfileobj(source, target)


def write_file(root: Path, names: Parts, source: Path) -> None:
    """Puts a copy of `source` there, in place of one of the same name; folders that
    lack are made, private."""
    draft = f"{UNDER_WAY}{uuid.uuid4().hex}"
    with _opened(root, names[:-1], make=True) as folder:
        try:
            file = os.open(draft, _WRITE, 0o600, dir_fd=folder)
            with os.fdopen(file, "wb") as target, source.open("rb") as opened:
                shutil.copyfileobj(opened, target)
            os.replace(draft, names[-1], src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft, dir_fd=folder)
            raise


def delete_entry(root: Path, names: Parts) -> None:
    """Removes a file, a folder with all in it, or a link itself; the folder of artifacts stays."""
    if not names:
        raise NotBelow("the folder of artifacts itself is not deleted")
    with contextlib.suppress(FileNotFoundError), _opened(root, names[:-1]) as folder:
        if stat.S_ISDIR(
            os.stat(names[-1], dir_fd=folder, follow_symlinks=False).st_mode
        ):
            shutil.rmtree(names[-1], dir_fd=folder)
        else:
            os.unlink(names[-1], dir_fd=folder)


@contextlib.contextmanager
def _opened(root: Path, names: Parts, make: bool = False) -> Iterator[int]:
    if make:
        root.mkdir(mode=0o700, exist_ok=True)
    folder = _open(str(root), _FOLDER)
    try:
        for name in names:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=folder)
            inner = _open(name, _FOLDER, folder)
            os.close(folder)
            folder = inner
        yield folder
    finally:
        os.close(folder)


def _open(name: str, flags: int, folder: int | None = None) -> int:
    try:
        return os.open(name, flags, dir_fd=folder)
    except OSError:
        if _is_link(name, folder):
            raise NotBelow(f"{name} is a link, which is not followed") from None
        raise


def _is_link(name: str, folder: int | None) -> bool:
    with contextlib.suppress(OSError):
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    return False
