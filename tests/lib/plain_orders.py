"""The orders as the papers tell them, on lists of numbers: slow and plain, to test the
fast ones against."""

import math
from collections.abc import Sequence

import numpy as np


def similarity(one: Sequence[float], two: Sequence[float]) -> float:
    """The canonical similarity: exact products, the upper half added to the lower until
    one is left."""
    terms = [float(a) * float(b) for a, b in zip(one, two, strict=True)]
    while len(terms) > 1:
        half = (len(terms) + 1) // 2
        terms = [
            a + b for a, b in zip(terms[:half], terms[half:], strict=False)
        ] + terms[len(terms) - half : half]
    return terms[0]


def distances(train: np.ndarray, test: np.ndarray) -> list[list[float]]:
    """−similarity of every training item to every test item."""
    return [[-similarity(x, t) for t in test.tolist()] for x in train.tolist()]


def minimum_and_average(
    train: np.ndarray, test: np.ndarray
) -> tuple[list[float], list[float]]:
    """MD and AD."""
    middle = [math.fsum(column) / len(test) for column in test.T.tolist()]
    return [min(row) for row in distances(train, test)], [
        -similarity(x, middle) for x in train.tolist()
    ]


def rounds(
    train: np.ndarray, test: np.ndarray, farthest: bool = False, cap: int | None = None
) -> list[list[int]]:
    """Algorithm 1 on the whole matrix: argmin (argmax) of every column over what is
    left, the first of equals."""
    matrix = np.array(distances(train, test)) * (-1 if farthest else 1)
    made: list[list[int]] = []
    while sum(map(len, made)) < min(len(train), len(train) if cap is None else cap):
        picked = sorted(set(matrix.argmin(axis=0).tolist()))
        matrix[picked] = np.inf
        made.append(picked)
    return made
