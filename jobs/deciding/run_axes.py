"""Says what the axes of a grid's points mean to a comparison: which make replicates, which
make splits, and how a value is written. Pure."""

import bisect
import json
from collections.abc import Mapping, Sequence
from typing import Any

from zsg_core.shown_text import format_value

SEEDS = ("seed", "sample_seed", "init_seed")  # axes that make replicates
SPLIT = "data.held_out"  # an axis that makes splits, itself or a setting below it

Axes = Mapping[str, Any]


def unseeded_axes(axes: Axes) -> dict[str, Any]:
    """The values of a grid's point without the seeds that make replicates, also inside
    of values that are mappings."""
    return {
        key: _plain(value) for key, value in axes.items() if last_word(key) not in SEEDS
    }


def _plain(value: Any) -> Any:
    return unseeded_axes(value) if isinstance(value, Mapping) else value


def without_splits(axes: Axes) -> dict[str, Any]:
    """The values of a grid's point without the held-out split."""
    return {key: value for key, value in axes.items() if not is_of_split(key)}


def is_of_split(key: str) -> bool:
    """Whether an axis makes held-out splits."""
    return key == SPLIT or key.startswith(f"{SPLIT}.")


def name_split(axes: Axes) -> str:
    """The held-out split of a grid's point, as text; empty without an axis of splits."""
    of_split = {key: value for key, value in axes.items() if is_of_split(key)}
    return json.dumps(of_split, sort_keys=True, default=str) if of_split else ""


def assign_waves(points: Sequence[Axes], at: Sequence[int]) -> list[int]:
    """In which wave, counted from 0, each point of a grid is: splits come in the order of
    the grid, and look k is of the first `at[k]` of them."""
    number_of: dict[str, int] = {}
    for axes in points:
        number_of.setdefault(name_split(axes), len(number_of))
    numbers = [number_of[name_split(axes)] for axes in points]
    return [bisect.bisect_right(at, number) for number in numbers]


def last_word(key: str) -> str:
    """What of a setting's name a table's heading has."""
    return key.rpartition(".")[2]


def axis_text(value: Any) -> str:
    """A value of an axis in words; of a mapping `dmt, k 1/4`."""
    if isinstance(value, Mapping) and value:
        return ", ".join(
            axis_text(item) if key == "name" else f"{key} {axis_text(item)}"
            for key, item in value.items()
        )
    return "–" if value is None else format_value(value)
