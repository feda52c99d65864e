"""Gives each example of a micro-batch a row of its own, filled up on its right: for
models in which examples that stand in one row would meet, as they do where a state is
carried from token to token.

What fills a row up comes after all of its example, so no causal model's example sees it,
and the mask says so to the others.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from jobs.model.transfer import send_integers


@dataclass(frozen=True)
class Padded:
    """N examples in rows of L tokens. `ids`, `positions`, `seen`, (N, L): the tokens,
    their places in their examples, and 1 where there are tokens. `places`, (T,): where
    the tokens, one example after the other, are among the N·L."""

    ids: torch.Tensor
    positions: torch.Tensor
    seen: torch.Tensor
    places: torch.Tensor

    def encode(self, body: Any) -> torch.Tensor:
        """The states (N·L, H) that a body gives of the rows."""
        return self.call(body).last_hidden_state.flatten(0, 1)

    def call(self, body: Any, **options: Any) -> Any:
        """What a body gives of the rows, with such options."""
        inputs = {
            "input_ids": self.ids,
            "attention_mask": self.seen,
            "position_ids": self.positions,
        }
        known = _list_inputs(type(body))
        taken = {name: value for name, value in inputs.items() if name in known}
        return body(**taken, **options, use_cache=False)


def pad(
    tokens: torch.Tensor, positions: torch.Tensor, lengths: Sequence[int]
) -> Padded:
    """The rows of examples whose `tokens` and `positions`, (T,), stand one after the
    other."""
    shape = len(lengths), max(lengths)
    places = [row * shape[1] + at for row, n in enumerate(lengths) for at in range(n)]
    [sent] = send_integers(tokens.device, places)

    def spread(values: torch.Tensor) -> torch.Tensor:
        filled = values.new_zeros(shape[0] * shape[1])
        return filled.index_copy(0, sent, values).view(shape)

    return Padded(
        ids=spread(tokens),
        positions=spread(positions),
        seen=spread(torch.ones_like(tokens)),
        places=sent,
    )


@cache
def _list_inputs(body_class: type) -> frozenset[str]:
    """What a class of bodies takes by name. What it would take among others it may hand
    on to its attention, where it means something else."""
    return frozenset(inspect.signature(body_class.forward).parameters)
