"""Keeps the loss of every test item at every checkpoint in the run's journal, and reads it back.

A row of kind `items` (ItemsRow) has the values as float32 in base64, 3.2 kB for 595
items. In the journal they are fenced, whole or not there, and the first of a step
counts, as for any metric; MLflow never sees them. Which items they are of stands once
in <run>/test_set.json, or in the row. Evaluators keep the scores of items likewise;
those of a benchmark's items stand in a file of their own, `of` in the row.
"""

import base64
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from jobs.contract import journal as journals
from jobs.contract.exit_record import replace_unset
from jobs.contract.folder import Damaged
from jobs.contract.journal import Journal
from jobs.contract.journal_rows import ItemsRow, ItemValues, Row
from jobs.contract.records import read_record, write_record
from zsg_core.training.schedule import quick_items

logger = logging.getLogger(__name__)

TEST_ITEMS = "test_set"


class ItemList(msgspec.Struct, frozen=True, kw_only=True):
    """Which items a test set, or a benchmark, has. `tokens`: the loss tokens of each.
    `parts`: by metric, the places of those that it is the mean of, where not all."""

    ids: list[str]
    tasks: list[str]
    tokens: list[int]
    parts: dict[str, list[int]]


@dataclass(frozen=True)
class ItemLosses:
    """`losses[s, m]` is the mean over the answer `tokens` of item m at step `steps[s]`;
    NaN where there is none."""

    steps: list[int]
    ids: list[str]
    tasks: list[str]
    tokens: list[int]
    losses: NDArray[np.float32]

    def by_task(self) -> tuple[list[str], NDArray[np.float64]]:
        """The tasks, and (S, T) means over a task's items at each step; what is not
        finite is left out."""
        names = list(dict.fromkeys(self.tasks))
        numbers = {name: number for number, name in enumerate(names)}
        task_of = np.array([numbers[task] for task in self.tasks], np.intp)
        order = np.argsort(task_of, kind="stable")
        starts = np.searchsorted(task_of[order], range(len(names)))
        losses = self.losses[:, order].astype(np.float64)
        finite = np.isfinite(losses)
        sums, counts = (
            np.add.reduceat(columns, starts, axis=1)
            for columns in (np.where(finite, losses, 0), finite.astype(int))
        )
        return names, np.divide(
            sums, counts, out=np.full_like(sums, np.nan), where=counts > 0
        )

    def of_source(self, name: str) -> "ItemLosses":
        """The items of one of several sources, by which their ids begin."""
        columns = [
            column
            for column, item_id in enumerate(self.ids)
            if item_id.partition("/")[0] == name
        ]
        return ItemLosses(
            self.steps if columns else [],
            [self.ids[column] for column in columns],
            [self.tasks[column] for column in columns],
            [self.tokens[column] for column in columns],
            self.losses[:, columns],
        )


def path_of(run: Path, name: str = TEST_ITEMS) -> Path:
    """Where the list of items of that name is."""
    return run / f"{name}.json"


def read_items(run: Path, name: str = TEST_ITEMS) -> ItemList:
    """The list of items of that name; an empty one where there is none. Damaged for what
    is no such list."""
    items = read_record(path_of(run, name), ItemList)
    return items or ItemList(ids=[], tasks=[], tokens=[], parts={})


def describe_items(
    run: Path,
    ids: Sequence[str],
    tasks: Sequence[str],
    tokens: Sequence[int],
    subsets: Mapping[str, Sequence[int]],
) -> None:
    """Writes which items a run's test set has; `subsets` are the indices of those that
    a key other than `loss` is of."""
    before = _read_parts(run)  # of an attempt with other quick items
    now = {key: list(indices) for key, indices in subsets.items()}
    items = ItemList(
        ids=list(ids), tasks=list(tasks), tokens=list(tokens), parts=before | now
    )
    write_record(path_of(run), items)


def _read_parts(run: Path) -> dict[str, list[int]]:
    """The parts that the list of test items has. One that cannot be read is written anew."""
    try:
        return read_items(run).parts
    except Damaged as error:
        logger.warning(f"{error}; it is written anew")
        return {}


def name_of(suite: str, how: Mapping[str, Any]) -> str:
    """The name of the file that says which items a suite has: those of another file of
    the user are others."""
    return TEST_ITEMS if suite == TEST_ITEMS else f"{suite}-{how['file'][:8]}"


