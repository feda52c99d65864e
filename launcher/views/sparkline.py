"""Draws a few numbers as a curve in one line of a terminal."""

import math
from collections.abc import Sequence

LEVELS = "▁▂▃▄▅▆▇█"
FLAT = "▄"


def draw_sparkline(values: Sequence[float]) -> str:
    """A sign for each number, from the lowest to the highest; a point in the middle of
    those that are no numbers. Equal ones are a line in the middle."""
    numbers = [value for value in values if math.isfinite(value)]
    if not numbers:
        return ""
    lowest = min(numbers)
    # halves, since the difference of two numbers can be too large for one
    span = max(numbers) / 2 - lowest / 2
    signs: list[str] = []
    for value in values:
        if not math.isfinite(value):
            signs.append("·")
        elif span == 0:
            signs.append(FLAT)
        else:
            share = (value / 2 - lowest / 2) / span
            signs.append(LEVELS[round(share * (len(LEVELS) - 1))])
    return "".join(signs)
