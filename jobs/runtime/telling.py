"""Tells what a job, or a process beside it, has to say: a line in its log, or in the
terminal it is called from."""

import sys
import traceback
from types import TracebackType

from zsg_core.secrets import hide_known
from zsg_core.shown_text import make_showable


def tell(text: object) -> None:
    """A line on stderr, at once. What it quotes of others is made showable, and a key is hidden."""
    sys.stderr.write(f"{make_showable(hide_known(str(text)))}\n")
    sys.stderr.flush()


def tell_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Tells the traceback of an error that nobody caught; for `sys.excepthook`."""
    tell("".join(traceback.format_exception(kind, error, trace)).rstrip("\n"))
