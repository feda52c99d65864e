"""Counts what a run computes, before it runs: examples, steps, tokens.

What an earlier job counted is used; the rest is bounded by the task lists, the caps and max_length.
"""

import contextlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

from msgspec import UNSET

from jobs.contract import journal
from jobs.contract.folder import META, Damaged, Workspace, is_committed, read_json
from jobs.contract.journal_rows import find_first_start
from launcher.grids.runs import Run
from zsg_core.data import mixing, readers
from zsg_core.digest import content_id
from zsg_core.recipe import Recipe, list_sources
from zsg_core.training import schedule

COUNTED, MEAN, AT_MOST, UNKNOWN = "counted", "mean", "at most", "unknown"
FIRST_ROWS = 50  # of a journal, among which its start stands


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Real tokens of a set of examples: Σn and Σn² over their lengths n."""

    tokens: float
    squares: float

    def times(self, factor: float) -> "Lengths":
        """As many as `factor` such sets."""
        return Lengths(tokens=self.tokens * factor, squares=self.squares * factor)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a run computes; None is unknown. `test` is one evaluation.

    `examples_are` and `tokens_are` say how good the numbers are. counted: by an earlier
    job; mean: counted, but the run takes a part of the data only; at most: a bound;
    unknown: not bounded before the data are prepared.
    """

    examples: int | None
    steps: int | None
    checkpoints: int | None
    train: Lengths | None
    test: Lengths | None
    # of the whole test set, at all checkpoints; those of a quick set are parts of one
    evaluations: float | None
    examples_are: str
    tokens_are: str


class Workloads:
    """The work of a grid's runs; what they share is looked up once."""

    def __init__(self, workspace: Workspace, runs: Sequence[Run]) -> None:
        self._workspace, self._runs = workspace, runs
        self._numbers: dict[tuple[str, str], tuple[int | None, str]] = {}
        self._tasks: dict[tuple[Path, str], int] = {}

    def of(self, run: Run) -> Work:
        """The work of a run. UserError for a data folder that cannot be read."""
        train, when = run.stage["train"], run.checkpoints
        batch, longest, limit = train["batch"], train["max_length"], train["steps"]
        pool, examples_are = self._number(run, "train")
        tests, _ = self._number(run, "test")
        if pool is None:
            # Nothing bounds the data yet; a limit of steps still bounds the run.
            steps, used, examples_are = (
                limit,
                limit and limit * batch,
                AT_MOST if limit else UNKNOWN,
            )
        else:
            steps = schedule.count_steps(pool, batch, train["epochs"], limit)
            used = min(steps * batch, pool * train["epochs"])
        quick = when.quick and when.quick.model_dump()
        measured = (
            {}
            if steps is None
            else schedule.count_measured_steps(steps, when.every, quick, when.snapshots)
        )
        lengths = self._counted.get(_what_is_counted(run))
        return Work(
            examples=used,
            steps=steps,
            checkpoints=max(measured.values(), default=None),
            train=(
                lengths["train"].times(used / pool)
                if lengths and used and pool
                else _longest(used, longest)
            ),
            test=lengths["test"] if lengths else _longest(tests, longest),
            evaluations=sum(
                _part(key, tests) * count for key, count in measured.items()
            )
            or None,
            examples_are=examples_are,
            tokens_are=_quality(used, pool and pool * train["epochs"], bool(lengths)),
        )

    def _number(self, run: Run, split: str) -> tuple[int | None, str]:
        key = run.corpus_id, split
        if key not in self._numbers:
            corpus = self._workspace.corpus(run.corpus_id)
            meta = read_json(corpus / META) if is_committed(corpus) else None
            self._numbers[key] = (
                (meta[split], COUNTED) if meta else (self._bound(run, split), AT_MOST)
            )
        return self._numbers[key]

    def _bound(self, run: Run, split: str) -> int | None:
        data = run.stage["data"]
        if "mix" in data and split == "train":
            return data["mix"].get("total")
        bounds = [
            self._bound_of(run.sources[name].data, rule, split)
            for name, rule in list_sources(data).items()
        ]
        known = [bound for bound in bounds if bound is not None]
        return sum(known) if len(known) == len(bounds) else None

    def _bound_of(self, path: Path, source: Recipe, split: str) -> int | None:
        rule = source.get(split, {"k": "0"})  # of several sources not all are tested
        if rule.get("k") == "0":
            return 0
        if "count" in rule:
            return mixing.count_kept({"fraction": rule.get("k", 1)}, rule["count"])
        if (
            source.get("held_out", {}).get("by") != "list"
            or rule["per_task"] is None
            or "ratio" in rule
        ):
            return None  # only a whole reading would tell
        if (path, split) not in self._tasks:
            self._tasks[path, split] = len(
                (readers.read_lists(source["reader"], path) or {}).get(split, ())
            )
        tasks = self._tasks[path, split]
        most = min(tasks, rule.get("tasks") or tasks) * rule["per_task"]
        return math.floor(
            Fraction(rule.get("fraction", 1)) * Fraction(rule.get("k", 1)) * most
        )

    @cached_property
    def _counted(self) -> dict[tuple[Any, ...], dict[str, Lengths]]:
        found: dict[tuple[Any, ...], dict[str, Lengths]] = {}
        for run in self._runs:
            key = _what_is_counted(run)
            if key not in found and (
                lengths := _counted_by(self._workspace.run(run.id))
            ):
                found[key] = lengths
        return found


def _part(key: str, tests: int | None) -> float:
    """How much of the test set a loss is of."""
    items = schedule.quick_items(key)
    return min(1.0, items / tests) if items and tests else 1.0


def _what_is_counted(run: Run) -> tuple[Any, ...]:
    """The order of the examples changes no length, nor do weights: only data,
    tokenizer, max_length and truncate do."""
    base = run.recipe["base"]
    tokenizer = base.get("digest") or (base["vocab"], content_id(base["tokenizer"]))
    tokenizer = (
        tokenizer,
        *base.get("added", {}).get("tokens", ()),
        base.get("added_tokens"),
    )
    return (
        run.corpus_id,
        tokenizer,
        run.stage["train"]["max_length"],
        run.stage["train"].get("truncate"),
    )


def _counted_by(folder: Path) -> dict[str, Lengths] | None:
    """The token counts that a run told when it started, if it did; None, too, where its
    journal cannot be read: another run may tell them."""
    rows = itertools.islice(journal.read_journal(folder), FIRST_ROWS)
    start = None
    with contextlib.suppress(Damaged):
        start = find_first_start(rows)
    if start is None or start.tokens is UNSET:
        return None
    return {
        split: Lengths(
            tokens=start.tokens[split]["sum"], squares=start.tokens[split]["squares"]
        )
        for split in ("train", "test")
    }


def _longest(examples: int | None, max_length: int) -> Lengths | None:
    if examples is None:
        return None
    return Lengths(tokens=examples * max_length, squares=examples * max_length**2)


def _quality(used: int | None, whole: int | None, counted: bool) -> str:
    if used is None:
        return UNKNOWN
    if not counted:
        return AT_MOST
    return COUNTED if used == whole else MEAN
