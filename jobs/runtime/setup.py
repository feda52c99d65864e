"""Tells a job that a `setup` line of its profile failed before it began: the script has
started it all the same.

So the run's record names the line, and what it printed, in place of a job that is gone
without a word.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from jobs.contract.causes import Cause, Known
from jobs.runtime import log_marks

FAILED = "ZSG_SETUP_FAILED"  # `2 of 3 ended with 127: module load cuda`
LOG = "ZSG_LOG"  # of the script: rank 0's
TAIL = 1 << 16  # bytes of the log in which the line's output is looked for
MOST_LINES, MOST_CHARACTERS = 3, 600
# what bash puts before its complaints
_OWN = re.compile(r"^\S*slurm_script: (?:eval: )?line \d+: ")


def check_setup(environ: Mapping[str, str] = os.environ) -> None:
    """Raises Known with the cause `setup` if a setup line failed."""
    failed_line = environ.get(FAILED)
    if failed_line:
        raise Known(
            Cause.SETUP,
            describe_failure(failed_line, read_output(environ.get(LOG, ""))),
        )


def describe_failure(failed_line: str, printed: str) -> str:
    """The line that failed and what it printed, in a sentence."""
    return f"setup line {failed_line}" + (
        f" (it printed: {printed})" if printed else " (it printed nothing)"
    )


def read_output(log: str) -> str:
    """The last lines that the failed line has printed, as far as the log can be read."""
    try:
        with Path(log).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            text = file.read()
    except OSError:
        return ""
    return find_output(text)


def find_output(text: bytes) -> str:
    """Of a log's end, what was printed by the setup line that came last."""
    begins = list(log_marks.SETUP_PATTERN.finditer(text))
    if not begins:
        return ""
    after = text[begins[-1].end() :]
    end = log_marks.SETUP_ENDED_PATTERN.search(after)
    lines = (
        after[: end.start() if end else len(after)]
        .decode("utf-8", "replace")
        .splitlines()
    )
    printed = [_OWN.sub("", line.strip()) for line in lines if line.strip()]
    return "; ".join(printed[-MOST_LINES:])[-MOST_CHARACTERS:]
