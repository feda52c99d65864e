"""A process for which the system has no flock, as on a file system that has none: the
kernel itself answers so.
"""

import ctypes
import errno
import platform
import struct

# of flock(2), by the machine's name
_NUMBERS = {"x86_64": 73, "aarch64": 32}
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000


def missing_for_no_locks() -> str:
    """Why flock cannot be taken away here; "" where it can."""
    machine = platform.machine()
    return "" if machine in _NUMBERS else f"flock's number on {machine} is not known"


def take_locks_away() -> None:
    """From now on flock fails with ENOSYS in this process and in those that it starts."""
    rows = [
        (_LOAD, 0, 0, 0),
        (_EQUAL, 0, 1, _NUMBERS[platform.machine()]),
        (_RETURN, 0, 0, _ERROR | errno.ENOSYS),
        (_RETURN, 0, 0, _ALLOW),
    ]
    content = b"".join(struct.pack("HBBI", *row) for row in rows)
    rules = ctypes.create_string_buffer(content)
    program = struct.pack("HxxxxxxP", len(rows), ctypes.addressof(rules))
    libc = ctypes.CDLL(None, use_errno=True)
    for number, argument, more in (
        (_NO_NEW_PRIVILEGES, 1, 0),
        (_SECCOMP, _FILTER, program),
    ):
        if libc.prctl(number, argument, more, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
