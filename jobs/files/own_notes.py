"""Remembers in the user's home what the user's own commands have allowed to be run: a
workspace may have come from somebody else, and so may a grid.

`~/.zsg/KIND/` holds an empty file for each thing, by its digest.
"""

import contextlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from jobs.files import ownership
from jobs.files.paths import find_home

HOME = ".zsg"


def keep_notes(kind: str, digests: Iterable[str]) -> bool:
    """Makes the folders that are missing, and an empty file for each digest; False where
    the user has no home. OSError where they cannot be made."""
    home = find_home()
    if home is None:
        return False
    folder = home
    for name in (HOME, kind):
        folder = folder / name
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW
    for digest in digests:
        handle = os.open(folder / digest, flags, 0o600)
        os.close(handle)
    return True


def is_noted(kind: str, digest: str) -> bool:
    """Whether the user's own command has noted this.

    False also where others may write what says so, and where it cannot be read.
    """
    home = find_home()
    if home is None:
        return False
    folder = home / HOME / kind
    try:
        return all(map(_is_own, (home / HOME, folder, folder / digest)))
    except OSError:
        return False


def _is_own(path: Path) -> bool:
    """Whether a folder or a file is the user's, and nobody else may write it. A link is
    neither."""
    status = path.lstat()
    is_plain = stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)
    if not is_plain or status.st_uid != os.getuid():
        return False
    return not status.st_mode & ownership.NO_WRITE_BY_OTHERS
