"""Makes the optimizer of a train job on its node.

An optimizer is a function here, under `@optimizer`, and a row of the same name in
zsg_core.training.optimizers, which plan reads the memory from. Every step sets the
learning rate: see zsg_core.training.schedule.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from zsg_core.errors import UserError
from zsg_core.training.optimizers import DEFAULT_OPTIMIZER, find_optimizer_row

# (trained parameters, a stage's settings `train` as its recipe has them) → the optimizer
OptimizerBuilder = Callable[
    [Sequence[torch.nn.Parameter], Mapping[str, Any]], torch.optim.Optimizer
]

_BUILDERS: dict[str, OptimizerBuilder] = {}


def optimizer(name: str) -> Callable[[OptimizerBuilder], OptimizerBuilder]:
    """Registers the function that makes the optimizer of this name, whose row there
    must be. UserError without one; ValueError for a name that is taken."""
    find_optimizer_row(name)

    def register(build: OptimizerBuilder) -> OptimizerBuilder:
        if name in _BUILDERS:
            raise ValueError(f"there is an optimizer {name!r} already")
        _BUILDERS[name] = build
        return build

    return register


def build_optimizer(
    model: torch.nn.Module,
    settings: Mapping[str, Any],
    zero_stage: int,
    name: str = DEFAULT_OPTIMIZER,
) -> torch.optim.Optimizer:
    """The optimizer of all parameters that are to be trained.

    UserError for a ZeRO stage that it does not work at.
    """
    row = find_optimizer_row(name)
    if zero_stage not in row.zero_stages:
        stages = ", ".join(map(str, row.zero_stages))
        raise UserError(
            f"optimizer {name} does not work at deepspeed.zero_stage {zero_stage}; it does at"
            f" {stages}"
        )
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return _BUILDERS[name](trained, settings)


@optimizer("adamw")
def build_adamw(
    parameters: Sequence[torch.nn.Parameter], settings: Mapping[str, Any]
) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv 1711.05101)."""
    return torch.optim.AdamW(
        parameters,
        lr=settings["lr"],
        betas=tuple(settings["betas"]),
        eps=settings["eps"],
        weight_decay=settings["weight_decay"],
        fused=True,
    )
