"""Decides claims from what a grid's runs recorded, while runs go on as when all are
done.

A claim is decided once for each group of runs that differ in nothing but its own axis,
seeds and held-out splits. Runs of the same test items are of one split, whatever their
axes say. Only runs that are done count.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.contract.folder import Workspace
from jobs.contract.grid_record import GridRecord
from jobs.deciding import claim_runs, run_axes
from jobs.deciding.claim_runs import ClaimRun
from jobs.deciding.run_axes import Axes
from zsg_core.digest import content_id
from zsg_core.settings.claims import Claim, IsEarlier, IsSteadier
from zsg_core.settings.looks import Looks
from zsg_core.stats import boundaries, metric_questions, sequential, verdict
from zsg_core.stats.effects import TAIL
from zsg_core.stats.questions import Curve
from zsg_core.stats.sequential import Judge
from zsg_core.stats.verdict import ClaimVerdict


@dataclass(frozen=True)
class JudgedClaim:
    """A claim, the runs that it is decided of as axis → value, and what came of it;
    their mean curves by place."""

    claim: Claim
    group: Axes
    verdict: ClaimVerdict
    curves: Mapping[str, tuple[list[int], NDArray[np.float64]]]


def judge_claims(
    workspace: Workspace,
    record: GridRecord,
    claims: Sequence[Claim],
    looks: Looks | None = None,
) -> list[JudgedClaim]:
    """The verdicts of claims on a grid's runs, claim by claim; `looks`: when they are
    looked at, None once."""
    points = [row.axes for row in record.runs]
    waves = run_axes.assign_waves(points, looks.at) if looks else [0] * len(points)
    runs_of: dict[tuple[tuple[str, ...], int | None], list[ClaimRun]] = {}
    decided: list[JudgedClaim] = []
    for claim in claims:
        needed = tuple(claim.metrics), claim.stage
        if needed not in runs_of:
            runs = claim_runs.read_claim_runs(workspace, record, *needed)
            runs_of[needed] = [
                replace(run, wave=wave) for run, wave in zip(runs, waves, strict=True)
            ]
        decided += judge_groups(claim, runs_of[needed], looks)
    return decided


def judge_groups(
    claim: Claim, runs: Sequence[ClaimRun], looks: Looks | None = None
) -> list[JudgedClaim]:
    """One claim's verdicts, one for each group."""
    key, axis_values = claim.axis or ("", [None])
    condition = (claim.where or {}).items()
    members = [run for run in runs if _is_of(run, condition)]
    if claim.axis is not None:
        members = [run for run in members if run.axes.get(key) in axis_values]
    tied = _find_tied_axes(members, key) if claim.axis is not None else []
    return [
        _judge_group(claim, axes, compared, tied, looks)
        for axes, compared in _groups(members, {key, *tied})
    ]


def _find_tied_axes(runs: Sequence[ClaimRun], key: str) -> list[str]:
    """The axes that change with a claim's own, as model.path does with model.name:
    those of which runs at one place of it have one value, and not all runs the same.

    Runs at two places differ in such an axis whatever else they have in common.
    """
    all_axes = [
        run_axes.without_splits(run_axes.unseeded_axes(run.axes)) for run in runs
    ]
    names = dict.fromkeys(name for axes in all_axes for name in axes if name != key)
    return [name for name in names if _is_tied(name, key, all_axes)]


def _is_tied(name: str, key: str, all_axes: Sequence[Axes]) -> bool:
    """Whether an axis has several values, but one at each place of the claim's own."""
    values_at: dict[str, set[str]] = {}
    for axes in all_axes:
        values = values_at.setdefault(content_id(axes.get(key)), set())
        values.add(content_id(axes.get(name)))
    if any(len(values) > 1 for values in values_at.values()):
        return False
    return len(set[str]().union(*values_at.values())) > 1


@dataclass(frozen=True)
class _Evidence:
    """What runs that differ in a claim's own axis give it.

    `curves` with their `waves`, and the waves of runs that are `lacking` values.
    `are_runs`: no run has a value for each item, so that runs are the units.
    `of_items`: the splits whose items are all of one task.
    """

    are_runs: bool
    curves: list[Curve]
    waves: list[int]
    lacking: list[int]
    of_items: set[str]


def _judge_group(
    claim: Claim,
    axes: Axes,
    members: Sequence[ClaimRun],
    tied: Sequence[str],
    looks: Looks | None,
) -> JudgedClaim:
    """A claim's verdict of runs that differ in its own axis, what is tied to it, seeds
    and splits."""
    levels = _list_levels(claim)
    evidence = _collect_evidence(claim, members)

    def judge(some: Sequence[Curve], tail: float) -> ClaimVerdict:
        if evidence.are_runs and some:
            return verdict.judge_claim(
                claim, some, levels, units_are_runs=True, tail=tail
            )
        of_tasks = not any(curve.split in evidence.of_items for curve in some)
        return _judge(claim, some, levels, of_tasks, tail)

    decided = _decide(evidence, judge, looks)
    means = verdict.compute_mean_curves(
        _list_judged_curves(evidence, decided), levels, claim
    )
    if isinstance(claim, IsEarlier | IsSteadier):
        means = metric_questions.express_as_ways(means, float(claim.within))
    return JudgedClaim(claim, axes, _with_tied(decided, tied), means)


