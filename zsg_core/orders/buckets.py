"""Divides a sorted list into buckets that are trained on one after the other: baby steps
and one pass (Cirik, Hovy, Morency 2016, arXiv 1611.06204; Bengio et al. 2009)."""

import itertools
import random
from collections.abc import Sequence

ONE_PASS, BABY_STEPS = STYLES = ("one_pass", "baby_steps")


def list_borders(count: int, buckets: int) -> list[int]:
    """Where the buckets of a list of so many begin and end: ⌊jN/k⌋ for j = 0…k."""
    return [number * count // buckets for number in range(buckets + 1)]


def pass_buckets(
    items: Sequence[int], buckets: int, style: str, seed: int
) -> list[int]:
    """The buckets of a sorted list `items` (N), each shuffled, one after the other.

    In style `baby_steps` each comes together with all before it, shuffled anew: of k
    equal buckets the first comes k times, the last once. One stream of Python's random
    shuffles all.
    """
    chance = random.Random(seed)
    borders = list_borders(len(items), buckets)
    passed: list[int] = []
    for begin, end in itertools.pairwise(borders):
        bucket = list(items[0 if style == BABY_STEPS else begin : end])
        chance.shuffle(bucket)
        passed += bucket
    return passed


def count_passed(count: int, buckets: int, style: str) -> int:
    """How long the list of `pass_buckets` is, of so many examples."""
    return sum(list_borders(count, buckets)) if style == BABY_STEPS else count
