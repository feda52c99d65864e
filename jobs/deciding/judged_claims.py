"""Decides claims from what a grid's runs recorded, while runs go on as when all are
done.

A claim is decided once for each group of runs that differ in nothing but its own axis,
seeds and held-out splits. Runs of the same test items are of one split, whatever their
axes say. Only runs that are done count.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.contract.folder import Damaged, Workspace
from jobs.contract.grid_record import GridRecord
from jobs.contract.states import RecordedState
from jobs.deciding import recorded_runs, run_axes
from jobs.deciding.recorded_runs import RecordedRun, UnreadableRun
from jobs.deciding.run_axes import Axes
from zsg_core.digest import content_id
from zsg_core.settings.claims import Claim
from zsg_core.stats import verdict
from zsg_core.stats.questions import Curve
from zsg_core.stats.verdict import ClaimVerdict


@dataclass(frozen=True)
class JudgedClaim:
    """A claim, the runs that it is decided of as axis → value, and what came of it;
    their mean curves by place."""

    claim: Claim
    group: Axes
    verdict: ClaimVerdict
    curves: Mapping[str, tuple[list[int], NDArray[np.float64]]]


@dataclass(frozen=True)
class _ClaimRun:
    """What of a run a claim needs; no curve: it is not done, or has no item losses of
    the metric."""

    axes: Axes
    curve: Curve | None
    of_tasks: bool = True


def judge_claims(
    workspace: Workspace, record: GridRecord, claims: Sequence[Claim]
) -> list[JudgedClaim]:
    """The verdicts of claims on a grid's runs, claim by claim."""
    claim_runs: dict[tuple[str, int | None], list[_ClaimRun]] = {}
    for metric, stage in dict.fromkeys((claim.metric, claim.stage) for claim in claims):
        claim_runs[metric, stage] = [
            _run(run, metric)
            for run in recorded_runs.read_runs(workspace, record, stage)
        ]
    return [
        judged
        for claim in claims
        for judged in judge_groups(claim, claim_runs[claim.metric, claim.stage])
    ]


def judge_groups(claim: Claim, runs: Sequence[_ClaimRun]) -> list[JudgedClaim]:
    """One claim's verdicts, one for each group."""
    key, axis_values = claim.axis or ("", [None])
    condition = (claim.where or {}).items()
    judged = []
    for axes, members in _groups([run for run in runs if _is_of(run, condition)], key):
        compared = [run for run in members if run.axes.get(key) in axis_values]
        if compared:
            judged.append(_judge_group(claim, axes, compared))
    return judged


def _judge_group(claim: Claim, axes: Axes, members: Sequence[_ClaimRun]) -> JudgedClaim:
    """A claim's verdict of runs that differ in its own axis, seeds and splits."""
    key, axis_values = claim.axis or ("", [None])
    levels = [run_axes.axis_text(value) for value in axis_values]
    curves = _named_apart(
        [
            replace(run.curve, level=levels[axis_values.index(run.axes.get(key))])
            for run in members
            if run.curve
        ]
    )
    decided = _judge(claim, curves, levels, all(run.of_tasks for run in members))
    decided = _with_missing(decided, len(members) - len(curves))
    means = verdict.compute_mean_curves(curves, levels, claim.metric)
    return JudgedClaim(claim, axes, decided, means)


def _judge(
    claim: Claim, curves: Sequence[Curve], levels: Sequence[str], of_tasks: bool
) -> ClaimVerdict:
    """A claim's verdict on the values that the report shows, in which each run is of
    what it has itself.

    Where that is not the same of all, runs may differ by it. So it must also hold
    without what some of them lack.
    """
    decided = verdict.judge_claim(claim, curves, levels, units_are_tasks=of_tasks)
    lacking = _lacking(curves)
    count = len({unit for units in lacking.values() for unit in units})
    if not count or decided.word == verdict.TOO_FEW:
        return decided
    paired = verdict.judge_claim(
        claim,
        [_without(curve, lacking[curve.split]) for curve in curves],
        levels,
        units_are_tasks=of_tasks,
    )
    units = "tasks" if of_tasks else "items"
    note = (
        f"{count} {units} have not the same values in all runs or at all steps, as some answers or"
        " losses are missing"
    )
    if paired.word == decided.word:
        note = f"{note}; without these it is as here"
        return replace(decided, notes=[*decided.notes, note])
    note = f"{note}; with what there is it would be {decided.word!r}, without these {paired.word!r}"
    return replace(decided, word=verdict.TOO_FEW, notes=[*decided.notes, note])


