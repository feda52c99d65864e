"""The order of blocks: so many items of one task stand together, in blocks that are shuffled."""

import random
from collections.abc import Sequence
from typing import Any

from zsg_core.orders.registry import Arranged, OrderInputs, always, order

BLOCKS = "blocks"


def check_block(settings: Any) -> None:
    """ValueError where it is not said how large a block is."""
    if settings.block is None:
        raise ValueError(
            "order blocks needs `block`, how many examples of one task stand together"
        )


@order(
    BLOCKS,
    about="`block` examples of one task together, blocks shuffled",
    settings=("block",),
    check=check_block,
    is_seeded=always,
)
def arrange_blocks(inputs: OrderInputs) -> Arranged:
    """Items in shuffled blocks."""
    return Arranged(shuffle_blocks(inputs.tasks, inputs.recipe["block"], inputs.seed))


def shuffle_blocks(tasks: Sequence[str], block: int, seed: int) -> list[int]:
    """Blocks of `block` items of one task, drawn and put in order at random.

    What of a task fills no block stands at the end, shuffled, so that blocks begin
    where batches do.
    """
    of_task: dict[str, list[int]] = {}
    for item, task in enumerate(tasks):
        of_task.setdefault(task, []).append(item)
    chance, blocks, remainders = random.Random(seed), [], []
    for items in of_task.values():
        chance.shuffle(items)
        whole = len(items) - len(items) % block
        blocks += [items[start : start + block] for start in range(0, whole, block)]
        remainders += items[whole:]
    chance.shuffle(blocks)
    chance.shuffle(remainders)
    return [item for items_of_block in blocks for item in items_of_block] + remainders
