"""Attends within each example of a packed row and never across: what micro-batches without padding rest on.

A row is several examples, one after the other, with the positions of each starting at 0. On a GPU in half
precision torch's own varlen flash kernel does it in one call; elsewhere each example is a call of its own, which
never pays for a mask over the whole row.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

NAME = "zsg_packed"


def attend(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: None,
    scaling: float | None = None, *, lengths: Sequence[int], **unused: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Causal attention of `query` (1, H, T, D) over `key` and `value` (1, H', T, D); returns (1, T, H, D).

    `lengths` are those of the examples in the row and sum to T. The interface is transformers'.
    """
    grouped = query.shape[1] != key.shape[1]
    if query.is_cuda and query.dtype != torch.float32:
        return _in_one_call(query, key, value, scaling, lengths, grouped)[None], None
    parts = zip(*(tensor.split(list(lengths), dim=2) for tensor in (query, key, value)), strict=True)
    done = [
        nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=grouped)
        for q, k, v in parts
    ]
    return torch.cat(done, dim=2).transpose(1, 2).contiguous(), None


def _in_one_call(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None, lengths: Sequence[int],
    grouped: bool,
) -> torch.Tensor:  # fmt: skip
    from torch.nn.attention.varlen import varlen_attn

    ends = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32).to(query.device, non_blocking=True)
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    longest = max(lengths)
    causal = (-1, 0)
    out = varlen_attn(q, k, v, ends, ends, longest, longest, scale=scaling, window_size=causal, enable_gqa=grouped)
    assert isinstance(out, torch.Tensor)
    return out


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, lambda *unused, **others: None)
