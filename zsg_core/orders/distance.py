"""Measures how far training examples are from a test set, the same on every machine.

The canonical similarity of two vectors is their float64 dot product, summed by folding:
the upper half of the products is added to the lower half, and so on until one number is
left. Each product of two float32 is exact in float64 and each addition is rounded once,
in this order and no other, so no BLAS, thread count or processor can change a
comparison: with the same embedding file every order is the same to the last item.
"""

import math
import sys
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from zsg_core.errors import UserError

Vectors = NDArray[np.floating]
Floats = NDArray[np.float64]
Indices = NDArray[np.integer]

ROWS = 64  # rows measured at once: their float64 products stay in a core's cache


def fold_sum(terms: Floats) -> Floats:
    """The sums over the first axis in the canonical order; `terms` (d, n) is overwritten."""
    width = len(terms)
    if not width:
        return np.zeros(terms.shape[1:])
    while width > 1:
        half = (width + 1) // 2
        terms[: width - half] += terms[half:width]
        width = half
    return terms[0].copy()


def pair_dots(train: Vectors, test: Vectors, rows: Indices, columns: Indices) -> Floats:
    """Canonical similarities of train[rows[k]] and test[columns[k]] for all k."""
    similarities = np.empty(len(rows))
    for block in iterate_slices(len(rows), ROWS):
        similarities[block] = fold_sum(
            as_columns(train[rows[block]]) * as_columns(test[columns[block]])
        )
    return similarities


def row_dots(vectors: Vectors, vector: Vectors) -> Floats:
    """Canonical similarities of every row of `vectors` to the one `vector`."""
    similarities = np.empty(len(vectors))
    column = np.asarray(vector, np.float64)[:, None]
    for block in iterate_slices(len(vectors), ROWS):
        similarities[block] = fold_sum(as_columns(vectors[block]) * column)
    return similarities


def as_columns(rows: Vectors) -> Floats:
    """Rows as float64 columns: folding then adds long contiguous lines, which is
    several times as fast."""
    columns = np.empty((rows.shape[1], len(rows)))
    columns[:] = rows.T
    return columns


def mean_vector(vectors: Vectors) -> Floats:
    """The mean vector in float64, each coordinate summed exactly and rounded once."""
    # what stays in the cache
    few = (vectors[:, block] for block in iterate_slices(vectors.shape[1], ROWS))
    return np.concatenate([exact_sums(columns) for columns in few]) / len(vectors)


def exact_mean(values: Floats) -> float:
    """The mean, summed exactly and rounded once: it cannot depend on how a machine adds."""
    return float(exact_sums(values[:, None])[0]) / len(values)


def exact_sums(terms: Vectors) -> Floats:
    """The sums over the first axis of `terms` (n, d), each that of `math.fsum`: exact,
    then rounded once.

    A grid so coarse that n of its numbers add without rounding takes the upper bits of
    every term; a second grid takes the rest. Where two grids are not enough,
    `math.fsum` itself adds.
    """
    remainder, upper, sums = (
        np.array(terms, np.float64),
        np.empty(terms.shape),
        np.zeros(terms.shape[1]),
    )
    for _ in range(2):
        largest_sum = max(
            float(remainder.max(initial=0.0)), -float(remainder.min(initial=0.0))
        ) * len(remainder)
        step = (
            math.ldexp(1.0, math.frexp(largest_sum)[1] - 52)
            if math.isfinite(largest_sum)
            else 0.0
        )
        if step <= sys.float_info.min:
            break
        np.rint(np.multiply(remainder, 1 / step, out=upper), out=upper)
        upper *= step
        remainder -= upper
        sums += upper.sum(axis=0)
    if remainder.any():
        return np.array([math.fsum(column) for column in terms.T.tolist()])
    return sums


def error_bound(train: Vectors, test: Vectors) -> float:
    """How far a float32 dot product of rows of the two, summed in any order, can be
    from the canonical one.

    UserError where vectors are not finite.
    """
    return rounding_error(train.shape[1], longest_norm(train) * longest_norm(test))


def rounding_error(dimensions: int, lengths: float) -> float:
    """The error bound of a float32 dot product of two vectors whose lengths multiply to `lengths`.

    The standard bound n·u/(1 − n·u)·‖x‖·‖y‖ with u = 2⁻²⁴ (Higham, Accuracy and
    Stability, section 3.1), with room for the rounding of float64 and for numbers too
    small for float32.
    """
    rounding = (dimensions + 8) * 2.0**-24
    return 1.01 * rounding / (1 - rounding) * lengths + 1e-35


def longest_norm(vectors: Vectors) -> float:
    """The length of the longest, or a little more. UserError where one is not finite."""
    squares = 0.0
    for rows in iterate_slices(len(vectors), 1024):
        block = vectors[rows]
        longest = float(np.einsum("ij,ij->i", block, block).max())
        if not math.isfinite(longest):  # of each block: Python's max passes a NaN over
            raise UserError(
                "an embedding is not finite (NaN, infinite or beyond float32), so that distances to"
                " it mean nothing; embed the texts again: remove its folder from embeddings/ of the"
                " workspace, or set arrangement.embedding to another model"
            )
        squares = max(squares, longest)
    return math.sqrt(squares) * (1 + vectors.shape[1] * 2.0**-23)


def refuse_not_finite(*vectors: Vectors) -> None:
    """UserError where a vector of any of these is not finite: it has no distance."""
    for some_vectors in vectors:
        longest_norm(some_vectors)


def average_distance(train: Vectors, test: Vectors) -> Floats:
    """AD: the mean of −similarity over the test items, which is −similarity to their
    mean vector."""
    return -row_dots(train, mean_vector(test))


def weighted_distance(
    nearest: Floats, average: Floats, w_min: float = 1.0, w_avg: float | None = None
) -> Floats:
    """WSD = w_min·MD + w_avg·AD; by default, as published, w_min = 1 and w_avg = mean(MD)/mean(AD).

    Raises UserError where the published weight is asked and the mean AD is not
    negative: it would turn the order round. Source: Dynamics of Zero-Shot
    Generalization, section 3.2 and the authors' code.
    """
    if w_avg is None:
        similar = exact_mean(average)
        if similar >= 0:
            raise UserError(
                "the training data are on average not similar to the test set (mean cosine ≤ 0), so"
                " the weights of nft/rt/fft (w_avg = mean MD / mean AD) mean nothing; give"
                " arrangement.weights as numbers, or use another embedding model or another order"
            )
        w_avg = exact_mean(nearest) / similar
    return w_min * nearest + w_avg * average


def iterate_slices(count: int, size: int) -> Iterator[slice]:
    """Slices that cover range(count)."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))
