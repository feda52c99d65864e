"""Describes a decoder of a family that is not known by heart from the names and shapes of
its tensors.

Parameters are exact, and so are the names of what LoRA takes; what a layer keeps for
its backward pass and what it computes are bounds, and told as such.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from math import prod
from typing import Any, cast

from zsg_core.families.sizes import Sizes, is_size
from zsg_core.training.decoder import BOUND, DecoderShape, Names
from zsg_core.training.decoder_layers import (
    ATTENTION,
    BUFFER,
    EXPERT,
    EXPERTS,
    FROZEN,
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
    "hidden_size": (
        "hidden_size",
        "n_embd",
        "d_model",
        "n_embed",
        "dim",
        "dim_model",
    ),
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
        "attention_heads",
    ),
    "num_key_value_heads": ("num_key_value_heads", "num_kv_heads", "n_head_kv"),
    "num_experts_per_tok": ("num_experts_per_tok", "num_experts_per_token", "moe_topk"),
}
EMBEDDING = re.compile(
    r"(^|\.)(embed_tokens|wte|word_embeddings|embed_in|(input_)?embeddings?|tok_embeddings)\.weight$"
)
HEAD = re.compile(r"^(lm_head|embed_out|output|head)\.weight$")
# which predict tokens beyond the next one
FURTHER = re.compile(r"^(model\.)?mtp(_layers)?\.")
BODY_LAYER = re.compile(r"^model\.layers\.(?P<number>\d{1,5})\.")
LAYER = re.compile(r"^(?P<start>.*?\.)(?P<number>\d{1,5})\.(?P<name>.+)$")
OF_EXPERT = re.compile(r"(?<=experts\.)\d{1,5}(?=\.)")
WORDS = {
    # what a class freezes: numbers that are added to experts' scores by other rules than
    # a gradient's (AfMoE, ERNIE 4.5), HRM's first state
    FROZEN: re.compile(
        r"(mlp\.expert_bias|moe_statics\.e_score_correction_bias|(^|\.)z_L_init)$"
    ),
    # stored with the weights, and trained by no gradient
    BUFFER: re.compile(
        r"(e_score_correction_bias|feed_forward\.expert_bias|layer_scalar|slope_rate|balancing_biases"
        r"|(query|key|diagonal)_decay|tid2eid)$"
    ),
    ROUTER: re.compile(r"router|\.gate\.|shared_expert_gate"),
    EXPERTS: re.compile(r"experts\."),
    NORM: re.compile(r"norm|(^|\.)ln_", re.IGNORECASE),
    ATTENTION: re.compile(r"attn|attention|(^|\.)[qkvo]_proj\."),
    MLP: re.compile(r"mlp|ffn|feed_forward|fc\d|dense|(^|\.)(gate|up|down)_proj\."),
    MIXER: re.compile(r"mixer|mamba|conv|recurrent|temporal_block|rwkv|ssm"),
}
SHARED = re.compile(r"shared_expert")
# what older files kept of rotary positions and of masks; transformers computes it
NOT_LOADED = re.compile(
    r"\.rotary_emb\.|(^|\.)(attn|attention)\.(masked_)?bias$|\.attention\.rotary_emb"
)


def shape_of_tensors(
    config: Mapping[str, Any], tensors: Mapping[str, tuple[int, ...]]
) -> DecoderShape:
    """The shape of a model from the tensors of its folder and what its config.json says.

    What lies behind the last layer that config.json counts is no part of it: a class
    leaves layers out that predict further tokens. ValueError where no embedding or no
    layers are found.
    """
    sizes = Sizes("decoder", config, {}, KEYS)
    stored = _list_loaded(sizes, tensors)
    embedding = _find_embedding(sizes, stored)
    vocab, hidden = stored[embedding]
    head = next((name for name in stored if HEAD.search(name)), None)
    start, layers = _find_layers(stored)
    tables = (embedding, head)
    heads = _find_heads(sizes)
    return DecoderShape(
        hidden=hidden,
        intermediate=_find_largest(sizes, "intermediate_size") or 4 * hidden,
        layers=len(layers),
        heads=heads,
        kv_heads=_find_largest(sizes, "num_key_value_heads") or heads,
        head_dim=_find_head_width(sizes, hidden),
        vocab=vocab,
        tied=head is None,
        family=str(config.get("model_type")),
        kinds=_list_kinds(sizes, layers, hidden),
        outside=tuple(
            Weight(name, shape, _find_part(name))
            for name, shape in stored.items()
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


def find_further_layers(config: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Those tensors of a folder that predict tokens beyond the next one, in order: in
    layers behind the last that config.json counts, or of a part of their own (`mtp`).

    transformers leaves them out as it loads a model.
    """
    sizes = Sizes("decoder", config, {}, KEYS)
    further = _find_further(sizes, names)
    return sorted(further)


