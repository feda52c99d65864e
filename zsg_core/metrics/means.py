"""Says what a metric's value is a mean over: the one place that values, intervals and
claims take it from.

A score of answers is the mean over tasks of their items' means, as `scoring.aggregate_scores`
records it: every task counts the same, however many items it has. A loss is the mean
over items (`jobs.training.held_out.summarize_losses`), and so is a silhouette. What has no
finite value enters no mean.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zsg_core.metrics import summaries
from zsg_core.metrics.keys import HARNESS, WEIGHTED
from zsg_core.metrics.registry import add_metric
from zsg_core.training import schedule

LOSS = "loss"
# metrics whose value is the mean over items; their keys may go on after a slash
OVER_ITEMS = (LOSS, "silhouette")

add_metric(LOSS)  # by the run itself


def is_over_items(key: str) -> bool:
    """Whether the value of a metric is the mean over items; else it is the mean over
    tasks of their items' means. What is of one source is as the metric itself; of one
    task both are the same."""
    if summaries.is_summary(key):
        kind, _, inner = summaries.split_key(key)
        return kind == summaries.SOURCE and is_over_items(inner)
    whole, _, tail = key.partition("/")
    if whole == HARNESS:
        return WEIGHTED in tail.split("/")[1:]
    return whole in OVER_ITEMS or schedule.quick_items(whole) > 0


def item_weights(
    values: ArrayLike, tasks: Sequence[str], *, over_items: bool
) -> NDArray[np.float64]:
    """The weights (M, G) of items in the means of the columns of `values` (M items, G);
    those of a column sum to 1.

    An item without a finite value weighs 0. All are 0 in a column without any.
    """
    finite = np.isfinite(np.asarray(values, np.float64)).astype(np.float64)
    if over_items:
        weights = finite
    else:
        names = {name: number for number, name in enumerate(dict.fromkeys(tasks))}
        task_numbers = np.array([names[task] for task in tasks], np.intp)
        sizes = np.zeros((len(names), finite.shape[1]))
        np.add.at(sizes, task_numbers, finite)
        weights = np.divide(
            finite,
            sizes[task_numbers],
            out=np.zeros_like(finite),
            where=sizes[task_numbers] > 0,
        )
    total = weights.sum(axis=0)
    return np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)


def compute_means(
    values: ArrayLike, tasks: Sequence[str], *, over_items: bool
) -> NDArray[np.float64]:
    """The means (G,) of the columns of `values` (M items, G); NaN of a column without a
    finite value."""
    table = np.asarray(values, np.float64)
    weights = item_weights(table, tasks, over_items=over_items)
    means = (weights * np.where(np.isfinite(table), table, 0)).sum(axis=0)
    return np.where(weights.any(axis=0), means, np.nan)
