"""Gemma 1, 2 and 3: norms that compute in float32, tied tables, and a vocabulary of 256
thousand words."""

from zsg_core.families.layers import (
    attention,
    gated_mlp,
    gather_kinds,
    head_norms,
    last_norm,
    make_kind,
    saved_by_head_norms,
    two_norms,
)
from zsg_core.families.registry import Layers, family
from zsg_core.families.sizes import Sizes
from zsg_core.training.decoder_layers import LayerKind, Saved, Weight, norm_weights

COMMON = {"tie_word_embeddings": True, "head_dim": 256, "num_key_value_heads": 4}
FOUR_NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)


def _saved(sizes: Sizes, norms: int) -> Saved:
    """What a layer with so many of Gemma's norms keeps: the input of each as float32,
    and normalised as float32; the outputs of two as they enter a matrix."""
    elements = 2 * sizes.hidden + 2 * sizes.queries + 2 * sizes.keys
    elements += 4 * sizes.intermediate
    return Saved(elements, norms * (2 * sizes.hidden + 1) + sizes.heads)


def _projections(sizes: Sizes) -> list[Weight]:
    bias = sizes.flag("attention_bias")
    return attention(sizes, bias=bias, output_bias=bias) + gated_mlp(sizes)


@family(
    "gemma",
    "GemmaForCausalLM",
    defaults={**COMMON, "max_position_embeddings": 8192, "num_key_value_heads": 16},
)
def lay_out_gemma(sizes: Sizes) -> Layers:
    """Gemma 1."""
    weights = _projections(sizes) + two_norms(sizes)

    def describe(_number: int) -> LayerKind:
        return make_kind(sizes, weights, _saved(sizes, 2))

    return Layers(kinds=gather_kinds(sizes, describe), outside=last_norm(sizes))


@family(
    "gemma2",
    "Gemma2ForCausalLM",
    defaults={
        **COMMON,
        "max_position_embeddings": 8192,
        "sliding_window": 4096,
        "attn_logit_softcapping": 50.0,
    },
)
def lay_out_gemma2(sizes: Sizes) -> Layers:
    """Gemma 2: four norms, a window in every other layer, scores with a soft cap."""
    weights = _projections(sizes) + norm_weights(FOUR_NORMS, sizes.hidden)
    windows = sizes.windows(2)
    is_capped = sizes.get("attn_logit_softcapping") is not None

    def describe(number: int) -> LayerKind:
        return make_kind(
            sizes,
            weights,
            _saved(sizes, 4),
            window=windows[number],
            has_plain_attention=is_capped,
        )

    return Layers(kinds=gather_kinds(sizes, describe), outside=last_norm(sizes))


@family(
    "gemma3_text",
    "Gemma3ForCausalLM",
    defaults={
        **COMMON,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
        "sliding_window_pattern": 6,
        "vocab_size": 262208,
    },
)
def lay_out_gemma3(sizes: Sizes) -> Layers:
    """Gemma 3 for text: four norms and one of each head, of six layers five with a window."""
    weights = _projections(sizes) + norm_weights(FOUR_NORMS, sizes.hidden)
    weights += head_norms(sizes)
    of_heads = saved_by_head_norms(sizes, in_floats=True)
    saved = _saved(sizes, 4).add(of_heads.elements, of_heads.floats)
    windows = sizes.windows(sizes.count("sliding_window_pattern"))

    def describe(number: int) -> LayerKind:
        return make_kind(sizes, weights, saved, window=windows[number])

    return Layers(kinds=gather_kinds(sizes, describe), outside=last_norm(sizes))
