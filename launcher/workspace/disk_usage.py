"""Measures what files take of a disk."""

import stat
from pathlib import Path

from jobs.contract.folder import COMMIT

_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"))


def measure_size(path: Path) -> int:
    """The bytes that are free once a file or folder is gone.

    A file that another name keeps, a hard link outside of the folder, frees none. What
    goes while it is measured counts as gone.
    """
    # by device and inode, how many names of a file are in the folder
    names: dict[tuple[int, int], int] = {}
    size = 0
    for file in (path, *path.rglob("*")):
        try:
            status = file.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        is_file = stat.S_ISREG(status.st_mode)
        if not is_file or file.name == COMMIT:
            continue
        key = (status.st_dev, status.st_ino)
        names[key] = names.get(key, 0) + 1
        if names[key] == status.st_nlink:
            size += status.st_size
    return size


def format_bytes(size: int | float) -> str:
    """A size for people, in the largest unit of which it has one: 0.4 MB, 3.2 GB,
    1.7 TB.

    Units are those of disks, powers of 1000. What is smaller than a megabyte is told as
    a part of one.
    """
    for unit, name in _UNITS:
        number = size / unit
        if number >= 100:
            return f"{number:,.0f} {name}"
        if number >= 1:
            return f"{number:.1f} {name}"
    return f"{size / 1e6:.1f} MB"
