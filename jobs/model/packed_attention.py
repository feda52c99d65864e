"""Attends within each example of a packed row and never across: what micro-batches
without padding rest on.

A row is several examples, one after the other, with the positions of each starting at
0. On a GPU in half precision torch's own varlen flash kernel does it in one call;
elsewhere each example is a call of its own, which never pays for a mask over the whole
row.

Where examples begin alike, a row may hold what they have in common once: it is then
made of parts, and a part goes on from another one or stands alone. A part that goes on
has the positions that follow, and attends to the other part, which stands alone and
before it, and to itself. That is for evaluation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

NAME = "zsg_packed"


@dataclass(frozen=True)
class Row:
    """How a row is cut. `lengths` are those of its examples and sum to T.

    With `after` they are those of its parts, and after[i] is the part that part i goes
    on from, or −1.
    """

    lengths: Sequence[int]
    after: Sequence[int] | None = None


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
    if query.is_cuda and query.dtype != torch.float32:
        return _in_one_call(query, key, value, scaling, lengths, after, grouped)[
            None
        ], None
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


def _in_one_call(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    lengths: Sequence[int],
    after: Sequence[int] | None,
    grouped: bool,
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    if after is None:
        ends = key_ends = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32).to(
            query.device, non_blocking=True
        )
        longest = longest_keys = max(lengths)
    else:
        ends, key_ends, key_places, longest, longest_keys = _spread(
            tuple(lengths), tuple(after), query.device
        )
        k, v = k[key_places], v[key_places]
    # The kernel aligns the last query with the last key, so a part sees all that it goes on from.
    causal = (-1, 0)
    # Not every torch that we run on can be told; what is not grouped needs no telling.
    options: dict[str, Any] = {"enable_gqa": True} if grouped else {}
    out = varlen_attn(
        q,
        k,
        v,
        ends,
        key_ends,
        longest,
        longest_keys,
        scale=scaling,
        window_size=causal,
        **options,
    )
    assert isinstance(out, torch.Tensor)
    return out


@lru_cache(maxsize=1)  # the same for all layers of a forward
def _spread(
    lengths: tuple[int, ...], after: tuple[int, ...], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int, int]:
    """The ends of the parts' queries and keys, the places of the keys, and the most
    queries and keys of a part.

    A part's keys are those of the part that it goes on from, which are repeated for it,
    and its own.
    """
    starts = [0, *accumulate(lengths)]
    own_keys = [
        torch.arange(start, start + length)
        for start, length in zip(starts, lengths, strict=False)
    ]
    keys = [
        segment_keys if start < 0 else torch.cat([own_keys[start], segment_keys])
        for segment_keys, start in zip(own_keys, after, strict=True)
    ]
    key_lengths = [len(segment_keys) for segment_keys in keys]
    ends, key_ends, key_places = (
        tensor.to(device, non_blocking=True)
        for tensor in (
            torch.tensor(starts, dtype=torch.int32),
            torch.tensor([0, *accumulate(key_lengths)], dtype=torch.int32),
            torch.cat(keys),
        )
    )
    return ends, key_ends, key_places, max(lengths), max(key_lengths)


def stay_out_of_graphs() -> None:
    """For layers that are compiled: attention is a kernel or a call per example, and
    each row is cut in its own way."""
    AttentionInterface.register(NAME, torch.compiler.disable(attend))


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, lambda *unused, **others: None)
