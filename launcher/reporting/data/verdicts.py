"""Decides the claims of a submitted grid from what its runs recorded, while runs go on
as when all are done.

A claim is decided once for each group of runs that differ in nothing but its own axis,
seeds and held-out splits. Runs of the same test items are of one split, whatever their
axes say. Only runs that are done count.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.contract.folder import Workspace
from jobs.contract.states import RecordedState
from launcher.grids import grid_claims
from launcher.reporting.data import recorded_runs, run_groups
from launcher.reporting.data.recorded_runs import RecordedRun, UnreadableRun
from launcher.workspace import grid_record, yaml_file
from zsg_core.digest import content_id
from zsg_core.settings.claims import Claim
from zsg_core.stats import verdict
from zsg_core.stats.verdict import ClaimVerdict, Curve

Axes = Mapping[str, Any]


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


def judge_grid(place: Workspace, name: str) -> list[JudgedClaim]:
    """The verdicts of a grid, claim by claim, as its file said when it was last
    submitted; none without claims.

    UserError if there is no such grid.
    """
    record = grid_record.read(place, name)
    file = place.grid(record["name"]) / "grid.yaml"
    if not file.is_file():
        return []
    document = yaml_file.load(file)
    rows = record["runs"]
    stages = max((len(row["recipe"]["stages"]) for row in rows), default=0)
    claims = grid_claims.read_claims(document, None, lambda: stages)
    found: dict[tuple[str, int | None], list[_ClaimRun]] = {}
    for metric, stage in dict.fromkeys((claim.metric, claim.stage) for claim in claims):
        found[metric, stage] = [
            _run(run, metric) for run in recorded_runs.read_runs(place, record, stage)
        ]
    decided = [
        made
        for claim in claims
        for made in judge_claim(claim, found[claim.metric, claim.stage])
    ]
    return [
        _with_doubt(one, grid_claims.find_doubt(one.claim, record.get("claims")))
        for one in decided
    ]


def judge_claim(claim: Claim, runs: Sequence[_ClaimRun]) -> list[JudgedClaim]:
    """One claim's verdicts, one for each group."""
    key, places = claim.axis or ("", [None])
    levels = [run_groups.axis_text(value) for value in places]
    wanted = (claim.where or {}).items()
    made = []
    for group, members in _groups([run for run in runs if _is_of(run, wanted)], key):
        members = [run for run in members if run.axes.get(key) in places]
        if not members:
            continue
        curves = [
            replace(run.curve, level=levels[places.index(run.axes.get(key))])
            for run in members
            if run.curve
        ]
        of_tasks = all(run.of_tasks for run in members)
        curves = _named_apart(curves)
        decided = _judge(claim, curves, levels, of_tasks)
        decided = _with_missing(decided, len(members) - len(curves))
        made.append(
            JudgedClaim(
                claim,
                group,
                decided,
                verdict.compute_mean_curves(curves, levels, claim.metric),
            )
        )
    return made


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
        [_without(one, lacking[one.split]) for one in curves],
        levels,
        units_are_tasks=of_tasks,
    )
    things = "tasks have" if of_tasks else "items have"
    note = (
        f"{count} {things} not the same values in all runs or at all steps, as some answers or"
        " losses are missing"
    )
    if paired.word == decided.word:
        return replace(
            decided, notes=[*decided.notes, f"{note}; without these it is as here"]
        )
    told = f"{note}; with what there is it would be {decided.word!r}, without these {paired.word!r}"
    return replace(decided, word=verdict.TOO_FEW, notes=[*decided.notes, told])


def _is_of(run: _ClaimRun, wanted: Iterable[tuple[str, Any]]) -> bool:
    return all(run.axes.get(axis) == value for axis, value in wanted)


def _groups(
    runs: Sequence[_ClaimRun], key: str
) -> Iterable[tuple[Axes, list[_ClaimRun]]]:
    """The runs by what they have in common beside the claim's axis, seeds and splits."""
    found: dict[str, tuple[Axes, list[_ClaimRun]]] = {}
    for run in runs:
        rest = run_groups.without_splits(run_groups.unseeded_axes(run.axes))
        rest.pop(key, None)
        found.setdefault(content_id(rest), (rest, []))[1].append(run)
    return found.values()


def _run(run: RecordedRun | UnreadableRun, metric: str) -> _ClaimRun:
    if isinstance(run, UnreadableRun):
        return _ClaimRun(run.axes, None)
    items = run.items(metric) if run.state == RecordedState.DONE else None
    if items is None:
        return _ClaimRun(run.axes, None)
    of_tasks = len(set(items.tasks)) > 1
    finite = np.isfinite(items.losses)
    if of_tasks:
        names, losses = items.by_task()
        of = np.array([names.index(task) for task in items.tasks], np.intp)
        counts = np.zeros(losses.shape)
        np.add.at(counts.T, of, finite.T)
    else:
        names, losses, counts = (
            items.ids,
            items.losses.astype(np.float64),
            finite.astype(np.float64),
        )
    split = content_id([items.ids, items.tasks])
    seed = run_groups.axis_text(
        {
            key: v
            for key, v in run.axes.items()
            if run_groups.last_word(key) in run_groups.SEEDS
        }
    )
    return _ClaimRun(
        run.axes, Curve("", split, seed, items.steps, names, counts, losses), of_tasks
    )


def _lacking(curves: Sequence[Curve]) -> dict[str, set[str]]:
    """Of each split the units that have not the same number of values at all steps of all runs."""
    rows: dict[str, list[NDArray[np.float64]]] = {}
    for one in curves:
        rows.setdefault(one.split, []).append(np.asarray(one.counts, np.float64))
    uneven = {
        split: np.ptp(np.concatenate(of), axis=0) > 0 for split, of in rows.items()
    }
    return {
        one.split: {
            unit
            for unit, is_uneven in zip(
                one.units, uneven[one.split].tolist(), strict=True
            )
            if is_uneven
        }
        for one in curves
    }


def _without(one: Curve, units: set[str]) -> Curve:
    kept = [place for place, unit in enumerate(one.units) if unit not in units]
    names, counts = (
        [one.units[place] for place in kept],
        np.asarray(one.counts)[:, kept],
    )
    return replace(one, units=names, counts=counts, losses=one.losses[:, kept])


def _named_apart(curves: Sequence[Curve]) -> list[Curve]:
    """The curves, those that share place, split and seed numbered: seeds within an
    axis's own value are none of its."""
    seen: dict[tuple[str, str, str], int] = {}
    made = []
    for one in curves:
        name = one.level, one.split, one.seed
        seen[name] = seen.get(name, 0) + 1
        made.append(
            one if seen[name] == 1 else replace(one, seed=f"{one.seed} {seen[name]}")
        )
    return made


def _with_doubt(one: JudgedClaim, doubt: str | None) -> JudgedClaim:
    return (
        replace(one, verdict=replace(one.verdict, notes=[*one.verdict.notes, doubt]))
        if doubt
        else one
    )


def _with_missing(made: ClaimVerdict, missing: int) -> ClaimVerdict:
    if not missing:
        return made
    note = f"{missing} runs are not done, or have no test items' losses of the metric"
    return replace(made, notes=[*made.notes, note])
