"""Measures, for a run, how similar what it has seen by each checkpoint is to each of its
test tasks, beside the task's loss."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.contract import journal, journal_rows
from jobs.contract.folder import Workspace, list_paths
from jobs.contract.item_losses import ItemLosses, read_test_losses
from jobs.contract.job_file import read_train_job
from jobs.preparing.corpus import Corpus
from launcher.reporting.data import arrangements
from launcher.reporting.data.arrangements import Arrangement
from zsg_core.data import prompts
from zsg_core.errors import UserError
from zsg_core.orders import prefix_similarity
from zsg_core.schema_errors import suggest_nearest
from zsg_core.stats import curves
from zsg_core.stats.shared_changes import (
    FEWEST_CHANGES,
    SharedChanges,
    compare_changes,
)

METRIC = "loss"
MOST_DRAWN = 4

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SeenSimilarity:
    """The test tasks of a run at its checkpoints: their losses (steps, tasks), and each
    measure (steps, tasks) between the examples seen by then and the task's test items.
    `looks_at`: to what its order measures similarity, in words, if to anything."""

    run: str
    steps: Sequence[int]
    examples: Sequence[int]
    tasks: Sequence[str]
    losses: Floats
    measures: dict[str, Floats]
    looks_at: str | None = None


def measure_seen(workspace: Workspace, prefix: str) -> SeenSimilarity:
    """What a run has seen by each checkpoint beside its losses; `prefix`: of its id.

    UserError where there is no such run, it is of several stages or has no losses of
    test items, or no order by similarity was made of its corpus.
    """
    run = _find_run(workspace, prefix)
    job = read_train_job(run)
    if job is None:
        raise UserError(f"run {run.name} has no job yet, so it has seen nothing")
    if job.before:
        raise UserError(
            f"run {run.name} is of several stages: what was seen so far is not one order"
        )
    order = arrangements.find_arrangement(workspace, run.name)
    rows = list(journal.read_journal(run))
    losses = read_test_losses(run, METRIC, rows)
    examples_at = _count_examples(rows)
    # before the first example there is nothing to compare
    steps = [step for step in losses.steps if examples_at.get(step, 0) > 0]
    if not steps:
        raise UserError(f"run {run.name}: no checkpoint has losses of its test items")
    names, by_task = losses.by_task()
    examples = [examples_at[step] for step in steps]
    # an epoch that comes again shows nothing new
    seen = [min(count, len(order.ids)) for count in examples]
    return SeenSimilarity(
        run=run.name,
        steps=steps,
        examples=examples,
        tasks=names,
        losses=by_task[[losses.steps.index(step) for step in steps]],
        measures=_measure_tasks(order, losses, names, seen),
        looks_at=arrangements.describe_looked_at(order),
    )


def _count_examples(rows: Sequence[journal_rows.Row]) -> dict[int, int]:
    """How many examples a run had trained on at each of its checkpoints."""
    points, _ = journal.first_points(rows)
    return {point.step: point.examples for point in points if point.key == METRIC}


def _find_run(workspace: Workspace, prefix: str) -> Path:
    """The folder of the run whose id begins so. UserError for none or several."""
    folders = list_paths(workspace.root / "runs", f"{prefix}*")
    if len(folders) != 1:
        number = "no run" if not folders else f"{len(folders)} runs"
        raise UserError(
            f"{prefix!r} begins the id of {number} in {workspace.root}; zsg status GRID lists them"
        )
    return folders[0]


def _measure_tasks(
    order: Arrangement, losses: ItemLosses, tasks: Sequence[str], seen: Sequence[int]
) -> dict[str, Floats]:
    """Each measure (ends, tasks) between beginnings of an order and the test items of
    tasks."""
    texts = _read_ordered_texts(order)
    train_vectors, test_vectors = arrangements.load_test_embeddings(order)
    ordered_vectors = np.asarray(train_vectors)[order.places]
    columns: dict[str, list[Floats]] = {}
    unknown = [item for item in losses.ids if item not in texts.row_of]
    if unknown:
        raise UserError(
            f"test item {unknown[0]} of the run is none of its corpus, so what it is similar"
            " to cannot be said"
        )
    for task in tasks:
        items = [
            texts.row_of[item]
            for item, of_task in zip(losses.ids, losses.tasks, strict=True)
            if of_task == task
        ]
        measured = prefix_similarity.measure_prefixes(
            ordered_vectors, np.asarray(test_vectors)[items], seen
        ) | prefix_similarity.measure_prefix_texts(
            texts.train, [texts.test[item] for item in items], seen, texts.repeats
        )
        for name, values in measured.items():
            columns.setdefault(name, []).append(values)
    return {name: np.stack(values, axis=1) for name, values in columns.items()}


@dataclass(frozen=True)
class _OrderedTexts:
    """The texts that are embedded: those trained on in their order, those of the test
    set with the row of each id, and how often each bigram stands in all of them."""

    train: Sequence[str]
    test: Sequence[str]
    row_of: Mapping[str, int]
    repeats: Mapping[tuple[str, str], int]


def _read_ordered_texts(order: Arrangement) -> _OrderedTexts:
    """The texts of an order's examples, as they are trained on, and of its test items."""
    corpus = Corpus(order.workspace, order.corpus)
    shots = corpus.template.shots
    train, test = (
        [prompts.embedding_text(example, shots) for example in split]
        for split in (corpus.train, corpus.test)
    )
    return _OrderedTexts(
        train=[train[row] for row in order.places.tolist()],
        test=test,
        row_of={item: row for row, item in enumerate(corpus.test.ids)},
        repeats=prefix_similarity.count_bigrams([*train, *test]),
    )


