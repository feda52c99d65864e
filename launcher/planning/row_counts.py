"""Counts the examples of small data by reading them, so that a plan can say at most how
many a run trains on before a job has prepared them."""

import importlib.util
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from jobs.preparing.source_files import SourceFiles
from zsg_core.data import readers, splits
from zsg_core.data.examples import Example
from zsg_core.data.readers.intake import Intake
from zsg_core.errors import UserError
from zsg_core.makers.registry import MAKERS
from zsg_core.recipe import MAKE, Recipe

MOST_BYTES = 50_000_000  # of a source that is read for its count: a second or two
Counts = Mapping[str, int]  # task → examples


def bound_examples(files: SourceFiles, source: Recipe, split: str) -> int | None:
    """The most examples that a source can give to a split, `train` or `test`, by its
    rows and its rule; None where its data are too large to be counted here, or cannot
    be read.

    `source` is its part of a recipe, `files` are where it lies.
    """
    held_out = source.get("held_out", {})
    skips = source.get("on_bad_row") == "skip"
    if split == "test" and held_out.get("by") == "path":
        counts = count_file(files.test, held_out, skips)
    else:
        counts = count_file(files.data, source, skips)
        if counts is not None and MAKE in source:
            return _bound_made(counts, source)
        if counts is not None:
            counts = _choose_tasks(counts, files.data, source, split)
    return None if counts is None else _bound_by_rule(counts, source[split])


def _bound_made(counts: Counts, source: Recipe) -> int:
    """How many examples a maker makes of these at most, and the rule takes."""
    making, rule = source[MAKE], source["train"]
    settings = MAKERS[making["maker"]].settings.model_validate(making["settings"])
    items = sum(counts.values())
    if settings.items is not None:
        items = min(items, settings.items)
    share = Fraction(rule.get("fraction", 1)) * Fraction(rule.get("k", 1))
    return math.floor(share * settings.count_examples(items))


def read_few(files: SourceFiles, source: Recipe) -> list[Example] | None:
    """The examples in a source's files, where these are small; None where they are not,
    or cannot be read."""
    reader, columns = source["reader"], source.get("fields")
    intake = Intake(source.get("on_bad_row") == "skip")
    try:
        listed = readers.choose_format(reader, columns).files(files.data)
        if sum(file.stat().st_size for file in listed) > MOST_BYTES:
            return None
        return list(readers.read_examples(reader, files.data, intake, columns))
    except (UserError, OSError):
        return None


def _bound_by_rule(counts: Counts, rule: Recipe) -> int:
    """How many of these examples a rule takes at most. Tags, templates and ratios only
    leave more of them out."""
    cap = rule["per_task"]
    limit = rule.get("tasks")
    if isinstance(limit, list):
        names = cast("list[str]", limit)
        counts = _choose_named(counts, names)
        limit = None
    sizes = sorted(counts.values(), reverse=True)[:limit]
    capped = sum(size if cap is None else min(size, cap) for size in sizes)
    share = Fraction(rule.get("fraction", 1)) * Fraction(rule.get("k", 1))
    return math.floor(share * capped)


def _choose_named(counts: Counts, patterns: Sequence[str]) -> Counts:
    """The examples of the tasks that have one of these names, or match one."""
    return {
        task: count
        for task, count in counts.items()
        if any(splits.is_named(task, pattern) for pattern in patterns)
    }


def count_tasks(files: SourceFiles, source: Recipe) -> Counts | None:
    """The examples of each task of a source's data; None where they are too large to be
    counted here, or cannot be read."""
    return count_file(files.data, source, source.get("on_bad_row") == "skip")


def count_tested_tasks(files: SourceFiles, source: Recipe) -> Counts | None:
    """The same of a source's file of tests; None where it has none, too."""
    skips = source.get("on_bad_row") == "skip"
    return count_file(files.test, source.get("held_out", {}), skips)


def _choose_tasks(counts: Counts, path: Path, source: Recipe, split: str) -> Counts:
    """The examples of the tasks that a split may be of."""
    held_out = source.get("held_out", {})
    method = held_out.get("by")
    if method == "list":
        return _choose_listed(counts, path, source, split)
    if method == "rows":
        return _divide_rows(counts, held_out["share"], split)
    if method == "names":
        named = _choose_named(counts, held_out["tasks"])
        if split == "test":
            return named
        return {task: size for task, size in counts.items() if task not in named}
    if method == "seed" and split == "test":
        return _choose_largest(counts, held_out)
    return counts


def _divide_rows(counts: Counts, share: str, split: str) -> Counts:
    """The examples of each task that a split has, where a share of each is tested."""
    tested = {task: splits.count_share(size, share) for task, size in counts.items()}
    if split == "test":
        return tested
    return {task: size - tested[task] for task, size in counts.items()}


def _choose_largest(counts: Counts, held_out: Recipe) -> Counts:
    """The largest of the tasks, as many as are drawn."""
    number = held_out.get("tasks")
    if number is None:
        number = splits.count_share(len(counts), held_out["share"])
    return dict(Counter(counts).most_common(number))


def _choose_listed(counts: Counts, path: Path, source: Recipe, split: str) -> Counts:
    """The examples of the tasks of the list that lies beside the data; all where the
    list has other names than the examples."""
    lists = readers.read_lists(source["reader"], path) or {}
    listed = {task: counts[task] for task in lists.get(split, ()) if task in counts}
    return listed or counts


@dataclass(frozen=True)
class _Data:
    """Data and how they are read; `fields` as JSON. They are the same by their digest."""

    path: Path
    reader: str
    digest: str
    fields: str
    skips: bool


def count_file(path: Path | None, read: Recipe, skips: bool) -> Counts | None:
    """The examples of each task; None where they cannot be counted here. `read`: how
    they are read, by the keys reader, digest and fields."""
    if path is None:
        return None
    reader = read["reader"]
    needs_pyarrow = readers.FORMATS[reader].is_on_hub
    if needs_pyarrow and importlib.util.find_spec("pyarrow") is None:
        return None
    fields = json.dumps(read.get("fields"))
    return _count_once(_Data(path, reader, str(read["digest"]), fields, skips))


@lru_cache(maxsize=64)
def _count_once(data: _Data) -> Counts | None:
    """The examples of each task, read once for all runs of these data."""
    columns: dict[str, Any] | None = json.loads(data.fields)
    intake = Intake(data.skips)
    try:
        files = readers.choose_format(data.reader, columns).files(data.path)
        if sum(file.stat().st_size for file in files) > MOST_BYTES:
            return None
        examples = readers.read_examples(data.reader, data.path, intake, columns)
        return Counter(example.task for example in examples)
    except (UserError, OSError):
        # what is wrong with a row is for the job to tell, which reads them all
        return None
