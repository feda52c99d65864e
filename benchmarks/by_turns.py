"""Times several ways to the same losses by turns, so that what else the machine does
falls on all alike."""

from collections.abc import Callable, Sequence
from typing import Any


def by_turns(
    calls: Sequence[Callable[[], Any]],
    repeats: int,
    clock: Callable[[], float],
    same: float,
) -> tuple[list[list[float]], float]:
    """(the seconds of each call in each round, the largest difference of a loss from
    the first call's).

    RuntimeError where losses differ by more than `same`.
    """
    import torch

    seconds: list[list[float]] = [[] for _ in calls]
    worst = 0.0
    for _ in range(repeats):
        losses = []
        for call, taken in zip(calls, seconds, strict=True):
            began = clock()
            losses.append(torch.as_tensor(call(), dtype=torch.float64))
            taken.append(clock() - began)
        worst = max(worst, *((one - losses[0]).abs().max().item() for one in losses))
        if not worst <= same:
            raise RuntimeError(f"the losses do not agree: {worst}")
    return seconds, worst
