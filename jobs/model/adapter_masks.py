"""Drops what goes into LoRA's adapters by masks that neither ranks nor packing change.

A mask is a function of the seed, the step, the example's place in the batch, the text, the
token's place in it, the layer and the feature: 64 bits are mixed, nothing is drawn from
a generator. So an example has the same masks on one rank as on eight, in a packed row as
alone, when its layers are computed a second time, and on a CPU as on a GPU. The mixing is
the finaliser of SplitMix64 (Steele, Lea and Flood 2014, doi 10.1145/2660193.2660195).
"""

import contextlib
import hashlib
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from zsg_core.errors import ClusterError
from zsg_core.training import tuning

_BITS = 24  # of which a mask is made: shares to the seven-millionth part
_TOP = 64 - _BITS
# odd, of SplitMix64
_STEP, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_ALL = (1 << 64) - 1
# to the right with zeros: torch shifts the sign in
_LOW = {bits: (1 << (64 - bits)) - 1 for bits in (30, 27, 31)}


class MaskKeys:
    """What of the masks of a model's adapters changes from micro-batch to micro-batch.
    Outside of `within` nothing is dropped."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._parts: torch.Tensor | None = None
        self._lengths: list[int] = []
        self._made: dict[int, torch.Tensor] = {}

    @contextlib.contextmanager
    def within(
        self,
        step: int,
        items: Sequence[int],
        texts: Sequence[NDArray[np.int64]],
        device: str,
    ) -> Iterator[None]:
        """Drops, during forward and backward, what step and examples say.

        `items`: the place in the batch of each of `texts`, token ids; an example may have
        several texts, which may be in other micro-batches.
        """
        parts = [
            _mix_numbers(self._seed, step, item, zlib.crc32(text.tobytes()))
            for item, text in zip(items, texts, strict=False)
        ]
        # a micro-batch that only keeps a rank in step has a token and no items
        parts += [0] * (len(texts) - len(parts))
        self._parts = torch.tensor(parts, device=device)
        self._lengths = [len(text) for text in texts]
        try:
            yield
        finally:
            self._parts = None
            self._made = {}

    @property
    def is_dropping(self) -> bool:
        """Whether a micro-batch is under way."""
        return self._parts is not None

    def make_token_keys(self, tokens: int) -> torch.Tensor:
        """A number of 64 bits for each of `tokens` tokens, (tokens,): examples one after
        the other, or each padded on its right to one length. ClusterError for neither."""
        if tokens not in self._made:
            self._made[tokens] = self._make_keys(tokens)
        return self._made[tokens]

    def _make_keys(self, tokens: int) -> torch.Tensor:
        """A 64-bit key for every vector that an adapter is given, (tokens,): the
        example it belongs to and its place within it, so that masks are alike however
        examples are batched.

        `tokens` is either the packed length, examples behind one another without
        padding, or examples × width, padded to one width. Anything else means that the
        model gives its adapters something other than a vector a token (some mixtures of
        experts do), and raises ClusterError.
        """
        assert self._parts is not None, "a micro-batch is under way"
        packed, count = sum(self._lengths), len(self._lengths)
        width, rest = divmod(tokens, count)
        spaces = [width] * count
        if tokens == packed:
            spaces = self._lengths
        elif rest or width < max(self._lengths):
            raise ClusterError(
                f"LoRA's dropout: an adapter is given {tokens} vectors, and the micro-batch has"
                f" {packed} tokens of {count} examples; train without train.tuning.dropout"
            )
        device = self._parts.device
        places = torch.cat([torch.arange(space, device=device) for space in spaces])
        counts = torch.tensor(spaces, device=device)
        return _mix(self._parts.repeat_interleave(counts) + places * _signed(_STEP))


class KeyedMask(nn.Module):
    """Stands where PEFT has a layer's dropout. `share`: of what is set to 0."""

    def __init__(self, keys: MaskKeys, name: str, share: float) -> None:
        super().__init__()
        self.keys, self.share = keys, share
        digest = hashlib.sha256(name.encode()).digest()
        self._layer = int.from_bytes(digest[:8], "little", signed=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x`, (…, features), with a share of its values 0 and the others scaled up, so
        that their mean stays."""
        return _DROP_UNCOMPILED(self, x)

    def drop(self, x: torch.Tensor) -> torch.Tensor:
        """The same, as Python runs it."""
        if not self.keys.is_dropping:
            return x
        dropped = x.masked_fill(self._choose_dropped(x), 0.0)
        return dropped.div_(1.0 - self.share)

    def _choose_dropped(self, x: torch.Tensor) -> torch.Tensor:
        """Which values of `x` are set to 0, bool of its shape.

        Some tokens at a time: what a value's 64 bits are mixed from takes 16 bytes, and
        of all values at once it would be more than what their layer keeps.
        """
        features = x.shape[-1]
        tokens = self.keys.make_token_keys(x.numel() // features).to(x.device)
        places = torch.arange(features, device=x.device)
        of_features = _mix(places * _signed(_STEP) + self._layer)
        chosen = x.new_empty((len(tokens), features), dtype=torch.bool)
        rows = max(1, tuning.MASKED_AT_ONCE[x.device.type] // features)
        for start in range(0, len(tokens), rows):
            some = slice(start, start + rows)
            mixed = _mix_in_place(tokens[some, None] + of_features)
            drawn = mixed.bitwise_right_shift_(_TOP).bitwise_and_((1 << _BITS) - 1)
            torch.lt(drawn, int(self.share * (1 << _BITS)), out=chosen[some])
        return chosen.view(x.shape)


# a compiler would take the keys of one micro-batch for those of all
_DROP_UNCOMPILED: Any = torch.compiler.disable(KeyedMask.drop)


def find_keys(model: nn.Module) -> MaskKeys | None:
    """The keys of a model's masks; None where nothing is dropped."""
    masks = (module for module in model.modules() if isinstance(module, KeyedMask))
    mask = next(masks, None)
    return mask.keys if mask else None


def _mix(numbers: torch.Tensor) -> torch.Tensor:
    """Numbers of 64 bits, int64, each of whose bits hangs on all of the given one's."""
    return _mix_in_place(numbers.clone())


def _mix_in_place(numbers: torch.Tensor) -> torch.Tensor:
    """The same, which take the place of those that are given."""
    shifted = torch.empty_like(numbers)
    for bits, factor in ((30, _FIRST), (27, _SECOND), (31, 1)):
        torch.bitwise_right_shift(numbers, bits, out=shifted)
        shifted.bitwise_and_(_LOW[bits])
        numbers.bitwise_xor_(shifted)
        numbers.mul_(_signed(factor))
    return numbers


def _mix_numbers(*numbers: int) -> int:
    """One number of 64 bits, signed, of several."""
    mixed = 0
    for number in numbers:
        mixed = (mixed + _STEP * (number + 1)) & _ALL
        mixed = (mixed ^ (mixed >> 30)) * _FIRST & _ALL
        mixed = (mixed ^ (mixed >> 27)) * _SECOND & _ALL
        mixed ^= mixed >> 31
    return _signed(mixed)


def _signed(number: int) -> int:
    """The same 64 bits as torch's int64 has them."""
    return number - (1 << 64) if number >> 63 else number
