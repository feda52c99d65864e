"""Calls functions that wait for a program of Slurm beside one another, and beside what
zsg does meanwhile."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


def begin_call(function: Callable[[], T]) -> Future[T]:
    """What a function returns, or raises, once it has. Its thread keeps no program from
    ending: a call of Slurm may wait for long."""
    future = Future[T]()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


class EarlyAnswer(Generic[T]):
    """The answer to a question that is asked at once, in the background; whoever wants
    a later one asks anew."""

    def __init__(self, ask: Callable[[], T]) -> None:
        self._ask = ask
        self._early: Future[T] | None = begin_call(ask)

    def __call__(self) -> T:
        """The early answer the first time, a new one later."""
        early, self._early = self._early, None
        return early.result() if early else self._ask()
