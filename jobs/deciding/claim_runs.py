"""Reads what of each run of a grid a claim is decided by: the values of its test items,
or, of a metric that has none, its one value at each step."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from jobs.contract.folder import Damaged, Workspace
from jobs.contract.grid_record import GridRecord
from jobs.contract.item_losses import ItemLosses
from jobs.contract.states import RecordedState
from jobs.deciding import recorded_runs, run_axes
from jobs.deciding.recorded_runs import RecordedRun, UnreadableRun
from jobs.deciding.run_axes import Axes
from zsg_core.digest import content_id
from zsg_core.stats.questions import Curve


@dataclass(frozen=True)
class ClaimRun:
    """What of a run a claim needs: a curve of each of its metrics, whose level is the
    metric.

    `curves` are of the units of the metrics' items, `numbers` of the one value that a
    run has at each step. None are there of a run that is not done; no `curves` where it
    has no items that all of the metrics are of.
    """

    axes: Axes
    curves: Sequence[Curve] = ()
    numbers: Sequence[Curve] = ()
    of_tasks: bool = True
    wave: int = 0  # of which look its held-out split is the first time


def read_claim_runs(
    workspace: Workspace,
    record: GridRecord,
    metrics: Sequence[str],
    stage: int | None,
) -> list[ClaimRun]:
    """The runs of a grid as a claim of these metrics, of a stage or all, needs them."""
    return [
        _read_claim_run(run, metrics)
        for run in recorded_runs.read_runs(workspace, record, stage)
    ]


def _read_claim_run(
    run: RecordedRun | UnreadableRun, metrics: Sequence[str]
) -> ClaimRun:
    if isinstance(run, UnreadableRun) or run.state != RecordedState.DONE:
        return ClaimRun(run.axes)
    try:
        items = [run.items(metric) for metric in metrics]
        numbers = _make_number_curves(run, metrics)
    except Damaged:  # the report names its file
        return ClaimRun(run.axes)
    measured = [each for each in items if each is not None]
    shared = []
    if len(measured) == len(metrics):
        shared = _select_shared_items(measured)
    if not shared:
        return ClaimRun(run.axes, numbers=numbers)
    of_tasks = len(set(shared[0].tasks)) > 1
    curves = [
        _make_item_curve(run, metric, each, of_tasks)
        for metric, each in zip(metrics, shared, strict=True)
    ]
    return ClaimRun(run.axes, curves, numbers, of_tasks)


def _select_shared_items(items: Sequence[ItemLosses]) -> list[ItemLosses]:
    """The same values of the items alone that all of them are of, in the order of the
    first; nothing where there is none."""
    first = items[0]
    if all(each.ids == first.ids for each in items):
        return list(items)
    common = set(first.ids).intersection(*(each.ids for each in items[1:]))
    ids = [item_id for item_id in first.ids if item_id in common]
    return [_select_items(each, ids) for each in items] if ids else []


def _select_items(items: ItemLosses, ids: Sequence[str]) -> ItemLosses:
    """The values of these of the items alone, in this order."""
    column_of = {item_id: column for column, item_id in enumerate(items.ids)}
    columns = [column_of[item_id] for item_id in ids]
    return ItemLosses(
        items.steps,
        list(ids),
        [items.tasks[column] for column in columns],
        [items.tokens[column] for column in columns],
        items.losses[:, columns],
    )


def _make_item_curve(
    run: RecordedRun, metric: str, items: ItemLosses, of_tasks: bool
) -> Curve:
    """The curve of a metric whose units are tasks, or items where all are of one task."""
    finite = np.isfinite(items.losses)
    if of_tasks:
        names, losses = items.by_task()
        task_numbers = np.array([names.index(task) for task in items.tasks], np.intp)
        counts = np.zeros(losses.shape)
        np.add.at(counts.T, task_numbers, finite.T)
    else:
        names = items.ids
        losses = items.losses.astype(np.float64)
        counts = finite.astype(np.float64)
    split = content_id([items.ids, items.tasks])
    return Curve(metric, split, _name_seed(run), items.steps, names, counts, losses)


def _make_number_curves(run: RecordedRun, metrics: Sequence[str]) -> list[Curve]:
    """A curve of one unit of each metric; nothing where the run lacks one of them."""
    split_axes = {
        key: value for key, value in run.axes.items() if run_axes.is_of_split(key)
    }
    split = run_axes.axis_text(split_axes)
    curves = []
    for metric in metrics:
        points = run.points(metric)
        if not points:
            return []
        values = [[point.value] for point in points.values()]
        steps = list(points)
        losses: NDArray[np.float64] = np.array(values, np.float64)
        curves.append(
            Curve(metric, split, _name_seed(run), steps, ["run"], [1], losses)
        )
    return curves


def _name_seed(run: RecordedRun) -> str:
    return run_axes.axis_text(
        {
            key: value
            for key, value in run.axes.items()
            if run_axes.last_word(key) in run_axes.SEEDS
        }
    )


def name_apart(curves: Iterable[Curve]) -> list[Curve]:
    """The curves, those that share place, split and seed numbered: seeds within an
    axis's own value are none of its."""
    seen: dict[tuple[str, str, str], int] = {}
    renamed = []
    for curve in curves:
        name = curve.level, curve.split, curve.seed
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            curve = replace(curve, seed=f"{curve.seed} {seen[name]}")
        renamed.append(curve)
    return renamed


def find_lacking_units(curves: Sequence[Curve]) -> dict[str, set[str]]:
    """Of each split the units that have not the same number of values at all steps of all runs."""
    rows: dict[str, list[NDArray[np.float64]]] = {}
    for curve in curves:
        counts = np.asarray(curve.counts, np.float64)
        rows.setdefault(curve.split, []).append(np.atleast_2d(counts))
    uneven = {
        split: np.ptp(np.concatenate(counts), axis=0) > 0
        for split, counts in rows.items()
    }
    return {
        curve.split: {
            unit
            for unit, is_uneven in zip(
                curve.units, uneven[curve.split].tolist(), strict=True
            )
            if is_uneven
        }
        for curve in curves
    }


def leave_out_units(curve: Curve, units: set[str]) -> Curve:
    """The curve without these of its units."""
    columns = [column for column, unit in enumerate(curve.units) if unit not in units]
    names = [curve.units[column] for column in columns]
    counts = np.atleast_2d(np.asarray(curve.counts, np.float64))[:, columns]
    return replace(curve, units=names, counts=counts, losses=curve.losses[:, columns])
