"""Configures the log of a job: one line a message, with time and level, on stderr.

Modules log by `logging.getLogger(__name__)`. A job, and a process beside it, writes what
they say to stderr, which Slurm or the launcher puts into the log file of the rank:

    2026-01-31T12:00:00Z INFO corpus 1f2e3d4c: 96 training and 12 test examples

Times are UTC, as in the marks (see jobs.runtime.log_marks). Marks have no prefix, and
of a message of several lines, such as a traceback, only the first has one.
"""

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from types import TracebackType

from jobs.contract.heartbeat import Pulse
from jobs.contract.journal import Journal
from zsg_core.secrets import hide_known
from zsg_core.shown_text import make_showable

# Only what these packages log is shown: libraries have loggers and habits of their own.
PACKAGES = ("zsg", "launcher", "jobs", "zsg_core")
FORMAT = "%(asctime)s %(levelname)s %(message)s"
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


def write_line(text: str) -> None:
    """A line on stderr, at once. What it quotes of others is made showable, and a key is hidden."""
    sys.stderr.write(f"{make_showable(hide_known(text))}\n")
    sys.stderr.flush()


class JobLogHandler(logging.Handler):
    """Writes each message to what stderr is by then, with its time and level."""

    def __init__(self) -> None:
        super().__init__()
        formatter = logging.Formatter(FORMAT, TIME_FORMAT)
        formatter.converter = time.gmtime
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a message. A log that cannot grow is no reason to fail."""
        with contextlib.suppress(OSError):
            write_line(self.format(record))


class ProgressHandler(logging.Handler):
    """Makes each message the note of the job's heartbeat and a row of its journal.

    An error of the journal is raised to whoever logs: a superseded job must end.
    """

    def __init__(self, doing: str, journal: Journal | None, pulse: Pulse) -> None:
        """`doing` is the activity that the rows are journalled under. Without `journal`
        messages only become notes of `pulse`."""
        super().__init__(logging.INFO)
        self._doing, self._journal, self._pulse = doing, journal, pulse
        # tracebacks stand in the log alone
        self.addFilter(lambda record: record.levelno < logging.ERROR)

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps a message."""
        text = hide_known(record.getMessage())
        self._pulse.does(self._doing)
        self._pulse.says(text)
        if self._journal:
            self._journal.add_note(text)


class RepeatFilter(logging.Filter):
    """Passes a message below ERROR once only, for a process that does the same again
    and again."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a message is new, or an error."""
        message = record.getMessage()
        if record.levelno < logging.ERROR and message in self._seen:
            return False
        self._seen.add(message)
        return True


def install_job_log() -> JobLogHandler:
    """Has this process write what zsg logs, from INFO on, to stderr with times and levels."""
    handler = JobLogHandler()
    for name in PACKAGES:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False  # libraries give the root logger handlers of their own
    return handler


@contextlib.contextmanager
def record_progress(
    doing: str, journal: Journal | None, pulse: Pulse
) -> Iterator[None]:
    """While it lasts, what zsg logs is told by the heartbeat and kept in the journal,
    too: for jobs without steps. `doing`: the heartbeat's word for it."""
    if journal:
        journal.rewind(step=0, examples=0)
    handler = ProgressHandler(doing, journal, pulse)
    for name in PACKAGES:
        logging.getLogger(name).addHandler(handler)
    try:
        yield
    finally:
        for name in PACKAGES:
            logging.getLogger(name).removeHandler(handler)


def log_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Logs an error that nobody caught, with its traceback; for `sys.excepthook`."""
    logging.getLogger(__name__).critical(
        "this process ends with an error", exc_info=(kind, error, trace)
    )
