"""Finds which token sequences are cheaper to encode together, the prefix that they have
in common once.

Test examples of one task share its definition and its positive examples: of Natural
Instructions that is most of their tokens. A causal model's states over a prefix are the
same whatever follows, so sharing it changes no loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

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
    cheapest, chosen = [0], [PrefixGroup(())]
    for end in range(len(order)):
        alone = cheapest[end] + len(sequences[order[end]])
        best, group = alone, PrefixGroup((order[end],))
        prefix, tokens = limits[order[end]], len(sequences[order[end]])
        for start in range(end - 1, max(-1, end - MOST_ITEMS), -1):
            prefix = min(prefix, common[start], limits[order[start]])
            tokens += len(sequences[order[start]])
            size = tokens - prefix * (end - start)
            if prefix < LEAST or size > max_tokens:
                break  # neither can become better with one more
            if cheapest[start] + size < best:
                best, group = (
                    cheapest[start] + size,
                    PrefixGroup(tuple(sorted(order[start : end + 1])), prefix),
                )
        cheapest.append(best)
        chosen.append(group)
    groups, end = [], len(order)
    while end:
        groups.append(chosen[end])
        end -= len(chosen[end].places)
    return sorted(groups, key=lambda group: group.places[0])


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    differing = (
        position
        for position, pair in enumerate(zip(first, second, strict=False))
        if pair[0] != pair[1]
    )
    return next(differing, min(len(first), len(second)))
