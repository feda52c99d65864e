"""Makes values by keys, and by items, of what lm-evaluation-harness found of a task or a
group.

`lm_eval/NAME` is the first metric of a task, the mean over its items; of a group it is
the mean over its tasks, each of which counts the same, as everywhere in zsg. Where the
harness weighs a group's tasks by their sizes, its own number is `lm_eval/NAME/weighted`,
the mean over items. Further metrics are `lm_eval/NAME/METRIC`, those of a further filter
`lm_eval/NAME/METRIC/FILTER`.

Of perplexities, which are no means over items, each item has its share (see
zsg_core.metrics.corpus_scores). A metric that the harness takes of all items at once in
another way has a value and no items: it is not open to intervals and claims.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zsg_core.errors import UserError
from zsg_core.metrics.corpus_scores import share_score
from zsg_core.metrics.keys import WEIGHTED, is_standard_error
from zsg_core.metrics.scoring import Answered, ByItem, aggregate_scores

NO_FILTER = "none"
MEANS = ("mean", "nanmean")
LONGEST_NAME = 60  # of a metric or a filter in a key
_ODD = re.compile(r"[^A-Za-z0-9_.-]")
TOLERANCE = 1e-6  # relative, of a value of ours to the harness' own

Metric = tuple[str, str]  # its name, and its filter's
Sums = NDArray[np.float64]


def _perplexity_of_mean(sums: Sums) -> float:
    return math.exp(-sums[0] / sums[1])


def _bits(sums: Sums) -> float:
    return float(-sums[0] / sums[1] / math.log(2))


# by the harness' name of an aggregation: what a value is of sums over items
OF_SUMS: dict[str, Callable[[Sums], float]] = {
    "perplexity": _perplexity_of_mean,
    "weighted_perplexity": _perplexity_of_mean,
    "bits_per_byte": _bits,
}


@dataclass(frozen=True)
class ItemFound:
    """What the harness found of one item of a task: its values by metric, and what the
    model said or chose."""

    task: str
    number: int
    prompt: str
    answer: str
    values: Mapping[Metric, Any]

    @property
    def id(self) -> str:
        """The same at every checkpoint: an item's place in its task."""
        return f"{self.task}/{self.number}"


@dataclass(frozen=True)
class TaskFound:
    """One task's items, in the order of their numbers. `aggregations`: by metric, the
    harness' name of how it makes a value of its items, empty where it has none."""

    name: str
    items: Sequence[ItemFound]
    aggregations: Mapping[Metric, str]
    values: Mapping[Metric, float]


@dataclass(frozen=True)
class GroupFound:
    """The harness' own numbers of a group; `by_size`: those of them that weigh tasks by
    their sizes."""

    values: Mapping[Metric, float]
    by_size: frozenset[Metric]


@dataclass(frozen=True)
class KeyValues:
    """What is journalled: values and errors by keys, by item where a key has items.
    `metrics`: by key, which metric of the harness it is."""

    values: dict[str, float] = field(default_factory=dict[str, float])
    errors: dict[str, float] = field(default_factory=dict[str, float])
    by_item: dict[str, ByItem] = field(default_factory=dict[str, ByItem])
    metrics: dict[str, str] = field(default_factory=dict[str, str])
    flags: list[str] = field(default_factory=list[str])


def collect_values(
    key: str, tasks: Sequence[TaskFound], group: GroupFound | None
) -> KeyValues:
    """The values of a key of the grid, and of those that go on from it.

    `tasks` are the leaf tasks of what the key names; `group` has the harness' own
    numbers of it, None where it is a task or a tag. The first metric, of a group its
    own first one, is the key itself. ValueError where a mean of ours is not the harness'
    own; UserError where two metrics would have one key.
    """
    collected, weighted = KeyValues(), KeyValues()
    answered = _list_answered(tasks)
    items: dict[str, ByItem] = {}
    for number, metric in enumerate(_list_metrics(tasks, group)):
        metric_key = key if number == 0 else _name_metric(key, metric, tasks)
        _refuse_same_key(metric_key, metric, collected)
        collected.metrics[metric_key] = ",".join(metric)
        shares = _share_out(metric, tasks)
        if shares is None:
            collected.values[metric_key] = _mean_over_tasks(metric, tasks)
            collected.flags.append(
                f"{metric_key}: the harness takes {metric[0]} of all items at once, so it"
                " has no values of items, and no interval"
            )
            continue
        items[metric_key] = shares
        if group is not None and metric in group.by_size and len(tasks) > 1:
            weighted_key = f"{metric_key}/{WEIGHTED}"
            _add_weighted(weighted, weighted_key, shares, tasks, group.values[metric])
            weighted.metrics[weighted_key] = ",".join(metric)
    scores = aggregate_scores(items, answered)
    collected.values.update(scores.values)
    collected.errors.update(scores.error)
    collected.by_item.update(scores.by_item)
    collected.flags.extend(scores.flags)
    _refuse_other_values(collected, tasks, group)
    collected.values.update(weighted.values)
    collected.errors.update(weighted.errors)
    collected.by_item.update(weighted.by_item)
    collected.metrics.update(weighted.metrics)
    return collected


def _list_answered(tasks: Sequence[TaskFound]) -> list[Answered]:
    return [
        Answered(id=item.id, task=item.task, prompt=item.prompt, answer=item.answer)
        for task in tasks
        for item in task.items
    ]


