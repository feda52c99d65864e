"""Shares the score of a corpus out among its answers.

BLEU and chrF are of all answers to a task at once, not means of answers' scores. What
follows a metric here, its table, intervals and claims, takes means over items. So each
answer is given a share such that both come out: the mean of the shares is the corpus's
score, and their spread gives its error by the jackknife (Efron and Stein 1981).
"""

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from zsg_core.metrics.scoring import Answered, ByItem, mean_by_item

# sums of statistics (S,) → the score of the corpus that they are of
ScoreOfSums = Callable[[NDArray[np.float64]], float]


def share_score(statistics: NDArray[np.float64], score: ScoreOfSums) -> list[float]:
    """The share of each of N answers in the score of their corpus.

    `statistics` (N, S): of each answer what the score is computed from, summed over the
    corpus. With θ the score of all and θ₋ᵢ that without answer i, the share of i is
    θ + (N − 1)·(mean of θ₋ − θ₋ᵢ): an answer that lifts the corpus has a large one. A
    share may lie beyond the range of scores. A single answer has θ itself.
    """
    total = statistics.sum(axis=0)
    whole = score(total)
    count = len(statistics)
    if count == 1:
        return [whole]
    without = np.array([score(total - own) for own in statistics])
    shares = whole + (count - 1) * (without.mean() - without)
    return [float(share) for share in shares]


def share_by_task(
    answers: Sequence[Answered],
    measure: Callable[[Sequence[Answered]], Sequence[Sequence[float]]],
    score: ScoreOfSums,
) -> ByItem:
    """The shares of all answers by their items, each task a corpus of its own. Items
    without a reference are left out; `measure` gives the statistics of some answers,
    a row each."""
    by_task: dict[str, list[Answered]] = defaultdict(list)
    for answered in answers:
        if answered.references:
            by_task[answered.task].append(answered)
    shared: list[tuple[str, float]] = []
    for of_task in by_task.values():
        statistics = np.array(measure(of_task), np.float64)
        shares = share_score(statistics, score)
        ids = [answered.id for answered in of_task]
        shared += zip(ids, shares, strict=True)
    return mean_by_item(shared)
