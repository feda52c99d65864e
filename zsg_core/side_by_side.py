"""Does pieces of work in threads, and leaves nothing hanging when it is interrupted.

A signal that raises KeyboardInterrupt does so in the main thread, wherever that is:
also where it holds a lock of a Future or of a pool, which then stays taken for ever,
with a worker waiting behind it. So the main thread shares no such lock with the workers
here: they take pieces from a SimpleQueue and tell their end by another, whose locks are
C's, and plain flags tell the rest. Nor is a threading.Thread started, which waits for
an Event.
"""

import _thread
import contextlib
import queue
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def do_nothing() -> None:
    """What is done at a stop where nothing is to be done."""


def map_side_by_side(
    work: Callable[[T], R],
    items: Iterable[T],
    threads: int,
    *,
    waits: bool = True,
    stop: Callable[[], object] = do_nothing,
) -> list[R]:
    """What `work` returns of each item, in their order; as many at once as there are
    threads.

    Raises the error of the first item that has one. After an error, or interrupted, no
    item is begun any more: `stop` is called once, and those under way are waited for;
    interrupted without `waits`, they are left to end by themselves.
    """
    sharing = _Sharing(work, list(items), stop)
    return sharing.run(threads, waits)


class _Sharing(Generic[T, R]):
    """Items that threads share among them."""

    def __init__(
        self, work: Callable[[T], R], items: list[T], stop: Callable[[], object]
    ) -> None:
        """Puts every item into the queue with its number: results come back in the
        items' order, whichever thread takes which. `stop` is called once if the work
        ends early, and may bring calls of `work` that are under way to their end."""
        self._work, self._stop = work, stop
        self._count = len(items)
        self._todo: queue.SimpleQueue[tuple[int, T]] = queue.SimpleQueue()
        for numbered in enumerate(items):
            self._todo.put(numbered)
        self._results: dict[int, R] = {}
        self._errors: dict[int, BaseException] = {}
        self._is_stopped = False
        # one entry for each thread: a list grows in one step, whoever is interrupted
        self._begun: list[bool] = []
        self._ended: list[bool] = []
        self._ends: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def run(self, threads: int, waits: bool) -> list[R]:
        """See `map_side_by_side`."""
        count = min(threads, self._count)
        try:
            for _ in range(count):
                _thread.start_new_thread(self._run_thread, ())
            self._wait_for(lambda: count)
        except BaseException:
            self._end_sharing()
            if waits:
                # one that has not begun by now sees that it is not to
                self._wait_for(lambda: len(self._begun))
            raise
        if self._errors:
            raise self._errors[min(self._errors)]
        return [self._results[number] for number in range(self._count)]

    def _run_thread(self) -> None:
        self._begun.append(True)
        try:
            while not self._is_stopped and self._do_next():
                pass
        finally:
            self._ended.append(True)
            self._ends.put(True)

    def _do_next(self) -> bool:
        """Does the next item; False where none is left, or this one has an error."""
        try:
            number, item = self._todo.get_nowait()
        except queue.Empty:
            return False
        try:
            self._results[number] = self._work(item)
        except BaseException as error:  # raised in the thread that waits
            self._errors[number] = error
            self._end_sharing()
            return False
        return True

    def _end_sharing(self) -> None:
        if not self._is_stopped:
            self._is_stopped = True
            self._stop()

    def _wait_for(self, count_due: Callable[[], int]) -> None:
        """Returns when so many threads have ended."""
        while len(self._ended) < count_due():
            with contextlib.suppress(queue.Empty):
                self._ends.get(timeout=0.2)
