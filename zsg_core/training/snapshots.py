"""Decides which snapshots of a run stay: the first, the last, the best by loss, every
so-many-th step."""

import math
from collections.abc import Iterable, Mapping

Rule = Mapping[str, int | None] | None  # {first, last, best, every}; None: all stay


def select_kept_steps(
    steps: Iterable[int], losses: Mapping[int, float | None], rule: Rule
) -> frozenset[int]:
    """The steps that stay: each that one of the rule's parts names. Of equal losses the
    earlier is the better.

    Applied after every snapshot it leaves what it would leave if it were applied once, at the end.
    """
    ordered = sorted(steps)
    if rule is None:
        return frozenset(ordered)
    last, every = rule.get("last") or 0, rule.get("every")
    return frozenset(
        [
            *ordered[: rule.get("first") or 0],
            *ordered[max(0, len(ordered) - last) :],
            *_sort_by_loss(ordered, losses)[: rule.get("best") or 0],
            *(step for step in ordered if every and step % every == 0),
        ]
    )


def _sort_by_loss(
    steps: Iterable[int], losses: Mapping[int, float | None]
) -> list[int]:
    """The steps that have a loss, the lowest first."""
    measured = {
        step: loss
        for step in steps
        if (loss := losses.get(step)) is not None and not math.isnan(loss)
    }
    return sorted(measured, key=lambda step: (measured[step], step))


def count_most_kept(steps: Iterable[int], rule: Rule) -> int:
    """The most that are on disk at the same time: those that stay, and one that is
    written before another goes."""
    ordered = list(steps)
    if rule is None:
        return len(ordered)
    every = rule.get("every")
    regular = sum(1 for step in ordered if every and step % every == 0)
    return min(
        len(ordered),
        sum(rule.get(key) or 0 for key in ("first", "last", "best")) + regular + 1,
    )


def bound_most_kept(count: int, rule: Rule) -> int:
    """A bound of `count_most_kept` for so many steps, where they are too many to be listed."""
    if rule is None or rule.get("every"):
        return count
    return min(count, sum(rule.get(key) or 0 for key in ("first", "last", "best")) + 1)
