"""Says in words what the system refused of a file: whose it is where a right lacks, and
whether the file system itself has failed.
"""

import errno
import os
import stat
from pathlib import Path

from jobs.files import ownership

# A network file system or its disk has failed: no socket has such errors.
_OF_FILE_SYSTEMS = (
    errno.EIO,
    errno.ESTALE,
    errno.EREMOTEIO,
    errno.EROFS,
    errno.EUCLEAN,
    errno.ENOLCK,
)
# The same of a file. A connection to a server has them, too: then they name no file.
_OF_SERVERS = (
    errno.ETIMEDOUT,
    errno.ENOTCONN,
    errno.ESHUTDOWN,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ECOMM,
    errno.ENODEV,
    errno.ENOKEY,
    errno.EKEYEXPIRED,
    errno.EKEYREVOKED,
)


def is_of_file_system(error: BaseException) -> bool:
    """Whether an error says that a file system, or the server that has it, has failed."""
    if not isinstance(error, OSError):
        return False
    if error.errno in _OF_FILE_SYSTEMS:
        return True
    return error.errno in _OF_SERVERS and error.filename is not None


def may_be_of_server(error: OSError) -> bool:
    """Whether an error is one of file servers, or of a connection to another server: what
    is read through an open file names none."""
    return error.errno in _OF_SERVERS


def describe_error(error: OSError) -> str:
    """The file and what is wrong, in one line; where a right lacks, which, and whose the
    file is."""
    text = error.strerror or str(error)
    if not isinstance(error.filename, str | bytes):
        return text
    path = Path(os.fsdecode(error.filename))
    if isinstance(error, PermissionError):
        return _describe_denial(path) or f"{path}: {text}{_name_owner(path)}"
    return f"{path}: {text}"


def _describe_denial(path: Path) -> str | None:
    """The first folder on the way to a path, or the path itself, that this user has no
    right to; None where the modes forbid nothing."""
    if not path.is_absolute():
        return None  # it may be relative to an opened folder
    for folder in reversed(path.parents):
        if not os.access(folder, os.X_OK):
            return _deny(folder, "read")
    if not os.path.lexists(path):
        folder = path.parent
        return None if os.access(folder, os.W_OK) else _deny(folder, "written")
    if not os.access(path, os.R_OK):
        return _deny(path, "read")
    if not os.access(path, os.W_OK):
        return _deny(path, "written")
    return None


def _deny(path: Path, verb: str) -> str | None:
    try:
        status = path.stat()
    except OSError:
        return None
    mode = f"permission denied: mode {stat.S_IMODE(status.st_mode):04o}"
    if status.st_uid == os.geteuid():
        return f"{path} may not be {verb} by you, though it is yours ({mode})"
    owner = ownership.find_user_name(status.st_uid)
    return f"{path} may not be {verb} by you: it is {owner}'s ({mode}); ask {owner}"


def _name_owner(path: Path) -> str:
    """Whose a file is, where it is another's; nothing where nobody can tell."""
    try:
        uid = path.lstat().st_uid
    except OSError:
        return ""
    return "" if uid == os.geteuid() else f" (it is {ownership.find_user_name(uid)}'s)"
