"""Lays the runs of several grids beside one another, as if one grid listed them.

Each run has one axis more, `grid`. A run that several of them list is counted once, as the
first one's. What is an axis of one grid alone is read of the recipes of the others' runs,
where recipes have it as that grid's axes say: a rate that one grid varies has a value in
the other, too.
"""

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from jobs.contract.folder import META, Workspace, read_json
from jobs.contract.grid_record import (
    Deviation,
    GridRecord,
    ListedRun,
    Summaries,
)
from jobs.deciding import run_axes
from jobs.deciding.run_axes import Axes
from launcher.reporting.data.run_groups import GRID, Member
from launcher.workspace import recorded_grids
from zsg_core import recipe as recipes
from zsg_core.digest import content_id
from zsg_core.errors import UserError

# an axis of splits: which test set it is, where grids have several by the same name
TEST_SET = f"{run_axes.SPLIT}.test_set"


@dataclass(frozen=True)
class JoinedGrids:
    """Several grids as one record, whose runs have the axis `grid`.

    `listed_by`: of each run the grids that list it; `notes`: what is to be told.
    """

    names: Sequence[str]
    record: GridRecord
    listed_by: Mapping[str, Sequence[str]]
    notes: Sequence[str] = field(default_factory=list[str])


def join_grids(workspace: Workspace, names: Sequence[str]) -> JoinedGrids:
    """The grids as one. UserError for one that was not submitted, or is named twice."""
    _refuse_doubled(names)
    records = [recorded_grids.read_grid(workspace, name) for name in names]
    listed_by = _list_grids_of_runs(records)
    filled = _fill_axes(_unite_runs(records))
    filled = _tell_test_sets_apart(workspace, filled)
    joined = GridRecord(
        name=" + ".join(names),
        runs=[_put_grid_first(row) for row in filled],
        corpora=_unite(record.corpora for record in records),
        deviations=_collect_deviations(records) or UNSET,
        summaries=_unite_summaries(records),
    )
    return JoinedGrids(names, joined, listed_by, _tell_shared(listed_by))


