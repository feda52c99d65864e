"""Takes the loss of hidden states by what follows a model's body: its head, and all that
its class does before and after it, as scales and soft caps.

The logits of many tokens over a large vocabulary would be most of a training step's
memory: 16,384 tokens over 256,000 words are 50 GB in float32 with what their gradient
takes. So they are made in pieces, each of which is gone before the next. Where it is
known what each loss will weigh a piece's gradients are made with it; else the piece is
made once more in the backward pass. Few logits are one piece, which is kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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

    def take_losses(
        self,
        states: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """−log p of each target (K,) by its state (K, H): (K,) float32.

        `weights` (K,) float32: what their gradient will be, but for one factor; a
        backward pass on a CPU that finds another one raises RuntimeError. The head is
        called once, whatever the number of pieces: under ZeRO 3 a call gathers its
        weight on all ranks together, and they need not have as many pieces.
        """
        pieces = self.count_pieces(len(states), states.device)
        if pieces == 1 or self._is_gathered_by_parts():
            return take_losses(self.make_logits(states), targets)
        if states.dtype == torch.float16:
            weights = None  # its gradients need the scale that the loss will have
        if not torch.is_grad_enabled():
            weights = None
        return self._call_in_pieces(states, targets, weights, pieces)

    def hang_on_graph(self, states: torch.Tensor) -> torch.Tensor:
        """Zero, which hangs on the head and on states (1, H): for a rank that has
        nothing to learn, and is to keep in step with the others."""
        return self._head(states).float().sum() * 0.0

    def count_pieces(self, tokens: int, device: torch.device) -> int:
        """In how many pieces the logits of so many tokens are made."""
        return schedule.count_logit_pieces(tokens, self._vocabulary, device.type)

    def _is_gathered_by_parts(self) -> bool:
        """Whether a call of the head calls others within it, as LoRA's on a head, whose
        weights ZeRO 3 gathers in calls of their own."""
        has_parts = any(True for _ in self._head.children())
        return has_parts and any(hasattr(p, "ds_id") for p in self._head.parameters())

    @property
    def _head(self) -> Any:
        return self._model._modules[self._head_name]

    @property
    def _vocabulary(self) -> int:
        """The words of a logit row. The weight itself may be elsewhere, as under ZeRO 3."""
        return getattr(self._head, "out_features", self._model.config.vocab_size)

    def _call_in_pieces(
        self,
        states: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor | None,
        pieces: int,
    ) -> torch.Tensor:
        """The losses by so many pieces, all within one call of the head."""
        head = self._head
        own, held = head.forward, head.__dict__.get("forward")
        trained = [one for one in head.parameters() if one.requires_grad]
        size = -(-len(states) // pieces)

        def take_piece(states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return take_losses(self._finish(states, own), targets)

        def take_into(
            states: torch.Tensor, targets: torch.Tensor, into: Sequence[torch.Tensor]
        ) -> torch.Tensor:
            def apply_head(batch: torch.Tensor) -> Any:
                return _LinearInto.apply(batch, head.weight, head.bias, into)

            return take_losses(self._finish(states, apply_head), targets)

        def take_all(states: torch.Tensor, targets: torch.Tensor) -> Any:
            """The losses of (tokens, hidden) states for (tokens,) targets, in their
            order.

            With weights the gradients are made in the same pass, and the logits of a
            piece are gone before the next; without, each piece is computed again in the
            backward pass.
            """
            if weights is not None:
                is_linear = type(head) is nn.Linear and held is None
                cut = Pieces(
                    take_piece, take_into if is_linear else None, size, targets, weights
                )
                return _GradientsAhead.apply(cut, states, *trained)
            of_pieces = zip(states.split(size), targets.split(size), strict=True)
            return torch.cat([_take_again(take_piece, *piece) for piece in of_pieces])

        head.forward = take_all
        try:
            return head(states, targets)
        finally:
            del head.forward
            if held is not None:
                head.forward = held

    def _finish(self, states: torch.Tensor, head: Head) -> torch.Tensor:
        """What the class's own forward makes of states, with `head` for its head.

        It runs on a likeness of the model, whose body gives these states: what it does
        besides is the class's affair, and no hook of the model's knows of it.
        """

        model = self._model
        modules = dict(model._modules)
        modules[self._body_name] = _DoneBody(states[None], modules[self._body_name])
        modules[self._head_name] = _OwnHead(self._head, head)
        likeness = object.__new__(type(model))
        likeness.__dict__.update(model.__dict__, _modules=modules)
        made = type(model).forward(likeness, use_cache=False, return_dict=True)
        return made.logits[0]


@dataclass
class Pieces:
    """How losses are taken in pieces: of `size` states and their targets at a time, by
    `take`, or by `take_into`, whose backward pass adds the gradients of the head's
    weights to tensors. `weights`: see HeadPass.take_losses."""

    take: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    take_into: (
        Callable[[torch.Tensor, torch.Tensor, Sequence[torch.Tensor]], torch.Tensor]
        | None
    )
    size: int
    targets: torch.Tensor
    weights: torch.Tensor

    def take_gradients(
        self,
        piece: slice,
        states: torch.Tensor,
        trained: Sequence[torch.Tensor],
        into: Sequence[torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The losses of a piece of `states`, and their gradient on these; those on
        `trained` are added to `into`."""
        targets, weights = self.targets[piece], self.weights[piece]
        with torch.enable_grad():
            own = states[piece].detach().requires_grad_()
            if self.take_into:
                taken = self.take_into(own, targets, into)
                [on_own] = torch.autograd.grad((taken * weights).sum(), [own])
                return taken.detach(), on_own
            taken = self.take(own, targets)
            weighed = (taken * weights).sum()
            on_own, *shares = torch.autograd.grad(weighed, [own, *trained])
        for gradient, share in zip(into, shares, strict=True):
            gradient.add_(share)
        return taken.detach(), on_own


