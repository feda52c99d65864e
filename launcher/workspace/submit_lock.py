"""Lets one `zsg submit` of a workspace plan and submit at a time; the next one waits for
it, and status knows that it is at work.

Who holds the lock says so in its file. That is for people: what counts is the lock
itself, which the system frees when its holder dies.
"""

import contextlib
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from jobs.contract.folder import Workspace
from jobs.contract.json_values import DECODE_ERRORS
from jobs.files import locks, ownership
from zsg_core.errors import UserError
from zsg_core.shown_text import make_showable

logger = logging.getLogger(__name__)

# a submit of ten thousand runs takes a minute or two
PATIENCE_S = 600.0
POLL_S = 0.2
MOST_BYTES = 1000


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """The process that has the lock, as it says. `grid`: the one that it submits; None
    where it submits none, as `zsg cancel` does."""

    host: str
    pid: int
    command: str = "submit"
    grid: str | None = None

    @property
    def place(self) -> str:
        """The machine and the number of the process, in words."""
        return f"host {make_showable(self.host, keep='')[:60]}, process {self.pid}"

    @property
    def words(self) -> str:
        """Who it is, for people."""
        name = make_showable(self.command, keep="")[:20]
        return f"zsg {name} ({self.place})"


@dataclass(frozen=True)
class SubmitUnderWay:
    """A submit that is at work. `holder`: None where it does not say who it is."""

    holder: Holder | None

    def may_submit(self, grid: str) -> bool:
        """Whether what it submits may be this grid."""
        return self.holder is None or self.holder.grid == grid

    @property
    def words(self) -> str:
        """Who it is, for people."""
        return self.holder.words if self.holder else "zsg submit"


@contextlib.contextmanager
def submit_lock(
    workspace: Workspace, grid: str | None = None, patience_s: float = PATIENCE_S
) -> Generator[None]:
    """Holds the workspace's lock of submits; waits while another process has it, which
    is told. `grid`: the one that is going to be submitted.

    UserError after so many seconds of waiting; NoLocks where the file system has none.
    """
    workspace.create()
    handle = _take_lock(workspace, patience_s)
    try:
        _write_holder(handle, grid)
        yield
        _write(handle, b"")
    finally:
        os.close(handle)


def await_submit(workspace: Workspace) -> None:
    """Waits while a submit is at work, which is told. UserError where that takes too
    long."""
    if find_submit_under_way(workspace) is not None:
        with submit_lock(workspace):
            pass


def find_submit_under_way(workspace: Workspace) -> SubmitUnderWay | None:
    """The submit that is at work in a workspace; None where there is none, or nobody
    can tell."""
    try:
        if not locks.is_locked(workspace.submit_lock):
            return None
    except (OSError, locks.NoLocks):
        return None
    holder = _read_holder(workspace.submit_lock)
    if holder is not None and holder.grid is None:
        return None
    return SubmitUnderWay(holder)


def _take_lock(workspace: Workspace, patience_s: float) -> int:
    """A descriptor of the lock's file, locked."""
    patience = _Patience(workspace, patience_s)
    while True:
        handle = ownership.open_lock(workspace.submit_lock)
        try:
            while not locks.try_lock(handle, workspace.submit_lock):
                patience.wait()
            if locks.is_still_at(handle, workspace.submit_lock):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


class _Patience:
    """Waits for another submit, says so once, and gives up in the end."""

    def __init__(
        self,
        workspace: Workspace,
        patience_s: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._workspace, self._patience_s, self._sleep = workspace, patience_s, sleep
        self._until = time.monotonic() + patience_s
        self._is_told = False

    def wait(self) -> None:
        """Waits a moment. UserError where that has been long enough."""
        if time.monotonic() > self._until:
            raise self._give_up()
        self._sleep(POLL_S)
        if not self._is_told:
            # by now a submit that had only just begun has said who it is
            self._is_told = True
            logger.warning(
                f"waiting for another {self._name_holder()} to finish, at most"
                f" {self._patience_s / 60:g} min"
            )

    def _name_holder(self) -> str:
        holder = _read_holder(self._workspace.submit_lock)
        return holder.words if holder else "zsg submit"

    def _give_up(self) -> UserError:
        path = self._workspace.submit_lock
        return UserError(
            f"another {self._name_holder()} is at work in {self._workspace.root}, for more than"
            f" {self._patience_s / 60:g} min by now; wait for it to end, or end it. If that"
            f" machine is gone, remove {path}"
        )


def _write_holder(handle: int, grid: str | None) -> None:
    words = [word for word in sys.argv[1:] if word.isalpha()]
    holder = Holder(
        host=socket.gethostname(),
        pid=os.getpid(),
        command=words[0] if words else "submit",
        grid=grid,
    )
    _write(handle, msgspec.json.encode(holder) + b"\n")


def _write(handle: int, content: bytes) -> None:
    # on a full disk a submit says so itself, and a cancel makes no difference to it
    with contextlib.suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, content, 0)


def _read_holder(path: Path) -> Holder | None:
    """Who says that they hold the lock; None where nobody does, as an older zsg."""
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(MOST_BYTES), type=Holder)
    except (OSError, *DECODE_ERRORS):
        return None
