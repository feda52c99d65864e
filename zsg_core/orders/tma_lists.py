"""The order tma: the rounds of TMA, in which every test item takes its nearest (farthest)
item left, as one of five lists.

`min` and `max` are the nearest and the farthest rounds; `min-max` the nearest to half
the cap, then the farthest to half the cap backwards; `max-min` the other way round;
`random` is min-max shuffled. An item in both halves counts where it comes first. (A
figure of the paper calls min-max NFT, max-min FFT and random RT.)
"""

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from zsg_core.errors import UserError
from zsg_core.orders.registry import (
    Arranged,
    OrderInputs,
    Rounds,
    RoundsOfBothEnds,
    always,
    order,
)
from zsg_core.orders.shaping import (
    SHAPING,
    check_shape,
    is_shape_drawn,
    is_shaped,
    resolve_shape,
    shape_list,
)

TMA = "tma"
LISTS = ("min", "max", "min-max", "max-min", "random")
HALVED = ("min-max", "max-min", "random")  # lists of two halves


def check_list(settings: Any) -> None:
    """ValueError for a list whose rounds cannot be counted, that is another order, or
    that is not sorted and so takes no shape."""
    if settings.list in HALVED and is_shaped(settings):
        raise ValueError(
            f"a shape is of a sorted list, min or max, not of {settings.list}; take"
            f" {' and '.join(key for key in SHAPING if getattr(settings, key) is not None)} out"
        )
    check_shape(settings)
    if settings.rounds is not None:
        parse_span(settings.rounds)
        if settings.list in HALVED:
            raise ValueError(
                f"`rounds` are of list min or max, not of {settings.list}, which has two kinds of"
                " them"
            )
        if settings.cap is not None:
            raise ValueError(
                "`rounds` and `cap` both say where tma stops; give one of them"
            )
    elif settings.list in HALVED and settings.cap is None:
        same = {
            "min-max": "list: min",
            "max-min": "list: max",
            "random": "order: random",
        }[str(settings.list)]
        raise ValueError(
            f"list {settings.list} without a `cap` is all data and the same as {same}; give a cap"
        )


def resolve_list(settings: Any) -> dict[str, Any]:
    """The recipe of the list, and of where it stops."""
    recipe: dict[str, Any] = {"list": settings.list or "min"}
    if settings.cap is not None:
        recipe["cap"] = settings.cap
    if settings.rounds is not None:
        recipe["rounds"] = settings.rounds
    # absent without a shape, as in the recipes made before there was one
    return recipe | (resolve_shape(settings) if is_shaped(settings) else {})


def is_shuffled(settings: Any) -> bool:
    """Whether the list is drawn."""
    return settings.list == "random" or is_shape_drawn(settings)


@order(
    TMA,
    about=(
        "in rounds, in each of which every test item takes its nearest example that is not"
        " taken yet"
    ),
    settings=("list", "cap", "rounds", "target", *SHAPING),
    leaves_out=("cap", "rounds"),
    check=check_list,
    recipe=resolve_list,
    is_seeded=is_shuffled,
    needs_embedding=always,
)
def arrange_tma(inputs: OrderInputs) -> Arranged:
    """Items in one of the five lists, in the shape of the recipe."""
    recipe, cap = inputs.recipe, inputs.recipe.get("cap")
    name = recipe["list"]
    if name in HALVED and inputs.rounds_of_both_ends is not None:
        made = list_halves(name, inputs.rounds_of_both_ends, cap, inputs.seed)
    else:
        span = parse_span(recipe["rounds"]) if "rounds" in recipe else None
        made = list_rounds(name, inputs.rounds, cap, inputs.seed, span)
    return replace(made, places=shape_list(made.places, recipe, inputs.seed))


def list_rounds(
    name: str,
    rounds: Rounds,
    cap: int | None,
    seed: int,
    span: tuple[int, int] | None = None,
) -> Arranged:
    """One of the five lists of TMA; with `span` = (a, b) only the rounds a, a + 1, … b − 1 of it.

    UserError where there are fewer than b rounds.
    """
    if name in HALVED:

        def pick(cap: int | None) -> tuple[list[list[int]], list[list[int]]]:
            return list(rounds(False, cap)), list(rounds(True, cap))

        return list_halves(name, pick, cap, seed)
    is_farthest = name == "max"
    if span is None:
        picked = list(rounds(is_farthest, cap))
    else:
        picked = _rounds_of_span(rounds(is_farthest, cap), span)
    return Arranged(_flatten(picked), {"rounds": _sizes(picked)})


def _rounds_of_span(
    rounds: Iterator[list[int]], span: tuple[int, int]
) -> list[list[int]]:
    first, end = span
    picked = list(itertools.islice(rounds, end))
    if len(picked) < end:
        raise UserError(
            f"arrangement.rounds: {first}:{end} was asked, but all is taken after"
            f" {len(picked)} rounds"
        )
    return picked[first:]


def list_halves(
    name: str, rounds: RoundsOfBothEnds, cap: int | None, seed: int
) -> Arranged:
    """A list of nearest rounds to half the cap, and of farthest ones to half the cap."""
    half = None if cap is None else -(-cap // 2)
    near, far = rounds(half)
    nearest, farthest = _flatten(near), _flatten(far)
    if name == "max-min":
        both = farthest + nearest[::-1]
    else:
        both = nearest + farthest[::-1]
    distinct = list(dict.fromkeys(both))
    doubled = len(both) - len(distinct)
    if name == "random":
        random.Random(seed).shuffle(distinct)
    sizes = {"nearest": _sizes(near), "farthest": _sizes(far)}
    return Arranged(distinct, {"rounds": sizes, "in_both_halves": doubled})


def _flatten(rounds: list[list[int]]) -> list[int]:
    return list(itertools.chain.from_iterable(rounds))


def _sizes(rounds: list[list[int]]) -> list[int]:
    return [len(items) for items in rounds]


def parse_span(text: str) -> tuple[int, int]:
    """The rounds that "5:10" names: 5 to 9. ValueError for what names none."""
    first, colon, end = text.partition(":")
    if not (
        colon
        and first.isascii()
        and end.isascii()
        and first.isdigit()
        and end.isdigit()
        and int(first) < int(end)
    ):
        raise ValueError(
            f'rounds are given as "0:5", from the first to before the last, not {text!r}'
        )
    return int(first), int(end)