def choose_tasks(measured: SeenSimilarity, named: Sequence[str]) -> list[str]:
    """The tasks that are asked for; of none those whose losses fall most suddenly.
    UserError for one that the run is not tested on."""
    unknown = [task for task in named if task not in measured.tasks]
    if unknown:
        hint = suggest_nearest(unknown[0], measured.tasks)
        raise UserError(
            f"--task {unknown[0]}: run {measured.run} is not tested on it.{hint}"
        )
    if named:
        return list(dict.fromkeys(named))
    drops = curves.find_sudden_drops(measured.steps, measured.tasks, measured.losses)
    fallen = [drop.task for drop in drops]
    return list(dict.fromkeys([*fallen, *measured.tasks]))[:MOST_DRAWN]


def list_rows(measured: SeenSimilarity, tasks: Sequence[str]) -> list[dict[str, Any]]:
    """A row of a table for each of the tasks at each checkpoint."""
    rows: list[dict[str, Any]] = []
    for task in tasks:
        column = measured.tasks.index(task)
        for row, step in enumerate(measured.steps):
            cells = {
                name: float(table[row, column])
                for name, table in measured.measures.items()
            }
            rows.append(
                {
                    "task": task,
                    "step": step,
                    "examples": measured.examples[row],
                    "loss": float(measured.losses[row, column]),
                    **cells,
                }
            )
    return rows


def compare_measures(measured: SeenSimilarity) -> dict[str, SharedChanges]:
    """How far changes of each measure go together with those of the loss; nothing of
    too few checkpoints."""
    if len(measured.steps) <= FEWEST_CHANGES:
        return {}
    return {
        name: compare_changes(measured.steps, measured.tasks, measured.losses, table)
        for name, table in measured.measures.items()
    }


def describe_changes(
    measured: SeenSimilarity, together: Mapping[str, SharedChanges]
) -> Iterator[str]:
    """What a terminal shows of them, in lines."""
    yield (
        f"run {measured.run}: {len(measured.tasks)} test tasks at {len(measured.steps)} checkpoints"
    )
    if measured.looks_at is not None:
        yield f"its order looks at {measured.looks_at}; the measures here are to the test tasks"
    if not together:
        yield f"changes are compared from {FEWEST_CHANGES + 1} checkpoints on"
        return
    yield (
        f"{'measure':20} {'with the loss':>14} {'by chance':>10} {'sudden falls shared':>20}"
        f" {'by chance':>10}"
    )
    for name, changes in together.items():
        yield (
            f"{name:20} {_format(changes.correlation, '.3f'):>14}"
            f" {_format(changes.correlation_by_chance, '.1%'):>10}"
            f" {_format(changes.shared_falls, '.1%'):>20}"
            f" {_format(changes.shared_falls_by_chance, '.1%'):>10}"
        )
    yield (
        "with the loss: the mean over tasks of Spearman's correlation of changes from checkpoint to"
        " checkpoint;"
    )
    yield "by chance: moved along the run, so many of all moves have as much"


def _format(value: float | None, form: str) -> str:
    """A number in a format of Python's; a dash where there is none."""
    return "–" if value is None else format(value, form)
