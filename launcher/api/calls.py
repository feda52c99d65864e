"""Makes a call of zsg within somebody's program leave that program as it was."""

import contextlib
import os
from collections.abc import Generator

from jobs.files import ownership
from launcher.views import show
from launcher.workspace import disk

# keeps a user's own jobs.py from being taken for ours, in what is started
SAFE_PATH = "PYTHONSAFEPATH"


@contextlib.contextmanager
def as_library() -> Generator[None]:
    """For a call from a program: nothing is printed, a disk's trouble is a ClusterError.

    As on the command line, others may write nothing that is made. The umask and the
    environment of the program are afterwards as they were.
    """
    former_path = os.environ.get(SAFE_PATH)
    former_mask = os.umask(0o077)
    os.umask(former_mask)
    os.environ[SAFE_PATH] = "1"
    try:
        ownership.forbid_writes_by_others()
        with show.silenced():
            yield
    except OSError as error:
        raise disk.explain_disk_error(error) from error
    finally:
        os.umask(former_mask)
        if former_path is None:
            os.environ.pop(SAFE_PATH, None)
        else:
            os.environ[SAFE_PATH] = former_path
