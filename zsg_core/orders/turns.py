"""Puts the examples of several sources in turn, each source's in their order: so many of
each, evenly, or the whole of one source with another replayed between."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

EVENLY = "evenly"
Turn = Sequence[tuple[str, int]]  # how many of each source, in this order


def take_turns(by_source: Mapping[str, Sequence[int]], turn: Turn) -> list[int]:
    """So many examples of each source in turn as `turn` says, until all are taken; a
    source that has run out is passed over. `turn` names every source that has any."""
    waiting: dict[str, Iterator[int]] = {}
    for name, _ in turn:
        waiting[name] = iter(by_source.get(name, ()))
    taken: list[int] = []
    while waiting:
        for name, count in turn:
            if name not in waiting:
                continue
            group = list(itertools.islice(waiting[name], count))
            taken += group
            if len(group) < count:
                del waiting[name]
    return taken


def spread_evenly(by_source: Mapping[str, Sequence[int]]) -> list[int]:
    """The examples of each source at equal distances over the whole list: of n examples
    the i-th, from 0, stands at (2i + 1)/2n of it. Where two stand at one place, that of
    the source that comes first in `by_source` is first."""
    placed: list[tuple[float, int]] = []
    for items in by_source.values():
        for number, item in enumerate(items):
            placed.append(((2 * number + 1) / (2 * len(items)), item))
    # stable: of equal places the earlier source's stays first
    placed.sort(key=lambda place_and_item: place_and_item[0])
    return [item for _, item in placed]


def replay(main: Iterable[int], replayed: Sequence[int], every: int) -> list[int]:
    """The main list with one of the replayed list after each `every` − 1 of it; that one
    begins again when it runs out. The list ends with the main one."""
    mixed: list[int] = []
    number = 0
    for position, item in enumerate(main, start=1):
        mixed.append(item)
        if position % (every - 1) == 0:
            mixed.append(replayed[number % len(replayed)])
            number += 1
    return mixed
