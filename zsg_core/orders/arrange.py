"""Puts training examples in order: index in, distinct indices out.

Orders (Dynamics of Zero-Shot Generalization, sections 3.1 to 3.3, and the authors' code):
cluster       task after task, in the order of the split file
round_robin   the first item of every task, then the second of every task, …
random        the cluster list shuffled
blocks        so many items of one task stand together, in blocks that are shuffled: the
              batches of Muppet (Aghajanyan
              et al. 2021, arXiv 2101.11038); of one task where a block is a batch, else
              heterogeneous
nft, fft      nearest (farthest) first by a measure of distance to the test set; fft is nft reversed
rt            nft shuffled as pandas' sample(frac=1, random_state=seed) does
tma           rounds in which every test item takes its nearest (farthest) item left, as
              one of five lists

The lists of tma: `min` and `max` are the nearest and the farthest rounds; `min-max` the
nearest to half the cap, then the farthest to half the cap backwards; `max-min` the
other way round; `random` is min-max shuffled. An item in both halves counts where it
comes first. (A figure of the paper calls min-max NFT, max-min FFT and random RT.)
"""

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zsg_core.errors import UserError

BY_TASK = ("random", "round_robin", "cluster")
BLOCKS = "blocks"
BY_SIMILARITY = ("nft", "rt", "fft")
TMA = "tma"
SEEDED = ("random", "rt", BLOCKS)
ORDERS = (*BY_TASK, BLOCKS, *BY_SIMILARITY, TMA)
LISTS = ("min", "max", "min-max", "max-min", "random")
HALVED = ("min-max", "max-min", "random")  # lists of two halves
CHOICES = ("all", "polar", "uniform")
# items per task and pole; steps per task (both as in the authors' code)
POLE, UNIFORM = 10, 20

# (farthest first?, cap) → rounds
Rounds = Callable[[bool, int | None], Iterator[list[int]]]


@dataclass(frozen=True)
class Arranged:
    """An order as places in the training list, and what is worth knowing about how it
    came about."""

    places: list[int]
    facts: dict[str, Any] = field(default_factory=dict)


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
    # stable: within a turn, split-file order
    return sorted(cluster, key=lambda i: turns[i])


def by_blocks(tasks: Sequence[str], block: int, seed: int) -> list[int]:
    """Blocks of `block` items of one task, drawn and put in order at random.

    What of a task fills no block stands at the end, shuffled, so that blocks begin
    where batches do.
    """
    of_task: dict[str, list[int]] = {}
    for item, task in enumerate(tasks):
        of_task.setdefault(task, []).append(item)
    chance, blocks, rest = random.Random(seed), [], []
    for items in of_task.values():
        chance.shuffle(items)
        whole = len(items) - len(items) % block
        blocks += [items[start : start + block] for start in range(0, whole, block)]
        rest += items[whole:]
    chance.shuffle(blocks)
    chance.shuffle(rest)
    return [item for one in blocks for item in one] + rest


def by_similarity(
    order: str,
    distances: Sequence[float],
    seed: int,
    tasks: Sequence[str] | None = None,
    choose: str = "all",
) -> list[int]:
    """The order of items by distance, ascending; equal items keep their place, lowest index first.

    With a choice of `polar` or `uniform` only some items of each task are taken (see `chosen`).
    """
    nearest_first = np.argsort(np.asarray(distances), kind="stable").tolist()
    if choose != "all":
        nearest_first = chosen(choose, nearest_first, tasks or [])
    if order == "nft":
        return nearest_first
    if order == "fft":
        return nearest_first[::-1]
    shuffle = np.random.RandomState(seed).permutation(len(nearest_first))
    return [nearest_first[i] for i in shuffle]


def by_task_similarity(
    order: str, distances: Sequence[float], seed: int, tasks: Sequence[str]
) -> list[int]:
    """The coarse order: tasks by distance, each task's items in their order.

    `distances` are those of the tasks in the order in which they first come; fft is the
    whole list reversed.
    """
    rank = np.empty(len(distances), np.int64)
    rank[np.argsort(np.asarray(distances), kind="stable")] = np.arange(len(distances))
    number = {task: place for place, task in enumerate(dict.fromkeys(tasks))}
    return by_similarity(order, [rank[number[task]] for task in tasks], seed)


