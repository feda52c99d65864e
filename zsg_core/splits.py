"""Chooses which instances of each task are used: per-task caps, exact fractions, one reference each.

Every choice is seeded by (seed, task), so adding a task to a data set never changes another task's sample.
Python's `random.Random(str)` seeds by SHA-512 and is the same on every machine.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from zsg_core.examples import Example


def cap(examples: Sequence[Example], limit: int | None, sampling: str, seed: int) -> list[Example]:
    """At most `limit` instances of one task: the first in file order, or a seeded sample in drawn order."""
    if limit is None or sampling == "first" or not examples:
        return list(examples[:limit])
    rng = random.Random(f"sample:{seed}:{examples[0].task}")
    return rng.sample(list(examples), min(limit, len(examples)))


def choose_answer(example: Example, seed: int) -> Example:
    """The example with one reference drawn as its answer (science: the label is a random reference)."""
    if len(example.references) == 1:
        return example
    rng = random.Random(f"answer:{seed}:{example.id}")
    return replace(example, answer=rng.choice(example.references))


def take_fraction(examples: Sequence[Example], fraction: Fraction, seed: int) -> list[Example]:
    """⌊fraction·N⌋ of the examples, a seeded sample that keeps their order (DMT, section 3.2 of the paper).

    The fraction is exact: 1/256 of 110 142 is 430, with no rounding of 1/256 in between.
    """
    if fraction == 1:
        return list(examples)
    keep = math.floor(fraction * len(examples))
    rng = random.Random(f"fraction:{seed}")
    chosen = sorted(rng.sample(range(len(examples)), keep))
    return [examples[i] for i in chosen]
