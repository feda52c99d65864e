"""The orders that know only of which task an item is: random, round_robin, cluster."""

import random
from collections.abc import Sequence

from zsg_core.orders.registry import Arranged, OrderInputs, always, order


@order("random", about="shuffled", is_seeded=always)
@order("round_robin", about="one example of each task in turn")
@order("cluster", about="task after task")
def arrange_by_task(inputs: OrderInputs) -> Arranged:
    """Items in one of the three orders."""
    return Arranged(order_by_task(inputs.order, inputs.tasks, inputs.seed))


def order_by_task(order: str, tasks: Sequence[str], seed: int) -> list[int]:
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
