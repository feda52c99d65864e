"""The order tma: the rounds of TMA, in which every test item takes its nearest (farthest)
item left, as one of five lists.

`min` and `max` are the nearest and the farthest rounds; `min-max` the nearest to half
the cap, then the farthest to half the cap backwards; `max-min` the other way round;
`random` is min-max shuffled. An item in both halves counts where it comes first. (A
figure of the paper calls min-max NFT, max-min FFT and random RT.)
"""

import itertools
import random
from typing import Any

from zsg_core.errors import UserError
from zsg_core.orders.registry import Arranged, OrderInputs, Rounds, always, order

TMA = "tma"
LISTS = ("min", "max", "min-max", "max-min", "random")
HALVED = ("min-max", "max-min", "random")  # lists of two halves


def check_list(asked: Any) -> None:
    """ValueError for a list whose rounds cannot be counted, or that is another order."""
    if asked.rounds is not None:
        parse_span(asked.rounds)
        if asked.list in HALVED:
            raise ValueError(
                f"`rounds` are of list min or max, not of {asked.list}, which has two kinds of"
                " them"
            )
        if asked.cap is not None:
            raise ValueError(
                "`rounds` and `cap` both say where tma stops; give one of them"
            )
    elif asked.list in HALVED and asked.cap is None:
        same = {
            "min-max": "list: min",
            "max-min": "list: max",
            "random": "order: random",
        }[str(asked.list)]
        raise ValueError(
            f"list {asked.list} without a `cap` is all data and the same as {same}; give a cap"
        )


def resolve_list(asked: Any) -> dict[str, Any]:
    """The recipe of the list, and of where it stops."""
    recipe: dict[str, Any] = {"list": asked.list or "min"}
    if asked.cap is not None:
        recipe["cap"] = asked.cap
    if asked.rounds is not None:
        recipe["rounds"] = asked.rounds
    return recipe


def is_shuffled(asked: Any) -> bool:
    """Whether the list is drawn."""
    return asked.list == "random"


@order(
    TMA,
    about=(
        "in rounds, in each of which every test item takes its nearest example that is not"
        " taken yet"
    ),
    settings=("list", "cap", "rounds"),
    check=check_list,
    recipe=resolve_list,
    is_seeded=is_shuffled,
    needs_embedding=always,
)
def arrange_tma(inputs: OrderInputs) -> Arranged:
    """Items in one of the five lists."""
    recipe = inputs.recipe
    return list_rounds(
        recipe["list"],
        inputs.rounds,
        recipe.get("cap"),
        inputs.seed,
        parse_span(recipe["rounds"]) if "rounds" in recipe else None,
    )


def list_rounds(
    name: str,
    rounds: Rounds,
    cap: int | None,
    seed: int,
    wanted: tuple[int, int] | None = None,
) -> Arranged:
    """One of the five lists of TMA; with `wanted` = (a, b) only the rounds a, a + 1, … b − 1 of it.

    UserError where there are fewer than b rounds.
    """
    if name not in HALVED:
        made = list(
            itertools.islice(rounds(name == "max", cap), wanted[1] if wanted else None)
        )
        if wanted and len(made) < wanted[1]:
            raise UserError(
                f"arrangement.rounds: {wanted[0]}:{wanted[1]} was asked, but all is taken after"
                f" {len(made)} rounds"
            )
        made = made[wanted[0] :] if wanted else made
        return Arranged(
            [item for one in made for item in one],
            {"rounds": [len(one) for one in made]},
        )
    half = None if cap is None else -(-cap // 2)
    near, far = list(rounds(False, half)), list(rounds(True, half))
    ends = [[item for one in made for item in one] for made in (near, far)]
    both = ends[1] + ends[0][::-1] if name == "max-min" else ends[0] + ends[1][::-1]
    places = list(dict.fromkeys(both))
    if name == "random":
        random.Random(seed).shuffle(places)
    facts = {
        "nearest": [len(one) for one in near],
        "farthest": [len(one) for one in far],
    }
    return Arranged(
        places, {"rounds": facts, "in_both_halves": len(both) - len(places)}
    )


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
