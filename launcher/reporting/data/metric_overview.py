"""Puts the metrics of a grid's runs beside one another: the curve of each at every point
of the grid, what it ends at, and whether it is likely to be broken."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jobs.contract.exit_record import replace_unset
from jobs.contract.grid_record import GridRecord, Summaries
from jobs.contract.journal import SPEED
from jobs.deciding import run_axes
from jobs.deciding.recorded_runs import RecordedRun
from launcher.reporting.data import metric_flags, run_groups
from launcher.reporting.data.run_groups import Group, Member
from zsg_core.errors import UserError
from zsg_core.metrics.keys import is_answers, is_standard_error
from zsg_core.metrics.means import LOSS
from zsg_core.metrics.summaries import AVERAGE, PROMPTS, SOURCE, TASK, is_summary
from zsg_core.training.schedule import quick_items

ALL = "all"
# of training itself, and no metric of the model
NOT_SHOWN = ("train/", SPEED)
LARGEST = 1e300  # a value that is drawn
WHOLE, OVER_PROMPTS, AVERAGES = "whole test sets", "over prompts", "averages"
OF_TASKS = "single tasks"


@dataclass(frozen=True)
class Flag:
    """Why a metric is likely to be broken, and in which runs."""

    reason: str
    runs: tuple[str, ...]


@dataclass(frozen=True)
class MetricCurves:
    """One metric at every point of a grid, `groups` in the order of the grid's."""

    key: str
    groups: Sequence[Group]
    flags: Sequence[Flag] = ()


@dataclass(frozen=True)
class MetricRow:
    """What a metric comes to at one point of a grid, at its last step: the mean of its
    replicates, and how far these go."""

    metric: str
    axes: Mapping[str, Any]
    runs: int
    step: int | None
    value: float | None
    lowest: float | None
    highest: float | None
    broken: Sequence[str]


def split_metrics(named: str | Sequence[str]) -> tuple[str, ...]:
    """The metrics that are named, each once; those of a text are parted by commas.
    UserError for none."""
    words = named.split(",") if isinstance(named, str) else named
    keys = tuple(dict.fromkeys(filter(None, map(str.strip, words))))
    if not keys:
        raise UserError(
            "--metric names no metric; such as --metric loss,rouge1, or all"
        )
    if ALL in keys and len(keys) > 1:
        raise UserError("--metric all has every metric; leave the others out")
    return keys


def name_source(key: str) -> tuple[str, str]:
    """Of which part of the test set a metric is, and what it is called beside others of
    that part."""
    kind, _, remainder = key.partition("/")
    if kind == SOURCE:
        source, _, metric = remainder.partition("/")
        return source, metric
    if kind == PROMPTS:
        return OVER_PROMPTS, remainder
    if kind == AVERAGE:
        return AVERAGES, remainder
    if kind == TASK:
        return OF_TASKS, remainder
    if remainder and (kind == LOSS or quick_items(kind)):
        return remainder, kind
    return WHOLE, key


@dataclass
class OverviewReader:
    """Collects the curves of metrics run by run. `asked_keys`: theirs, or ALL."""

    asked_keys: Sequence[str]
    record: GridRecord
    x: str
    _curves: dict[str, dict[str, tuple[dict[int, float], dict[int, float]]]] = field(
        default_factory=dict
    )
    _reasons: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, run: RecordedRun) -> None:
        """What a run has of each metric. Damaged for one whose items cannot be read."""
        for key in self._choose_keys(run):
            points = run.points(key)
            if not points:
                continue
            values = {step: _cut(point.value) for step, point in points.items()}
            at = run_groups.find_positions(run, points, self.x)
            self._curves.setdefault(key, {})[run.run] = values, at
            reason = self._explain(run, key, values)
            if reason is not None:
                self._reasons.setdefault(key, {})[run.run] = reason

    def _choose_keys(self, run: RecordedRun) -> Iterable[str]:
        """The metrics that are asked for; where all are, those that the run has, without
        those of training itself, and their summaries."""
        if list(self.asked_keys) != [ALL]:
            return self.asked_keys
        measured = [key for key in run.keys() if _is_shown(key)]
        return dict.fromkeys([*measured, *run.summary_keys()])

    def _explain(
        self, run: RecordedRun, key: str, values: Mapping[int, float]
    ) -> str | None:
        """Why a run's values of a metric are likely to be broken."""
        if is_summary(key) or is_standard_error(key):
            return None
        reason = metric_flags.explain_broken(key, values)
        chance = self._find_chance(key)
        if reason is not None or not chance:
            return reason
        items = run.items(key)
        if items is None:
            return None
        return metric_flags.explain_chance(key, items, chance)

    def _find_chance(self, key: str) -> float:
        """What a guess has, where an average of the grid says so."""
        settings = replace_unset(self.record.summaries, Summaries())
        guesses = [chances.get(key, 0.0) for chances in settings.averages.values()]
        return max(guesses, default=0.0)

    def refuse_unknown(self, measured: Iterable[str]) -> None:
        """UserError for a metric that was asked for and that no run has; `measured`:
        those that there are."""
        for key in self.asked_keys:
            if key != ALL and len(self.asked_keys) > 1 and key not in self._curves:
                there_are = ", ".join(sorted(measured))
                raise UserError(f"--metric {key}: no run has it; there are {there_are}")

    def finish(self, groups: Sequence[Group]) -> list[MetricCurves]:
        """The curves of each metric that a run has, its groups as those of the grid. In
        the order that was asked for, or that in which metrics first came."""
        keys = list(self._curves)
        if list(self.asked_keys) != [ALL]:
            keys = [key for key in self.asked_keys if key in self._curves]
        return [self._make_curves(key, groups) for key in keys]

    def _make_curves(self, key: str, groups: Sequence[Group]) -> MetricCurves:
        """A metric at every point of the grid, with what is likely to be broken; a run that
        lacks it has no values."""
        curves = self._curves[key]
        of_metric: list[Group] = []
        for group in groups:
            members = [
                _replace_values(member, curves.get(member.run, ({}, {})))
                for member in group.members
            ]
            of_metric.append(Group(group.axes, members))
        return MetricCurves(key, of_metric, self._collect_flags(key, of_metric))

    def _collect_flags(self, key: str, groups: Sequence[Group]) -> list[Flag]:
        """The reasons, each with the runs that have it, and what all points share."""
        if is_summary(key):
            return []  # what it is made of is flagged
        runs_of: dict[str, list[str]] = {}
        for run, reason in self._reasons.get(key, {}).items():
            runs_of.setdefault(reason, []).append(run)
        flags = [Flag(reason, tuple(runs)) for reason, runs in runs_of.items()]
        return flags or _flag_same(groups)


