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

Families differ in what else their attention does: a window of keys, chunks, scores that
are capped, sinks beside them. All of that is done as it is asked for, and what is not
known is refused: a keyword that is passed over in silence is a model that trains
wrongly.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface

from jobs.model.attention_masks import ALL_KEYS, SeenKeys, UnknownMask, read_mask
from jobs.model.transfer import send_integers
from zsg_core.errors import UserError
from zsg_core.training.attention_kernel import LARGEST_HEAD

NAME = "zsg_packed"
# of heads that the kernel takes (aten/native/transformers/cuda/flash_attn/flash_api.cpp)
HEAD_STEP = 8

# Keywords that change no attention, whatever they say; and those that do not if they say this.
SAYS_NOTHING = {
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "position_ids",
    "return_dict",
    "use_cache",
}
SAYS_NOTHING_IF = {"dropout": 0.0, "is_causal": True}


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
        """See the class. The cuts are made when a layer first asks for them and are
        then shared by all layers of the pass, by device and width of the window."""
        self.lengths, self.after = lengths, after
        self._cuts: dict[tuple[torch.device, int | None], Cut] = {}

    def cut_on(self, device: torch.device, chunk: int | None = None) -> Cut:
        """The row's cut on a device, its examples in chunks where they are seen in them.
        It is made for the first layer there and serves all."""
        if (device, chunk) not in self._cuts:
            lengths = self.lengths if chunk is None else cut_up(self.lengths, chunk)
            self._cuts[device, chunk] = make_cut(lengths, self.after, device)
        return self._cuts[device, chunk]

    def count_longest_keys(self) -> int:
        """The most keys that a part has: its own, and those that it goes on from."""
        starts = self.after or [-1] * len(self.lengths)
        return max(
            length + (0 if start < 0 else self.lengths[start])
            for length, start in zip(self.lengths, starts, strict=True)
        )


@dataclass(frozen=True)
class Rule:
    """How a layer attends: which keys are seen, and what becomes of a score.

    `scaling`: what products are multiplied with. `softcap`: scores stay below it, by a
    tanh. `sinks`: (H,), a score of each head that takes part in its softmax and gives
    nothing.
    """

    scaling: float
    seen: SeenKeys
    softcap: float | None = None
    sinks: torch.Tensor | None = None

    @property
    def changes_scores(self) -> bool:
        """Whether it is more than products under a softmax."""
        return self.softcap is not None or self.sinks is not None


