"""Lists for every test item the training items that may be its nearest ones, each list
complete above a floor."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zsg_core import threads
from zsg_core.orders.distance import Indices, Vectors, iterate_slices
from zsg_core.orders.nearest import CHUNK, Engine, Singles, matrix_product

# training rows from which the floors are estimated
LEAST_SAMPLE, MOST_SAMPLE = 1024, 16384
# entries of the sample above a floor, so that lists are of about equal length
PER_LIST = 20
WHOLE = 1 << 22  # similarities that are simply all listed
SLACK = 3  # times as many candidates as wanted, and the lists are shortened


@dataclass(frozen=True)
class NearestLists:
    """For every test item its most similar training items, nearest first by the
    engine's similarity.

    `ids` and `values` are (test items, longest list); what is empty has id −1 and value
    −∞. Every training item with a similarity above `floor` (test items,) is listed.
    """

    ids: NDArray[np.int32]
    values: Singles
    floor: Singles


def nearest_lists(
    train: Vectors, rows: Indices | None, test: Vectors, want: int, engine: Engine
) -> NearestLists:
    """About `want` candidates for each test item among the training items `rows` (None:
    all of them)."""
    count = len(train) if rows is None else len(rows)
    if _is_listed_whole(count, len(test), want):
        collected = Collected.of_all(len(test), want)
    else:
        sample = _take(train, rows, _sample(count, want))
        floor = _floors(matrix_product(test, sample.T), want / count)
        collected = Collected(floor, want, SLACK * want * len(test))
    loaded = engine.load(test)

    def look(chunks: Iterator[slice]) -> None:
        for chunk in chunks:
            row_numbers, columns, values = engine.above(
                _take(train, rows, chunk), loaded, collected.floor
            )
            collected.add(
                row_numbers + chunk.start if rows is None else rows[chunk][row_numbers],
                columns,
                values,
            )

    threads.run_in_threads(look, iterate_slices(count, CHUNK))
    return collected.lists()


def collect_both_ends(
    train: Vectors, test: Vectors, want: int, engine: Engine
) -> "tuple[Collected, Collected]":
    """About `want` candidates for each test item among all training items, and about as
    many for its negative: what is nearest and what is farthest, from one product.

    Those of the negative have similarities to the negative. Neither is sorted into
    lists yet, which a caller may do in a thread for each.
    """
    if _is_listed_whole(len(train), len(test), want):
        near, far = (Collected.of_all(len(test), want) for _ in range(2))
    else:
        similarities = matrix_product(test, train[_sample(len(train), want)].T)
        share, max_entries = want / len(train), SLACK * want * len(test)
        near = Collected(_floors(similarities, share), want, max_entries)
        # in place, as they may be large: a row in another order has the same floor
        np.negative(similarities, out=similarities)
        far = Collected(_floors(similarities, share), want, max_entries)
    loaded = engine.load(test)

    def look(chunks: Iterator[slice]) -> None:
        """Adds what some chunks of training rows have at either end; called by several
        threads, each with chunks of its own."""
        for chunk in chunks:
            highest, lowest = engine.at_both_ends(
                train[chunk], loaded, near.floor, -far.floor
            )
            row_numbers, columns, values = highest
            near.add(row_numbers + chunk.start, columns, values)
            row_numbers, columns, values = lowest
            far.add(row_numbers + chunk.start, columns, -values)

    threads.run_in_threads(look, iterate_slices(len(train), CHUNK))
    return near, far


def _is_listed_whole(count: int, tests: int, want: int) -> bool:
    """Whether so few similarities are simply all listed."""
    return count <= want or count * tests <= WHOLE


class Collected:
    """The candidates found so far. Beyond `most`, every test item keeps its `want`
    nearest and its floor rises."""

    def __init__(self, floor: Singles, want: int, most: int | None) -> None:
        """`floor` (test items,) is where the lists begin to be complete, `want` how
        many nearest ones each test item keeps at least, `most` how many entries all
        lists may have together before they are shortened; None: they never are."""
        self.floor, self._want, self._most, self._size = floor, want, most, 0
        self._adding = threading.Lock()
        self._parts: list[tuple[Indices, Indices, Singles]] = []

    @classmethod
    def of_all(cls, tests: int, want: int) -> "Collected":
        """That keeps every candidate of so many test items."""
        return cls(np.full(tests, -np.inf, np.float32), want, None)

    def add(self, ids: Indices, columns: Indices, values: Singles) -> None:
        """Takes in what one thread has found in a chunk: training item, test item and
        similarity, three arrays of one length. Safe to be called by several threads at
        once."""
        with self._adding:
            self._parts.append((ids.astype(np.int32), columns.astype(np.int32), values))
            self._size += len(ids)
            if self._most is not None and self._size > self._most:
                self._shorten()

    def _shorten(self) -> None:
        """Leaves each test item its `want` nearest and raises its floor to the last of
        them.

        A test item with fewer candidates keeps its floor: what lies above it has not
        all been seen. Only called with `_adding` held.
        """
        lists = self.lists()
        ids, values = lists.ids[:, : self._want], lists.values[:, : self._want]
        self.floor = np.where(ids[:, -1] >= 0, values[:, -1], self.floor).astype(
            np.float32
        )
        columns, ranks = np.nonzero(ids >= 0)
        self._parts = [
            (ids[columns, ranks], columns.astype(np.int32), values[columns, ranks])
        ]
        self._size = len(columns)

    def lists(self) -> NearestLists:
        """All that was found so far, as one list for each test item.

        The parts, which come in any order of threads, are sorted by test item and
        falling similarity; each entry's rank within its test item is its column in the
        result. Lists shorter than the longest are filled with id −1 and value −∞.
        """
        ids, columns, values = (
            np.concatenate(column) for column in zip(*self._parts, strict=True)
        )
        order = np.argsort(_keys(columns, values))
        columns = columns[order]
        counts = np.bincount(columns, minlength=len(self.floor))
        ranks = np.arange(len(order)) - (np.cumsum(counts) - counts)[columns]
        shape = (len(self.floor), int(counts.max(initial=0)))
        nearest = NearestLists(
            np.full(shape, -1, np.int32),
            np.full(shape, -np.inf, np.float32),
            self.floor,
        )
        nearest.ids[columns, ranks] = ids[order]
        nearest.values[columns, ranks] = values[order]
        return nearest


def _keys(columns: NDArray[np.int32], values: Singles) -> NDArray[np.uint64]:
    """Keys that sort by column and within it by falling value: one sort of integers
    instead of two of pairs."""
    bits = (values + np.float32(0)).view(np.uint32)  # −0 becomes 0
    rising = np.where(bits >> 31 == 1, ~bits, bits | np.uint32(1 << 31))
    return (columns.astype(np.uint64) << np.uint64(32)) | (~rising).astype(np.uint64)


def _floors(similarities: Singles, share: float) -> Singles:
    """The similarity that about `share` of the training items exceed, for every test
    item.

    `similarities` (test items, sample of training items) is overwritten. The floor is
    an estimate: it decides how long the lists become, never what is right, so any
    engine may have made them.
    """
    count = similarities.shape[1]
    rank = max(0, count - 1 - int(share * count))
    similarities.partition(rank, axis=1)
    return similarities[:, rank].astype(np.float32)


def _sample(count: int, want: int) -> Indices:
    size = min(MOST_SAMPLE, max(LEAST_SAMPLE, PER_LIST * count // want))
    return np.arange(0, count, max(1, count // size))


def _take(train: Vectors, rows: Indices | None, chosen: slice | Indices) -> Vectors:
    return train[chosen] if rows is None else train[rows[chosen]]
