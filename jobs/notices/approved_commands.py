"""Remembers in the user's home which programs the user's own submits have named for
notices: a workspace may have come from somebody else, and its records name programs,
too.

`~/.zsg/notify/` holds an empty file for each command, by its digest. Where nodes have
another home, only `zsg sync` and `zsg status --watch` run the programs.
"""

import contextlib
import logging
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from jobs.contract.notices import Receiver, Way
from jobs.files import ownership
from jobs.files.paths import find_home
from zsg_core.digest import content_id

logger = logging.getLogger(__name__)

FOLDER = (".zsg", "notify")
DIGEST = 40  # hex digits


def approve_commands(receivers: Sequence[Receiver]) -> None:
    """Notes the programs among the receivers of a profile that the user has named;
    says where that cannot be."""
    commands = [each.command for each in receivers if each.way == Way.COMMAND]
    home = find_home()
    if not commands or home is None:
        return
    try:
        _note_commands(home, commands)
    except OSError as error:
        why = error.strerror or type(error).__name__
        logger.warning(f"note: notify: no program is run for notices: ~/.zsg: {why}")


def _note_commands(home: Path, commands: Sequence[Sequence[str]]) -> None:
    """Makes the folders that are missing, and an empty file for each command."""
    folder = home
    for name in FOLDER:
        folder = folder / name
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW
    for command in commands:
        file = folder / _name_command(command)
        handle = os.open(file, flags, 0o600)
        os.close(handle)


def is_approved(receiver: Receiver) -> bool:
    """Whether the user's own submit has named this program.

    False also where others may write what says so, and where it cannot be read.
    """
    home = find_home()
    if home is None:
        return False
    first, second = FOLDER
    folder = home / first / second
    file = folder / _name_command(receiver.command)
    try:
        return _is_own(home / first) and _is_own(folder) and _is_own(file)
    except OSError:
        return False


def _name_command(command: Sequence[str]) -> str:
    """The name of the file of a command."""
    words = list(command)
    return content_id(words, DIGEST)


def _is_own(path: Path) -> bool:
    """Whether a folder or a file is the user's, and nobody else may write it. A link is
    neither."""
    status = path.lstat()
    is_plain = stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)
    if not is_plain or status.st_uid != os.getuid():
        return False
    return not status.st_mode & ownership.NO_WRITE_BY_OTHERS
