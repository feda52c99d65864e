"""What is made of an ordered list before it is trained on: paced, in buckets, or with
the sources in turn.

These count under every order: the same pacing over a shuffled list is the control of
that over a sorted one. A list may then have examples several times, and lack others;
both are counted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zsg_core.errors import BadData
from zsg_core.orders import buckets, pacing, turns
from zsg_core.orders.buckets import BABY_STEPS
from zsg_core.orders.pacing import COMPETENCE, ONCE, REPEATS, Pacing

PACING, BUCKETS, TURNS, REPLAY = KINDS = ("pacing", "buckets", "turns", "replay")
MOST_PLACES = 100_000_000  # of a list
OrderRecipe = Mapping[str, Any]  # of an arrangement
KEPT_REPEATS = "repeats"  # in the recipe of a list of the user's that may repeat


def check_curriculum(settings: Any) -> None:
    """ValueError for two rules that both say what becomes of the list."""
    rules = [kind for kind in KINDS if getattr(settings, kind) is not None]
    if len(rules) > 1:
        raise ValueError(
            f"`{rules[0]}` and `{rules[1]}` both say what becomes of the ordered list; take one of"
            " them out"
        )


def is_drawn(settings: Any) -> bool:
    """Whether a seed changes what becomes of the list."""
    return settings.pacing is not None or settings.buckets is not None


def resolve_curriculum(settings: Any, batch: int, steps: int | None) -> dict[str, Any]:
    """What enters the recipe of an order, nothing where its list is trained on as it is.

    `batch` and `steps` are the training's: what a step may see hangs on them.
    """
    if settings.pacing is not None:
        return {PACING: _resolve_pacing(settings.pacing, batch, steps)}
    if settings.buckets is not None:
        rule = settings.buckets
        return {BUCKETS: {"number": rule.number, "style": rule.style}}
    if settings.replay is not None:
        rule = settings.replay
        return {REPLAY: {"source": rule.source, "every": rule.every}}
    if settings.turns is None:
        return {}
    if settings.turns == turns.EVENLY:
        return {TURNS: turns.EVENLY}
    # in pairs: their order counts, and a source may be called as a key of the recipe's own
    return {TURNS: [[name, count] for name, count in settings.turns.items()]}


def _resolve_pacing(rule: Any, batch: int, steps: int | None) -> dict[str, Any]:
    recipe: dict[str, Any] = {"curve": rule.curve, "draw": rule.draw, "batch": batch}
    if rule.curve == COMPETENCE:
        recipe["power"] = 2.0 if rule.power is None else rule.power
    recipe["start"], recipe["until"] = rule.start, rule.until
    if rule.over_steps is not None:
        recipe["over_steps"] = rule.over_steps
    elif steps is not None:
        recipe["most_steps"] = steps
    return recipe


def is_followed(recipe: Mapping[str, Any]) -> bool:
    """Whether an order's recipe says what becomes of its list."""
    return any(kind in recipe for kind in KINDS)


def may_repeat(recipe: Mapping[str, Any]) -> bool:
    """Whether the list of an order's recipe may have an example several times."""
    if recipe.get(KEPT_REPEATS):
        return True
    if PACING in recipe:
        return bool(recipe[PACING]["draw"] == REPEATS)
    return REPLAY in recipe or recipe.get(BUCKETS, {}).get("style") == BABY_STEPS


def may_pass_over(recipe: Mapping[str, Any]) -> bool:
    """Whether what becomes of the list may leave examples out."""
    if PACING in recipe:
        return bool(recipe[PACING]["draw"] == REPEATS)
    return REPLAY in recipe


def changes_count(recipe: Mapping[str, Any]) -> bool:
    """Whether the list may be other than each example once."""
    return may_repeat(recipe) or may_pass_over(recipe)


def count_places(recipe: Mapping[str, Any], count: int) -> int:
    """How long the list becomes of so many examples; of a replay at most so long."""
    if PACING in recipe:
        rule = recipe[PACING]
        if rule["draw"] == ONCE:
            return count
        return _count_steps(rule, count) * int(rule["batch"])
    if BUCKETS in recipe:
        rule = recipe[BUCKETS]
        return buckets.count_passed(count, rule["number"], rule["style"])
    if REPLAY in recipe:
        return count + count // (recipe[REPLAY]["every"] - 1)
    return count


def _count_steps(rule: Mapping[str, Any], count: int) -> int:
    """The steps that a pacing runs over."""
    if "over_steps" in rule:
        return int(rule["over_steps"])
    return pacing.count_steps_of_pass(count, rule["batch"], rule.get("most_steps"))


