"""Correlates two lists by their ranks."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def correlate_ranks(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's correlation, by mean ranks of ties; None where a list is all alike."""
    if not first:
        return None
    centred = [rank_means(values) for values in (first, second)]
    for ranks in centred:
        ranks -= ranks.mean()
    norms = [float(np.sqrt((ranks**2).sum())) for ranks in centred]
    if 0.0 in norms:
        return None
    return float((centred[0] * centred[1]).sum() / (norms[0] * norms[1]))


def rank_means(values: Sequence[float]) -> NDArray[np.float64]:
    """The rank of each value from 0 on, (n,); values that are alike have their mean."""
    _, groups, counts = np.unique(
        np.asarray(values, np.float64), return_inverse=True, return_counts=True
    )
    last = np.cumsum(counts) - 1
    means = last - (counts - 1) / 2
    return means[groups]
