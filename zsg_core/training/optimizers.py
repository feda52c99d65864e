"""What plan must know of each optimizer: how many bytes it holds for a trained
parameter, and at which ZeRO stages it works.

An optimizer is a row here and a function of the same name in jobs.training.optimizer,
which makes it on a node.
"""

from dataclasses import dataclass

from zsg_core.errors import UserError

ZERO_STAGES = (0, 1, 2, 3)


@dataclass(frozen=True, kw_only=True)
class OptimizerRow:
    """An optimizer as arithmetic knows it.

    `state_bytes`: bytes per trained parameter of what it remembers from step to step,
    kept in fp32 whatever the precision; the fp32 master weights are DeepSpeed's and not
    counted here. `zero_stages`: where DeepSpeed can divide that. `offloads`: whether
    DeepSpeed may hold it in the CPU's memory; zsg never asks for it.
    """

    name: str
    state_bytes: int
    zero_stages: tuple[int, ...] = ZERO_STAGES
    offloads: bool = False


ADAMW = OptimizerRow(name="adamw", state_bytes=8)  # two moments of 4 bytes
DEFAULT_OPTIMIZER = ADAMW.name
OPTIMIZER_ROWS = {row.name: row for row in (ADAMW,)}


def find_optimizer_row(name: str) -> OptimizerRow:
    """The row of an optimizer. UserError for a name without one."""
    row = OPTIMIZER_ROWS.get(name)
    if row is None:
        raise UserError(
            f"unknown optimizer {name!r}; known: {', '.join(OPTIMIZER_ROWS)}. A new one is"
            " a row in zsg_core/training/optimizers.py and a function in"
            " jobs/training/optimizer.py"
        )
    return row
