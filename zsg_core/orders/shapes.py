"""Shapes that a sorted list of examples takes: folded, in zigzag, in bands, with
segments at its ends, jittered, or with noise.

Folding is of DELT (Dai et al. 2025, arXiv 2506.21545), bands are STR and SAW of its
successor (arXiv 2605.30334); the lists are those of the authors' code
(microsoft/data-efficacy). A shape takes the places of examples sorted by their scores
and gives the same places in another order.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

SORT, FOLD, ZIGZAG, STAIR, SAW, SEGMENT = SHAPES = (
    "sort",
    "fold",
    "zigzag",
    "stair",
    "saw",
    "segment",
)
LOW, HIGH = ENDS = ("low", "high")
Layering = Callable[[Sequence[int], int], list[int]]


def sort_by_scores(scores: Sequence[float], descending: bool = False) -> list[int]:
    """The places 0…N−1 by their scores; of equal scores the first place first, in both
    directions."""
    sign = -1.0 if descending else 1.0
    return sorted(range(len(scores)), key=lambda place: sign * scores[place])


def fold(items: Sequence[int], layers: int) -> list[int]:
    """Layer after layer, each with every `layers`-th item of the sorted list."""
    return [item for first in range(layers) for item in items[first::layers]]


def zigzag(items: Sequence[int], layers: int) -> list[int]:
    """As `fold`, and every second layer backwards."""
    folded: list[int] = []
    for first in range(layers):
        layer = list(items[first::layers])
        folded += layer[::-1] if first % 2 else layer
    return folded


def make_bands(
    items: Sequence[int], bands: int, overlap: float, layers: int, layering: Layering
) -> list[int]:
    """The sorted list in `bands` equal parts; what stands within `overlap`·N of a border
    between two of them is folded or put in zigzag.

    Where two such windows meet the later one loses its begin, so that none has an item
    of another.
    """
    count = len(items)
    radius = round(count * overlap)
    if bands <= 1 or not radius:
        return list(items)
    shaped: list[int] = []
    end = 0
    for number in range(1, bands):
        border = round(count * number / bands)
        start = max(end, border - radius)
        stop = min(count, border + radius)
        if stop <= start:
            continue
        shaped += items[end:start]
        shaped += layering(items[start:stop], layers)
        end = stop
    return [*shaped, *items[end:]]


@dataclass(frozen=True, kw_only=True)
class Segments:
    """What is taken from the ends of the ascending list: `front` and `back` percent, of
    the low or the high scores."""

    front: float
    back: float
    front_of: str
    back_of: str


def make_segments(items: Sequence[int], segments: Segments, seed: int) -> list[int]:
    """A front of some scores, a back of some, the rest between; each shuffled, in the
    order front, middle, back, by one stream of Python's random.

    Front and back of the same scores are taken together, shuffled, and divided. `items`
    are in ascending order.
    """
    chance = random.Random(seed)
    front_size, back_size = _share_out(len(items), segments)
    if segments.front_of == segments.back_of:
        taken, middle = _take(items, front_size + back_size, segments.front_of)
        chance.shuffle(taken)
        front = taken[:front_size]
        back = taken[front_size:]
    else:
        front, others = _take(items, front_size, segments.front_of)
        back, middle = _take(others, back_size, segments.back_of)
    for segment in (front, middle, back):
        chance.shuffle(segment)
    return [*front, *middle, *back]


def _share_out(count: int, segments: Segments) -> tuple[int, int]:
    """How many items front and back have. Where they ask for more than there are, they
    share all in proportion, and nothing stands between."""
    front_size = int(count * segments.front // 100)
    back_size = int(count * segments.back // 100)
    together = front_size + back_size
    if together <= count:
        return front_size, back_size
    front_size = int(front_size * count / together)
    return front_size, count - front_size


def _take(items: Sequence[int], size: int, end: str) -> tuple[list[int], list[int]]:
    """So many items of an end, and the others."""
    if end == LOW:
        return list(items[:size]), list(items[size:])
    cut = len(items) - size
    return list(items[cut:]), list(items[:cut])


def jitter(items: Sequence[int], width: int, seed: int) -> list[int]:
    """Windows of `width` items one after the other, each shuffled; all by one stream of
    NumPy's default generator. A width of 1 or less changes nothing."""
    if width <= 1:
        return list(items)
    generator = np.random.default_rng(seed)
    jittered: list[int] = []
    for start in range(0, len(items), width):
        window = list(items[start : start + width])
        generator.shuffle(window)
        jittered += window
    return jittered


def add_gumbel_noise(items: Sequence[int], temperature: float, seed: int) -> list[int]:
    """The items by their rank and `temperature` times Gumbel noise; equal ones stay in
    their order."""
    noise = np.random.default_rng(seed).gumbel(size=len(items))
    ranks = np.arange(len(items)) + temperature * noise
    return [items[int(rank)] for rank in np.argsort(ranks, kind="stable")]
