"""Puts training examples in order: index in, distinct indices out.

Orders (Dynamics of Zero-Shot Generalization, sections 3.1 to 3.3, and the authors' code):
cluster       task after task, in the order of the split file
round_robin   the first item of every task, then the second of every task, …
random        the cluster list shuffled
blocks        so many items of one task stand together, in blocks that are shuffled: the
              batches of Muppet (Aghajanyan
              et al. 2021, arXiv 2101.11038); of one task where a block is a batch, else
              heterogeneous
nft, fft      nearest (farthest) first by a measure of distance to the test set, or to a
              target set apart from it; fft is nft reversed
rt            nft shuffled as pandas' sample(frac=1, random_state=seed) does
file          as a file of the user's lists them, by ids or places
tma           rounds in which every test item takes its nearest (farthest) item left, as
              one of five lists

What becomes of the list of any of them, paced or in buckets, is in `curriculum`.

Each is an entry of `registry`, made in a module of its own or of a few alike.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from zsg_core.errors import UserError
from zsg_core.orders import curriculum
from zsg_core.orders.registry import ORDERS, Arranged, OrderInputs, Rounds


def arrange_items(
    recipe: Mapping[str, Any],
    tasks: Sequence[str],
    distances: Callable[[], Sequence[float]],
    rounds: Rounds,
    **inputs_of_lists: Any,
) -> Arranged:
    """The order that an arrangement's recipe asks for, over the items whose tasks are `tasks`.

    `distances` (of items, or of tasks where the recipe's granularity is coarse) and
    `rounds` are asked only by the orders that need them, as are `inputs_of_lists`: the
    other fields of OrderInputs. UserError for an order that does not exist.
    """
    name = recipe["order"]
    if name not in ORDERS:
        raise UserError(f"unknown order {name!r}; known: {', '.join(ORDERS)}")
    inputs = OrderInputs(
        recipe=recipe,
        tasks=tasks,
        distances=distances,
        rounds=rounds,
        **inputs_of_lists,
    )
    made = ORDERS[name].arrange(inputs)
    if not curriculum.is_followed(recipe):
        return made
    sources = inputs.sources()
    followed = curriculum.follow_curriculum(recipe, made.places, sources, inputs.seed)
    return replace(made, places=followed)
