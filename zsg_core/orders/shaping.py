"""Gives a sorted list the shape that settings ask for: whatever it was sorted by, scores
or the distance to the test set."""

from collections.abc import Mapping, Sequence
from typing import Any

from zsg_core.orders import shapes
from zsg_core.orders.shapes import FOLD, HIGH, LOW, SAW, SEGMENT, SORT, STAIR, ZIGZAG

# the published numbers of each shape, by their keys of `arrangement`
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    SORT: {},
    FOLD: {"layers": 5},
    ZIGZAG: {"layers": 5},
    STAIR: {"bands": 2, "overlap": 0.225, "layers": 3},
    SAW: {"bands": 3, "overlap": 0.075, "layers": 2},
    SEGMENT: {"front": 10.0, "back": 10.0, "front_of": LOW, "back_of": HIGH},
}
NUMBERS = ("layers", "bands", "overlap", "front", "back", "front_of", "back_of")
AFTER_ALL = ("jitter", "noise")
# the keys of `arrangement` that shape a sorted list
SHAPING = ("shape", *NUMBERS, *AFTER_ALL)


def is_shaped(settings: Any) -> bool:
    """Whether the sorted list is not trained on as it is."""
    return any(getattr(settings, key) is not None for key in SHAPING)


def check_shape(settings: Any) -> None:
    """ValueError for numbers that the shape does not have, and for what it decides
    itself."""
    shape = settings.shape or SORT
    _refuse_idle_numbers(settings, shape)
    if shape == SEGMENT and settings.jitter is not None:
        raise ValueError("shape segment is shuffled already; take `jitter` out")
    if shape != SORT and settings.noise is not None:
        raise ValueError(f"`noise` goes with shape sort, not with {shape}; take it out")


def _refuse_idle_numbers(settings: Any, shape: str) -> None:
    """ValueError for a number that the shape does not have."""
    for key in NUMBERS:
        if getattr(settings, key) is None or key in DEFAULTS[shape]:
            continue
        having = [name for name, numbers in DEFAULTS.items() if key in numbers]
        raise ValueError(
            f"`{key}` does nothing in shape {shape}, only in {' and '.join(having)}; take it out"
        )


def resolve_shape(settings: Any) -> dict[str, Any]:
    """What enters the recipe: the shape with all its numbers, and what comes after it."""
    shape = settings.shape or SORT
    recipe: dict[str, Any] = {"shape": shape}
    for key, published in DEFAULTS[shape].items():
        value = getattr(settings, key)
        recipe[key] = published if value is None else value
    for key in AFTER_ALL:
        value = getattr(settings, key)
        if value is not None:
            recipe[key] = value
    return recipe


def is_shape_drawn(settings: Any) -> bool:
    """Whether a seed changes the shaped list."""
    if settings.shape == SEGMENT:
        return True
    return any(getattr(settings, key) is not None for key in AFTER_ALL)


def shape_list(items: Sequence[int], recipe: Mapping[str, Any], seed: int) -> list[int]:
    """A sorted list in the shape of a recipe; as it is, where that has none."""
    shape = recipe.get("shape", SORT)
    shaped = list(items)
    if shape == FOLD:
        shaped = shapes.fold(items, recipe["layers"])
    elif shape == ZIGZAG:
        shaped = shapes.zigzag(items, recipe["layers"])
    elif shape in (STAIR, SAW):
        layering = shapes.fold if shape == STAIR else shapes.zigzag
        shaped = shapes.make_bands(
            items, recipe["bands"], recipe["overlap"], recipe["layers"], layering
        )
    elif shape == SEGMENT:
        segments = shapes.Segments(
            front=recipe["front"],
            back=recipe["back"],
            front_of=recipe["front_of"],
            back_of=recipe["back_of"],
        )
        shaped = shapes.make_segments(items, segments, seed)
    if "noise" in recipe:
        shaped = shapes.add_gumbel_noise(shaped, recipe["noise"], seed)
    return shapes.jitter(shaped, recipe.get("jitter", 0), seed)
