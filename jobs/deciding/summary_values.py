"""Computes the summaries of a run from what its journals have: see
`zsg_core.metrics.summaries`, which names them.

The values of items are as those of a measured metric: of a summary over prompts an item
is a data set, of an average a suite's test task. So tables by task, intervals and claims
are of it as they are of any other.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from jobs.contract.grid_record import Summaries
from jobs.contract.item_losses import ItemLosses
from jobs.contract.journal import Point
from zsg_core.metrics import means, summaries
from zsg_core.metrics.summaries import AVERAGE, PROMPTS, SOURCE


class Recorded(Protocol):
    """What a run has recorded of a metric, or of a summary that another is of."""

    def points(self, key: str) -> dict[int, Point]:
        """The values by step."""
        ...

    def items(self, key: str) -> ItemLosses | None:
        """The values of its items; None where there are none."""
        ...


def find_items(run: Recorded, key: str, settings: Summaries) -> ItemLosses | None:
    """The values behind a summary; None where it has none. UserError for the key of a
    summary that there is not."""
    kind, word, inner = summaries.split_key(key)
    if kind == AVERAGE:
        return _average_items(run, find_chances(settings, word))
    if kind == PROMPTS:
        items = run.items(inner)
        return None if items is None else over_prompts(items, word, settings)
    if kind == SOURCE:
        items = run.items(inner)
        return None if items is None else _or_none(items.of_source(word))
    for task, metric in summaries.list_task_splits(key):
        items = run.items(metric)
        if items is not None and task in items.tasks:
            return select_task(items, task)
    return None


def find_points(run: Recorded, key: str, settings: Summaries) -> dict[int, Point]:
    """The value of a summary at each step at which it has one. UserError for the key of
    a summary that there is not."""
    kind, word, inner = summaries.split_key(key)
    if kind == AVERAGE:
        return _average_points(run, key, find_chances(settings, word))
    items = find_items(run, key, settings)
    if items is None:
        return {}
    metrics = [inner]
    if kind not in (PROMPTS, SOURCE):
        metrics = [metric for _, metric in summaries.list_task_splits(key)]
    taken = next(filter(None, map(run.points, metrics)), {})
    return _place_values(items, key, taken)


def find_chances(settings: Summaries, name: str) -> Mapping[str, float]:
    """The suites of an average and what a guess would have of each; none of one that
    there is not. UserError for a suite that cannot be: one of an average would be of
    itself."""
    chances = settings.averages.get(name, {})
    for suite in chances:
        summaries.check_suite(suite)
    return chances


def _place_values(
    items: ItemLosses, key: str, taken: Mapping[int, Point]
) -> dict[int, Point]:
    """The mean of items by step, with the time and the examples of the points that it
    follows from."""
    values = compute_values(items, key)
    points: dict[int, Point] = {}
    for step, value in values.items():
        if step in taken:
            points[step] = replace(taken[step], key=key, value=value)
    return points


def compute_values(items: ItemLosses, key: str) -> dict[int, float]:
    """The value of a metric or summary at each step, from those of its items; a step of
    which no item has one is left out."""
    columns = means.compute_means(
        items.losses.T, items.tasks, over_items=means.is_over_items(key)
    )
    values: dict[int, float] = {}
    for step, value in zip(items.steps, columns, strict=True):
        if np.isfinite(value):
            values[step] = float(value)
    return values


def over_prompts(items: ItemLosses, kind: str, settings: Summaries) -> ItemLosses:
    """One item for each data set: what is taken over the means of its prompts."""
    names, by_task = items.by_task()
    groups = _group_prompts(names, settings)
    columns = [
        summaries.summarize_prompts(by_task[:, columns_of_set], kind)
        for columns_of_set in groups.values()
    ]
    return _make_items(items.steps, list(groups), list(groups), columns)


def _group_prompts(tasks: list[str], settings: Summaries) -> Mapping[str, list[int]]:
    """The data sets of some tasks, by the names that the grid gives or by T0's: set → the
    places of its prompts."""
    rule = tuple((name, tuple(of_set)) for name, of_set in settings.data_sets.items())
    return _group_once(tuple(tasks), rule)


@lru_cache(maxsize=64)  # runs of a grid have their test set in common
def _group_once(
    tasks: tuple[str, ...], rule: tuple[tuple[str, tuple[str, ...]], ...]
) -> Mapping[str, list[int]]:
    """The same of a rule that can be kept: runs of a grid have their test tasks in common,
    and each metric of each run asks for it."""
    return summaries.group_prompts(tasks, dict(rule))


def select_task(items: ItemLosses, task: str) -> ItemLosses:
    """The items of one task."""
    columns = [number for number, name in enumerate(items.tasks) if name == task]
    return ItemLosses(
        items.steps,
        [items.ids[column] for column in columns],
        [task] * len(columns),
        [items.tokens[column] for column in columns],
        items.losses[:, columns],
    )


def _or_none(items: ItemLosses) -> ItemLosses | None:
    """Items of which there is one at least; None where the source has none."""
    return items if items.ids else None


def _make_items(
    steps: list[int],
    ids: list[str],
    tasks: list[str],
    columns: Iterable[NDArray[np.float64]],
) -> ItemLosses:
    """Items of which each column has the values at all steps."""
    losses = np.stack(list(columns), axis=1).astype(np.float32)
    return ItemLosses(steps, ids, tasks, [0] * len(ids), losses)


def _average_items(run: Recorded, chances: Mapping[str, float]) -> ItemLosses | None:
    """The normalised scores behind an average: an item for each task of a suite, the
    suites as tasks. None where a suite has no items, or none has a step in common with
    the others."""
    measured: dict[str, ItemLosses] = {}
    for key in chances:
        items = run.items(key)
        if items is None:
            return None
        measured[key] = items
    steps = _find_common_steps(items.steps for items in measured.values())
    if not steps:
        return None
    ids: list[str] = []
    tasks: list[str] = []
    columns: list[NDArray[np.float64]] = []
    for key, items in measured.items():
        names, scores = _score_parts(key, items)
        rows = [items.steps.index(step) for step in steps]
        for number, name in enumerate(names):
            ids.append(f"{key}: {name}")
            tasks.append(key)
            columns.append(_normalise(key, scores[rows, number], chances[key]))
    return _make_items(steps, ids, tasks, columns)


def _find_common_steps(all_steps: Iterable[Iterable[int]]) -> list[int]:
    """The steps that all of several have, in order; none where there is nothing to
    compare."""
    common = [set(steps) for steps in all_steps]
    return sorted(set.intersection(*common)) if common else []


def _score_parts(key: str, items: ItemLosses) -> tuple[list[str], NDArray[np.float64]]:
    """The parts of a suite whose plain mean is its value: its tasks, or the whole where
    its value is the mean over items."""
    if not means.is_over_items(key):
        return items.by_task()
    values = means.compute_means(items.losses.T, items.tasks, over_items=True)
    return ["all"], np.asarray(values, np.float64)[:, None]


def _normalise(
    key: str, scores: NDArray[np.float64], chance: float
) -> NDArray[np.float64]:
    in_per_cent = [summaries.to_per_cent(key, float(score)) for score in scores]
    return np.array([summaries.normalise_score(score, chance) for score in in_per_cent])


def _average_points(
    run: Recorded, key: str, chances: Mapping[str, float]
) -> dict[int, Point]:
    """The average at each step at which all its suites have a value; it is taken when
    the last of them is."""
    of_suites = {metric: run.points(metric) for metric in chances}
    averaged: dict[int, Point] = {}
    for step in _find_common_steps(of_suites.values()):
        points = {metric: points_of[step] for metric, points_of in of_suites.items()}
        scores = {metric: point.value for metric, point in points.items()}
        average = summaries.average_scores(scores, chances)
        if average is not None and np.isfinite(average):
            last = max(points.values(), key=lambda point: point.ts)
            averaged[step] = replace(last, key=key, value=average)
    return averaged


def list_keys(run: Recorded, recorded: Iterable[str], settings: Summaries) -> list[str]:
    """The summaries that there are of a run's metrics: over prompts where a data set has
    two or more, of each of several sources, and the averages whose suites it has. Those
    of single tasks are not listed."""
    recorded = list(recorded)
    keys: list[str] = []
    for metric in recorded:
        items = run.items(metric)
        if items is not None and items.ids:
            keys += _list_keys_of(metric, items, recorded, settings)
    for name in settings.averages:
        key = f"{AVERAGE}/{name}"
        if run.points(key):
            keys.append(key)
    return keys


def _list_keys_of(
    metric: str, items: ItemLosses, recorded: list[str], settings: Summaries
) -> list[str]:
    """The summaries of one metric."""
    keys: list[str] = []
    for source in list_sources(items):
        # a loss has them as keys of its own
        if f"{metric}/{source}" not in recorded:
            keys.append(f"{SOURCE}/{source}/{metric}")
    tasks = list(dict.fromkeys(items.tasks))
    groups = _group_prompts(tasks, settings)
    is_of_source = metric.startswith(f"{means.LOSS}/")
    if not is_of_source and any(
        len(columns_of_set) > 1 for columns_of_set in groups.values()
    ):
        keys += [f"{PROMPTS}/{kind}/{metric}" for kind in summaries.OVER_PROMPTS]
    return keys


def list_sources(items: ItemLosses) -> list[str]:
    """The sources of a test set of several: what the names of its items and of their
    tasks begin with. Nothing where there is but one, or a task has no such beginning."""
    sources = dict[str, None]()
    for item_id, task in zip(items.ids, items.tasks, strict=True):
        source, _, remainder = task.partition("/")
        if not remainder or item_id.partition("/")[0] != source:
            return []
        sources[source] = None
    return list(sources) if len(sources) > 1 else []
