"""Keeps the loss of every test item at every checkpoint in the run's journal, and reads it back.

A row of kind `items`: {set, values, places}, the values float32 in base64, 3.2 kB for
595 items. In the journal they are fenced, whole or not there, and the first of a step
counts, as for any metric; MLflow never sees them. Which items they are of stands once
in <run>/test_set.json, or in the row. Evaluators keep the scores of items likewise;
those of a benchmark's items stand in a file of their own, `of` in the row.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.contract import journal as journals
from jobs.contract.folder import read_json, write_json
from jobs.contract.journal import Journal
from zsg_core.training.schedule import quick_items

TEST_ITEMS = "test_set"
FILE = f"{TEST_ITEMS}.json"


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
        place = {name: number for number, name in enumerate(names)}
        of = np.array([place[task] for task in self.tasks], np.intp)
        order = np.argsort(of, kind="stable")
        starts = np.searchsorted(of[order], range(len(names)))
        losses = self.losses[:, order].astype(np.float64)
        finite = np.isfinite(losses)
        sums, counts = (
            np.add.reduceat(one, starts, axis=1)
            for one in (np.where(finite, losses, 0), finite.astype(int))
        )
        return names, np.divide(
            sums, counts, out=np.full_like(sums, np.nan), where=counts > 0
        )

    def of_source(self, name: str) -> "ItemLosses":
        """The items of one of several sources, by which their ids begin."""
        places = [
            place
            for place, made_id in enumerate(self.ids)
            if made_id.partition("/")[0] == name
        ]
        ids, tasks = ([of[place] for place in places] for of in (self.ids, self.tasks))
        tokens, losses = (
            [self.tokens[place] for place in places],
            self.losses[:, places],
        )
        return ItemLosses(self.steps if places else [], ids, tasks, tokens, losses)


def describe(
    run: Path,
    ids: Sequence[str],
    tasks: Sequence[str],
    tokens: Sequence[int],
    parts: Mapping[str, Any],
) -> None:
    """Writes which items a run's test set has; `parts` are the places of those that a
    key other than `loss` is of."""
    # of an attempt with other quick items
    before = (read_json(run / FILE) or {}).get("parts", {})
    write_json(
        run / FILE,
        {"ids": ids, "tasks": tasks, "tokens": tokens, "parts": before | parts},
    )


def name_of(suite: str, how: Mapping[str, Any]) -> str:
    """The name of the file that says which items a suite has: those of another file of
    the user are others."""
    return TEST_ITEMS if suite == TEST_ITEMS else f"{suite}-{how['file'][:8]}"


def describe_suite(
    run: Path, of: str, ids: Sequence[str], tasks: Sequence[str]
) -> None:
    """Writes which items a benchmark has, unless that stands there."""
    if of != TEST_ITEMS and not (run / f"{of}.json").exists():
        write_json(
            run / f"{of}.json",
            {"ids": ids, "tasks": tasks, "tokens": [0] * len(ids), "parts": {}},
        )


def keep(
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
    values = base64.b64encode(means.astype("<f4").tobytes()).decode()
    named = {} if places is None else {"places": list(places)}
    named |= {} if of == TEST_ITEMS else {"of": of}
    journal.row(
        "items",
        step=step,
        examples=examples,
        data={"set": key, "values": values, **named},
    )


def read_test_losses(
    run: Path, key: str = "loss", rows: Iterable[dict[str, Any]] | None = None
) -> ItemLosses:
    """What a run's journal has of the items behind `key`, by step; no items for a run
    that has not begun.

    `rows`: those of the journal, where they have been read already. `loss/NAME` is of
    the items of `loss` from NAME.
    """
    whole, _, source = key.partition("/")
    if source and (whole == "loss" or quick_items(whole)):
        return read_test_losses(run, whole, rows).of_source(source)
    own = [
        row
        for row in (journals.read(run) if rows is None else rows)
        if row["kind"] == "items" and row["data"]["set"] == key
    ]
    file = f"{own[0]['data'].get('of', TEST_ITEMS)}.json" if own else FILE
    told = read_json(run / file) or {"ids": [], "tasks": [], "tokens": [], "parts": {}}
    places = range(len(told["ids"])) if key == "loss" else told["parts"].get(key, [])
    found: dict[int, NDArray[np.float32]] = {}
    for row in own:
        places = row["data"].get("places", places)
        found.setdefault(
            row["step"], np.frombuffer(base64.b64decode(row["data"]["values"]), "<f4")
        )
    steps = sorted(found)
    ids, tasks, tokens = (
        [told[name][place] for place in places] for name in ("ids", "tasks", "tokens")
    )
    losses = np.array([found[step] for step in steps], np.float32).reshape(
        len(steps), len(ids)
    )
    return ItemLosses(steps, ids, tasks, tokens, losses)
