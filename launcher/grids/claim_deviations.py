"""Keeps what of a grid's claims changed since they were first submitted, with date and
reason. Claims that are looked at before the end are locked: without a reason they do not
change."""

import json
from collections.abc import Callable, Sequence

from msgspec import UNSET, UnsetType

from jobs.contract.grid_record import (
    Deviation,
    GridRecord,
    LockedLook,
    LockedLooks,
)
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
) -> list[Deviation]:
    """The deviations of a grid, with what is new in this submit; none of a first one.

    `now`: ms since the epoch; `because`: the user's reason. UserError for locked claims
    that change without one.
    """
    if earlier is None or earlier.claims is None:
        return []
    recorded = [] if earlier.deviations is UNSET else list(earlier.deviations)
    changes = list_changes(earlier, grid)
    if not changes:
        return recorded
    is_locked = earlier.looks is not UNSET
    if is_locked and not because:
        listed = "; ".join(changes)
        raise UserError(
            f"the claims of {grid.name} were locked when it was first submitted, and now"
            f" differ: {listed}. Put them back, or say why: --because 'a reason', which"
            " stands on the report's page with the change"
        )
    deviation = Deviation(at=now, done=count_done(), changes=changes, reason=because)
    return [*recorded, deviation]


def list_changes(earlier: GridRecord, grid: Grid) -> list[str]:
    """What differs between the claims of a grid and those of its last submit, in words."""
    before = [row.claim for row in earlier.claims or []]
    now = [grid_claims.make_claim_key(claim) for claim in grid.claims]
    changes = [f"left out: {_shorten(text)}" for text in before if text not in now]
    if before or earlier.looks is not UNSET:
        changes += [f"added: {_shorten(text)}" for text in now if text not in before]
    return [*changes, *_compare_looks(earlier, grid.looks)]


def _compare_looks(earlier: GridRecord, looks: Looks | None) -> list[str]:
    """What differs between the looks of a grid and those of its last submit."""
    locked = earlier.looks
    new = lock_looks(looks)
    if locked is UNSET or not isinstance(locked, LockedLooks):
        return ["looks: added"] if new is not None and earlier.claims else []
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
    except ValueError:  # of another zsg
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