def _flag_same(groups: Sequence[Group]) -> list[Flag]:
    """The flag of a metric whose curve is the same at every point of the grid, by the
    first replicate of each; none where points differ."""
    firsts: list[Mapping[int, float]] = []
    runs: list[str] = []
    for group in groups:
        if group.averaged:
            firsts.append(group.averaged[0].values)
            runs += [member.run for member in group.averaged]
    same = metric_flags.explain_all_same(firsts)
    if same is None:
        return []
    return [Flag(same, tuple(runs))]


def _is_shown(key: str) -> bool:
    """Whether a key is of the model, not of training itself, and has a value that is no
    other value's standard error."""
    is_of_model = not key.startswith(NOT_SHOWN)
    return is_of_model and not is_answers(key) and not is_standard_error(key)


def _cut(value: float) -> float:
    """A value; infinite where it is too large to be drawn."""
    is_large = math.isfinite(value) and abs(value) > LARGEST
    return math.copysign(math.inf, value) if is_large else value


def _replace_values(
    member: Member, curve: tuple[dict[int, float], dict[int, float]]
) -> Member:
    """The run with its curve of another metric, without values of single items: these
    are of the metric in large."""
    values, at = curve
    return replace(member, values=values, at=at, items=None)


def list_rows(overview: Sequence[MetricCurves], keys: Sequence[str]) -> list[MetricRow]:
    """What every metric comes to at every point; `keys`: the axes that differ."""
    rows: list[MetricRow] = []
    for curves in overview:
        for group in curves.groups:
            rows.append(_make_row(curves, group, keys))
    return rows


def _make_row(curves: MetricCurves, group: Group, keys: Sequence[str]) -> MetricRow:
    """What a metric comes to at one point: the last value that all of its replicates
    have."""
    axes = {key: run_axes.axis_text(group.axes.get(key)) for key in keys}
    runs = {member.run for member in group.members}
    broken = [flag.reason for flag in curves.flags if runs.intersection(flag.runs)]
    if not group.steps:
        return MetricRow(curves.key, axes, 0, None, None, None, None, broken)
    last = group.table[:, -1]
    return MetricRow(
        metric=curves.key,
        axes=axes,
        runs=len(group.averaged),
        step=group.steps[-1],
        value=_or_none(float(last.mean())),
        lowest=_or_none(float(last.min())),
        highest=_or_none(float(last.max())),
        broken=broken,
    )


def _or_none(value: float) -> float | None:
    """A value that JSON has a word for."""
    return value if math.isfinite(value) else None


def _name_runs(
    runs: Sequence[str], count: int, labels: Mapping[str, str], most: int
) -> str:
    """Which of `count` runs these are, in words: a few by name, all by their number."""
    if len(runs) >= count:
        return "in all runs" if count > 1 else "in the only run"
    names = ", ".join(labels.get(run, run) for run in runs[:most])
    ellipsis = ", …" if len(runs) > most else ""
    return f"in {len(runs)} of {count} runs: {names}{ellipsis}"


def describe_flags(
    overview: Sequence[MetricCurves], labels: Mapping[str, str], most: int
) -> list[str]:
    """A line for each flag of each metric; `labels`: what a run is called."""
    lines: list[str] = []
    for curves in overview:
        count = sum(bool(each.values) for g in curves.groups for each in g.members)
        for flag in curves.flags:
            in_runs = _name_runs(flag.runs, count, labels, most)
            lines.append(f"{curves.key}: {flag.reason} ({in_runs})")
    return lines
