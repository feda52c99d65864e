"""Measures how similar what a model has seen so far is to the test items of one task:
the nine measures of Dynamics of Zero-Shot Generalization (arXiv 2406.11721, appendix).

A prefix is the first examples of an order. Between its vectors and those of the test
items, with D = −cosine or the Euclidean distance: avg, min and max of all pairs, and
centroid, D of the two mean vectors (for cosine the cosine of the means). kl is the
Kullback-Leibler divergence of the prefix's word bigrams from the test items', and
kl_repeated what the authors' code sums: each bigram as often as it stands in all
training texts and all test texts. Smaller is nearer. min can only fall and max only
rise along an order, whatever the model learns.
"""

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from zsg_core.orders.distance import Floats, Vectors

COSINE = ("cosine_avg", "cosine_min", "cosine_max", "cosine_centroid")
EUCLIDEAN = ("euclidean_avg", "euclidean_min", "euclidean_max", "euclidean_centroid")
OF_TEXT = ("kl", "kl_repeated")
SMALLEST = 1e-10  # what the authors add to a share, and the least ratio of two
BLOCK = 4096  # examples whose distances are held at a time

Bigrams = Counter[tuple[str, str]]


def measure_prefixes(
    train: Vectors, test: Vectors, ends: Sequence[int]
) -> dict[str, Floats]:
    """Each measure of vectors (ends,) between the first `ends` rows of `train` (N, d)
    and `test` (M, d).

    `ends` rise, and are from 1 to N.
    """
    running = _Running(np.asarray(test, np.float64))
    measured: dict[str, list[float]] = {name: [] for name in (*COSINE, *EUCLIDEAN)}
    start = 0
    for end in ends:
        while start < end:
            stop = min(end, start + BLOCK)
            running.add(np.asarray(train[start:stop], np.float64))
            start = stop
        for name, value in running.measure().items():
            measured[name].append(value)
    return {name: np.array(values) for name, values in measured.items()}


class _Running:
    """What is known of the examples that have been added."""

    def __init__(self, test: NDArray[np.float64]) -> None:
        self._test = test
        self._unit_test = _make_unit(test)
        self._test_mean = test.mean(axis=0)
        self._count = 0
        self._sum = np.zeros(test.shape[1])
        self._sums = {"cosine": 0.0, "euclidean": 0.0}
        self._least = {"cosine": math.inf, "euclidean": math.inf}
        self._most = {"cosine": -math.inf, "euclidean": -math.inf}

    def add(self, train: NDArray[np.float64]) -> None:
        """Adds examples (n, d)."""
        self._count += len(train)
        self._sum += train.sum(axis=0)
        products = train @ self._test.T
        squares = (train**2).sum(axis=1)[:, None] + (self._test**2).sum(axis=1)
        self._add_distances("cosine", -(_make_unit(train) @ self._unit_test.T))
        euclidean = np.sqrt(np.maximum(squares - 2 * products, 0))
        self._add_distances("euclidean", euclidean)

    def _add_distances(self, kind: str, distances: NDArray[np.float64]) -> None:
        self._sums[kind] += float(distances.sum())
        self._least[kind] = min(self._least[kind], float(distances.min()))
        self._most[kind] = max(self._most[kind], float(distances.max()))

    def measure(self) -> dict[str, float]:
        """The measures of all that was added."""
        mean = self._sum / self._count
        lengths = float(np.linalg.norm(mean) * np.linalg.norm(self._test_mean))
        cosine = float(mean @ self._test_mean) / lengths if lengths else math.nan
        centroids = {
            "cosine": -cosine,
            "euclidean": float(np.linalg.norm(mean - self._test_mean)),
        }
        measured = {}
        for kind, centroid in centroids.items():
            pairs = self._count * len(self._test)
            measured[f"{kind}_avg"] = self._sums[kind] / pairs
            measured[f"{kind}_min"] = self._least[kind]
            measured[f"{kind}_max"] = self._most[kind]
            measured[f"{kind}_centroid"] = centroid
        return measured


def _make_unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


def measure_prefix_texts(
    train: Sequence[str],
    test: Sequence[str],
    ends: Sequence[int],
    repeats: Mapping[tuple[str, str], int],
) -> dict[str, Floats]:
    """kl and kl_repeated (ends,) between the first `ends` texts of `train` and `test`.

    `repeats`: how often each bigram stands in all training and all test texts, by
    `count_bigrams`.
    """
    shares = _compute_shares(count_bigrams(test))
    bigrams: Bigrams = Counter()
    measured: dict[str, list[float]] = {name: [] for name in OF_TEXT}
    start = 0
    for end in ends:
        bigrams.update(count_bigrams(train[start:end]))
        start = end
        plain, repeated = _sum_divergence(bigrams, shares, repeats)
        measured["kl"].append(plain)
        measured["kl_repeated"].append(repeated)
    return {name: np.array(values) for name, values in measured.items()}


def count_bigrams(texts: Sequence[str]) -> Bigrams:
    """How often each pair of neighbouring words, divided by whitespace, stands in texts."""
    bigrams: Bigrams = Counter()
    for text in texts:
        bigrams.update(itertools.pairwise(text.split()))
    return bigrams


def _compute_shares(bigrams: Bigrams) -> dict[tuple[str, str], float]:
    total = bigrams.total()
    return {bigram: count / total for bigram, count in bigrams.items()}


def _sum_divergence(
    prefix: Bigrams,
    test_shares: Mapping[tuple[str, str], float],
    repeats: Mapping[tuple[str, str], int],
) -> tuple[float, float]:
    """Σ p·ln(max(p / (q + 1e-10), 1e-10)) over the prefix's bigrams, each once; and each
    as often as `repeats` says."""
    plain = repeated = 0.0
    for bigram, share in _compute_shares(prefix).items():
        ratio = share / (test_shares.get(bigram, 0.0) + SMALLEST)
        term = share * math.log(max(ratio, SMALLEST))
        plain += term
        repeated += term * repeats.get(bigram, 0)
    return plain, repeated
