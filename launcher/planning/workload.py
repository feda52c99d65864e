"""Counts what a run computes, before it runs: examples, steps, tokens.

What an earlier job counted is used; the rest is bounded by the task lists, the caps and max_length.
"""

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
from jobs.contract.folder import META, Workspace, is_committed, read_json
from jobs.contract.journal_rows import find_first_start
from jobs.preparing.source_files import SourceFiles
from launcher.grids.runs import Run
from launcher.planning import order_files, order_notes, row_counts
from launcher.workspace.run_folders import list_names
from zsg_core.data import mixing, readers
from zsg_core.digest import content_id
from zsg_core.orders import curriculum
from zsg_core.orders.registry import may_leave_out, order_leaves_out
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

    @property
    def train_tokens(self) -> float | None:
        """Real tokens of the training steps."""
        return self.train and self.train.tokens


class Workloads:
    """The work of a grid's runs; what they share is looked up once."""

    def __init__(self, workspace: Workspace, runs: Sequence[Run]) -> None:
        self._workspace, self._runs = workspace, runs
        self._numbers: dict[tuple[str, str], tuple[int | None, str]] = {}
        self._tasks: dict[tuple[Path, str], int] = {}

    def of(self, run: Run) -> Work:
        """The work of a run. UserError for a data folder that cannot be read."""
        train = run.stage["train"]
        pool, pool_is = self._count_arranged(run)
        tests, _ = self._number(run, "test")
        steps, used, examples_are = _count_training(train, pool, pool_is)
        measured = _count_checkpoints(run, steps)
        shares = [_share(key, tests) * count for key, count in measured.items()]
        lengths = self._counted.get(_key_of_lengths(run))
        if lengths and used and pool:
            train_lengths = lengths["train"].times(used / pool)
        else:
            train_lengths = _bound_lengths(used, train["max_length"])
        if lengths:
            test_lengths = lengths["test"]
        else:
            test_lengths = _bound_lengths(tests, train["max_length"])
        return Work(
            examples=used,
            steps=steps,
            checkpoints=max(measured.values(), default=None),
            train=train_lengths,
            test=test_lengths,
            evaluations=sum(shares) or None,
            examples_are=examples_are,
            tokens_are=_quality(used, pool and pool * train["epochs"], bool(lengths)),
        )

    def count_corpus(self, run: Run) -> tuple[int | None, Lengths | None, bool]:
        """The training examples of a run's data, each once, whatever its order leaves
        out, and their lengths; and whether both were counted."""
        pool, pool_is = self._number(run, "train")
        lengths = self._counted.get(_key_of_lengths(run))
        if lengths and find_own_list(run) is None:
            return pool, lengths["train"], pool_is == COUNTED
        bound = _bound_lengths(pool, run.stage["train"]["max_length"])
        return pool, bound, pool_is == COUNTED

    def refuse_impossible_orders(self) -> None:
        """UserError for an order of the grid that cannot be made of so few examples."""
        order_notes.refuse_impossible(self._runs, self._count_pool)

    def judge_order_files(self) -> list[str]:
        """Notes of lists whose ids only the prepare job can judge. UserError for a list,
        or scores, of examples that there are not."""
        return order_files.judge_order_files(
            self._workspace, self._runs, self._count_pool
        )

    def describe_repeats(self) -> list[str]:
        """What orders of the grid have again, or leave out, in words."""
        return list(
            order_notes.describe_repeats(self._workspace, self._runs, self._count_pool)
        )

    def _count_pool(self, run: Run) -> tuple[int | None, bool]:
        """How many training examples a run's data have, and whether they are counted."""
        pool, pool_is = self._number(run, "train")
        return pool, pool_is == COUNTED and not order_leaves_out(
            run.stage["arrangement"]
        )

    def _count_arranged(self, run: Run) -> tuple[int | None, str]:
        """How long the list of a run's order is: as many examples as the data have,
        unless it leaves some out or has some again."""
        pool, pool_is = self._number(run, "train")
        order = run.stage["arrangement"]
        if not _is_part(order):
            return pool, pool_is
        arrangement = self._workspace.arrangement(run.arrangement_id)
        if is_committed(arrangement) and (meta := read_json(arrangement / META)):
            return meta["count"], COUNTED
        if curriculum.KEPT_REPEATS in order:
            return None, UNKNOWN  # the file alone bounds it
        if pool is None:
            return pool, pool_is
        is_sure = not order_leaves_out(order) and curriculum.REPLAY not in order
        places = curriculum.count_places(order, pool)
        return places, pool_is if is_sure else AT_MOST

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
            self._bound_of(run.sources[name], rule, split)
            for name, rule in list_sources(data).items()
        ]
        return None if None in bounds else sum(filter(None, bounds))

    def _bound_of(self, files: SourceFiles, source: Recipe, split: str) -> int | None:
        """The most examples that a source can give to a split, by its rule and what lies
        there; None where only the job that reads it whole would tell."""
        rule = source.get(split, {"k": "0"})  # of several sources not all are tested
        if rule.get("k") == "0":
            return 0
        if "count" in rule:
            return mixing.count_kept({"fraction": rule.get("k", 1)}, rule["count"])
        if (
            source.get("held_out", {}).get("by") != "list"
            or rule["per_task"] is None
            or "ratio" in rule
            or isinstance(rule.get("tasks"), list)
        ):
            return row_counts.bound_examples(files, source, split)
        path = files.data
        if (path, split) not in self._tasks:
            self._tasks[path, split] = len(
                (readers.read_lists(source["reader"], path) or {}).get(split, ())
            )
        tasks = self._tasks[path, split]
        capped = min(tasks, rule.get("tasks") or tasks) * rule["per_task"]
        return math.floor(
            Fraction(rule.get("fraction", 1)) * Fraction(rule.get("k", 1)) * capped
        )

    @cached_property
    def _counted(self) -> dict[tuple[Any, ...], dict[str, Lengths]]:
        counts: dict[tuple[Any, ...], dict[str, Lengths]] = {}
        names = list_names(self._workspace.root / "runs")
        for run in self._runs:
            if names is not None and run.id not in names:
                continue  # as most of a new grid
            folder = self._workspace.run(run.id)
            if not folder.is_dir():
                continue
            key = _key_of_lengths(run)
            if key not in counts and (lengths := _counted_by(folder)):
                counts[key] = lengths
        return counts


