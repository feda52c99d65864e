"""Describes a decoder of a family that is not known by heart from the names and shapes of
its tensors.

Parameters are exact, and so are the names of what LoRA takes; what a layer keeps for
its backward pass and what it computes are bounds, and told as such.
"""

import re
from collections.abc import Collection, Mapping
from math import prod
from typing import Any

from zsg_core.families.sizes import Sizes
from zsg_core.training.decoder import BOUND, DecoderShape, Names
from zsg_core.training.decoder_layers import (
    ATTENTION,
    EXPERT,
    EXPERTS,
    MIXER,
    MLP,
    NORM,
    OTHER,
    ROUTER,
    LayerKind,
    Saved,
    Weight,
)

# how configs call what a Llama's calls so
KEYS = {
    "hidden_size": ("hidden_size", "n_embd", "d_model", "n_embed", "dim"),
    "num_hidden_layers": (
        "num_hidden_layers",
        "n_layer",
        "num_layers",
        "n_layers",
    ),
    "num_attention_heads": (
        "num_attention_heads",
        "n_head",
        "num_heads",
        "n_heads",
    ),
    "num_key_value_heads": ("num_key_value_heads", "num_kv_heads", "n_head_kv"),
    "num_experts_per_tok": ("num_experts_per_tok", "num_experts_per_token", "moe_topk"),
}
EMBEDDING = re.compile(
    r"(^|\.)(embed_tokens|wte|word_embeddings|embed_in|embeddings?|tok_embeddings)\.weight$"
)
HEAD = re.compile(r"^(lm_head|embed_out|output|head)\.weight$")
LAYER = re.compile(r"^(?P<start>.*?\.)(?P<number>\d{1,5})\.(?P<name>.+)$")
OF_EXPERT = re.compile(r"(?<=experts\.)\d{1,5}(?=\.)")
WORDS = {
    ROUTER: re.compile(r"router|\.gate\.|shared_expert_gate"),
    EXPERTS: re.compile(r"experts\."),
    NORM: re.compile(r"norm|(^|\.)ln_", re.IGNORECASE),
    ATTENTION: re.compile(r"attn|attention|(^|\.)[qkvo]_proj\."),
    MLP: re.compile(r"mlp|ffn|feed_forward|fc\d|dense|(^|\.)(gate|up|down)_proj\."),
    MIXER: re.compile(r"mixer|mamba|conv|recurrent|temporal_block|rwkv|ssm"),
}
SHARED = re.compile(r"shared_expert")


def shape_of_tensors(
    config: Mapping[str, Any], tensors: Mapping[str, tuple[int, ...]]
) -> DecoderShape:
    """The shape of a model from the tensors of its folder and what its config.json says.

    ValueError where no embedding, no layers or no sizes are found.
    """
    sizes = Sizes("decoder", config, {}, KEYS)
    embedding = _find_embedding(tensors)
    vocab, hidden = tensors[embedding]
    head = next((name for name in tensors if HEAD.search(name)), None)
    start, layers = _find_layers(tensors)
    tables = (embedding, head)
    return DecoderShape(
        hidden=hidden,
        intermediate=sizes.optional("intermediate_size") or 4 * hidden,
        layers=len(layers),
        heads=sizes.heads,
        kv_heads=sizes.kv_heads,
        head_dim=_find_head_width(sizes, hidden),
        vocab=vocab,
        tied=head is None,
        family=str(config.get("model_type")),
        kinds=_list_kinds(sizes, layers, hidden),
        outside=tuple(
            Weight(name, shape, _find_part(name))
            for name, shape in tensors.items()
            if name not in tables and not _is_within(name, start, layers)
        ),
        names=Names(
            embedding=embedding,
            layer=start + "{layer}.",
            head=head or "lm_head.weight",
            prefix=start.partition(".")[0] + ".",
        ),
        known=BOUND,
    )


