"""Attends within each example of a packed row and never across: what micro-batches
without padding rest on.

A row is several examples, one after the other, with the positions of each starting at
0. On a GPU in half precision torch's own varlen flash kernel does it in one call;
elsewhere each example is a call of its own, which never pays for a mask over the whole
row. The kernel takes heads of up to 256 whose size is a multiple of 8: others are
filled up with zeros, which change no product, and larger ones are done as elsewhere.

Where examples begin alike, a row may hold what they have in common once: it is then
made of parts, and a part goes on from another one or stands alone. A part that goes on
has the positions that follow, and attends to the other part, which stands alone and
before it, and to itself. That is for evaluation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AttentionInterface

from jobs.model.transfer import send_integers

NAME = "zsg_packed"
# of heads that the kernel takes (aten/native/transformers/cuda/flash_attn/flash_api.cpp)
HEAD_STEP, LARGEST_HEAD = 8, 256


@dataclass(frozen=True)
class Cut:
    """Where a row is cut, as the kernel takes it, on its device: the ends of the parts'
    queries and keys, (N + 1,) int32, and the most queries and keys of a part.

    `key_places`: the places of the parts' keys in the row; None where they are those of
    the queries.
    """

    ends: torch.Tensor
    key_ends: torch.Tensor
    longest: int
    longest_keys: int
    key_places: torch.Tensor | None = None


class Row:
    """How a row is cut. `lengths` are those of its examples and sum to T.

    With `after` they are those of its parts, and after[i] is the part that part i goes
    on from, or −1. A row is of one forward pass.
    """

    def __init__(
        self, lengths: Sequence[int], after: Sequence[int] | None = None
    ) -> None:
        self.lengths, self.after = lengths, after
        self._cuts: dict[torch.device, Cut] = {}

    def cut_on(self, device: torch.device) -> Cut:
        """The row's cut on a device. It is made for the first layer there and serves all."""
        if device not in self._cuts:
            self._cuts[device] = make_cut(self.lengths, self.after, device)
        return self._cuts[device]


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    scaling: float | None = None,
    *,
    row: Row,
    **unused: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention of `query` (1, H, T, D) over `key` and `value` (1, H', T, D);
    returns (1, T, H, D).

    The interface is transformers'.
    """
    lengths, after = row.lengths, row.after
    grouped = query.shape[1] != key.shape[1]
    if uses_kernel(query):
        cut = row.cut_on(query.device)
        attended = _in_one_call(query, key, value, scaling, cut)
        return attended[None], None
    if after is not None:
        return _part_by_part(query, key, value, scaling, lengths, after, grouped), None
    segments = zip(
        *(tensor.split(list(lengths), dim=2) for tensor in (query, key, value)),
        strict=True,
    )
    attended = [
        nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scaling, enable_gqa=grouped
        )
        for q, k, v in segments
    ]
    return torch.cat(attended, dim=2).transpose(1, 2).contiguous(), None


def _part_by_part(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    lengths: Sequence[int],
    after: Sequence[int],
    grouped: bool,
) -> torch.Tensor:
    queries, keys, values = (
        tensor.split(list(lengths), dim=2) for tensor in (query, key, value)
    )
    attended = nn.functional.scaled_dot_product_attention
    outputs = []
    for q, k, v, start in zip(queries, keys, values, after, strict=True):
        if start < 0:
            outputs.append(
                attended(q, k, v, is_causal=True, scale=scaling, enable_gqa=grouped)
            )
            continue
        k, v = torch.cat([keys[start], k], dim=2), torch.cat([values[start], v], dim=2)
        # Not `is_causal`: that lets the first query see one key, not the whole prefix.
        seen = torch.ones(
            q.shape[2], k.shape[2], dtype=torch.bool, device=q.device
        ).tril(k.shape[2] - q.shape[2])
        outputs.append(
            attended(q, k, v, attn_mask=seen, scale=scaling, enable_gqa=grouped)
        )
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous()


def uses_kernel(query: torch.Tensor) -> bool:
    """Whether queries are where the kernel is, and it takes them."""
    return query.is_cuda and fits_kernel(query)


def fits_kernel(query: torch.Tensor) -> bool:
    """Whether the kernel takes queries of this type and size of head, filled up or not."""
    return query.dtype != torch.float32 and query.shape[-1] <= LARGEST_HEAD


def _in_one_call(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    cut: Cut,
) -> torch.Tensor:
    """Attention of all parts of a row by torch's varlen kernel. `query`: (1, heads, T,
    D); the answer is (T, heads, D)."""
    from torch.nn.attention.varlen import varlen_attn

    size = query.shape[-1]
    q, k, v = (fill_heads(tensor[0].transpose(0, 1)) for tensor in (query, key, value))
    if cut.key_places is not None:
        k, v = k[cut.key_places], v[cut.key_places]
    # The kernel aligns the last query with the last key, so a part sees all that it goes on from.
    causal = (-1, 0)
    # Not every torch that we run on can be told; what is not grouped needs no telling.
    is_grouped = query.shape[1] != key.shape[1]
    options: dict[str, Any] = {"enable_gqa": True} if is_grouped else {}
    out = varlen_attn(
        q,
        k,
        v,
        cut.ends,
        cut.key_ends,
        cut.longest,
        cut.longest_keys,
        # of a head as it is: the kernel would take the size that it is filled up to
        scale=size**-0.5 if scaling is None else scaling,
        window_size=causal,
        **options,
    )
    assert isinstance(out, torch.Tensor)
    return out[..., :size]


def fill_heads(tensor: torch.Tensor) -> torch.Tensor:
    """(T, H, D) with zeros behind each head, up to the next size that the kernel takes."""
    lacking = -tensor.shape[-1] % HEAD_STEP
    return nn.functional.pad(tensor, (0, lacking)) if lacking else tensor


def make_cut(
    lengths: Sequence[int], after: Sequence[int] | None, device: torch.device
) -> Cut:
    """The cut of a row of examples, or of parts that go on from others, by one copy.

    A part's keys are those of the part that it goes on from, which are repeated for it,
    and its own.
    """
    starts = [0, *accumulate(lengths)]
    if after is None:
        ends = send_integers(device, starts)[0].int()
        return Cut(ends, ends, max(lengths), max(lengths))
    own_keys = [np.arange(*bounds) for bounds in pairwise(starts)]
    keys = [
        segment_keys if start < 0 else np.concatenate([own_keys[start], segment_keys])
        for segment_keys, start in zip(own_keys, after, strict=True)
    ]
    key_lengths = list(map(len, keys))
    ends, key_ends, key_places = send_integers(
        device, starts, [0, *accumulate(key_lengths)], np.concatenate(keys)
    )
    return Cut(ends.int(), key_ends.int(), max(lengths), max(key_lengths), key_places)


def stay_out_of_graphs() -> None:
    """For layers that are compiled: attention is a kernel or a call per example, and
    each row is cut in its own way."""
    AttentionInterface.register(NAME, torch.compiler.disable(attend))


# Without a mask of its name transformers makes none, and does not look at the positions,
# for which the host would wait.
AttentionInterface.register(NAME, attend)
