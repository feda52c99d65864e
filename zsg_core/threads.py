"""Says how many threads arithmetic may use, and shares independent pieces of work among them.

NumPy lets go of Python's lock while it computes, so plain threads do. Pieces write to places of their own: the result
is the same with any number of threads.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

Piece = TypeVar("Piece")


@cache
def count() -> int:
    """As many as BLAS takes: OMP_NUM_THREADS where it is set, and never more than the cores this process may use."""
    cores = len(os.sched_getaffinity(0))
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(asked)) if asked.isdigit() and int(asked) else cores


def share(work: Callable[[Piece], None], pieces: Sequence[Piece]) -> None:
    """Does every piece of work; an error in one is raised here."""
    if count() == 1 or len(pieces) < 2:
        for piece in pieces:
            work(piece)
        return
    list(_pool().map(work, pieces))


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count(), thread_name_prefix="zsg")
