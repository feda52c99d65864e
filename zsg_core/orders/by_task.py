"""The orders that know only of which task an item is: random, round_robin, cluster."""

import random
from collections.abc import Sequence
from typing import Any

from zsg_core.orders.registry import Arranged, OrderInputs, always, order

SHUFFLED = "shuffled"


def shuffles_tasks(settings: Any) -> bool:
    """Whether the order of the tasks is drawn."""
    return settings.tasks == SHUFFLED


def resolve_tasks(settings: Any) -> dict[str, Any]:
    """What enters the recipe: whether the tasks are shuffled."""
    return {"tasks": SHUFFLED} if shuffles_tasks(settings) else {}


@order(
    "round_robin",
    about="one example of each task in turn",
    settings=("tasks",),
    recipe=resolve_tasks,
    is_seeded=shuffles_tasks,
)
@order(
    "cluster",
    about="task after task",
    settings=("tasks",),
    recipe=resolve_tasks,
    is_seeded=shuffles_tasks,
)
@order("random", about="shuffled", is_seeded=always)
def arrange_by_task(inputs: OrderInputs) -> Arranged:
    """Items in one of the three orders."""
    if inputs.recipe.get("tasks") != SHUFFLED:
        return Arranged(order_by_task(inputs.order, inputs.tasks, inputs.seed))
    clustered = shuffle_tasks(inputs.tasks, inputs.seed)
    tasks = [inputs.tasks[item] for item in clustered]
    ordered = order_by_task(inputs.order, tasks, inputs.seed)
    return Arranged([clustered[place] for place in ordered])


def shuffle_tasks(tasks: Sequence[str], seed: int) -> list[int]:
    """The items task after task, the tasks in an order drawn by Python's random, the
    items of each in theirs."""
    of_task: dict[str, list[int]] = {}
    for item, task in enumerate(tasks):
        of_task.setdefault(task, []).append(item)
    names = list(of_task)
    random.Random(seed).shuffle(names)
    return [item for name in names for item in of_task[name]]


def order_by_task(order: str, tasks: Sequence[str], seed: int) -> list[int]:
    """The order of items whose tasks are `tasks[0…N−1]`, items of a task standing together."""
    cluster = list(range(len(tasks)))
    if order == "cluster":
        return cluster
    if order == "random":
        random.Random(seed).shuffle(cluster)
        return cluster
    turn: dict[str, int] = {}
    turns: list[int] = []
    for task in tasks:
        turn[task] = turn.get(task, -1) + 1
        turns.append(turn[task])
    # stable: within a turn, split-file order
    return sorted(cluster, key=lambda i: turns[i])
