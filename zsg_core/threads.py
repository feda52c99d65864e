"""Says how many threads arithmetic may use, and shares independent pieces of work among them.

NumPy lets go of Python's lock while it computes, so plain threads do. Pieces write to
places of their own: the result is the same with any number of threads. BLAS then has
one thread in each of them: threads of its own would wait, busily, for the next product
on the cores that the other work wants.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import TypeVar

from threadpoolctl import threadpool_limits

from zsg_core.side_by_side import map_side_by_side

Piece = TypeVar("Piece")


@cache
def count_threads() -> int:
    """As many as BLAS takes: OMP_NUM_THREADS where it is set, and never more than the
    cores this process may use."""
    cores = len(os.sched_getaffinity(0))
    requested = os.environ.get("OMP_NUM_THREADS", "")
    return (
        min(cores, int(requested)) if requested.isdigit() and int(requested) else cores
    )


def run_in_threads(
    work: Callable[[Iterator[Piece]], None], pieces: Iterable[Piece]
) -> None:
    """Starts `work` in every thread; each takes the next piece when it is done with one.

    What `work` sets up before its first piece is its thread's own. An error ends the
    sharing and is raised here.
    """
    remaining = iter(list(pieces))  # of a list, as threads may all ask it at once
    count = count_threads()
    if count == 1:
        work(remaining)
        return

    def drop_remaining() -> None:
        """After an error nobody needs the rest."""
        deque(remaining, maxlen=0)

    # Asked anew each time, which takes milliseconds: another BLAS may have been loaded since.
    with threadpool_limits(1, user_api="blas"):
        map_side_by_side(work, [remaining] * count, count, stop=drop_remaining)