def chosen(
    choose: str, nearest_first: Sequence[int], tasks: Sequence[str]
) -> list[int]:
    """Of each task's items, nearest first: polar takes the first 10 and the last 10,
    uniform every (n // 20)-th.

    A task of fewer items than that gives all of them, once. Those taken stay in the
    order they came in.
    """
    of_task: dict[str, list[int]] = {}
    for item in nearest_first:
        of_task.setdefault(tasks[item], []).append(item)
    kept: set[int] = set()
    for items in of_task.values():
        kept.update(
            items[:POLE] + items[-POLE:]
            if choose == "polar"
            else items[:: max(1, len(items) // UNIFORM)]
        )
    return [item for item in nearest_first if item in kept]


def by_rounds(
    name: str,
    rounds: Rounds,
    cap: int | None,
    seed: int,
    wanted: tuple[int, int] | None = None,
) -> Arranged:
    """One of the five lists of TMA; with `wanted` = (a, b) only the rounds a, a + 1, … b − 1 of it.

    UserError where there are fewer than b rounds.
    """
    if name not in HALVED:
        made = list(
            itertools.islice(rounds(name == "max", cap), wanted[1] if wanted else None)
        )
        if wanted and len(made) < wanted[1]:
            raise UserError(
                f"arrangement.rounds: {wanted[0]}:{wanted[1]} was asked, but all is taken after"
                f" {len(made)} rounds"
            )
        made = made[wanted[0] :] if wanted else made
        return Arranged(
            [item for one in made for item in one],
            {"rounds": [len(one) for one in made]},
        )
    half = None if cap is None else -(-cap // 2)
    near, far = list(rounds(False, half)), list(rounds(True, half))
    ends = [[item for one in made for item in one] for made in (near, far)]
    both = ends[1] + ends[0][::-1] if name == "max-min" else ends[0] + ends[1][::-1]
    places = list(dict.fromkeys(both))
    if name == "random":
        random.Random(seed).shuffle(places)
    facts = {
        "nearest": [len(one) for one in near],
        "farthest": [len(one) for one in far],
    }
    return Arranged(
        places, {"rounds": facts, "in_both_halves": len(both) - len(places)}
    )


def arrange(
    spec: dict[str, Any],
    tasks: Sequence[str],
    distances: Callable[[], Sequence[float]],
    rounds: Rounds,
) -> Arranged:
    """The order that an arrangement's recipe asks for, over the items whose tasks are `tasks`.

    `distances` (of items, or of tasks where the recipe's granularity is coarse) and
    `rounds` are asked only by the orders that need them.
    """
    order, seed = spec["order"], spec.get("seed", 0)
    if order in BY_TASK:
        return Arranged(by_task(order, tasks, seed))
    if order == BLOCKS:
        return Arranged(by_blocks(tasks, spec["block"], seed))
    if order in BY_SIMILARITY and spec.get("granularity") == "coarse":
        return Arranged(by_task_similarity(order, distances(), seed, tasks))
    if order in BY_SIMILARITY:
        return Arranged(
            by_similarity(order, distances(), seed, tasks, spec.get("choose", "all"))
        )
    if order == TMA:
        return by_rounds(
            spec["list"],
            rounds,
            spec.get("cap"),
            seed,
            span(spec["rounds"]) if "rounds" in spec else None,
        )
    raise UserError(f"unknown order {order!r}; known: {', '.join(ORDERS)}")


def span(text: str) -> tuple[int, int]:
    """The rounds that "5:10" names: 5 to 9. ValueError for what names none."""
    first, colon, end = text.partition(":")
    if not (
        colon
        and first.isascii()
        and end.isascii()
        and first.isdigit()
        and end.isdigit()
        and int(first) < int(end)
    ):
        raise ValueError(
            f'rounds are given as "0:5", from the first to before the last, not {text!r}'
        )
    return int(first), int(end)