def _is_of(run: _ClaimRun, axis_values: Iterable[tuple[str, Any]]) -> bool:
    return all(run.axes.get(axis) == value for axis, value in axis_values)


def _groups(
    runs: Sequence[_ClaimRun], key: str
) -> Iterable[tuple[Axes, list[_ClaimRun]]]:
    """The runs by what they have in common beside the claim's axis, seeds and splits."""
    groups: dict[str, tuple[Axes, list[_ClaimRun]]] = {}
    for run in runs:
        common_axes = run_axes.without_splits(run_axes.unseeded_axes(run.axes))
        common_axes.pop(key, None)
        groups.setdefault(content_id(common_axes), (common_axes, []))[1].append(run)
    return groups.values()


def _read_items(run: RecordedRun | UnreadableRun, metric: str) -> Any:
    if isinstance(run, UnreadableRun) or run.state != RecordedState.DONE:
        return None
    return run.items(metric)


def _run(run: RecordedRun | UnreadableRun, metric: str) -> _ClaimRun:
    try:
        items = _read_items(run, metric)
    except Damaged:  # the report names its file
        items = None
    if items is None or isinstance(run, UnreadableRun):
        return _ClaimRun(run.axes, None)
    of_tasks = len(set(items.tasks)) > 1
    finite = np.isfinite(items.losses)
    if of_tasks:
        names, losses = items.by_task()
        task_numbers = np.array([names.index(task) for task in items.tasks], np.intp)
        counts = np.zeros(losses.shape)
        np.add.at(counts.T, task_numbers, finite.T)
    else:
        names, losses, counts = (
            items.ids,
            items.losses.astype(np.float64),
            finite.astype(np.float64),
        )
    split = content_id([items.ids, items.tasks])
    seed = run_axes.axis_text(
        {
            key: v
            for key, v in run.axes.items()
            if run_axes.last_word(key) in run_axes.SEEDS
        }
    )
    return _ClaimRun(
        run.axes, Curve("", split, seed, items.steps, names, counts, losses), of_tasks
    )


def _lacking(curves: Sequence[Curve]) -> dict[str, set[str]]:
    """Of each split the units that have not the same number of values at all steps of all runs."""
    rows: dict[str, list[NDArray[np.float64]]] = {}
    for curve in curves:
        rows.setdefault(curve.split, []).append(np.asarray(curve.counts, np.float64))
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


def _without(curve: Curve, units: set[str]) -> Curve:
    columns = [column for column, unit in enumerate(curve.units) if unit not in units]
    names, counts = (
        [curve.units[column] for column in columns],
        np.asarray(curve.counts)[:, columns],
    )
    return replace(curve, units=names, counts=counts, losses=curve.losses[:, columns])


def _named_apart(curves: Sequence[Curve]) -> list[Curve]:
    """The curves, those that share place, split and seed numbered: seeds within an
    axis's own value are none of its."""
    seen: dict[tuple[str, str, str], int] = {}
    renamed = []
    for curve in curves:
        name = curve.level, curve.split, curve.seed
        seen[name] = seen.get(name, 0) + 1
        renamed.append(
            curve
            if seen[name] == 1
            else replace(curve, seed=f"{curve.seed} {seen[name]}")
        )
    return renamed


def _with_missing(decided: ClaimVerdict, missing: int) -> ClaimVerdict:
    if not missing:
        return decided
    note = f"{missing} runs are not done, or have no test items' losses of the metric"
    return replace(decided, notes=[*decided.notes, note])
