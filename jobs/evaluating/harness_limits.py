"""Stops templates and filters of a task that take too long.

A task of a user's may hold any Jinja and any regular expression. A loop within a loop,
or an expression such as `(a+)+b`, which tries every way to part a text, has no end in
practice, and would hold the evaluate job until its time limit. What is called has so
many seconds in all, and some more with each call; then it is stopped where it is, and
it is told what was too long.

The clock is an alarm of the operating system, which Python's loops and the matching of
regular expressions both look for. It rings in the main thread alone: elsewhere nothing
is stopped. Setting it takes longer than a template does, so it goes on ringing once a
second for as long as something is limited. What counts is the time for which the thread
had a processor: a job may be suspended, or share its processors, however long.
"""

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

AT_LEAST_S = 20.0  # for all calls together
EACH_S = 0.05  # more with each call: a template takes 0.0001, a filter of a text less
TICK_S = 1.0
# the files in whose frames limits are begun and ended
_SETTING_LIMITS = (__file__, contextmanager.__code__.co_filename)


class TooLong(Exception):
    """What a task does takes too long; says what, and for how long it went on."""


class _Clock:
    """Looks once a second whether what runs now has a second left."""

    def __init__(self) -> None:
        # until when what runs, and what called it, may go on, and their names; by
        # time.thread_time
        self._limits: list[tuple[float, str]] = []
        self._armed_s = -math.inf

    def begin(self, until_s: float, label: str) -> None:
        """Something runs that may go on until then, by time.thread_time."""
        now_s = time.monotonic()
        if now_s - self._armed_s > TICK_S:
            # anew, as what was called before may have set an alarm of its own
            signal.signal(signal.SIGALRM, self._ring)
            signal.setitimer(signal.ITIMER_REAL, TICK_S, TICK_S)
            self._armed_s = now_s
        self._limits.append((until_s, label))

    def end(self) -> None:
        """What was begun last is over."""
        self._limits.pop()

    def _ring(self, _number: int, frame: FrameType | None) -> None:
        """TooLong for what has no second left; no further alarm where nothing runs.

        Not while a limit is set or taken away, where an error would leave it behind, to
        stop what runs later: it rings again.
        """
        if frame is not None and frame.f_code.co_filename in _SETTING_LIMITS:
            return
        if not self._limits:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._armed_s = -math.inf
            return
        now_s = time.thread_time()
        for until_s, label in self._limits:
            if now_s >= until_s:
                raise TooLong(describe_limit(label))


_CLOCK = _Clock()


def describe_limit(label: str) -> str:
    """That something took too long, for people."""
    return f"{label} takes more than {AT_LEAST_S:g} seconds"


class TimeAllowance:
    """The seconds that one template or filter may take, over all its calls. `label`: its
    name for people."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._left_s = AT_LEAST_S

    @contextmanager
    def limiting(self, calls: int = 1) -> Iterator[None]:
        """Raises TooLong where what stands within, that many calls, goes on when no
        second is left."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._left_s += EACH_S * calls
        if self._left_s <= 0:
            raise TooLong(describe_limit(self._label))
        started_s = time.thread_time()
        _CLOCK.begin(started_s + self._left_s, self._label)
        try:
            yield
        finally:
            _CLOCK.end()
            self._left_s -= time.thread_time() - started_s
