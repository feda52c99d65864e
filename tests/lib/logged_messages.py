"""What zsg logs while a test runs, as texts."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from jobs.runtime.job_log import PACKAGES


class _Collector(logging.Handler):
    def __init__(self, messages: list[str]) -> None:
        super().__init__()
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        self._messages.append(record.getMessage())


@contextmanager
def fresh_loggers() -> Iterator[None]:
    """Loggers that pass INFO and that nobody has configured; afterwards, too: a command
    that a test calls in its own process leaves no handler to the next."""
    _reset_loggers(logging.INFO)
    try:
        yield
    finally:
        _reset_loggers(logging.NOTSET)


def _reset_loggers(level: int) -> None:
    for name in PACKAGES:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
        logger.setLevel(level)


@contextmanager
def collect_messages() -> Iterator[list[str]]:
    """The messages of the modules of zsg, as they come."""
    messages: list[str] = []
    collector = _Collector(messages)
    for name in PACKAGES:
        logging.getLogger(name).addHandler(collector)
    try:
        yield messages
    finally:
        for name in PACKAGES:
            logging.getLogger(name).removeHandler(collector)
