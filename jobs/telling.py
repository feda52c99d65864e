"""Tells what a job, or a process beside it, has to say: a line in its log, or in the terminal it is called from."""

import sys

from zsg_core.secrets import hide_known
from zsg_core.shown_text import make_showable


def tell(text: object) -> None:
    """A line on stderr, at once. What it quotes of others is made showable, and a key is hidden."""
    sys.stderr.write(f"{make_showable(hide_known(str(text)))}\n")
    sys.stderr.flush()