def _find_further(sizes: Sizes, names: Iterable[str]) -> set[str]:
    """The names of tensors that predict tokens beyond the next one."""
    count = sizes.get("num_hidden_layers")
    more = sizes.get("num_nextn_predict_layers")
    further: set[str] = set()
    for name in names:
        match = BODY_LAYER.match(name)
        if FURTHER.search(name):
            further.add(name)
        elif match and is_size(count) and is_size(more):
            if count <= int(match["number"]) < count + more:
                further.add(name)
    return further


def _list_loaded(
    sizes: Sizes, tensors: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """The tensors that transformers takes of a folder's."""
    further = _find_further(sizes, tensors)
    return {
        name: shape
        for name, shape in tensors.items()
        if name not in further and not NOT_LOADED.search(name)
    }


def _find_largest(sizes: Sizes, key: str) -> int | None:
    """A size, the largest where each layer has its own; None where none is told."""
    value = sizes.get(key)
    if not isinstance(value, list):
        return value if is_size(value) else None
    counts = [count for count in cast("list[Any]", value) if is_size(count)]
    return max(counts, default=None)


def _find_heads(sizes: Sizes) -> int:
    """Heads of queries; one where none are told, as of recurrent layers."""
    return _find_largest(sizes, "num_attention_heads") or 1


def _find_head_width(sizes: Sizes, hidden: int) -> int:
    told = _find_largest(sizes, "head_dim")
    return told or max(1, hidden // _find_heads(sizes))


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
    chosen = _find_largest(sizes, "num_experts_per_tok")
    heads = _find_heads(sizes)
    wide = heads * _find_head_width(sizes, hidden)
    numbers_by_weights: dict[tuple[Weight, ...], list[int]] = {}
    for number, tensors in layers.items():
        weights = _list_weights(tensors, chosen)
        numbers_by_weights.setdefault(weights, []).append(number)
    return tuple(
        LayerKind(
            numbers=tuple(numbers),
            weights=weights,
            saved=_bound_saved(weights, hidden, heads),
            pair_width=4 * wide,
            cache_width=2 * wide,
            has_plain_attention=True,
        )
        for weights, numbers in numbers_by_weights.items()
    )


def _find_embedding(sizes: Sizes, tensors: Mapping[str, tuple[int, ...]]) -> str:
    """The table of tokens: of those called so the one with the most rows; where none is
    called so, the one of the shape that config.json tells."""
    matrices = [name for name, shape in tensors.items() if len(shape) == 2]
    tables = [name for name in matrices if EMBEDDING.search(name)]
    if not tables:
        shape = (sizes.get("vocab_size"), sizes.get("hidden_size"))
        for name in matrices:
            is_alike = tensors[name] == shape
            if is_alike and not HEAD.search(name):
                tables.append(name)
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
        experts = 0
        if EXPERT in name:
            experts = counts[name]
        elif role == EXPERTS and len(shape) > 1:
            # those of a layer are joined in one tensor
            experts = shape[0]
        active = min(chosen or experts, experts)
        weight = Weight(name, shape, role, "", experts, active)
        weights.append(weight)
    return tuple(weights)


def _find_part(name: str) -> str:
    """The role of a weight by its name alone, for a family that zsg does not know.

    What is stored but not trained goes first, whatever else its name says. An expert
    that all tokens share counts as an MLP, but its gate does not. `WORDS` are searched
    in order: the first that fits wins, and OTHER stands for none.
    """
    if stored := next((n for n in (FROZEN, BUFFER) if WORDS[n].search(name)), None):
        return stored
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
