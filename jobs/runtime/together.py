"""Sees that what fails on one rank fails on all ranks at once, for the same reason.

A rank that fails alone leaves the others in their next collective until its time limit,
half an hour later, and what they tell then names no cause. torch is imported where
ranks meet: the launcher imports modules that use this one.
"""

import itertools
import pickle
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from zsg_core.errors import ClusterError

Result = TypeVar("Result")


def share_errors(work: Callable[[], Result]) -> Result:
    """What this rank's work gives, once all ranks have done theirs; where the work of
    some fails, all raise what the first of them did, and those that failed their own.

    All ranks call it together; the work itself calls no collective.
    """
    result: Any = None
    error: Exception | None = None
    try:
        result = work()
    except Exception as failure:  # whatever it is, the others wait to be told
        error = failure
    raise_first(error)
    return result


def raise_first(error: Exception | None) -> None:
    """Raises this rank's error, or else that of the first rank which has one; all ranks
    call it together."""
    if (world := _count_ranks()) > 1:
        import torch.distributed as dist

        packed: list[Any] = [None] * world
        dist.all_gather_object(packed, _pack(error))
        others = [_unpack(one) for one in packed if one]
        error = error or next(iter(others), None)
    if error is not None:
        raise error


def share_first(work: Callable[[], Result]) -> Result:
    """What rank 0's work gives, on all ranks; what it raises, too. All ranks call it
    together, and rank 0 alone does the work."""
    if _count_ranks() == 1:
        return work()
    import torch.distributed as dist

    result: Any = None
    error: Exception | None = None
    if dist.get_rank() == 0:
        try:
            result = work()
        except Exception as failure:  # whatever it is, the others wait to be told
            error = failure
    box: list[Any] = [result, _pack(error)]
    dist.broadcast_object_list(box, src=0)
    result, packed = box
    if packed:
        raise error or _unpack(packed)
    return result


def _count_ranks() -> int:
    import torch.distributed as dist

    return dist.get_world_size() if dist.is_initialized() else 1


def _pack(error: Exception | None) -> list[bytes]:
    """An error and those that it came of, each in bytes; none without an error."""
    return [_pack_one(link) for link in _follow(error)]


def _unpack(packed: list[bytes]) -> Exception:
    """The error of another rank, with those that it came of."""
    links: list[Exception] = [pickle.loads(one) for one in packed]
    for link, cause in itertools.pairwise(links):
        link.__cause__ = cause
    return links[0]


def _follow(error: BaseException | None) -> Iterator[Exception]:
    while isinstance(error, Exception):
        yield error
        error = error.__cause__


def _pack_one(error: Exception) -> bytes:
    """An error in bytes; in words where another process could not make it again."""
    try:
        packed = pickle.dumps(error)
        pickle.loads(packed)
    except Exception:  # of any kind: an error's class may be anybody's
        name = type(error).__name__
        return pickle.dumps(ClusterError(f"{name}: {error}"))
    return packed
