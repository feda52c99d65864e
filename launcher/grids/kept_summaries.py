"""Keeps the summaries that a grid file names with the grid's record.

What was submitted under a name stays: MLflow keeps values under it, and claims are of
them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import UNSET, UnsetType

from jobs.contract.exit_record import replace_unset
from jobs.contract.grid_record import GridRecord, Summaries
from launcher.grids.grid import Grid
from launcher.grids.grid_summaries import KEY
from zsg_core import schema_errors
from zsg_core.errors import UserError
from zsg_core.settings.run import Settings


def make_record(grid: Grid) -> Summaries | UnsetType:
    """The summaries as a grid's record keeps them; unset where there are none. Where the
    file does not say which tasks are a data set, `data.data_sets` does, if it is a
    mapping and the same at all points."""
    settings = grid.summaries
    sets = {name: list(tasks) for name, tasks in settings.data_sets.items()}
    if not sets:
        sets = _find_common_sets([point.settings for point in grid.points])
    averages = {name: dict(chances) for name, chances in settings.averages.items()}
    tracked = list(settings.tracked)
    if not sets and not averages and not tracked:
        return UNSET
    return Summaries(data_sets=sets, averages=averages, tracked=tracked)


def _find_common_sets(points: Sequence[Settings]) -> dict[str, list[str]]:
    """The data sets that all sources of all points name; none where some differ, or two
    name one set otherwise."""
    common: dict[str, list[str]] = {}
    for settings in points:
        for source in settings.data.by_source().values():
            if not isinstance(source.data_sets, Mapping):
                continue
            for name, tasks in source.data_sets.items():
                if common.setdefault(name, list(tasks)) != list(tasks):
                    return {}
    return common


def find_refusal(earlier: GridRecord | None, grid: Grid) -> UserError | None:
    """Why a submit would refuse the summaries of a grid: a name of its last submit means
    something else now. None where it would not."""
    if earlier is None:
        return None
    before = replace_unset(earlier.summaries, Summaries())
    now = replace_unset(make_record(grid), Summaries())
    for section, were, are in (
        ("averages", before.averages, now.averages),
        ("data_sets", before.data_sets, now.data_sets),
    ):
        for name, value in are.items():
            if name in were and were[name] != value:
                return _refuse_change(f"{KEY}.{section}.{name}", were[name])
    return None


def _refuse_change(name: str, before: Any) -> UserError:
    """The refusal: what was submitted under the name, and what can be done."""
    was = schema_errors.format_brief(before)
    return UserError(
        f"{name} was submitted as {was}, and values of it may stand in MLflow: give the"
        " new one another name, or the grid"
    )
