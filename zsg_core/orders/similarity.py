"""The orders by a measure of distance to the test set: nft, rt and fft; of items, or of
whole tasks. The sorted list of nft and fft may take a shape, as one of scores may."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from zsg_core.orders.measures import OF_TEXT, WSD
from zsg_core.orders.registry import (
    Arranged,
    ArrangeFunction,
    OrderInputs,
    always,
    order,
)
from zsg_core.orders.shapes import SEGMENT
from zsg_core.orders.shaping import (
    SHAPING,
    check_shape,
    is_shape_drawn,
    is_shaped,
    resolve_shape,
    shape_list,
)

BY_SIMILARITY = ("nft", "rt", "fft")
CHOICES = ("all", "polar", "uniform")
# items per task and pole; steps per task (both as in the authors' code)
POLE, UNIFORM = 10, 20
SETTINGS = ("measure", "weights", "granularity", "choose", "target")


def check_similarity(settings: Any) -> None:
    """ValueError for settings of which one undoes another."""
    if settings.weights is not None and settings.measure not in (None, WSD):
        raise ValueError(
            f"`weights` are those of measure wsd, not of {settings.measure}; take one of the"
            " two out"
        )
    if settings.granularity == "coarse" and settings.choose not in (None, "all"):
        raise ValueError(
            f"`choose: {settings.choose}` takes examples and `granularity: coarse` sorts tasks;"
            " take one"
        )
    if settings.order == "fft" and settings.shape == SEGMENT:
        raise ValueError(
            "shape segment takes its ends by front_of and back_of, low is near; use order nft"
        )
    check_shape(settings)


def resolve_similarity(settings: Any) -> dict[str, Any]:
    """The recipe of the measure, defaults written out."""
    recipe: dict[str, Any] = {"measure": settings.measure or WSD}
    if recipe["measure"] == WSD:
        weights = settings.weights
        recipe["w_min"] = _weight_text(1.0 if weights is None else weights.min)
        recipe["w_avg"] = _weight_text("mean" if weights is None else weights.avg)
    if settings.granularity == "coarse":
        recipe["granularity"] = "coarse"
    if settings.choose not in (None, "all"):
        recipe["choose"] = settings.choose
    # absent without a shape, as in the recipes made before there was one
    return recipe | (resolve_shape(settings) if is_shaped(settings) else {})


def _weight_text(weight: float | str) -> str:
    return weight if isinstance(weight, str) else f"{weight:.17g}"


def measures_vectors(settings: Any) -> bool:
    """Whether the measure is of embeddings, not of words."""
    return settings.measure not in OF_TEXT


def _order_by_similarity(
    name: str, about: str, is_shuffled: bool = False
) -> Callable[[ArrangeFunction], ArrangeFunction]:
    return order(
        name,
        about=about,
        settings=SETTINGS if is_shuffled else (*SETTINGS, *SHAPING),
        leaves_out=("choose",),
        check=check_similarity,
        recipe=resolve_similarity,
        is_seeded=always if is_shuffled else is_shape_drawn,
        needs_embedding=measures_vectors,
    )


@_order_by_similarity("nft", "nearest to the test set first")
@_order_by_similarity("rt", "nft shuffled", is_shuffled=True)
@_order_by_similarity("fft", "farthest from the test set first")
def arrange_by_similarity(inputs: OrderInputs) -> Arranged:
    """Items by their distance, or by that of their tasks, in the shape of the recipe."""
    recipe, distances = inputs.recipe, inputs.distances()
    if recipe.get("granularity") == "coarse":
        places = order_tasks_by_similarity(
            inputs.order, distances, inputs.seed, inputs.tasks
        )
    else:
        places = order_by_similarity(
            inputs.order,
            distances,
            inputs.seed,
            inputs.tasks,
            recipe.get("choose", "all"),
        )
    return Arranged(shape_list(places, recipe, inputs.seed))


def order_by_similarity(
    order: str,
    distances: Sequence[float],
    seed: int,
    tasks: Sequence[str] | None = None,
    choose: str = "all",
) -> list[int]:
    """The order of items by distance, ascending; equal items keep their place, lowest index first.

    With a choice of `polar` or `uniform` only some items of each task are taken, see
    `choose_items`.
    """
    nearest_first = np.argsort(np.asarray(distances), kind="stable").tolist()
    if choose != "all":
        nearest_first = choose_items(choose, nearest_first, tasks or [])
    if order == "nft":
        return nearest_first
    if order == "fft":
        return nearest_first[::-1]
    shuffle = np.random.RandomState(seed).permutation(len(nearest_first))
    return [nearest_first[i] for i in shuffle]


def order_tasks_by_similarity(
    order: str, distances: Sequence[float], seed: int, tasks: Sequence[str]
) -> list[int]:
    """The coarse order: tasks by distance, each task's items in their order.

    `distances` are those of the tasks in the order in which they first come; fft is the
    whole list reversed.
    """
    rank = np.empty(len(distances), np.int64)
    rank[np.argsort(np.asarray(distances), kind="stable")] = np.arange(len(distances))
    number = {task: position for position, task in enumerate(dict.fromkeys(tasks))}
    return order_by_similarity(order, [rank[number[task]] for task in tasks], seed)


def choose_items(
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
    taken: set[int] = set()
    for items in of_task.values():
        taken.update(
            items[:POLE] + items[-POLE:]
            if choose == "polar"
            else items[:: max(1, len(items) // UNIFORM)]
        )
    return [item for item in nearest_first if item in taken]