def _list_metrics(tasks: Sequence[TaskFound], group: GroupFound | None) -> list[Metric]:
    """Every metric, those of the group's own numbers first."""
    listed: dict[Metric, None] = {}
    if group is not None:
        listed.update(dict.fromkeys(group.values))
    for task in tasks:
        listed.update(dict.fromkeys(task.aggregations))
    return list(listed)


def _name_metric(key: str, metric: Metric, tasks: Sequence[TaskFound]) -> str:
    """The key of a further metric. A filter is named unless it is the only one of its
    metric."""
    name, used = metric
    filters = {
        filter_name
        for task in tasks
        for metric_name, filter_name in task.aggregations
        if metric_name == name
    }
    named = f"{key}/{_write_plainly(name)}"
    if len(filters) == 1 or used == NO_FILTER:
        return named
    return f"{named}/{_write_plainly(used)}"


def _write_plainly(name: str) -> str:
    """A name of a metric or a filter as it may stand in a key: `maj@8` is `maj_8`.

    Trackers refuse other characters, and a filter of a user's task may be called
    anything. A name that ends as those of standard errors do ends in another way.
    """
    plain = _ODD.sub("_", name)[:LONGEST_NAME]
    if not plain.strip("."):
        return "_"
    return f"{plain}_" if is_standard_error(plain) else plain


def _refuse_same_key(key: str, metric: Metric, collected: KeyValues) -> None:
    """UserError where two metrics or filters of a task would have one key."""
    if key in collected.metrics:
        raise UserError(
            f"{key} would be of two metrics of lm-evaluation-harness,"
            f" {collected.metrics[key]!r} and {','.join(metric)!r}; call the filters of the"
            " task otherwise"
        )


def _share_out(metric: Metric, tasks: Sequence[TaskFound]) -> ByItem | None:
    """By item a number whose mean over a task's items is the task's value; None where
    there is none.

    Tasks that do not have the metric are left out, as a group of the harness leaves them
    out.
    """
    shares: ByItem = {}
    for task in tasks:
        aggregation = task.aggregations.get(metric)
        if aggregation is None:
            continue
        items = [item for item in task.items if metric in item.values]
        raw = [item.values[metric] for item in items]
        numbers = _share_out_task(raw, aggregation)
        if numbers is None:
            return None
        shares |= {item.id: n for item, n in zip(items, numbers, strict=True)}
    return shares


def _share_out_task(raw: Sequence[Any], aggregation: str) -> list[float] | None:
    """What each of a task's items has of its value; None where that cannot be said."""
    if aggregation in MEANS:
        return _read_all_numbers(raw)
    if aggregation not in OF_SUMS or not raw:
        return None
    pairs = [value if isinstance(value, tuple) else (value, 1.0) for value in raw]
    return share_score(np.array(pairs, np.float64), OF_SUMS[aggregation])


def _read_all_numbers(raw: Sequence[Any]) -> list[float] | None:
    """Values of items as numbers, NaN included; None where one is no number."""
    try:
        return [float(value) for value in raw]
    except (TypeError, ValueError):
        return None


def _mean_over_tasks(metric: Metric, tasks: Sequence[TaskFound]) -> float:
    values = [task.values[metric] for task in tasks if metric in task.values]
    return float(np.mean(values))


def _add_weighted(
    weighted: KeyValues,
    key: str,
    items: ByItem,
    tasks: Sequence[TaskFound],
    value: float,
) -> None:
    """The harness' own number of a group, the mean over all items, with its error.

    Tasks are drawn whole, as items of a task are alike: with T tasks of sums of
    deviations d, the error is √(Σd² · T / (T − 1)) over the number of items.
    """
    weighted.values[key] = value
    weighted.by_item[key] = dict(items)
    centre = float(np.mean(list(items.values())))
    sums: list[float] = []
    for task in tasks:
        scores = [items[item.id] for item in task.items if item.id in items]
        sums.append(float(np.sum(np.array(scores) - centre)))
    count = len(sums)
    spread = math.sqrt(sum(total**2 for total in sums) * count / (count - 1))
    weighted.errors[key] = spread / len(items)


def _refuse_other_values(
    collected: KeyValues, tasks: Sequence[TaskFound], group: GroupFound | None
) -> None:
    """ValueError unless values that the harness has, too, are its own.

    Means are made anew of the items, since that is what intervals and claims are of; a
    second truth beside the harness' would be an error of ours.
    """
    for key, name in collected.metrics.items():
        metric, _, used = name.partition(",")
        number = _find_own_number((metric, used), tasks, group)
        value = collected.values.get(key)
        if number is None or value is None:
            continue
        if not math.isclose(value, number, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            raise ValueError(
                f"{key}: the mean of its items is {value!r}, and lm-evaluation-harness says"
                f" {number!r}"
            )


def _find_own_number(
    metric: Metric, tasks: Sequence[TaskFound], group: GroupFound | None
) -> float | None:
    """The harness' number of a metric that is to be ours; None where it has none, one
    weighed by sizes, or no number."""
    number: float | None = None
    if group is not None:
        if metric not in group.by_size:
            number = group.values.get(metric)
    elif len(tasks) == 1:
        number = tasks[0].values.get(metric)
    return number if number is not None and math.isfinite(number) else None
