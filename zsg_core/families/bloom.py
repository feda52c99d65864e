"""BLOOM and Falcon: projections in one matrix under `transformer.h`."""

from zsg_core.families.gpt import THRICE, saved_by_gpt2
from zsg_core.families.layers import (
    FusedNames,
    fused_attention,
    gather_kinds,
    last_norm,
    make_kind,
    plain_mlp,
)
from zsg_core.families.registry import Layers, family
from zsg_core.families.sizes import Sizes
from zsg_core.training.decoder import Names
from zsg_core.training.decoder_layers import LayerKind, Weight, norm_weights

NAMES = Names(
    embedding="transformer.word_embeddings.weight",
    layer="transformer.h.{layer}.",
    prefix="transformer.",
)
MLP_NAMES = "dense_h_to_4h", "dense_4h_to_h"
PROJECTIONS = "self_attention", "query_key_value", "dense"


@family(
    "bloom",
    "BloomForCausalLM",
    defaults={
        "tie_word_embeddings": True,
        "intermediate_size": None,
        # ALiBi has no positions of its own; by it BLOOM was trained on so many
        "max_position_embeddings": 2048,
    },
    keys={
        "hidden_size": ("n_embed", "hidden_size"),
        "num_hidden_layers": ("n_layer", "num_hidden_layers"),
        "num_attention_heads": ("n_head", "num_attention_heads"),
        "intermediate_size": (),
        "max_position_embeddings": ("seq_length",),
    },
)
def lay_out_bloom(sizes: Sizes) -> Layers:
    """BLOOM: a norm behind the embedding, biases everywhere."""
    names = FusedNames(*PROJECTIONS, THRICE)
    weights = fused_attention(sizes, 3 * sizes.hidden, names, bias=True)
    weights += plain_mlp(sizes, MLP_NAMES, bias=True)
    norms = "input_layernorm", "post_attention_layernorm"
    weights += norm_weights(norms, sizes.hidden, bias=True)

    def describe(_number: int) -> LayerKind:
        return make_kind(sizes, weights, saved_by_gpt2(sizes), has_plain_attention=True)

    of_embedding = "transformer.word_embeddings_layernorm"
    outside = norm_weights((of_embedding, "transformer.ln_f"), sizes.hidden, bias=True)
    return Layers(
        kinds=gather_kinds(sizes, describe), outside=tuple(outside), names=NAMES
    )


@family(
    "falcon",
    "FalconForCausalLM",
    defaults={
        "tie_word_embeddings": True,
        "intermediate_size": None,
        "max_position_embeddings": 2048,
        "multi_query": True,
        "parallel_attn": True,
    },
    keys={
        "hidden_size": ("n_embed", "hidden_size"),
        "num_hidden_layers": ("num_hidden_layers", "n_layer"),
        "num_attention_heads": ("num_attention_heads", "n_head"),
        "num_key_value_heads": ("num_kv_heads", "n_head_kv"),
        "intermediate_size": ("ffn_hidden_size",),
    },
)
def lay_out_falcon(sizes: Sizes) -> Layers:
    """Falcon: of the newer ones groups of heads share a key, of the older ones all do."""
    keys = _count_key_heads(sizes)
    rows = sizes.queries + 2 * keys * sizes.head_dim
    bias = sizes.flag("bias")
    names = FusedNames(*PROJECTIONS)
    weights = fused_attention(sizes, rows, names, bias=bias)
    weights += plain_mlp(sizes, MLP_NAMES, bias=bias)
    weights += norm_weights(_list_norms(sizes), sizes.hidden, bias=True)

    def describe(_number: int) -> LayerKind:
        return LayerKind(
            numbers=(),
            weights=tuple(weights),
            saved=saved_by_gpt2(sizes),
            pair_width=2 * sizes.queries,
            cache_width=2 * keys * sizes.head_dim,
            has_plain_attention=True,
        )

    outside: tuple[Weight, ...] = last_norm(sizes, "transformer.ln_f", bias=True)
    return Layers(kinds=gather_kinds(sizes, describe), outside=outside, names=NAMES)


def _count_key_heads(sizes: Sizes) -> int:
    if sizes.flag("new_decoder_architecture"):
        return sizes.kv_heads
    return 1 if sizes.flag("multi_query") else sizes.heads


def _list_norms(sizes: Sizes) -> tuple[str, ...]:
    """Newer Falcons have a norm for attention and one for the MLP; older ones share it
    where both stand side by side."""
    is_new = sizes.flag("new_decoder_architecture")
    if not sizes.flag("parallel_attn"):
        return "post_attention_layernorm", "input_layernorm"
    count = sizes.optional("num_ln_in_parallel_attn") or (2 if is_new else 1)
    return ("ln_attn", "ln_mlp") if count == 2 else ("input_layernorm",)
