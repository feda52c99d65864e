"""Takes the loss of hidden states by what follows a model's body: its head, and all that
its class does before and after it, as scales and soft caps.

The logits of many tokens over a large vocabulary would be most of a training step's
memory: 16,384 tokens over 256,000 words are 50 GB in float32 with what their gradient
takes. So they are made in pieces, each of which is gone before the next; in the backward
pass a piece is made once more. Few logits are one piece, which is kept.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from jobs.model.architecture import find_body, find_head
from zsg_core.errors import UserError
from zsg_core.training import schedule

Head = Callable[[torch.Tensor], torch.Tensor]


class HeadPass:
    """What a model's class does with the states that its body gives."""

    def __init__(self, model: Any) -> None:
        """UserError where the class holds its body or its head otherwise than by a name
        of its own."""
        self._model = model
        self._body_name = _find_name(model, find_body(model))
        self._head_name = _find_name(model, find_head(model))

    def make_logits(self, states: torch.Tensor) -> torch.Tensor:
        """The logits (K, V) of states (K, H), in the type that the class gives."""
        return self._finish(states, self._head)

    def take_losses(self, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """−log p of each target (K,) by its state (K, H): (K,) float32.

        The head is called once, whatever the number of pieces: under ZeRO 3 a call
        gathers its weight on all ranks together, and they need not have as many pieces.
        """
        pieces = self.count_pieces(len(states), states.device)
        if pieces == 1:
            return take_piece(self.make_logits(states), targets)
        size = -(-len(states) // pieces)
        return self._call_in_pieces(states, targets, size)

    def hang_on_graph(self, states: torch.Tensor) -> torch.Tensor:
        """Zero, which hangs on the head and on states (1, H): for a rank that has
        nothing to learn, and is to keep in step with the others."""
        return self._head(states).float().sum() * 0.0

    def count_pieces(self, tokens: int, device: torch.device) -> int:
        """In how many pieces the logits of so many tokens are made."""
        return schedule.count_logit_pieces(tokens, self._vocabulary, device.type)

    @property
    def _head(self) -> Any:
        return self._model._modules[self._head_name]

    @property
    def _vocabulary(self) -> int:
        """The words of a logit row. The weight itself may be elsewhere, as under ZeRO 3."""
        return getattr(self._head, "out_features", self._model.config.vocab_size)

    def _call_in_pieces(
        self, states: torch.Tensor, targets: torch.Tensor, size: int
    ) -> torch.Tensor:
        """The losses by pieces of `size` tokens, all within one call of the head."""
        head = self._head
        own = head.forward

        def take_losses(states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            pieces = zip(states.split(size), targets.split(size), strict=True)
            return torch.cat([self._take_again(own, *piece) for piece in pieces])

        held = head.__dict__.get("forward")
        head.forward = take_losses
        try:
            return head(states, targets)
        finally:
            del head.forward
            if held is not None:
                head.forward = held

    def _take_again(
        self, head: Head, states: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """The losses of one piece, whose logits are made once more for the backward pass."""

        def take_losses(states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return take_piece(self._finish(states, head), targets)

        if not torch.is_grad_enabled():
            return take_losses(states, targets)
        # Nothing is drawn, so no generator's state need be put back.
        losses = checkpoint(
            take_losses, states, targets, use_reentrant=False, preserve_rng_state=False
        )
        assert isinstance(losses, torch.Tensor)
        return losses

    def _finish(self, states: torch.Tensor, head: Head) -> torch.Tensor:
        """What the class's own forward makes of states, with `head` for its head.

        It runs on a likeness of the model, whose body gives these states: what it does
        besides is the class's affair, and no hook of the model's knows of it.
        """

        model = self._model
        modules = dict(model._modules)
        modules[self._body_name] = _DoneBody(states[None])
        modules[self._head_name] = _OwnHead(self._head, head)
        likeness = object.__new__(type(model))
        likeness.__dict__.update(model.__dict__, _modules=modules)
        made = type(model).forward(likeness, use_cache=False, return_dict=True)
        return made.logits[0]


class _OwnHead:
    """Stands where a model has its head, and is called as one asks."""

    def __init__(self, head: nn.Module, call: Head) -> None:
        self._head, self._call = head, call

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        return self._call(batch[0])[None]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._head, name)


class _DoneBody:
    """Stands where a model has its body, and gives states that were made before."""

    def __init__(self, states: torch.Tensor) -> None:
        self._states = states

    @property
    def decoder(self) -> "_DoneBody":
        """OPT's class calls the decoder that is within its body."""
        return self

    def __call__(self, *_given: Any, **_options: Any) -> "_BodyOutput":
        return _BodyOutput(self._states)


class _BodyOutput:
    """What a body gives: its last states, and nothing else."""

    def __init__(self, states: torch.Tensor) -> None:
        self.last_hidden_state = states

    def __getitem__(self, place: Any) -> Any:
        return (self.last_hidden_state,)[place]

    def __getattr__(self, name: str) -> None:
        return None


def take_piece(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """−log p of each target (K,) by its logits (K, V): (K,) float32."""
    return nn.functional.cross_entropy(logits.float(), targets, reduction="none")


def _find_name(model: Any, part: nn.Module) -> str:
    """The name by which a model's class holds a part of it."""
    for name, module in model.named_children():
        if module is part:
            return name
    raise UserError(
        f"{type(model).__name__} holds its {type(part).__name__} within another part: what its"
        " class does with hidden states cannot be done apart from its body, so zsg does not train"
        " it"
    )