def _count_training(
    train: Recipe, pool: int | None, pool_is: str
) -> tuple[int | None, int | None, str]:
    """Steps, examples, and how good these numbers are. `pool`: examples of the data."""
    batch, limit = train["batch"], train["steps"]
    if pool is not None:
        steps = schedule.count_steps(pool, batch, train["epochs"], limit)
        return steps, min(steps * batch, pool * train["epochs"]), pool_is
    # Nothing bounds the data yet; a limit of steps still bounds the run.
    if limit:
        return limit, limit * batch, AT_MOST
    return limit, limit, UNKNOWN


def _count_checkpoints(run: Run, steps: int | None) -> dict[str, int]:
    """How often each loss is measured; empty where the steps are unknown."""
    if steps is None:
        return {}
    settings = run.checkpoints
    quick = settings.quick and settings.quick.model_dump()
    return schedule.count_measured_steps(
        steps, settings.every, quick, settings.snapshots
    )


def _share(key: str, tests: int | None) -> float:
    """How much of the test set a loss is of."""
    items = schedule.quick_items(key)
    return min(1.0, items / tests) if items and tests else 1.0


def find_own_list(run: Run) -> str | None:
    """The id of a run's order, if its list is other than each example once; runs of the
    same data whose lists are not need the same work."""
    return run.arrangement_id if _is_part(run.stage["arrangement"]) else None


def _is_part(order: Recipe) -> bool:
    """Whether the list of an order's recipe may be other than each example once."""
    return may_leave_out(order) or curriculum.changes_count(order)


def _key_of_lengths(run: Run) -> tuple[Any, ...]:
    """The order of the examples changes no length, nor do weights: only data,
    tokenizer, max_length and truncate do, and an order that leaves examples out or
    has some again."""
    base = run.recipe["base"]
    tokenizer = base.get("digest") or (base["vocab"], content_id(base["tokenizer"]))
    tokenizer = (
        tokenizer,
        *base.get("added", {}).get("tokens", ()),
        base.get("added_tokens"),
    )
    return (
        run.corpus_id,
        find_own_list(run),
        tokenizer,
        run.stage["train"]["max_length"],
        run.stage["train"].get("truncate"),
    )


def _counted_by(folder: Path) -> dict[str, Lengths] | None:
    """The token counts that a run told when it started, if it did; None, too, where its
    journal cannot be read: another run may tell them."""
    rows = itertools.islice(journal.read_to_hole(folder), FIRST_ROWS)
    start = find_first_start(rows)
    if start is None or start.tokens is UNSET:
        return None
    return {
        split: Lengths(
            tokens=start.tokens[split]["sum"], squares=start.tokens[split]["squares"]
        )
        for split in ("train", "test")
    }


def _bound_lengths(examples: int | None, max_length: int) -> Lengths | None:
    """Lengths if each example were as long as it may be."""
    if examples is None:
        return None
    return Lengths(tokens=examples * max_length, squares=examples * max_length**2)


def _quality(used: int | None, whole: int | None, counted: bool) -> str:
    if used is None:
        return UNKNOWN
    if not counted:
        return AT_MOST
    return COUNTED if used == whole else MEAN
