"""Measures how far training examples are from a test set, the same on every machine.

The similarity is a float64 dot product summed in the order of the dimensions, so that no BLAS, thread count
or processor can change a comparison: with the same embedding file every order is the same to the last item.
"""

import math

import numpy as np
from numpy.typing import NDArray

from zsg_core.errors import UserError

Vectors = NDArray[np.floating]


def minimum_and_average(train: Vectors, test: Vectors) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """MD and AD of every training item: least and mean distance to the test items, −cosine, smaller is nearer.

    `train` is (N, d) and `test` (M, d), both of unit length; returns two (N,) arrays.
    Source: Dynamics of Zero-Shot Generalization, WSD (science of section 3.2).
    """
    columns = np.ascontiguousarray(train.T, dtype=np.float64)
    nearest = np.full(len(train), np.inf)
    total = np.zeros(len(train))
    for item in np.asarray(test, dtype=np.float64):
        distance = -_dot(columns, item)
        np.minimum(nearest, distance, out=nearest)
        total += distance
    return nearest, total / len(test)


def weighted(nearest: NDArray[np.float64], average: NDArray[np.float64]) -> NDArray[np.float64]:
    """WSD = w_min·MD + w_avg·AD with w_min = 1 and w_avg = mean(MD)/mean(AD).

    Raises UserError where the mean AD is not negative: the published weight would then turn the order round.
    """
    if _mean(average) >= 0:
        raise UserError(
            "the training data are on average not similar to the test set (mean cosine ≤ 0), so the weights of "
            "nft/rt/fft (w_avg = mean MD / mean AD) mean nothing; use another embedding model or another order"
        )
    return nearest + (_mean(nearest) / _mean(average)) * average


def _dot(columns: NDArray[np.float64], item: NDArray[np.float64]) -> NDArray[np.float64]:
    product = np.zeros(columns.shape[1])
    for column, weight in zip(columns, item, strict=True):
        product += column * weight
    return product


def _mean(values: NDArray[np.float64]) -> float:
    # Summed exactly, then rounded once: the weight cannot depend on how a machine adds.
    return math.fsum(values.tolist()) / len(values)
