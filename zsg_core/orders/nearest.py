"""Finds which pairs of training and test items can be nearest, fast, and leaves every
close call to the canonical rule.

An engine computes float32 similarities with a known error bound and proposes all that
could be nearest by it; what is proposed is settled with the canonical float64
similarity of `distance`. So the result is that of the canonical rule, whatever the
engine, its threads and its order of summation. Engines other than NumPy are passed in.
"""

import threading
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from zsg_core import threads
from zsg_core.orders.distance import (
    ROWS,
    Floats,
    Indices,
    Vectors,
    fold_sum,
    iterate_slices,
    longest_norm,
    mean_vector,
    pair_dots,
    rounding_error,
)

Singles = NDArray[np.float32]

# (row, test item, similarity) of what was found, three arrays of one length
Found = tuple[Indices, Indices, Singles]

# training rows of one product: large enough for BLAS, small enough for the cache
CHUNK = 1024
HEAD = 8  # coordinates by which equal vectors are found


class Engine(Protocol):
    """Proposes by float32 similarity: which pairs of training rows and test items may be nearest.

    `rows` are float32 blocks (n, d) of training items; `test` is what `load` made of
    the test items (m, d). Several threads ask at once.
    """

    name: str

    def load(self, test: Vectors) -> Any:
        """The test items as the engine wants them."""
        ...

    def closest(
        self, rows: Vectors, test: Any, margin: float
    ) -> tuple[Indices, Indices, Indices]:
        """The test item of every row's largest similarity, and (row, test item) of all
        others within `margin` of it."""
        ...

    def above(self, rows: Vectors, test: Any, least: Singles) -> Found:
        """Every similarity that is at least its test item's `least` (m,)."""
        ...

    def at_both_ends(
        self, rows: Vectors, test: Any, least: Singles, most: Singles
    ) -> tuple[Found, Found]:
        """Every similarity that is at least its test item's `least` (m,), and every one
        that is at most its `most` (m,), from one product."""
        ...


class Blas(threading.local):
    """NumPy's own matrix product, in every thread into memory of its own."""

    name = "numpy"

    def __init__(self) -> None:
        self._buffer = np.empty(0, np.float32)
        self._marks = np.empty(0, bool)

    def load(self, test: Vectors) -> Singles:
        return np.ascontiguousarray(test, np.float32)

    def closest(
        self, rows: Vectors, test: Singles, margin: float
    ) -> tuple[Indices, Indices, Indices]:
        return _closest(self._product(rows, test), np.float32(margin))

    def above(self, rows: Vectors, test: Singles, least: Singles) -> Found:
        similarities = self._product(rows, test)
        return self._find(similarities, np.greater_equal, least)

    def at_both_ends(
        self, rows: Vectors, test: Singles, least: Singles, most: Singles
    ) -> tuple[Found, Found]:
        similarities = self._product(rows, test)
        highest = self._find(similarities, np.greater_equal, least)
        return highest, self._find(similarities, np.less_equal, most)

    def _find(self, similarities: Singles, compare: np.ufunc, limit: Singles) -> Found:
        """The similarities of a block (n, m) that `compare` finds true beside `limit`
        (m,).

        The marks go into memory that was used before, which takes no fresh pages.
        """
        if len(self._marks) < similarities.size:
            self._marks = np.empty(similarities.size, bool)
        marks = self._marks[: similarities.size]
        compare(similarities, limit, out=marks.reshape(similarities.shape))
        places = np.flatnonzero(marks)
        rows, columns = np.divmod(places, np.int64(similarities.shape[1]))
        return rows, columns, similarities.ravel()[places]

    def _product(self, rows: Vectors, test: Singles) -> Singles:
        if len(self._buffer) < len(rows) * len(test):
            self._buffer = np.empty(len(rows) * len(test), np.float32)
        out = self._buffer[: len(rows) * len(test)].reshape(len(rows), len(test))
        return matrix_product(rows, test.T, out)


def matrix_product(
    rows: Vectors, columns: Vectors, out: Singles | None = None
) -> Singles:
    """The float32 matrix product (n, m) of finite (n, d) and (d, m), without the
    warnings that BLAS may raise.

    Some of OpenBLAS' kernels compute with lanes they then discard, and leave the
    processor's flags of invalid numbers raised over data that hold none (numpy issues
    24067, 28967).
    """
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        return np.matmul(rows, columns, out=out)


