"""Takes gradients of a model that is not trained: those of single examples, whose norms
or sums are all that is kept."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

SCALE = 1024.0  # of a loss in fp16, whose small gradients would be zero


@contextmanager
def with_gradients(parameters: Sequence[torch.nn.Parameter]) -> Iterator[None]:
    """While it lasts these parameters have gradients; afterwards none has any."""
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        with torch.enable_grad():
            yield
    finally:
        for parameter in parameters:
            parameter.grad = None
            parameter.requires_grad_(False)


def choose_scale(parameters: Sequence[torch.nn.Parameter]) -> float:
    """By what a loss is multiplied before its gradient is taken, which is divided by it
    again: 1 but in fp16."""
    is_half = any(parameter.dtype == torch.float16 for parameter in parameters)
    return SCALE if is_half else 1.0


class GradientNorm:
    """The norm of the gradient of one loss after the other, by some parameters.

    A parameter's gradient is gone as soon as its norm is taken, so that there is never
    more than one of them beside the weights. Norms are taken in float64.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        self._parameters = parameters
        self._scale = choose_scale(parameters)
        # by device, so that no parameter waits for the host
        self._squares: dict[torch.device, torch.Tensor] = {}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """While it lasts, `take` can be called."""
        with with_gradients(self._parameters):
            handles = [
                parameter.register_post_accumulate_grad_hook(self._take_square)
                for parameter in self._parameters
            ]
            try:
                yield
            finally:
                for handle in handles:
                    handle.remove()

    def _take_square(self, parameter: torch.Tensor) -> None:
        gradient = parameter.grad
        assert gradient is not None, "it has just been made"
        norm = torch.linalg.vector_norm(gradient, dtype=torch.float64)
        square = norm.square()
        device = gradient.device
        if device in self._squares:
            square = square + self._squares[device]
        self._squares[device] = square
        parameter.grad = None

    def take(self, loss: torch.Tensor) -> float:
        """The norm of a loss' gradient."""
        self._squares = {}
        (self._scale * loss).backward()
        squares = sum(float(square) for square in self._squares.values())
        return math.sqrt(squares) / self._scale
