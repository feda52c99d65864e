"""Counts, before anything runs, how often orders have examples again, and lack others."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from jobs.contract.folder import Workspace, is_committed
from jobs.contract.prepared import read_arrangement_meta
from launcher.grids.runs import Run
from zsg_core.errors import UserError
from zsg_core.orders import curriculum
from zsg_core.orders.curriculum import Presence
from zsg_core.recipe import Recipe

# of all lists that are drawn to be counted: about two seconds
MOST_DRAWN = 1_000_000

Pool = Callable[[Run], tuple[int | None, bool]]


def describe_repeats(
    workspace: Workspace, runs: Iterable[Run], count_pool: Pool
) -> Iterator[str]:
    """For each rule by which examples come again or are left out, how many do.

    Read where the order is made; else drawn as it will be, of as many examples as
    `count_pool` says, with whether these are counted. What only the prepare job can
    count is said to be so.
    """
    counts: dict[str, list[Presence]] = {}
    signs: dict[str, str] = {}
    budget = MOST_DRAWN
    for run in _list_changing(runs):
        order = run.stage["arrangement"]
        rule = _name_rule(order)
        presence = _read_presence(workspace, run)
        if presence is None:
            pool, is_counted = count_pool(run)
            places = curriculum.count_places(order, pool or 0)
            if pool and places <= budget:
                presence = _draw(order, pool)
            if presence is not None:
                budget -= places
                signs[rule] = "" if is_counted else "at most "
        presences = counts.setdefault(rule, [])
        if presence is not None:
            presences.append(presence)
    for rule, presences in counts.items():
        yield f"arrangement {rule}: {_describe(presences, signs.get(rule, ''))}"


def refuse_impossible(runs: Iterable[Run], count_pool: Pool) -> None:
    """UserError for a rule that the training examples are too few for, however many of
    those that `count_pool` says there are, and for a list that would fill the memory."""
    seen: set[str] = set()
    for run in _list_with_before(runs):
        order = run.stage["arrangement"]
        if run.arrangement_id in seen or not curriculum.is_followed(order):
            continue
        seen.add(run.arrangement_id)
        if curriculum.KEPT_REPEATS in order:
            continue  # the user's file alone says how long the list is
        pool, is_counted = count_pool(run)
        if pool is not None:
            curriculum.refuse_few(order, pool)
        if is_counted or curriculum.is_length_given(order):
            curriculum.refuse_long(order, pool or 0)


def _list_with_before(runs: Iterable[Run]) -> Iterator[Run]:
    """Runs, each after the stages before it."""
    for run in runs:
        yield from run.all_before
        yield run


def _list_changing(runs: Iterable[Run]) -> Iterator[Run]:
    """Each such order once: those of runs, and of the stages before them."""
    seen: set[str] = set()
    for run in _list_with_before(runs):
        if not curriculum.changes_count(run.stage["arrangement"]):
            continue
        if run.arrangement_id not in seen:
            seen.add(run.arrangement_id)
            yield run


def _name_rule(order: Recipe) -> str:
    """What of an order decides its counts, as people read it."""
    shown = {"order": order["order"]}
    for key in (*curriculum.KINDS, curriculum.KEPT_REPEATS):
        if key in order:
            shown[key] = order[key]
    return json.dumps(shown, ensure_ascii=False).replace('"', "")


def _read_presence(workspace: Workspace, run: Run) -> Presence | None:
    """The counts of an order that is made."""
    folder = workspace.arrangement(run.arrangement_id)
    if not is_committed(folder):
        return None
    meta = read_arrangement_meta(folder)
    if meta is None or meta.presence is None:
        return None
    return Presence(**msgspec.structs.asdict(meta.presence))


def _draw(order: Mapping[str, Any], pool: int) -> Presence | None:
    """The counts of a list of so many examples; None where sources or a file decide."""
    if curriculum.PACING not in order and curriculum.BUCKETS not in order:
        return None
    try:
        drawn = curriculum.follow_curriculum(
            order, range(pool), (), order.get("seed", 0)
        )
    except UserError:
        return None
    return curriculum.count_presence(drawn, pool)


def _describe(presences: list[Presence], sign: str) -> str:
    """The counts of the replicates of a rule."""
    if not presences:
        return (
            "examples may come again or be left out; how many is counted when the data are"
            " prepared (zsg arrange make GRID.yaml)"
        )
    places = _span([presence.places for presence in presences])
    examples = presences[0].distinct + presences[0].never
    repeated = _span([presence.repeated for presence in presences])
    never = _span([presence.never for presence in presences])
    highest = max(presence.most for presence in presences)
    return (
        f"{sign}{places} places for {sign}{examples:,} examples, of which {repeated} come again"
        f" (one up to {highest:,} times) and {never} are never seen"
    )


def _span(values: list[int]) -> str:
    """A number, or the least and the most."""
    if min(values) == max(values):
        return f"{values[0]:,}"
    return f"{min(values):,}–{max(values):,}"
