"""Gives every training item, or every task, its distance to the test set by a named
measure; smaller is nearer.

wsd               w_min·MD + w_avg·AD, the paper's weighted similarity distance
cosine_min/avg/max        −cosine to the nearest test item, on average, to the farthest
cosine_centroid           −cosine to the mean test vector
euclidean_min/avg/max     distance to the nearest test item, on average, to the farthest
euclidean_centroid        distance to the mean test vector
kl                Kullback-Leibler divergence of the item's bigrams from the test set's,
                  as the paper defines it
kl_repeated       as the authors' code sums it: every bigram as often as it occurs
ot                the item's share of the cost of moving the training items onto the
                  test items (optimal transport)

All are the same on every machine: sums have one order, and close calls of fast engines
are settled in it.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from zsg_core import threads
from zsg_core.errors import UserError
from zsg_core.orders.distance import (
    ROWS,
    Floats,
    Vectors,
    average_distance,
    fold_sum,
    iterate_slices,
    mean_vector,
    refuse_not_finite,
    row_dots,
    weighted_distance,
)
from zsg_core.orders.nearest import Engine, minimum_and_average

COSINE = ("cosine_min", "cosine_avg", "cosine_max", "cosine_centroid")
EUCLIDEAN = ("euclidean_min", "euclidean_avg", "euclidean_max", "euclidean_centroid")
OF_TEXT = ("kl", "kl_repeated")
WSD, OT = "wsd", "ot"
MEASURES = (WSD, *COSINE, *EUCLIDEAN, *OF_TEXT, OT)
MOST_MOVED = 40_000_000  # costs of one transport problem: about 6 GB and an hour
SHORTEST = 1e-6  # a mean of unit vectors in float32; a shorter one is their rounding
SMALLEST = 1e-10  # what the authors add to a bigram's share in the test set

Texts = Sequence[str]


def measure_vectors(
    name: str,
    train: Vectors,
    test: Vectors,
    weights: tuple[float, float | None],
    engine: Engine,
) -> Floats:
    """The distances of the rows of `train` (N, d) to those of `test` (M, d), float32 of
    unit length, as (N,).

    UserError for vectors that are not finite, and for a mean without a direction.
    """
    if name == WSD:
        return weighted_distance(*minimum_and_average(train, test, engine), *weights)
    if name == "cosine_min":
        return minimum_and_average(train, test, engine)[0]
    if name == "cosine_max":
        return -minimum_and_average(train, -test, engine)[0]
    # the measures above look at every vector for themselves
    refuse_not_finite(train, test)
    if name == "cosine_avg":
        return average_distance(train, test)
    if name == "cosine_centroid":
        middle = mean_vector(test)
        return -row_dots(train, middle) / _refuse_no_direction(middle, "the test set")
    if name == "euclidean_centroid":
        return euclidean_distances(train, mean_vector(test)[None, :])[:, 0]
    if name == OT:
        return transport_costs(train, test)
    return _euclidean(name, train, test)


def task_vectors(train: Vectors, tasks: Sequence[str], unit: bool) -> Vectors:
    """The mean vector of every task, in the order in which tasks first come, (tasks, d)
    float32; `unit`: made so long.

    The means are exact and rounded once. A cosine is of a direction, a Euclidean
    distance of a point. UserError for a vector that is not finite, and for a mean
    without a direction where that is asked.
    """
    refuse_not_finite(train)
    of_task: dict[str, list[int]] = {}
    for item, task in enumerate(tasks):
        of_task.setdefault(task, []).append(item)
    means = {task: mean_vector(train[items]) for task, items in of_task.items()}
    if unit:
        means = {
            task: mean / _refuse_no_direction(mean, f"the task {task}")
            for task, mean in means.items()
        }
    return np.array(list(means.values()), np.float32)


def measure_texts(name: str, train: Sequence[Texts], test: Texts) -> Floats:
    """The divergence of the bigrams of every group of training texts from those of all
    test texts, as (groups,).

    Words are what whitespace divides. Texts of fewer than two words have no bigrams and
    divergence 0.
    """
    shares = _shares(_bigrams(test))
    return np.array(
        [_divergence(_bigrams(texts), shares, name == "kl_repeated") for texts in train]
    )


def euclidean_distances(train: Vectors, test: Vectors) -> Floats:
    """All distances (N, M), each the root of squares summed in the canonical order."""
    all_distances = np.empty((len(train), len(test)))
    _each_block(
        train,
        test,
        lambda block, of_block: all_distances.__setitem__(block, of_block.T),
    )
    return all_distances


def transport_costs(train: Vectors, test: Vectors) -> Floats:
    """Every item's part of the least cost of moving uniform weight from `train` onto
    `test`, Euclidean cost, exact.

    Raises UserError where the problem is too large, or POT is not installed.
    """
    if len(train) * len(test) > MOST_MOVED:
        raise UserError(
            f"measure ot: {len(train)} training × {len(test)} test vectors are"
            f" {len(train) * len(test)} costs; exact transport takes at most {MOST_MOVED}; use"
            " granularity: coarse, smaller caps, or another measure"
        )
    try:
        import ot
    except ModuleNotFoundError:
        raise UserError(
            "measure ot needs the package POT: pip install 'zsg[train]'"
        ) from None
    cost = euclidean_distances(train, test)
    plan, log = ot.emd(
        np.full(len(train), 1 / len(train)),
        np.full(len(test), 1 / len(test)),
        cost,
        numItermax=10**9,
        log=True,
    )
    if log["warning"]:
        raise UserError(
            f"measure ot: the transport problem was not solved: {log['warning']}; use another"
            " measure"
        )
    return fold_sum(np.ascontiguousarray((plan * cost).T))


def compute_distances(
    spec: dict[str, Any],
    tasks: Sequence[str],
    vectors: Callable[[], tuple[Vectors, Vectors]],
    texts: Callable[[], tuple[Texts, Texts]],
    engine: Engine,
) -> Floats:
    """The distances that an arrangement's recipe asks for: of items, or of tasks where
    its granularity is coarse."""
    name, coarse = spec["measure"], spec.get("granularity") == "coarse"
    if name in OF_TEXT:
        train_texts, test_texts = texts()
        groups = (
            _grouped(train_texts, tasks) if coarse else [[text] for text in train_texts]
        )
        return measure_texts(name, groups, test_texts)
    train, test = vectors()
    if coarse:
        train = task_vectors(train, tasks, unit=name == WSD or name in COSINE)
    return measure_vectors(name, train, test, _weights(spec), engine)


def _weights(spec: dict[str, Any]) -> tuple[float, float | None]:
    """The weights of minimum and average distance. None for the second stands for the
    mean: the average is then taken as it is."""
    average = spec.get("w_avg", "mean")
    return float(spec.get("w_min", 1)), None if average == "mean" else float(average)


def _grouped(texts: Texts, tasks: Sequence[str]) -> list[list[str]]:
    """The texts by task, tasks in the order of their first text: that of the tasks'
    vectors."""
    of_task: dict[str, list[str]] = {}
    for text, task in zip(texts, tasks, strict=True):
        of_task.setdefault(task, []).append(text)
    return list(of_task.values())


def _euclidean(name: str, train: Vectors, test: Vectors) -> Floats:
    # `fold_sum` uses its argument up, so each block is reduced in one way only.
    reductions: dict[str, Callable[[Floats], Floats]] = {
        "euclidean_min": lambda block: block.min(axis=0),
        "euclidean_max": lambda block: block.max(axis=0),
        "euclidean_avg": lambda block: fold_sum(block) / len(test),
    }
    reduce_block = reductions[name]
    reduced = np.empty(len(train))

    def reduce(block: slice, of_block: Floats) -> None:
        reduced[block] = reduce_block(of_block)

    _each_block(train, test, reduce)
    return reduced


def _each_block(
    train: Vectors, test: Vectors, use: Callable[[slice, Floats], None]
) -> None:
    """Hands the distances (test items, rows) of some training rows at a time to `use`."""
    items = np.asarray(test, np.float64)[:, :, None]

    def measure(blocks: Iterator[slice]) -> None:
        """Hands `use` the Euclidean distances of each block, (test items, rows of the
        block), in float64; called by several threads with blocks of their own.

        The squares are added in the canonical order of `fold_sum`, so that a distance
        is the same to the bit whatever the block's size and the machine's vector width.
        """
        for block in blocks:
            columns = np.ascontiguousarray(train[block].T, np.float64)
            of_block = np.empty((len(items), columns.shape[1]))
            terms = np.empty_like(columns)
            for number, item in enumerate(items):
                np.subtract(columns, item, out=terms)
                of_block[number] = np.sqrt(fold_sum(np.square(terms, out=terms)))
            use(block, of_block)

    threads.run_in_threads(measure, iterate_slices(len(train), ROWS))


def _refuse_no_direction(mean: Floats, owner: str) -> float:
    """The length of a mean of unit vectors. UserError where it is too short to be more
    than rounding."""
    length = _length(mean)
    if length < SHORTEST:
        raise UserError(
            f"the embeddings of {owner} cancel one another: their mean has no direction, and no"
            " cosine to it means anything; use a measure of single items (wsd, cosine_min) or a"
            " Euclidean one"
        )
    return length


def _length(vector: Floats) -> float:
    return math.sqrt(float(fold_sum(np.square(vector)[:, None])[0]))


def _bigrams(texts: Texts) -> Counter[tuple[str, str]]:
    return Counter(pair for text in texts for pair in itertools.pairwise(text.split()))


def _shares(counts: Counter[tuple[str, str]]) -> dict[tuple[str, str], float]:
    """Each pair's share in all pairs that were counted; together they are 1. Of no
    pairs there are no shares."""
    total = sum(counts.values())
    return {pair: count / total for pair, count in counts.items()}


def _divergence(
    counts: Counter[tuple[str, str]], test: dict[tuple[str, str], float], repeated: bool
) -> float:
    terms = [
        (counts[pair] if repeated else 1)
        * share
        * math.log(share / (test.get(pair, 0.0) + SMALLEST))
        for pair, share in _shares(counts).items()
    ]
    return math.fsum(terms)
