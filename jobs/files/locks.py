"""Locks files, so that one process at a time does what must not be done twice at once;
the only module that calls flock and lockf.

The system frees a lock however its holder ends: a file that a killed process leaves is
not locked. Over NFS the server keeps the locks, and frees those of a machine that died
once that is back, or its lease has run out.
"""

import contextlib
import errno
import fcntl
import os
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path

from jobs.files import ownership
from zsg_core.errors import ClusterError

# what the kernel's ENOTSUPP, which has no name here, reaches programs as
_NOT_SUPPORTED = 524
# of a file system that has no locks, or whose server of locks does not answer
WITHOUT_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, _NOT_SUPPORTED)
ADVICE = (
    "have it mounted with locks (Lustre: -o flock; NFS: without nolock, and with its"
    " lock service running), or use a workspace on another file system (--workspace)"
)


class NoLocks(ClusterError):
    """A file cannot be locked where it lies. `finding`: the system's words for it."""

    finding = ""

    @classmethod
    def of_error(cls, path: Path, error: OSError) -> "NoLocks":
        """The error for a file that the system does not lock."""
        finding = os.strerror(error.errno or 0)
        missing = cls(
            f"{path}: this file system has no locks (flock: {finding}), by which zsg keeps two"
            f" processes from doing one thing at once: {ADVICE}"
        )
        missing.finding = finding
        return missing


def wait_for_lock(handle: int, path: Path) -> None:
    """Locks an opened file for this process alone, once nobody else has it locked.

    NoLocks where the file system has none; `path` is what that names.
    """
    _lock(handle, path, fcntl.LOCK_EX)


def try_lock(handle: int, path: Path) -> bool:
    """The same without waiting: False where somebody else has it locked."""
    try:
        _lock(handle, path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def try_shared_lock(handle: int, path: Path) -> bool:
    """Locks an opened file for this process and others that share it: False where one
    has it locked for itself alone. NoLocks."""
    try:
        _lock(handle, path, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def hold_lock(path: Path) -> Generator[None]:
    """Holds the lock of a file, which is made unless it is there. NoLocks."""
    with _opened(path) as handle:
        wait_for_lock(handle, path)
        yield


@contextlib.contextmanager
def hold_record_lock(path: Path) -> Generator[None]:
    """The same by lockf, as jobs of every zsg so far keep each other from making the
    same thing. NoLocks."""
    with _opened(path) as handle:
        _name_missing_locks(path, lambda: fcntl.lockf(handle, fcntl.LOCK_EX))
        yield


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock of a file; over NFS also one of another
    machine. NoLocks, PermissionError."""
    try:
        # to look needs no more than to read: the file system may be read-only
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        _lock(handle, path, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def find_missing_locks(folder: Path) -> NoLocks | None:
    """Why files in a folder cannot be locked; None where they can, or no file can be
    made there. Leaves nothing in it."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            try_lock(file.fileno(), folder)
    except NoLocks as error:
        return error
    except OSError:
        return None
    return None


def is_still_at(handle: int, path: Path) -> bool:
    """Whether an opened file still has its name: who removed a lock that seemed left
    has the next one lock another file."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _opened(path: Path) -> Generator[int]:
    handle = ownership.open_lock(path)
    try:
        yield handle
    finally:
        os.close(handle)


def _lock(handle: int, path: Path, operation: int) -> None:
    _name_missing_locks(path, lambda: fcntl.flock(handle, operation))


def _name_missing_locks(path: Path, lock: Callable[[], None]) -> None:
    try:
        lock()
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            error.filename = str(path)
            raise
        raise NoLocks.of_error(path, error) from error
