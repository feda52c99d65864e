"""Paces a sorted list: each step sees only the first so many of its examples, and more
of them as training goes on.

The share that a step may see is its competence (Platanios et al. 2019, arXiv
1903.09848) or its pacing function (Wu et al. 2021, arXiv 2012.03107). Their control is
the same pacing over a shuffled list. A step draws its batch from what it may see, with
repeats between steps as published, or once: each example is drawn one time.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

COMPETENCE = "competence"
ONCE, REPEATS = DRAWS = ("once", "repeats")
STEEPNESS = 10  # of the curves exp and log
FULL_BLOCK = 1024  # examples of a part of the list of those not drawn yet


def _grow_exponentially(x: float) -> float:
    return math.expm1(STEEPNESS * x) / math.expm1(STEEPNESS)


def _grow_logarithmically(x: float) -> float:
    return 1 + math.log(x + math.exp(-STEEPNESS)) / STEEPNESS


# from the share of the time to the share of what is not seen at once
GROWTHS: dict[str, Callable[[float], float]] = {
    "linear": lambda x: x,
    "root": math.sqrt,
    "quadratic": lambda x: x * x,
    "step": math.floor,
    "exp": _grow_exponentially,
    "log": _grow_logarithmically,
}
CURVES = (COMPETENCE, *GROWTHS)


@dataclass(frozen=True, kw_only=True)
class Pacing:
    """How many examples of a sorted list each step may see.

    `start`: the share at the first step; `until`: the share of all steps after which
    everything is seen; `power`: of curve competence. `draw`: once or repeats.
    """

    curve: str
    start: float
    until: float
    draw: str
    power: float = 2.0

    def count_seen(self, count: int, steps: int, before: int) -> int:
        """How many of `count` examples may be seen once `before` of `steps` steps are
        over; at least one."""
        time = before / (self.until * steps)
        if time >= 1:
            return count
        if self.curve == COMPETENCE:
            return max(1, min(count, math.ceil(count * self._find_competence(time))))
        grown = GROWTHS[self.curve](time)
        seen = count * self.start + count * (1 - self.start) * grown
        return max(1, min(count, math.floor(seen)))

    def _find_competence(self, time: float) -> float:
        """The competence: a line in its `power`-th power."""
        at_start = self.start**self.power
        return (time * (1 - at_start) + at_start) ** (1 / self.power)


def count_steps_of_pass(count: int, batch: int, most: int | None = None) -> int:
    """The steps of one pass over so many examples, and never more than `most`."""
    steps = -(-count // batch)
    return steps if most is None else min(steps, most)


def draw_paced(
    items: Sequence[int], pacing: Pacing, batch: int, steps: int, seed: int
) -> list[int]:
    """The examples of all steps, one after the other, of a sorted list `items` (N).

    By draw `repeats` these are `steps` times `batch`, of which none stands twice in a
    step; ValueError where there are fewer examples than a batch has. By draw `once` all
    N stand in the list, each once: a step draws among what is not drawn yet of what it
    may see, or of more where that is less than a batch. One stream of Python's random
    draws all steps.
    """
    chance = random.Random(seed)
    if pacing.draw == ONCE:
        return list(_draw_once(items, pacing, batch, steps, chance))
    if len(items) < batch:
        raise ValueError(
            f"there are {len(items):,} training examples, and a step draws {batch:,}, none of them"
            " twice"
        )
    drawn: list[int] = []
    for before in range(steps):
        seen = max(batch, pacing.count_seen(len(items), steps, before))
        drawn += [items[number] for number in chance.sample(range(seen), batch)]
    return drawn


def _draw_once(
    items: Sequence[int],
    pacing: Pacing,
    batch: int,
    steps: int,
    chance: random.Random,
) -> Iterator[int]:
    remaining = _Remaining(len(items))
    offered = 0
    for before in range(count_steps_of_pass(len(items), batch)):
        seen = pacing.count_seen(len(items), steps, before)
        seen = max(seen, min(len(items), (before + 1) * batch))
        if seen > offered:
            remaining.extend(items[offered:seen])
            offered = seen
        size = min(batch, len(remaining))
        yield from remaining.take(chance.sample(range(len(remaining)), size))


class _Remaining:
    """A list of at most `most` items, from which a few places at a time are taken,
    wherever they are: in blocks, so that what stands behind need not move."""

    def __init__(self, most: int) -> None:
        self._blocks: list[list[int]] = [[]]
        self._sizes = np.zeros(most // FULL_BLOCK + 1, np.int64)
        self._put = 0

    def __len__(self) -> int:
        return int(self._sizes.sum())

    def extend(self, items: Sequence[int]) -> None:
        """Puts items at the end."""
        start = 0
        while start < len(items):
            room = FULL_BLOCK - self._put % FULL_BLOCK
            portion = items[start : start + room]
            self._blocks[-1] += portion
            self._sizes[len(self._blocks) - 1] += len(portion)
            self._put += len(portion)
            start += room
            if self._put % FULL_BLOCK == 0:
                self._blocks.append([])

    def take(self, places: Sequence[int]) -> list[int]:
        """The items at these places, in the order of the places; they are left no more."""
        ends = np.cumsum(self._sizes)
        numbers = np.searchsorted(ends, places, side="right")
        offsets = np.array(places) - ends[numbers] + self._sizes[numbers]
        spots = list(zip(numbers.tolist(), offsets.tolist(), strict=True))
        taken = [self._blocks[number][offset] for number, offset in spots]
        for number, offset in sorted(spots, reverse=True):
            del self._blocks[number][offset]
            self._sizes[number] -= 1
        return taken
