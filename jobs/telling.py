"""Tells what a job, or a process beside it, has to say: a line in its log, or in the terminal it is called from."""

import sys

from zsg_core.shown_text import make_showable


def tell(text: object) -> None:
    """A line on stderr, at once. What it quotes of data, models, servers or Slurm is made showable."""
    sys.stderr.write(f"{make_showable(str(text))}\n")
    sys.stderr.flush()
