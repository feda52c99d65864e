"""Reads which keys a model's attention lets a query see: all before it, a window of
them, or those of its chunk.

transformers describes that with a function of two places in a text, from which it makes
a mask for its own ways of attending. Some families say it there and nowhere else
(Llama 4, Phi-3.5-MoE), so the function is what is believed. It is tried out on places
around the sizes that it holds, once for each kind of layer, and nothing as large as a
mask of a whole row is ever made.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

import torch

MaskFunction = Callable[..., torch.Tensor]

# Places of a text at which a function is tried, beside those around its sizes.
FIRST_PLACES = range(17)
FAR_PLACES = (1_000_003, 1_000_004)
SIZES_APART = range(1, 4)
STEPS_BESIDE = range(-2, 3)


@dataclass(frozen=True)
class SeenKeys:
    """Which of the keys before it a query sees, itself always among them.

    `window`: so many of the last ones, its own counted; None for all. `chunk`: those
    in its own piece of so many tokens, counted from the text's start; None for all.
    """

    window: int | None = None
    chunk: int | None = None

    def reach_over(self, keys: int) -> "SeenKeys":
        """What of it is felt in a text of so many tokens: nothing where all are seen."""
        is_whole = all(
            size is None or size >= keys for size in (self.window, self.chunk)
        )
        return ALL_KEYS if is_whole else self

    def make_mask(
        self, queries: int, keys: int, device: torch.device | str
    ) -> torch.Tensor:
        """(queries, keys) of bool, True where a key is seen. The queries are the last
        of the keys."""
        before = keys - queries
        places = torch.arange(keys, device=device)
        return self.show(places[before:, None], places[None, :])

    def show(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Whether the query at each place sees the key at each: a mask by broadcasting."""
        seen = keys <= queries
        if self.window is not None:
            seen = seen & (keys > queries - self.window)
        if self.chunk is not None:
            seen = seen & (keys // self.chunk == queries // self.chunk)
        return seen


ALL_KEYS = SeenKeys()


@dataclass(frozen=True)
class UnknownMask:
    """A rule that a packed row cannot be cut for, and why: an error where a layer
    attends by it. Some families describe rules that no layer of theirs uses."""

    why: str


# What each kind of function was found to be. Functions of one kind hold the same code
# and the same sizes, and no tensor by which they could differ.
_known: dict[tuple[Any, ...], SeenKeys | UnknownMask] = {}


def read_mask(
    *, mask_function: MaskFunction, device: torch.device | str, **_others: Any
) -> SeenKeys | UnknownMask:
    """What transformers hands to each layer for a mask, where zsg attends.

    The interface is that of transformers.masking_utils.AttentionMaskInterface.
    """
    values = _list_held_values(mask_function)
    sizes = [value for value in values if isinstance(value, int)]
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    # One number for the whole text is left padding, of which a packed row has none.
    # More of them are of single tokens: what is true of one text would not be of another.
    if any(tensor.numel() > 1 for tensor in tensors):
        return UnknownMask("depends on the text")
    kind = tuple(map(_make_key, values))
    if kind not in _known:
        tried_on = device if tensors else "cpu"
        _known[kind] = _recognize(mask_function, sizes, tried_on)
    return _known[kind]


def _recognize(
    mask_function: MaskFunction, sizes: list[int], device: torch.device | str
) -> SeenKeys | UnknownMask:
    """The one of all keys, a window, and a chunk that the function is everywhere where
    it is tried."""
    candidates = [ALL_KEYS]
    for size in sorted(set(sizes)):
        if size > 0:
            candidates += [SeenKeys(window=size), SeenKeys(chunk=size)]
    tried = torch.tensor(_choose_places(sizes), device=device)
    queries, keys = tried[None, None, :, None], tried[None, None, None, :]
    first = torch.zeros(1, 1, 1, 1, dtype=torch.long, device=device)
    try:
        seen = mask_function(first, first, queries, keys)
    except (IndexError, RuntimeError, TypeError, ValueError):
        return UnknownMask("cannot be tried out")
    for candidate in candidates:
        expected = candidate.show(queries, keys)
        if torch.equal(expected, seen.broadcast_to(expected.shape)):
            return candidate
    return UnknownMask("is neither all keys before, nor a window, nor a chunk")


def _choose_places(sizes: list[int]) -> list[int]:
    """Places near a text's start, far from it, and on both sides of what each size cuts."""
    near = [
        size * times + step
        for size in sizes
        for times in SIZES_APART
        for step in STEPS_BESIDE
    ]
    return sorted(
        {place for place in (*FIRST_PLACES, *FAR_PLACES, *near) if place >= 0}
    )


def _list_held_values(function: object) -> list[object]:
    """The code of a function and what it holds, through all functions that it holds."""
    if not isinstance(function, FunctionType):
        return [function]
    values: list[object] = [function.__code__]
    for cell in function.__closure__ or ():
        content = cell.cell_contents
        contents = content if isinstance(content, tuple) else (content,)
        for inner in contents:
            values += _list_held_values(inner)
    return values


def _make_key(value: object) -> object:
    """By what two held values are the same for a mask: a tensor is the one number of
    the left padding, and another object is nobody's but its own."""
    if isinstance(value, torch.Tensor):
        return torch.Tensor
    if isinstance(value, (CodeType, int, float, str, type(None))):
        return value
    return object()
