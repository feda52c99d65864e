"""Finds which token sequences are cheaper to encode together, the prefix that they have
in common once.

Test examples of one task share its definition and its positive examples: of Natural
Instructions that is most of their tokens. A causal model's states over a prefix are the
same whatever follows, so sharing it changes no loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

# tokens of a prefix below which one more part to attend over costs more than it saves
LEAST = 32
# of a group: that saves 31/32 of what any could, and leaves groups to share out over ranks
MOST_ITEMS = 32


@dataclass(frozen=True)
class PrefixGroup:
    """Places of sequences that begin with the same `prefix` tokens, which are encoded
    once; 0: one place alone."""

    places: tuple[int, ...]
    prefix: int = 0


def group_by_prefix(
    sequences: Sequence[Sequence[int]], limits: Sequence[int], max_tokens: int
) -> list[PrefixGroup]:
    """Every sequence in one group, so that the fewest tokens are encoded; in the order
    of their first places.

    Of sequence i at most `limits[i]` tokens can be shared. A group of several has at
    most `max_tokens` tokens. The same sequences give the same groups: in their sorted order,
    where those with a long prefix in common are neighbours, the cheapest division into
    runs is found exactly.
    """
    order = sorted(range(len(sequences)), key=lambda i: (sequences[i], i))
    common = [
        _common(sequences[first], sequences[second])
        for first, second in pairwise(order)
    ]
    in_order = _Sorted(
        sizes=[len(sequences[index]) for index in order],
        limits=[limits[index] for index in order],
        common=common,
    )
    groups: list[PrefixGroup] = []
    for run in in_order.divide(max_tokens):
        members = sorted(order[run.start : run.stop])
        groups.append(PrefixGroup(tuple(members), run.prefix))
    return sorted(groups, key=lambda group: group.places[0])


class _Run(NamedTuple):
    """Neighbours in the sorted order, from `start` to before `stop`, that share a prefix."""

    start: int
    stop: int
    prefix: int


@dataclass(frozen=True)
class _Sorted:
    """Sequences in their sorted order: how many tokens each has, how many of them can be
    shared, and how many of them the next one has in `common`."""

    sizes: Sequence[int]
    limits: Sequence[int]
    common: Sequence[int]

    def divide(self, max_tokens: int) -> list[_Run]:
        """The cheapest division into runs, the last run first.

        What the sequences up to a place cost at the least is that of those before its
        last run, and of the run: so each place asks only those before it.
        """
        cheapest = [0]
        last_runs: list[_Run] = []
        for end in range(len(self.sizes)):
            cost, run = self._choose_last_run(end, cheapest, max_tokens)
            cheapest.append(cost)
            last_runs.append(run)
        runs: list[_Run] = []
        stop = len(self.sizes)
        while stop:
            run = last_runs[stop - 1]
            runs.append(run)
            stop = run.start
        return runs

    def _choose_last_run(
        self, end: int, cheapest: Sequence[int], max_tokens: int
    ) -> tuple[int, _Run]:
        """The run that ends with the sequence at `end`, and what all up to it cost."""
        tokens = self.sizes[end]
        prefix = self.limits[end]
        best = cheapest[end] + tokens
        run = _Run(end, end + 1, 0)
        for start in range(end - 1, max(-1, end - MOST_ITEMS), -1):
            prefix = min(prefix, self.common[start], self.limits[start])
            tokens += self.sizes[start]
            size = tokens - prefix * (end - start)
            if prefix < LEAST or size > max_tokens:
                break  # neither can become better with one more
            if cheapest[start] + size < best:
                best = cheapest[start] + size
                run = _Run(start, end + 1, prefix)
        return best, run


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    differing = (
        position
        for position, pair in enumerate(zip(first, second, strict=False))
        if pair[0] != pair[1]
    )
    return next(differing, min(len(first), len(second)))
