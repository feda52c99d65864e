"""Configures what zsg says in a terminal beside its results: one handler, on stderr.

Modules log by `logging.getLogger(__name__)`. As a rule their messages stand there as
they are, from INFO on. With -q only warnings and errors do; with -v also DEBUG, such as
each call of Slurm, and every line has its time and level.
"""

import contextlib
import logging
from collections.abc import Generator
from enum import IntEnum

from jobs.runtime.job_log import PACKAGES
from zsg_core.secrets import hide_known

VERBOSE_FORMAT = "%(asctime)s %(levelname)s %(message)s"
TIME_FORMAT = "%H:%M:%S"


class Verbosity(IntEnum):
    """The least level that is shown."""

    QUIET = logging.WARNING
    NORMAL = logging.INFO
    VERBOSE = logging.DEBUG


class ConsoleHandler(logging.Handler):
    """Prints each message as a line for people."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a message. Keys that the environment holds are hidden."""
        from launcher.views import (
            show,  # which a command that says nothing can do without
        )

        show.print_message(hide_known(self.format(record)))


class CollectingHandler(logging.Handler):
    """Keeps the text of each message."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps a message. Keys that the environment holds are hidden."""
        self.messages.append(hide_known(self.format(record)))


@contextlib.contextmanager
def collect_messages() -> Generator[list[str]]:
    """While it lasts, what zsg logs is kept and not printed: for who draws a whole
    screen, which a line in between would disturb."""
    handler = CollectingHandler()
    loggers = [logging.getLogger(name) for name in PACKAGES]
    before = [logger.handlers for logger in loggers]
    for logger in loggers:
        logger.handlers = [handler]
    try:
        yield handler.messages
    finally:
        for logger, handlers in zip(loggers, before, strict=True):
            logger.handlers = handlers


def configure_console(verbosity: Verbosity) -> None:
    """Has this process show what zsg logs; called again it replaces what it did before."""
    handler = ConsoleHandler()
    if verbosity is Verbosity.VERBOSE:
        handler.setFormatter(logging.Formatter(VERBOSE_FORMAT, TIME_FORMAT))
    for name in PACKAGES:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(verbosity)
        logger.propagate = False  # libraries give the root logger handlers of their own