def _refuse_doubled(names: Sequence[str]) -> None:
    """UserError for a grid that is named twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UserError(f"grid {name} is named twice: a run counts once")
        seen.add(name)


def _list_grids_of_runs(records: Sequence[GridRecord]) -> dict[str, list[str]]:
    """Of each run the grids that list it."""
    listed_by: dict[str, list[str]] = {}
    for record in records:
        for row in record.runs:
            listed_by.setdefault(row.run, []).append(record.name)
    return listed_by


def _unite_runs(records: Sequence[GridRecord]) -> list[ListedRun]:
    """The runs of all grids, each once, with the axis of the first grid that lists it.

    What the axes of a later grid say of a run of an earlier one is as true.
    """
    rows: dict[str, ListedRun] = {}
    for record in records:
        for row in record.runs:
            earlier = rows.get(row.run)
            if earlier is None:
                axes = {**row.axes, GRID: record.name}
                rows[row.run] = msgspec.structs.replace(row, axes=axes)
            else:
                axes = {**row.axes, **earlier.axes}
                rows[row.run] = msgspec.structs.replace(earlier, axes=axes)
    return list(rows.values())


def _put_grid_first(row: ListedRun) -> ListedRun:
    axes = {GRID: row.axes[GRID], **row.axes}
    return msgspec.structs.replace(row, axes=axes)


def _unite(lists: Any) -> list[str]:
    return list(dict.fromkeys(itertools.chain.from_iterable(lists)))


def _unite_summaries(records: Sequence[GridRecord]) -> Summaries | UnsetType:
    """What the grids name of summaries. UserError where a name means two things."""
    data_sets: dict[str, list[str]] = {}
    averages: dict[str, dict[str, float]] = {}
    for record in records:
        if isinstance(record.summaries, UnsetType):
            continue
        _add_named(data_sets, record.summaries.data_sets, record.name)
        _add_named(averages, record.summaries.averages, record.name)
    if not data_sets and not averages:
        return UNSET
    return Summaries(data_sets=data_sets, averages=averages)


def _add_named(meanings: dict[str, Any], named: Mapping[str, Any], grid: str) -> None:
    for name, meaning in named.items():
        if meanings.setdefault(name, meaning) != meaning:
            raise UserError(
                f"the summary {name!r} of grid {grid} is another than that of the grids before"
                " it: name one of them otherwise, or report each grid by itself"
            )


def _collect_deviations(records: Sequence[GridRecord]) -> list[Deviation]:
    """What changed of the claims of each grid, with its name."""
    deviations: list[Deviation] = []
    for record in records:
        for deviation in record.deviations or []:
            changes = [f"{record.name}: {change}" for change in deviation.changes]
            deviations.append(msgspec.structs.replace(deviation, changes=changes))
    return deviations


def _tell_shared(listed_by: Mapping[str, Sequence[str]]) -> list[str]:
    """A note for runs that several grids list."""
    counts: dict[tuple[str, ...], int] = {}
    for grids in listed_by.values():
        if len(grids) > 1:
            counts[tuple(grids)] = counts.get(tuple(grids), 0) + 1
    return [
        f"{count} runs stand in {' and in '.join(grids)}: they count once, as those of"
        f" {grids[0]}"
        for grids, count in counts.items()
    ]


def _fill_axes(rows: Sequence[ListedRun]) -> list[ListedRun]:
    """The runs, with what is an axis of other grids alone by their recipes."""
    names = list(dict.fromkeys(name for row in rows for name in row.axes))
    readable = [name for name in names if _is_as_recipes_say(name, rows)]
    filled: list[ListedRun] = []
    for row in rows:
        axes = dict(row.axes)
        for name in readable:
            value = _read_setting(row, name)
            if name not in axes and value is not UNSET:
                axes[name] = value
        filled.append(msgspec.structs.replace(row, axes=axes))
    return filled


def _is_as_recipes_say(name: str, rows: Sequence[ListedRun]) -> bool:
    """Whether the recipe of each run that has an axis says what the axis does."""
    having = [row for row in rows if name in row.axes]
    return all(row.axes[name] == _read_setting(row, name) for row in having)


def _read_setting(row: ListedRun, name: str) -> Any:
    """A setting of the last stage of a run by its name in a grid, such as train.lr; unset
    where the recipe has none of this name."""
    stages = row.recipe.get("stages") or [{}]
    value: Any = stages[-1]
    for word in name.split("."):
        if not isinstance(value, Mapping) or word not in value:
            return UNSET
        value = value[word]
    return value


def _tell_test_sets_apart(
    workspace: Workspace, rows: Sequence[ListedRun]
) -> list[ListedRun]:
    """The runs; where splits of one name are of several test sets, with which it is, so
    that runs of other test sets are of no split in common."""
    digests = [_read_test_digest(workspace, row) for row in rows]
    sets_of: dict[str, set[str]] = {}
    for row, digest in zip(rows, digests, strict=True):
        if digest is not None:
            sets_of.setdefault(run_axes.name_split(row.axes), set()).add(digest)
    apart: list[ListedRun] = []
    for row, digest in zip(rows, digests, strict=True):
        is_clear = len(sets_of.get(run_axes.name_split(row.axes), ())) < 2
        if digest is None or is_clear:
            apart.append(row)
        else:
            axes = {**row.axes, TEST_SET: digest[:8]}
            apart.append(msgspec.structs.replace(row, axes=axes))
    return apart


def _read_test_digest(workspace: Workspace, row: ListedRun) -> str | None:
    """The digest of a run's test set, by what was arranged for it; None where that is
    not known here."""
    try:
        folder = workspace.arrangement(recipes.arrangement_id(row.recipe))
        meta = read_json(folder / META) or {}
        digest = meta["sources"]["corpus_meta"]["test_digest"]
    except (KeyError, TypeError, ValueError, OSError):
        return None
    return digest if isinstance(digest, str) else None


def explain_test_sets(members: Sequence[Member]) -> list[str]:
    """Which grids have no test set in common, as sentences; nothing of one grid."""
    sets_of: dict[str, set[str]] = {}
    for member in members:
        if GRID in member.axes and member.items is not None:
            sets = sets_of.setdefault(str(member.axes[GRID]), set())
            sets.add(content_id([member.items.ids, member.items.tasks]))
    return [
        f"{first} and {second} are tested on other items: their curves stand beside one another,"
        " and no claim compares the ones with the others"
        for (first, of_first), (second, of_second) in itertools.combinations(
            sets_of.items(), 2
        )
        if of_first.isdisjoint(of_second)
    ]


def explain_lacking_metric(metric: str, members: Sequence[Member]) -> list[str]:
    """Which grids have no run with the metric that others have, as sentences."""
    having = {member.axes.get(GRID) for member in members if member.values}
    grids = dict.fromkeys(member.axes.get(GRID) for member in members)
    return [
        f"no run of {grid} has {metric}"
        for grid in grids
        if grid is not None and having and grid not in having
    ]


def list_of_point(
    joined: JoinedGrids, point: Axes, among: Collection[str]
) -> list[str]:
    """The runs of `among` whose axes have these values; `grid` is any that lists them."""
    rows = [row for row in joined.record.runs if row.run in among]
    return [row.run for row in rows if _has_values(joined, row, point)]


def _has_values(joined: JoinedGrids, row: ListedRun, point: Axes) -> bool:
    for name, value in point.items():
        if name == GRID:
            if value not in joined.listed_by[row.run]:
                return False
        elif row.axes.get(name) != value:
            return False
    return True
