"""Delivers again and again beside whoever fills the journals, until that one has ended;
errors only delay it."""

import logging
import os
import random
import signal
import sys
import time
from collections.abc import Callable

from zsg_core.errors import ZsgError

logger = logging.getLogger(__name__)

EVERY_S = 2.0
MOST_S = 300.0  # between tries of a server that does not answer


def until_left(
    parent: int, send: Callable[[], object], last_s: float | None = None
) -> None:
    """Calls `send` every two seconds until told to stop or left by `parent`, then once more.

    `last_s`: the most seconds that the end may take; then it is cut short, for the
    journals have everything. Exits with 3 if the last call failed.
    """
    stop: list[int] = []

    def note_signal(number: int, _frame: object) -> None:
        stop.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note_signal)
    # who started this may have held SIGTERM back until there is a handler
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    # Slurm's to the job beside which this runs
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    ended = lambda: bool(stop) or os.getppid() != parent  # noqa: E731
    failures = 0
    while True:
        is_last = ended()
        if is_last and last_s:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, last_s)
        try:
            send()
            failures = 0
        except (ZsgError, OSError) as error:
            failures += 1
            logger.error(str(error))
            if is_last:
                sys.exit(3)
        if is_last:
            return
        _rest(pause_s(failures), ended)


def pause_s(failures: int) -> float:
    """How long to wait after so many failures in a row; drawn, so that a cluster's jobs
    do not come back together."""
    longest = min(MOST_S, EVERY_S * 2.0 ** min(failures, 20))
    return random.uniform(longest / 2, longest) if failures else EVERY_S


def _rest(seconds: float, ended: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not ended():
        time.sleep(0.1)