def _closest(
    similarities: Singles, margin: np.float32
) -> tuple[Indices, Indices, Indices]:
    """As `Engine.closest`, of a block of similarities that it may overwrite."""
    everyone = np.arange(len(similarities))
    top = similarities.argmax(axis=1)
    best = similarities[everyone, top]
    similarities[everyone, top] = -np.inf
    crowded = np.flatnonzero(similarities.max(axis=1) >= best - margin)
    rows, columns = np.nonzero(
        similarities[crowded] >= (best[crowded] - margin)[:, None]
    )
    return top, crowded[rows], columns


def minimum_and_average(
    train: Vectors, test: Vectors, engine: Engine | None = None
) -> tuple[Floats, Floats]:
    """MD and AD of every training item: least and mean distance to the test items,
    −cosine, smaller is nearer.

    `train` is (N, d) and `test` (M, d), both of unit length; returns two canonical (N,)
    arrays. AD is −similarity to the mean test vector, which is the mean of −similarity.
    Source: Dynamics of Zero-Shot Generalization, WSD (section 3.2).
    """
    engine = engine or Blas()
    reach = longest_norm(test)
    middle, test = (
        np.repeat(mean_vector(test)[:, None], ROWS, axis=1),
        distinct_vectors(test),
    )
    loaded = engine.load(test)
    nearest, average = np.empty(len(train)), np.empty(len(train))

    def measure(chunks: Iterator[slice]) -> None:
        """Fills `nearest` and `average` for some chunks of training rows; called by
        several threads, each with chunks and a workspace of its own.

        The engine's own arithmetic only finds the nearest test item. Its distance is
        computed again in float64, in an order that no engine changes, for the item
        found and for all within `margin` of it (`crowded`, `close_calls`): so the
        result is the same to the bit on every machine.
        """
        space = _Space(train.shape[1])
        for chunk in chunks:
            rows, near = train[chunk], nearest[chunk]
            margin = 2.1 * rounding_error(train.shape[1], longest_norm(rows) * reach)
            top, crowded, close_calls = engine.closest(rows, loaded, margin)
            for block in iterate_slices(len(rows), ROWS):
                average[chunk][block], near[block] = space.distances(
                    rows[block], middle, test, top[block]
                )
            np.minimum.at(near, crowded, -pair_dots(rows, test, crowded, close_calls))

    threads.run_in_threads(measure, iterate_slices(len(train), CHUNK))
    return nearest, average


class _Space:
    """Memory that one thread uses again and again: fresh pages would cost more than the
    arithmetic."""

    def __init__(self, dimensions: int) -> None:
        self.terms = np.empty((2, dimensions, ROWS))
        self.items = np.empty((ROWS, dimensions), np.float32)

    def distances(
        self, rows: Vectors, middle: Floats, test: Vectors, top: Indices
    ) -> tuple[Floats, Floats]:
        """Canonical distances of at most `ROWS` rows: to `middle`, and of each to its
        item of `test`."""
        columns, terms = self.terms[:, :, : len(rows)]
        items = self.items[: len(rows)]
        # what is read line by line first can be read column by column fast
        items[:] = rows
        columns[:] = items.T
        average = -fold_sum(np.multiply(columns, middle[:, : len(rows)], out=terms))
        terms[:] = test.take(top, axis=0, out=items, mode="clip").T
        return average, -fold_sum(np.multiply(columns, terms, out=terms))


def distinct_vectors(vectors: Vectors) -> Vectors:
    """The vectors that differ, each where it first stands."""
    following = next_equal(vectors)
    first = np.ones(len(vectors), bool)
    first[following[following >= 0]] = False
    return vectors if first.all() else vectors[first]


def next_equal(vectors: Vectors) -> Indices:
    """For each vector the index of the next equal one, or −1.

    Found by the first few coordinates. Where other vectors share those too, equal ones
    may stay apart: that costs time, not truth.
    """
    following = np.full(len(vectors), -1, np.int64)
    words = np.array(vectors[:, :HEAD], np.float32).view(np.uint32).astype(np.uint64)
    marks = (words * _FACTORS[: words.shape[1]]).sum(axis=1, dtype=np.uint64)
    order = np.argsort(marks, kind="stable")
    alike = np.flatnonzero(marks[order[1:]] == marks[order[:-1]])
    for block in iterate_slices(len(alike), CHUNK):
        earlier, later = order[alike[block]], order[alike[block] + 1]
        same = (vectors[earlier] == vectors[later]).all(axis=1)
        following[earlier[same]] = later[same]
    return following


_FACTORS = np.array(
    [0x9E3779B97F4A7C15 ** (k + 1) % 2**64 for k in range(HEAD)], np.uint64
)
