"""Keeps what of a grid's claims changed since they were first submitted, with date and
reason. Claims that are looked at before the end are locked: without a reason they do not
change, also once their looks were left out."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import UNSET, UnsetType

from jobs.contract.grid_record import (
    Deviation,
    GridRecord,
    LockedLook,
    LockedLooks,
)
from jobs.deciding import run_axes
from launcher.grids import grid_claims
from launcher.grids.grid import Grid
from zsg_core.errors import UserError
from zsg_core.settings.claims import OF_A_GRID
from zsg_core.settings.looks import Looks
from zsg_core.stats import boundaries


def keep_looks(looks: Looks | None) -> LockedLooks | UnsetType:
    """The looks of a grid as its record keeps them; unset of a grid whose claims are
    looked at once."""
    return lock_looks(looks) or UNSET


def keep_lock(earlier: GridRecord | None, looks: Looks | None) -> bool | UnsetType:
    """Whether the claims of a grid are locked, as its record keeps it: from the first
    submit with looks on, whatever becomes of these."""
    was_locked = earlier is not None and earlier.has_locked_claims
    return True if was_locked or looks is not None else UNSET


def keep_deviations(deviations: list[Deviation]) -> list[Deviation] | UnsetType:
    """The deviations as a grid's record keeps them; unset where there is none."""
    return deviations or UNSET


def lock_looks(looks: Looks | None) -> LockedLooks | None:
    """The looks of a grid with their bounds; None of a grid whose claims are looked at
    once."""
    if looks is None:
        return None
    plan = boundaries.plan_looks(tuple(looks.at), looks.tail, looks.spending)
    return LockedLooks(
        settings=looks.model_dump(mode="json", exclude={"expect"}),
        looks=[
            LockedLook(splits=look.splits, tail=look.tail, t=look.t_bound)
            for look in plan
        ],
        seed=boundaries.SEED,
    )


def collect_deviations(
    earlier: GridRecord | None,
    grid: Grid,
    now: int,
    count_done: Callable[[], int],
    because: str,
    points: Sequence[Mapping[str, Any]] = (),
) -> list[Deviation]:
    """The deviations of a grid, with what is new in this submit; none of a first one.

    `now`: ms since the epoch; `because`: the user's reason; `points`: the axes of the
    grid's runs. UserError for locked claims that change without a reason.
    """
    if earlier is None or earlier.claims is None:
        return []
    recorded = [] if earlier.deviations is UNSET else list(earlier.deviations)
    changes = list_changes(earlier, grid, points)
    if not changes:
        return recorded
    if refusal := find_refusal(earlier, grid, because, points):
        raise refusal
    deviation = Deviation(at=now, done=count_done(), changes=changes, reason=because)
    return [*recorded, deviation]


def find_refusal(
    earlier: GridRecord | None,
    grid: Grid,
    because: str,
    points: Sequence[Mapping[str, Any]] = (),
) -> UserError | None:
    """Why a submit would refuse the claims of a grid: they are locked, differ from those
    of its last submit, and no reason is given. None where it would not."""
    if earlier is None or earlier.claims is None or because:
        return None
    if not earlier.has_locked_claims:
        return None
    changes = list_changes(earlier, grid, points)
    if not changes:
        return None
    listed = "; ".join(changes)
    return UserError(
        f"the claims of {grid.name} were locked when it was first submitted, and now"
        f" differ: {listed}. Put them back, or say why: zsg submit --because 'a reason',"
        " which stands on the report's page with the change"
    )


def list_changes(
    earlier: GridRecord, grid: Grid, points: Sequence[Mapping[str, Any]] = ()
) -> list[str]:
    """What differs between the claims of a grid and those of its last submit, in words."""
    before = [row.claim for row in earlier.claims or []]
    now = [grid_claims.make_claim_key(claim) for claim in grid.claims]
    changes = [f"left out: {_shorten(text)}" for text in before if text not in now]
    if before or earlier.has_locked_claims:
        changes += [f"added: {_shorten(text)}" for text in now if text not in before]
    changes += _compare_looks(earlier, grid.looks)
    if earlier.looks is not UNSET and grid.looks is not None:
        changes += _compare_splits(earlier, points)
    return changes


def _compare_splits(
    earlier: GridRecord, points: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Where the held-out splits, or their order, differ from those of the last submit:
    the order says of which splits a look is."""
    before = _list_splits([row.axes for row in earlier.runs])
    now = _list_splits(points)
    for number, (old, new) in enumerate(zip(before, now, strict=False), start=1):
        if old != new:
            return [f"held-out split {number}: {old} → {new}"]
    return []


def _list_splits(points: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(map(run_axes.name_split, points)))


def _compare_looks(earlier: GridRecord, looks: Looks | None) -> list[str]:
    """What differs between the looks of a grid and those of its last submit."""
    locked = earlier.looks
    new = lock_looks(looks)
    if locked is UNSET or not isinstance(locked, LockedLooks):
        is_change = bool(earlier.claims) or earlier.has_locked_claims
        return ["looks: added"] if new is not None and is_change else []
    if new is None:
        return ["looks: left out"]
    keys = dict.fromkeys([*locked.settings, *new.settings])
    return [
        f"looks.{key}: {_write(locked.settings.get(key))} → {_write(new.settings.get(key))}"
        for key in keys
        if locked.settings.get(key) != new.settings.get(key)
    ]


def _shorten(claim: str) -> str:
    """A claim as it stands in a file: without what it has by default."""
    try:
        [read] = OF_A_GRID.validate_python([json.loads(claim)])
    except (ValueError, RecursionError):  # of another zsg
        return claim
    return _write(read.model_dump(mode="json", exclude_defaults=True))


def _write(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": "))


def describe_deviations(deviations: Sequence[Deviation]) -> list[str]:
    """The deviations, a sentence each, but for the dates."""
    sentences: list[str] = []
    for deviation in deviations:
        reason = deviation.reason or "no reason given"
        sentences.append(
            f"when {deviation.done} runs were done: {'; '.join(deviation.changes)}."
            f" Because: {reason}"
        )
    return sentences
