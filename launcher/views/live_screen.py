"""Draws on a terminal that is looked at for hours: its size changes, and one day it is
gone.

Nothing is remembered of the size: it is asked for each time that something is drawn.
"""

import contextlib
import errno
import os
import select
import signal
import time
from collections.abc import Generator, Sequence
from types import FrameType

from launcher.views.fitting import Piece

Line = list[Piece]

# what a terminal says that is no longer there
GONE = (
    errno.EIO,
    errno.EPIPE,
    errno.ENXIO,
    errno.ENODEV,
    errno.EBADF,
    errno.ENOTTY,
)
# of a terminal that does not tell its size
WIDTH = 80
HEIGHT = 24
STDOUT = 1
MOST_NOTES = 3
REDRAWN_AFTER = (signal.SIGWINCH, signal.SIGCONT)
# Linux tells of a new size before it has stored it: who asks at once may be given the
# one before, and is told no more.
SIZE_IS_ASKED_S = 0.25


class LostTerminal(Exception):
    """The terminal is gone: nobody looks."""


@contextlib.contextmanager
def expect_loss() -> Generator[None]:
    """Raises LostTerminal for what a terminal says that is no longer there."""
    try:
        yield
    except OSError as error:
        if error.errno in GONE:
            raise LostTerminal from error
        raise


def measure_terminal(descriptor: int = STDOUT) -> os.terminal_size:
    """Its columns and lines as they are now. LostTerminal where it is gone."""
    with expect_loss():
        size = os.get_terminal_size(descriptor)
    return os.terminal_size((size.columns or WIDTH, size.lines or HEIGHT))


def silence_output() -> None:
    """Has what is still to be written end nowhere: whoever writes on exit to a terminal
    that is gone would be told of it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


class Resizing:
    """Wakes who waits when the terminal's size changes, or the process is in the
    foreground again. For a `with` statement, in the main thread."""

    def __enter__(self) -> "Resizing":
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._reading, False)
        os.set_blocking(self._writing, False)
        self._before = {
            number: signal.signal(number, self._note) for number in REDRAWN_AFTER
        }
        return self

    def __exit__(self, *ended: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._reading)
        os.close(self._writing)

    def wait(self, until: float, drawn: os.terminal_size) -> bool:
        """Waits until a moment of the monotonic clock; True, at once, where it is woken,
        and soon where the terminal is no longer of the size for which was drawn.

        LostTerminal where it is gone.
        """
        while True:
            seconds = min(until - time.monotonic(), SIZE_IS_ASKED_S)
            readable, _, _ = select.select([self._reading], [], [], max(0.0, seconds))
            if readable:
                os.read(self._reading, 4096)
                return True
            if measure_terminal() != drawn:
                return True
            if time.monotonic() >= until:
                return False

    def _note(self, *_: int | FrameType | None) -> None:
        # a full pipe wakes as well
        with contextlib.suppress(BlockingIOError):
            os.write(self._writing, b"x")


def limit_notes(notes: Sequence[str], height: int) -> list[Line]:
    """Notes, a line each; of many the first, and how many more there are. They take a
    quarter of the screen at most."""
    room = min(MOST_NOTES, height // 4)
    if len(notes) <= room:
        return [[(note, "dim")] for note in notes]
    if room == 0:
        return []
    visible: list[Line] = [[(note, "dim")] for note in notes[: room - 1]]
    hidden = len(notes) - len(visible)
    visible.append([(f"… and {hidden} more notes (zsg status)", "dim")])
    return visible


def fit_frame(
    title: str, body: Sequence[Line], notes: Sequence[Line], height: int
) -> list[Line]:
    """A page in at most `height` lines: the title, the body as far as it fits, and how
    many of its lines do not, the notes."""
    frame: list[Line] = [[(title, "dim")]]
    room = height - len(frame) - len(notes)
    if len(body) <= room:
        return [*frame, *body, *notes]
    visible = body[: max(room - 1, 0)]
    hidden = len(body) - len(visible)
    frame += visible
    frame.append([(f"… and {hidden} more lines (zsg status --all)", "dim")])
    frame += notes
    return frame[: max(height, 1)]