def make_inputs(
    tokens: torch.Tensor, positions: torch.Tensor, row: Row
) -> dict[str, Any]:
    """What a model's body takes a packed row with: keywords. `tokens`, `positions`: (T,).

    The mask of ones keeps transformers from looking for examples in the positions, for
    which the host would wait, and which not all families hand over.
    """
    return {
        "input_ids": tokens[None],
        "position_ids": positions[None],
        "attention_mask": torch.ones_like(tokens)[None],
        "use_cache": False,
        "row": row,
    }


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: SeenKeys | UnknownMask | None,
    scaling: float | None = None,
    *,
    row: Row,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention of `query` (1, H, T, D) over `key` and `value` (1, H', T, D');
    returns (1, T, H, D').

    The interface is transformers'. `attention_mask` is what read_mask has read; without
    it `sliding_window` is believed. Raises UserError for a keyword that it does not know.
    """
    _refuse_others(others)
    seen = _choose_seen(attention_mask, sliding_window, row)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    rule = Rule(scale, seen, softcap, s_aux)
    if _is_one_call(query, value, rule, row):
        cut = row.cut_on(query.device, seen.chunk)
        return _in_one_call(query, key, value, rule, cut)[None], None
    return _part_by_part(query, key, value, rule, row), None


def _refuse_others(others: Mapping[str, Any]) -> None:
    """Raises UserError for what would change attention if it were listened to: silence
    about a keyword has been wrong results."""
    for name, value in others.items():
        if value is None or name in SAYS_NOTHING:
            continue
        if name in SAYS_NOTHING_IF and SAYS_NOTHING_IF[name] == value:
            continue
        raise UserError(
            f"this model's attention is told {name}, which zsg's attention over packed"
            " examples does not know, so its results would be wrong"
        )


def _choose_seen(
    read: SeenKeys | UnknownMask | None, sliding_window: int | None, row: Row
) -> SeenKeys:
    """What of the layer's own rule is felt in a row. UserError for a mask that was made
    in another way."""
    if read is None:
        read = SeenKeys(window=sliding_window)
    if isinstance(read, UnknownMask):
        raise UserError(
            "this model's attention sees keys by a rule that packed examples cannot be cut for:"
            f" it {read.why}"
        )
    if not isinstance(read, SeenKeys):
        raise UserError(
            f"this model makes its attention's mask on its own (a {type(read).__name__}), so"
            " packed examples would see each other"
        )
    if read == ALL_KEYS:
        return read
    return read.reach_over(row.count_longest_keys())


def _is_one_call(
    query: torch.Tensor, value: torch.Tensor, rule: Rule, row: Row
) -> bool:
    """Whether torch's kernel does all of it, its gradients right.

    It has no cap of scores, and its backward drops what sinks would need. A part that
    goes on from another may begin within a chunk.
    """
    if rule.changes_scores or not (uses_kernel(query) and uses_kernel(value)):
        return False
    return rule.seen.chunk is None or row.after is None


def _part_by_part(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rule: Rule, row: Row
) -> torch.Tensor:
    """Attention of each part of a row by a call of its own. The answer is (1, T, H, D')."""
    queries, keys, values = (
        tensor.split(list(row.lengths), dim=2) for tensor in (query, key, value)
    )
    starts = row.after or [-1] * len(row.lengths)
    outputs = []
    for q, k, v, start in zip(queries, keys, values, starts, strict=True):
        if start >= 0:
            k = torch.cat([keys[start], k], dim=2)
            v = torch.cat([values[start], v], dim=2)
        outputs.append(_attend_alone(q, k, v, rule))
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous()


def _attend_alone(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rule: Rule
) -> torch.Tensor:
    """Attention of one part's queries, the last of its keys: (1, H, n, D')."""
    queries, keys = query.shape[2], key.shape[2]
    seen = rule.seen.reach_over(keys)
    if rule.changes_scores:
        mask = seen.make_mask(queries, keys, query.device)
        return _attend_by_products(query, key, value, rule, mask)
    attended = nn.functional.scaled_dot_product_attention
    grouped = query.shape[1] != key.shape[1]
    if queries == keys and seen == ALL_KEYS:
        return attended(
            query,
            key,
            value,
            is_causal=True,
            scale=rule.scaling,
            enable_gqa=grouped,
        )
    # Not `is_causal`: that lets the first query see one key, not the whole prefix.
    mask = seen.make_mask(queries, keys, query.device)
    return attended(
        query, key, value, attn_mask=mask, scale=rule.scaling, enable_gqa=grouped
    )


def _attend_by_products(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    rule: Rule,
    mask: torch.Tensor,
) -> torch.Tensor:
    """Attention written out, for scores that are capped or have sinks beside them.

    The softmax is in float32. `mask`: (queries, keys) of bool.
    """
    groups = query.shape[1] // key.shape[1]
    key = key.repeat_interleave(groups, dim=1)
    value = value.repeat_interleave(groups, dim=1)
    scores = query @ key.transpose(2, 3) * rule.scaling
    if rule.softcap is not None:
        scores = rule.softcap * torch.tanh(scores / rule.softcap)
    scores = scores.float().masked_fill(~mask, -torch.inf)
    if rule.sinks is not None:
        sinks = rule.sinks.float().view(1, -1, 1, 1)
        sinks = sinks.expand(*scores.shape[:3], 1)
        scores = torch.cat([scores, sinks], dim=-1)
    shares = scores.softmax(dim=-1)[..., : key.shape[2]]
    return shares.to(value.dtype) @ value


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
    rule: Rule,
    cut: Cut,
) -> torch.Tensor:
    """Attention of all parts of a row by torch's varlen kernel. `query`: (1, heads, T,
    D); the answer is (T, heads, D')."""
    from torch.nn.attention.varlen import varlen_attn

    # Keys and values may be of two sizes (DeepSeek's); the kernel takes one.
    size = max(query.shape[-1], value.shape[-1])
    q, k, v = (
        fill_heads(tensor[0].transpose(0, 1), size) for tensor in (query, key, value)
    )
    if cut.key_places is not None:
        k, v = k[cut.key_places], v[cut.key_places]
    # The kernel aligns the last query with the last key, so a part sees all that it goes on from.
    # Of a window it wants the keys beside the query's own.
    before = -1 if rule.seen.window is None else rule.seen.window - 1
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
        scale=rule.scaling,
        window_size=(before, 0),
        **options,
    )
    assert isinstance(out, torch.Tensor)
    return out[..., : value.shape[-1]]


def fill_heads(tensor: torch.Tensor, size: int) -> torch.Tensor:
    """(T, H, D) with zeros behind each head, up to a size or the next that the kernel
    takes."""
    filled = size + -size % HEAD_STEP
    lacking = filled - tensor.shape[-1]
    return nn.functional.pad(tensor, (0, lacking)) if lacking else tensor


def cut_up(lengths: Sequence[int], chunk: int) -> list[int]:
    """The lengths of the chunks of texts of these lengths, in order."""
    return [
        min(chunk, length - start)
        for length in lengths
        for start in range(0, length, chunk)
    ]


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


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, read_mask)