def describe_suite(
    run: Path, name: str, ids: Sequence[str], tasks: Sequence[str]
) -> None:
    """Writes which items a benchmark has, unless that stands there; `name`: of the list."""
    if name == TEST_ITEMS or path_of(run, name).exists():
        return
    items = ItemList(ids=list(ids), tasks=list(tasks), tokens=[0] * len(ids), parts={})
    write_record(path_of(run, name), items)


def describe_keys(
    run: Path,
    name: str,
    ids: Sequence[str],
    tasks: Sequence[str],
    keys: Iterable[str],
) -> None:
    """Writes which items a list has of which each of `keys` is a mean, unless all that
    stands there."""
    numbers = list(range(len(ids)))
    before = read_items(run, name).parts if path_of(run, name).exists() else {}
    described = before | {key: numbers for key in keys}
    if described == before:
        return
    items = ItemList(
        ids=list(ids), tasks=list(tasks), tokens=[0] * len(ids), parts=described
    )
    write_record(path_of(run, name), items)


def journal_item_losses(
    journal: Journal,
    key: str,
    means: NDArray[np.float64],
    *,
    step: int,
    examples: int,
    places: Sequence[int] | None = None,
    of: str = TEST_ITEMS,
) -> None:
    """Journals the losses, or scores, of the items that `key` is the mean of.

    `places`: which items these are, of the test set or of a benchmark, `of`, where its
    file does not say it of the key.
    """
    values = ItemValues(
        set=key,
        values=base64.b64encode(means.astype("<f4").tobytes()).decode(),
        places=msgspec.UNSET if places is None else list(places),
        of=msgspec.UNSET if of == TEST_ITEMS else of,
    )
    journal.add_item_values(values, step=step, examples=examples)


def read_test_losses(
    run: Path, key: str = "loss", rows: Iterable[Row] | None = None
) -> ItemLosses:
    """What a run's journal has of the items behind `key`, by step; no items for a run
    that has not begun. Damaged where values and list do not fit each other.

    `rows`: those of the journal, where they have been read already. `loss/NAME` is of
    the items of `loss` from NAME.
    """
    whole, _, source = key.partition("/")
    if source and (whole == "loss" or quick_items(whole)):
        return read_test_losses(run, whole, rows).of_source(source)
    all_rows = journals.read_journal(run) if rows is None else rows
    values_of = _find_values(all_rows, key)
    list_name = _name_of_list(values_of)
    items = read_items(run, list_name)
    try:
        return _join_losses(items, values_of, _list_indices(items, key))
    except (ValueError, IndexError) as error:
        raise Damaged(
            f"{path_of(run, list_name)}: does not fit the values of {key} in"
            f" {journals.folder_of(run)} ({error})"
        ) from None


def _join_losses(
    items: ItemList, values_of: Sequence[tuple[int, ItemValues]], indices: Sequence[int]
) -> ItemLosses:
    """The values by step, with the items that they are of: `indices`, where a row does
    not tell others. ValueError or IndexError where they do not fit."""
    losses_at: dict[int, NDArray[np.float32]] = {}
    for step, values in values_of:
        indices = replace_unset(values.places, indices)
        losses_at.setdefault(
            step, np.frombuffer(base64.b64decode(values.values), "<f4")
        )
    steps = sorted(losses_at)
    losses = np.array([losses_at[step] for step in steps], np.float32)
    return ItemLosses(
        steps,
        [items.ids[index] for index in indices],
        [items.tasks[index] for index in indices],
        [items.tokens[index] for index in indices],
        losses.reshape(len(steps), len(indices)),
    )


def _list_indices(items: ItemList, key: str) -> Sequence[int]:
    """Which of the items a key is the mean of, by their list."""
    return range(len(items.ids)) if key == "loss" else items.parts.get(key, [])


def _name_of_list(values_of: Sequence[tuple[int, ItemValues]]) -> str:
    """The name of the list of items that values are of."""
    if not values_of:
        return TEST_ITEMS
    return replace_unset(values_of[0][1].of, TEST_ITEMS)


def _find_values(rows: Iterable[Row], key: str) -> list[tuple[int, ItemValues]]:
    """The values behind a key, with their steps, as they were journalled."""
    return [
        (row.step, row.data)
        for row in rows
        if isinstance(row, ItemsRow) and row.data.set == key
    ]
