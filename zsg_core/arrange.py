"""Puts training examples in order: index in, permutation out.

Orders (Dynamics of Zero-Shot Generalization, sections 3.1 and 3.2, and the authors' code):
cluster       task after task, in the order of the split file
round_robin   the first item of every task, then the second of every task, …
random        the cluster list shuffled
nft, fft      nearest (farthest) first by WSD to the test set; fft is nft reversed
rt            nft shuffled as pandas' sample(frac=1, random_state=seed) does
"""

import random
from collections.abc import Callable, Sequence

import numpy as np

from zsg_core.errors import UserError

BY_TASK = ("random", "round_robin", "cluster")
BY_SIMILARITY = ("nft", "rt", "fft")
SEEDED = ("random", "rt")
ORDERS = BY_TASK + BY_SIMILARITY


def by_task(order: str, tasks: Sequence[str], seed: int) -> list[int]:
    """The order of items whose tasks are `tasks[0…N−1]`, items of a task standing together."""
    cluster = list(range(len(tasks)))
    if order == "cluster":
        return cluster
    if order == "random":
        random.Random(seed).shuffle(cluster)
        return cluster
    turn: dict[str, int] = {}
    turns = []
    for task in tasks:
        turn[task] = turn.get(task, -1) + 1
        turns.append(turn[task])
    return sorted(cluster, key=lambda i: turns[i])  # stable: within a turn, split-file order


def by_similarity(order: str, wsd: Sequence[float], seed: int) -> list[int]:
    """The order of items by their WSD, ascending; equal items keep their place, lowest index first."""
    nearest_first = np.argsort(np.asarray(wsd), kind="stable").tolist()
    if order == "nft":
        return nearest_first
    if order == "fft":
        return nearest_first[::-1]
    shuffle = np.random.RandomState(seed).permutation(len(nearest_first))
    return [nearest_first[i] for i in shuffle]


def arrange(order: str, tasks: Sequence[str], seed: int, wsd: Callable[[], Sequence[float]]) -> list[int]:
    """A permutation of range(len(tasks)). `wsd` is asked only by the orders that need similarity."""
    if order in BY_TASK:
        return by_task(order, tasks, seed)
    if order in BY_SIMILARITY:
        return by_similarity(order, wsd(), seed)
    raise UserError(f"unknown order {order!r}; known: {', '.join(ORDERS)}")