def _find_head_width(sizes: Sizes, hidden: int) -> int:
    return sizes.optional("head_dim") or max(1, hidden // sizes.heads)


def _is_within(name: str, start: str, layers: Collection[int]) -> bool:
    """Whether a tensor stands in one of the layers."""
    match = LAYER.match(name)
    return (
        match is not None and match["start"] == start and int(match["number"]) in layers
    )


def _list_kinds(
    sizes: Sizes, layers: Mapping[int, Mapping[str, tuple[int, ...]]], hidden: int
) -> tuple[LayerKind, ...]:
    """The layers in kinds of the same tensors, with bounds of what they take."""
    chosen = sizes.optional("num_experts_per_tok")
    wide = sizes.heads * _find_head_width(sizes, hidden)
    numbers_by_weights: dict[tuple[Weight, ...], list[int]] = {}
    for number, tensors in layers.items():
        weights = _list_weights(tensors, chosen)
        numbers_by_weights.setdefault(weights, []).append(number)
    return tuple(
        LayerKind(
            numbers=tuple(numbers),
            weights=weights,
            saved=_bound_saved(weights, hidden, sizes.heads),
            pair_width=4 * wide,
            cache_width=2 * wide,
            has_plain_attention=True,
        )
        for weights, numbers in numbers_by_weights.items()
    )


def _find_embedding(tensors: Mapping[str, tuple[int, ...]]) -> str:
    """The table of tokens: of those called so the one with the most rows."""
    tables = [
        name
        for name, shape in tensors.items()
        if EMBEDDING.search(name) and len(shape) == 2
    ]
    if not tables:
        raise ValueError("no embedding of tokens is found among the weights")
    return max(tables, key=lambda name: tensors[name][0])


def _find_layers(
    tensors: Mapping[str, tuple[int, ...]],
) -> tuple[str, dict[int, dict[str, tuple[int, ...]]]]:
    """What stands before the number of a layer, and each layer's tensors by the rest of
    their names: the numbered parts with the most elements."""
    by_start: dict[str, dict[int, dict[str, tuple[int, ...]]]] = {}
    counts: dict[str, int] = {}
    for name, shape in tensors.items():
        match = LAYER.match(name)
        if match is None:
            continue
        start, number = match["start"], int(match["number"])
        by_start.setdefault(start, {}).setdefault(number, {})[match["name"]] = shape
        counts[start] = counts.get(start, 0) + prod(shape)
    if not by_start:
        raise ValueError("no numbered layers are found among the weights")
    largest = max(counts, key=counts.__getitem__)
    return largest, dict(sorted(by_start[largest].items()))


def _list_weights(
    found: Mapping[str, tuple[int, ...]], chosen: int | None
) -> tuple[Weight, ...]:
    """A layer's weights, those of experts that are called alike as one."""
    counts: dict[str, int] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in found.items():
        common = OF_EXPERT.sub(EXPERT, name, count=1)
        counts[common] = counts.get(common, 0) + 1
        shapes[common] = shape
    weights: list[Weight] = []
    for name, shape in sorted(shapes.items()):
        role = _find_part_in_layer(name, shape)
        experts = counts[name] if EXPERT in name else 0
        if not experts and role == EXPERTS and len(shape) > 1:
            experts = shape[0]
        weights.append(
            Weight(name, shape, role, "", experts, min(chosen or experts, experts))
        )
    return tuple(weights)


def _find_part(name: str) -> str:
    if SHARED.search(name) and "gate." not in name:
        return MLP
    return next((role for role, words in WORDS.items() if words.search(name)), OTHER)


def _find_part_in_layer(name: str, shape: tuple[int, ...]) -> str:
    """What a weight does in its layer. A matrix of a name that tells nothing is an MLP's,
    as the nodes take it."""
    part = _find_part(name)
    if part == OTHER and len(shape) == 2 and name.endswith(".weight"):
        return MLP
    return part


def _bound_saved(weights: tuple[Weight, ...], hidden: int, heads: int) -> Saved:
    """A bound of what a layer keeps of a token: what enters and leaves each matrix, twice
    in the training's precision and once as float32, and eight norms."""
    widths = 0
    for weight in weights:
        if len(weight.shape) < 2:
            continue
        tensors = weight.chosen or 1
        widths += tensors * sum(weight.shape[-2:])
    return Saved(2 * widths, widths // 2 + 8 * hidden + 2 * heads + 8)