def is_length_given(recipe: OrderRecipe) -> bool:
    """Whether the list is as long as the recipe says, of however many examples."""
    return "over_steps" in recipe.get(PACING, {})


def refuse_few(recipe: OrderRecipe, count: int) -> None:
    """BadData where so many ordered examples are too few for what is to become of their
    list, and so fewer are, too."""
    if PACING in recipe:
        rule = recipe[PACING]
        if rule["draw"] == REPEATS and count < rule["batch"]:
            raise BadData(
                f"arrangement.pacing: there are {count:,} training examples, and a step draws"
                f" {rule['batch']:,}, none of them twice; lower train.batch"
            )
    if BUCKETS in recipe and count < recipe[BUCKETS]["number"]:
        raise BadData(
            f"arrangement.buckets: there are {count:,} training examples, too few for"
            f" {recipe[BUCKETS]['number']:,} buckets; lower buckets.number"
        )


def refuse_long(recipe: OrderRecipe, count: int) -> None:
    """BadData where the list of so many examples would fill the memory."""
    length = count_places(recipe, count) if may_repeat(recipe) else count
    if length > max(MOST_PLACES, count):
        raise BadData(
            f"arrangement: the list would have {length:,} places, and the most is {MOST_PLACES:,};"
            " lower pacing.over_steps or buckets.number"
        )


def follow_curriculum(
    recipe: Mapping[str, Any],
    items: Sequence[int],
    sources: Sequence[str],
    seed: int,
) -> list[int]:
    """What becomes of an ordered list `items` of places in the training list. `sources`:
    of each place of that, the name of its source.

    BadData where the data do not allow it.
    """
    refuse_few(recipe, len(items))
    refuse_long(recipe, len(items))
    if PACING in recipe:
        return _pace(recipe[PACING], items, seed)
    if BUCKETS in recipe:
        rule = recipe[BUCKETS]
        return buckets.pass_buckets(items, rule["number"], rule["style"], seed)
    if TURNS in recipe:
        return _take_turns(recipe[TURNS], items, sources)
    if REPLAY in recipe:
        return _replay(recipe[REPLAY], items, sources)
    return list(items)


def _pace(rule: Mapping[str, Any], items: Sequence[int], seed: int) -> list[int]:
    steps = _count_steps(rule, len(items))
    paced = Pacing(
        curve=rule["curve"],
        start=rule["start"],
        until=rule["until"],
        draw=rule["draw"],
        power=rule.get("power", 2.0),
    )
    return pacing.draw_paced(items, paced, rule["batch"], steps, seed)


def _take_turns(rule: Any, items: Sequence[int], sources: Sequence[str]) -> list[int]:
    by_source = _divide(items, sources)
    if rule == turns.EVENLY:
        return turns.spread_evenly(by_source)
    turn = [(name, count) for name, count in rule]
    unnamed = set(by_source) - {name for name, _ in turn}
    if unnamed:
        raise BadData(
            f"arrangement.turns names no {', '.join(sorted(unnamed))}, of which there are training"
            " examples; name each source"
        )
    return turns.take_turns(by_source, turn)


def _replay(
    rule: Mapping[str, Any], items: Sequence[int], sources: Sequence[str]
) -> list[int]:
    name = rule["source"]
    replayed = [item for item in items if sources[item] == name]
    main = [item for item in items if sources[item] != name]
    for whose, examples in ((f"source {name}", replayed), ("the other sources", main)):
        if not examples:
            raise BadData(
                f"arrangement.replay: {whose} has no training example, so that nothing is replayed"
                " between others"
            )
    return turns.replay(main, replayed, rule["every"])


def _divide(items: Sequence[int], sources: Sequence[str]) -> dict[str, list[int]]:
    """The places of each source in their order; sources in the order of the data."""
    by_source: dict[str, list[int]] = {name: [] for name in dict.fromkeys(sources)}
    for item in items:
        by_source[sources[item]].append(item)
    return {name: group for name, group in by_source.items() if group}


@dataclass(frozen=True, kw_only=True)
class Presence:
    """How often the training examples stand in a list: `places` long, with `distinct`
    different ones, of which `repeated` stand several times, at most `most` times; of
    all examples `never` stand nowhere."""

    places: int
    distinct: int
    repeated: int
    most: int
    never: int


def count_presence(ordered: Sequence[int], examples: int) -> Presence:
    """The same of an order of the places 0…`examples` − 1."""
    times = np.bincount(np.array(ordered, np.int64), minlength=examples)
    distinct = int((times > 0).sum())
    return Presence(
        places=len(ordered),
        distinct=distinct,
        repeated=int((times > 1).sum()),
        most=int(times.max(initial=0)),
        never=examples - distinct,
    )
