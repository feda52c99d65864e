"""Scores how well groups of vectors lie apart: silhouettes (Rousseeuw 1987), as
scikit-learn computes them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from zsg_core.errors import UserError


def compute_silhouettes(
    vectors: NDArray[np.floating], groups: Sequence[str]
) -> NDArray[np.float64]:
    """(N,) of each of N vectors, (N, H): (b − a) / max(a, b), by Euclidean distances.

    a is its mean distance to its own group, b that to the nearest other one: 1 far from
    all others, 0 between two, below 0 nearer to another. NaN where there are fewer than
    two groups, only groups of one, or a vector that is not finite. UserError without
    scikit-learn.
    """
    count = len(set(groups))
    if not 1 < count < len(groups) or not np.isfinite(vectors).all():
        return np.full(len(groups), np.nan)
    try:
        from sklearn.metrics import silhouette_samples
    except ModuleNotFoundError:
        raise UserError(
            "silhouettes need scikit-learn: pip install 'zsg[evaluate]'"
        ) from None
    return np.asarray(
        silhouette_samples(vectors.astype(np.float64), np.array(groups)), np.float64
    )