def _collect_evidence(claim: Claim, members: Sequence[ClaimRun]) -> _Evidence:
    """The curves of runs, each named by what the claim compares."""
    # where no run has a value for each item, runs are the units; of looks the first
    # wave says so: what comes later may not turn a look that was taken
    first_wave = min((run.wave for run in members), default=0)
    are_runs = not any(run.curves for run in members if run.wave == first_wave)
    of_items: set[str] = set()
    curves: list[Curve] = []
    waves: list[int] = []
    lacking: list[int] = []
    for run in members:
        of_run = run.numbers if are_runs else run.curves
        if not of_run:
            lacking.append(run.wave)
        if not run.of_tasks:
            of_items.update(curve.split for curve in of_run)
        curves += _place(claim, run, of_run)
        waves += [run.wave] * len(of_run)
    return _Evidence(are_runs, claim_runs.name_apart(curves), waves, lacking, of_items)


def _decide(evidence: _Evidence, judge: Judge, looks: Looks | None) -> ClaimVerdict:
    """The verdict of all curves, or at the looks."""
    if looks is None:
        return _with_missing(judge(evidence.curves, TAIL), len(evidence.lacking))
    in_waves = _part_waves(
        evidence.curves, evidence.waves, evidence.lacking, len(looks.at)
    )
    return _judge_in_looks(in_waves, judge, looks)


def _part_waves(
    curves: Sequence[Curve], waves: Sequence[int], lacking: Sequence[int], count: int
) -> list[list[Curve] | None]:
    """The curves of each look's new splits; None where a run of them has no values."""
    in_waves: list[list[Curve] | None] = []
    for number in range(count):
        of_wave = [
            curve for curve, wave in zip(curves, waves, strict=True) if wave == number
        ]
        in_waves.append(None if number in lacking or not of_wave else of_wave)
    return in_waves


def _judge_in_looks(
    in_waves: Sequence[Sequence[Curve] | None], judge: Judge, looks: Looks
) -> ClaimVerdict:
    """The verdict at the looks that can be taken, in which what is missing is told."""
    plan = boundaries.plan_looks(tuple(looks.at), looks.tail, looks.spending)
    decided = sequential.judge_in_looks(in_waves, plan, judge, looks.futility)
    looked = decided.looked
    if looked is None or looked.is_over:
        return decided
    waits = f"look {looked.number + 1} of {looked.of} waits for runs that are not done"
    return replace(decided, notes=[*decided.notes, waits])


def _list_judged_curves(evidence: _Evidence, decided: ClaimVerdict) -> list[Curve]:
    """The curves that a verdict is of: of looks those up to the one at which it stands,
    all before the first."""
    looked = decided.looked
    if looked is None or not looked.number:
        return evidence.curves
    waves = zip(evidence.curves, evidence.waves, strict=True)
    return [curve for curve, wave in waves if wave < looked.number]


def _list_levels(claim: Claim) -> list[str]:
    """What a claim compares, as its curves name them: places of its axis, or metrics."""
    if len(claim.metrics) > 1:
        return claim.metrics
    _, axis_values = claim.axis or ("", [None])
    return [run_axes.axis_text(value) for value in axis_values]


def _place(claim: Claim, run: ClaimRun, curves: Sequence[Curve]) -> list[Curve]:
    """A run's curves, named by what the claim compares."""
    if len(claim.metrics) > 1:
        return list(curves)
    key, axis_values = claim.axis or ("", [None])
    value = run.axes.get(key)
    level = run_axes.axis_text(axis_values[axis_values.index(value)])
    return [replace(curve, level=level) for curve in curves]


def _judge(
    claim: Claim,
    curves: Sequence[Curve],
    levels: Sequence[str],
    of_tasks: bool,
    tail: float,
) -> ClaimVerdict:
    """A claim's verdict on the values that the report shows, in which each run is of
    what it has itself.

    Where that is not the same of all, runs may differ by it. So it must also hold
    without what some of them lack.
    """
    decided = verdict.judge_claim(
        claim, curves, levels, units_are_tasks=of_tasks, tail=tail
    )
    lacking = claim_runs.find_lacking_units(curves)
    count = len({unit for units in lacking.values() for unit in units})
    if not count or decided.word == verdict.TOO_FEW:
        return decided
    paired = verdict.judge_claim(
        claim,
        [claim_runs.leave_out_units(curve, lacking[curve.split]) for curve in curves],
        levels,
        units_are_tasks=of_tasks,
        tail=tail,
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


def _is_of(run: ClaimRun, axis_values: Iterable[tuple[str, Any]]) -> bool:
    return all(run.axes.get(axis) == value for axis, value in axis_values)


def _groups(
    runs: Sequence[ClaimRun], apart: Container[str]
) -> Iterable[tuple[Axes, list[ClaimRun]]]:
    """The runs by what they have in common beside the axes that are `apart`, seeds and
    splits."""
    groups: dict[str, tuple[Axes, list[ClaimRun]]] = {}
    for run in runs:
        common_axes = {
            name: value
            for name, value in run_axes.without_splits(
                run_axes.unseeded_axes(run.axes)
            ).items()
            if name not in apart
        }
        groups.setdefault(content_id(common_axes), (common_axes, []))[1].append(run)
    return groups.values()


def _with_missing(decided: ClaimVerdict, missing: int) -> ClaimVerdict:
    if not missing:
        return decided
    note = f"{missing} runs are not done, or have no test items' losses of the metric"
    return replace(decided, notes=[*decided.notes, note])


def _with_tied(decided: ClaimVerdict, tied: Sequence[str]) -> ClaimVerdict:
    if not tied:
        return decided
    note = f"the places differ in {', '.join(tied)}, too"
    return replace(decided, notes=[*decided.notes, note])
