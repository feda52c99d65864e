"""Picks training items round by round, for each test item its nearest that is left.

This is TMA, the Test-centric Multi-turn Arrangement of Dynamics of Zero-Shot
Generalization, after Algorithm 1 and the authors' code. All picks of a round see the
same remaining items; an item picked by several test items is taken once; a round is in
ascending order of index. The similarity is the canonical one of `distance`; ties go to
the lowest index. The farthest version is the same with the test vectors negated.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zsg_core import threads
from zsg_core.orders.candidates import (
    Collected,
    NearestLists,
    collect_both_ends,
    nearest_lists,
)
from zsg_core.orders.distance import Indices, Vectors, error_bound, pair_dots
from zsg_core.orders.nearest import Blas, Engine, Singles, distinct_vectors, next_equal

WINDOW = 16  # list entries looked at together
# candidates per test item in the first lists; the next lists are twice as long
SHORTEST = 256
PER_ROUND = 12  # or so many for every round that there must be
LONGEST = 1 << 23  # candidates of all test items together


def pick_rounds(
    train: Vectors,
    test: Vectors,
    *,
    farthest: bool = False,
    cap: int | None = None,
    engine: Engine | None = None,
) -> Iterator[list[int]]:
    """The rounds, each a sorted list of indices of `train`, until nothing is left.

    With `cap` the last round is the one that reaches it, untrimmed, as the published
    code stops; without, all items come, as the paper says.
    """
    data = _Data.of(train, test, cap, engine)
    yield from _Left(data, -data.test if farthest else data.test).pick_until_cap()


def pick_rounds_of_both_ends(
    train: Vectors,
    test: Vectors,
    *,
    cap: int | None = None,
    engine: Engine | None = None,
) -> tuple[list[list[int]], list[list[int]]]:
    """The nearest rounds and the farthest ones, each as `pick_rounds` with this `cap`
    makes them.

    Both are made from one matrix product, then each in a thread of its own. They do not
    know of each other: an item may be in both.
    """
    data = _Data.of(train, test, cap, engine)
    if not data.target:
        return [], []
    near, far = _Left(data, data.test), _Left(data, -data.test)
    collected = collect_both_ends(data.train, data.test, data.want, data.engine)
    rounds: dict[_Left, list[list[int]]] = {}

    def pick(ends: Iterator[tuple[_Left, Collected]]) -> None:
        """Makes the rounds of one end, or of both where there is one thread."""
        for end, candidates in ends:
            end.begin(candidates.lists())
            rounds[end] = list(end.pick_until_cap())

    threads.run_in_threads(pick, zip((near, far), collected, strict=True))
    return rounds[near], rounds[far]


@dataclass(frozen=True)
class _Data:
    """What rounds are made from, and what is worth knowing of it once.

    `train` is (N, d), `test` (M, d) without duplicates, both of unit length.
    `following`: for each training item the next equal one, or −1. `margin`: how much
    nearer one must be by float32 to be nearer for certain. `target`: how many items the
    rounds shall reach. `want`: how many candidates a test item's list shall have, about.
    """

    train: Vectors
    test: Vectors
    following: Indices
    margin: np.float32
    target: int
    want: int
    engine: Engine

    @classmethod
    def of(
        cls,
        train: Vectors,
        test: Vectors,
        cap: int | None,
        engine: Engine | None,
    ) -> "_Data":
        """Looks at training and test items. UserError where a vector is not finite."""
        train = np.asarray(train)
        # equal test items pick equal training items
        test = distinct_vectors(np.asarray(test))
        target = len(train) if cap is None else min(cap, len(train))
        return cls(
            train=train,
            test=test,
            following=next_equal(train),
            # 2.1: the limits themselves are rounded to float32
            margin=np.float32(2.1 * error_bound(train, test)),
            target=target,
            want=max(SHORTEST, PER_ROUND * target // len(test), len(train) // 1024),
            engine=engine or Blas(),
        )


class _Left:
    """What is left of the training items, and every test item's candidates among them.

    Training items with the same vector stand in the lists once, by their first;
    `_front` is the lowest index of that kind that is left. The lists end in `WINDOW`
    entries that stand for no item.
    """

    def __init__(self, data: _Data, test: Vectors) -> None:
        """Begins with everything left and all lists empty.

        `test` are the test items of `data`, or their negatives, to which near is what
        is far from the items. `_ids` and `_values` are (M, longest list + `WINDOW`);
        `_gone` and `_front` have one entry more than there are training items, for the
        index that stands for no item.
        """
        self._train, self._test, self._engine = data.train, test, data.engine
        self._margin, self._following = data.margin, data.following
        self._target = data.target
        self._end = len(data.train)
        self._front = np.arange(self._end + 1)
        self._gone = np.zeros(self._end + 1, bool)
        self._gone[self._following[self._following >= 0]] = True
        self._want = data.want
        self._ids, self._values = self._empty(0)
        self._exact = np.empty(self._ids.shape)
        self._floor = np.full(len(test), np.inf, np.float32)
        self._at = np.zeros(len(test), np.int64)

    def begin(self, lists: NearestLists) -> None:
        """Takes the first lists, of all test items, from a search made elsewhere."""
        self._replace(np.arange(len(self._test)), lists)
        self._want *= 2

    def pick_until_cap(self) -> Iterator[list[int]]:
        """The rounds until the cap is reached."""
        taken = 0
        while taken < self._target:
            picked = self.pick()
            taken += len(picked)
            yield picked.tolist()

    def pick(self) -> Indices:
        """The next round, in ascending order; its items are left no more."""
        columns, entries = self._contenders()
        kinds = self._ids[columns, entries]
        close = np.bincount(columns, minlength=len(self._test))[columns] > 1
        kinds = np.unique(
            np.concatenate(
                [kinds[~close], self._settle(columns[close], entries[close])]
            )
        )
        picked = self._front[kinds]
        self._front[kinds] = self._following[picked]
        self._gone[kinds] = self._following[picked] < 0
        return np.sort(picked)

    def _contenders(self) -> tuple[Indices, Indices]:
        """(test item, place in its list) of all that are left and too close to the
        nearest to be told apart."""
        self._make_sure_of_nearest()
        limit = self._nearest() - self._margin
        columns: list[Indices] = []
        entries: list[Indices] = []
        # the test items whose lists may hold more contenders, and the place in each
        open_items = np.arange(len(self._test))
        starts = self._at
        while len(open_items):
            window = starts[:, None] + np.arange(WINDOW)
            values = self._values[open_items[:, None], window]
            ids = self._ids[open_items[:, None], window]
            near = values >= limit[open_items][:, None]
            rows, steps = np.nonzero(near & ~self._gone[ids])
            columns.append(open_items[rows])
            entries.append(window[rows, steps])
            further = near[:, -1]
            open_items = open_items[further]
            starts = starts[further] + WINDOW
        return np.concatenate(columns), np.concatenate(entries)

    def _make_sure_of_nearest(self) -> None:
        """Moves every place to the nearest item that is left, and makes lists anew whose
        end is too close to it to tell."""
        self._advance(np.arange(len(self._test)))
        while True:
            is_unsure = self._nearest() - self._margin < self._floor
            unsure = np.flatnonzero(is_unsure)
            if not len(unsure):
                return
            self._fill(unsure)
            self._advance(unsure)

    def _nearest(self) -> Singles:
        return self._values[np.arange(len(self._test)), self._at]

    def _settle(self, columns: Indices, entries: Indices) -> Indices:
        """The nearest kind of every test item by the canonical similarity; ties go to
        the lowest index left."""
        if not len(columns):
            return columns
        exact = self._exact[columns, entries]
        new = np.flatnonzero(np.isnan(exact))
        kinds = self._ids[columns, entries]
        exact[new] = pair_dots(self._train, self._test, kinds[new], columns[new])
        self._exact[columns, entries] = exact
        order = np.lexsort((self._front[kinds], -exact, columns))
        first = np.flatnonzero(np.diff(columns[order], prepend=-1))
        return kinds[order[first]]

    def _advance(self, columns: Indices) -> None:
        """Moves every place to the first entry that is left, or to the end of its list."""
        while len(columns):
            entries = self._ids[
                columns[:, None], self._at[columns, None] + np.arange(WINDOW)
            ]
            gone = self._gone[entries]
            passed = np.where(gone.all(axis=1), WINDOW, gone.argmin(axis=1))
            self._at[columns] += passed
            columns = columns[passed == WINDOW]

    def _fill(self, unsure: Indices) -> None:
        """New lists among what is left, for these test items and for all whose lists
        are nearly used up."""
        rows = np.flatnonzero(~self._gone[:-1])
        needed = self._at + WINDOW > 0.8 * self._ids.shape[1]
        needed &= self._floor > -np.inf
        needed[unsure] = True
        columns = np.flatnonzero(needed)
        want = min(
            self._want,
            max(len(rows) if self._want >= LONGEST else 1, LONGEST // len(columns)),
        )
        everything = None if len(rows) == self._end else rows
        self._replace(
            columns,
            nearest_lists(
                self._train, everything, self._test[columns], want, self._engine
            ),
        )
        self._want *= 2

    def _replace(self, columns: Indices, lists: NearestLists) -> None:
        """Puts new lists in the place of those of some test items, and begins them anew."""
        longest = lists.ids.shape[1]
        if longest + WINDOW > self._ids.shape[1]:
            self._lengthen(longest)
        self._ids[columns], self._values[columns] = self._end, -np.inf
        self._ids[columns, :longest] = np.where(lists.ids < 0, self._end, lists.ids)
        self._values[columns, :longest] = lists.values
        self._exact[columns] = np.nan
        self._floor[columns] = lists.floor
        self._at[columns] = 0

    def _lengthen(self, longest: int) -> None:
        """Makes room in all lists for so many entries; what stands there stays."""
        ids, values = self._empty(longest)
        width = self._ids.shape[1]
        ids[:, :width] = self._ids
        values[:, :width] = self._values
        self._exact = np.full(ids.shape, np.nan)
        self._ids, self._values = ids, values

    def _empty(self, longest: int) -> tuple[NDArray[np.int32], Singles]:
        """Lists, (test items, longest + `WINDOW`) each, that hold no candidate: ids of
        no item and similarities of −∞, which lose against every real one."""
        shape = (len(self._test), longest + WINDOW)
        return np.full(shape, self._end, np.int32), np.full(shape, -np.inf, np.float32)
