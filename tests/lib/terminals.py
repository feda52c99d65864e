"""A command in a terminal of its own, which a test resizes, types into and takes away."""

import fcntl
import os
import re
import select
import signal
import struct
import sys
import termios
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from launcher.views import show

END_OF_FRAME = b"\x1b[J"
PATIENCE_S = 30.0
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass
class Terminal:
    """A process under a terminal of which this is the other end. `errors`: what it has
    written to stderr."""

    pid: int
    master: int
    errors: Path
    unread: bytes = field(default=b"")

    def resize(self, width: int, height: int) -> None:
        """Gives it another size; the kernel tells the process."""
        set_size(self.master, width, height)

    def type(self, keys: bytes) -> None:
        """Presses keys."""
        os.write(self.master, keys)

    def read_frame(self) -> list[str]:
        """The lines of the next frame that is drawn, without colours and movements."""
        frame = self.read_until(END_OF_FRAME)
        text = _ESCAPE.sub("", frame.decode())
        return text.replace("\r\n", "\n").removesuffix("\n").split("\n")

    def read_until(self, end: bytes) -> bytes:
        """What is shown up to some bytes, which are taken away."""
        until = time.monotonic() + PATIENCE_S
        while end not in self.unread:
            left = max(0.0, until - time.monotonic())
            assert select.select([self.master], [], [], left)[0], self.unread
            self.unread += os.read(self.master, 65536)
        text, _, self.unread = self.unread.partition(end)
        return text

    def vanish(self) -> None:
        """Takes the terminal away."""
        os.close(self.master)
        self.master = -1

    def wait(self) -> int:
        """Its exit code; -N where signal N ended it. What it still writes is read."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            self._drain()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        raise AssertionError("it does not end")

    def _drain(self) -> None:
        if self.master < 0 or not select.select([self.master], [], [], 0)[0]:
            return
        try:
            os.read(self.master, 65536)
        except OSError:
            self.vanish()

    def close(self) -> None:
        """Ends what is left of it."""
        if self.master >= 0:
            self.vanish()
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def set_size(descriptor: int, width: int, height: int) -> None:
    """The size of a terminal."""
    fcntl.ioctl(
        descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0)
    )


def run_in_terminal(
    act: Callable[[], None], errors: Path, width: int, height: int
) -> Terminal:
    """Forks, and has the child act in a terminal of such a size."""
    master, slave = os.openpty()
    set_size(master, width, height)
    pid = os.fork()
    if pid == 0:
        os.close(master)
        _act_and_exit(act, slave, errors)
    os.close(slave)
    return Terminal(pid, master, errors)


def _act_and_exit(act: Callable[[], None], slave: int, errors: Path) -> None:
    """Never returns: of pytest nothing is to run in the child."""
    code: object = 1
    try:
        os.login_tty(slave)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ["TERM"] = "xterm-256color"
        written = os.open(errors, os.O_WRONLY | os.O_CREAT)
        os.dup2(written, 2)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
        show._out = show.ShowingConsole()
        show._err = show.ShowingConsole(stderr=True)
        act()
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    try:
        # as Python does at its end
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException as error:
        os.write(2, f"at its end: {error!r}".encode())
    os._exit(code if isinstance(code, int) else 1)