class _LinearInto(torch.autograd.Function):
    """A linear layer whose backward pass adds its weights' gradients to tensors: none
    is as large as the weight but these."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        states: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        into: Sequence[torch.Tensor],
    ) -> torch.Tensor:
        # of weight and bias those that are trained, in this order
        trained = [one for one in (weight, bias) if one is not None]
        trained = [one for one in trained if one.requires_grad]
        ctx.held = (
            states.detach(),
            weight.detach(),
            list(zip(trained, into, strict=True)),
        )
        return nn.functional.linear(states, weight, bias)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        states, weight, trained = ctx.held
        for one, into in trained:
            if one.dim() == 2:
                into.addmm_(gradient.t(), states)
            else:
                into.add_(gradient.sum(0))
        return gradient @ weight, None, None, None


class _GradientsAhead(torch.autograd.Function):
    """Losses whose gradients are made with them, piece by piece, so that no logits are
    kept, and none made twice."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, cut: Pieces, states: torch.Tensor, *trained: torch.Tensor
    ) -> torch.Tensor:
        losses, on_states = [], []
        on_trained = [torch.zeros_like(one) for one in trained]
        for start in range(0, len(states), cut.size):
            piece = slice(start, start + cut.size)
            taken, on_own = cut.take_gradients(piece, states, trained, on_trained)
            losses.append(taken)
            on_states.append(on_own)
        ctx.weights, ctx.gradients = cut.weights, [torch.cat(on_states), *on_trained]
        return torch.cat(losses)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        """Scales the gradients that the forward pass has made, in place: no second copy
        of the head's gradient is ever held.

        `gradient` has to be the losses' weights times one number, since with those
        weights the sums were built; the number is found by least squares, and other
        gradients are refused on the CPU. Can be called once only: the gradients are
        given away.
        """
        weights = ctx.weights
        factor = (gradient * weights).sum() / (weights * weights).sum()
        # on a GPU the host would wait for the answer
        if gradient.device.type == "cpu":
            _refuse_other_weights(gradient, factor * weights)
        gradients, ctx.gradients = ctx.gradients, None
        return None, *(one.mul_(factor.to(one.dtype)) for one in gradients)


def _refuse_other_weights(gradient: torch.Tensor, expected: torch.Tensor) -> None:
    """RuntimeError for losses that were weighed otherwise than was said."""
    if not torch.allclose(gradient, expected, rtol=1e-4, atol=0.0):
        raise RuntimeError(
            "losses were weighed otherwise than was said when they were taken, so their gradients"
            " are wrong"
        )


def _take_again(
    take: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    states: torch.Tensor,
    targets: torch.Tensor,
) -> torch.Tensor:
    """The losses of one piece, whose logits are made once more for the backward pass."""
    if not torch.is_grad_enabled():
        return take(states, targets)
    # Nothing is drawn, so no generator's state need be put back.
    losses = checkpoint(
        take, states, targets, use_reentrant=False, preserve_rng_state=False
    )
    assert isinstance(losses, torch.Tensor)
    return losses


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

    def __init__(self, states: torch.Tensor, body: Any) -> None:
        self._states, self._body = states, body

    @property
    def decoder(self) -> "_DoneBody":
        """OPT's class calls the decoder that is within its body."""
        return self

    def __call__(self, *_given: Any, **_options: Any) -> "_BodyOutput":
        return _BodyOutput(self._states)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)


class _BodyOutput:
    """What a body gives: its last states, and nothing else."""

    def __init__(self, states: torch.Tensor) -> None:
        self.last_hidden_state = states

    def __getitem__(self, place: Any) -> Any:
        return (self.last_hidden_state,)[place]

    def __getattr__(self, name: str) -> None:
        return None


def take_losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
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
