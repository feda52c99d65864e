"""Interrupts work again and again, wherever it is by then."""

import signal
from collections.abc import Callable
from types import FrameType

EVERY_S = 0.0003


class _Interrupts:
    """Raises KeyboardInterrupt at a signal, once each time that it is armed."""

    def __init__(self) -> None:
        self.is_armed = False

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        if self.is_armed:
            self.is_armed = False
            raise KeyboardInterrupt


def interrupt_again_and_again(work: Callable[[], object], count: int) -> None:
    """Calls `work` over and over, and interrupts it `count` times; in the main thread of
    a process of its own, which hangs where an interrupt leaves a lock taken."""
    interrupts = _Interrupts()
    signal.signal(signal.SIGALRM, interrupts.handle)
    signal.setitimer(signal.ITIMER_REAL, EVERY_S, EVERY_S)
    for _ in range(count):
        try:
            interrupts.is_armed = True
            while True:
                work()
        except KeyboardInterrupt:
            continue
    signal.setitimer(signal.ITIMER_REAL, 0)
