"""StarCoder 2, StableLM and Nemotron: rotary positions under LayerNorms with biases."""

from zsg_core.families.layers import (
    attention,
    gated_mlp,
    gather_kinds,
    last_norm,
    make_kind,
    plain_mlp,
    two_norms,
)
from zsg_core.families.registry import Layers, family
from zsg_core.families.sizes import NotKnownError, Sizes
from zsg_core.training.decoder_layers import LayerKind, Saved, Weight, norm_weights


def _saved(sizes: Sizes, of_mlp: int) -> Saved:
    """Two LayerNorms with what enters and what leaves them, attention, and the MLP."""
    elements = 4 * sizes.hidden + 2 * sizes.queries + 2 * sizes.keys
    return Saved(elements + of_mlp * sizes.intermediate, sizes.heads + 2)


def _lay_out(
    sizes: Sizes, weights: list[Weight], saved: Saved, windows: list[int | None]
) -> Layers:
    def describe(number: int) -> LayerKind:
        return make_kind(sizes, weights, saved, window=windows[number])

    outside = last_norm(sizes, bias=True)
    return Layers(kinds=gather_kinds(sizes, describe), outside=outside)


@family(
    "starcoder2",
    "Starcoder2ForCausalLM",
    defaults={
        "max_position_embeddings": 4096,
        "num_key_value_heads": 2,
        "use_bias": True,
        "tie_word_embeddings": True,
    },
)
def lay_out_starcoder2(sizes: Sizes) -> Layers:
    """StarCoder 2: biases everywhere, and a window."""
    bias = sizes.flag("use_bias")
    weights = attention(sizes, bias=bias, output_bias=bias)
    weights += plain_mlp(sizes, ("c_fc", "c_proj"), bias=bias)
    weights += two_norms(sizes, bias=True)
    return _lay_out(sizes, weights, _saved(sizes, 2), sizes.windows())


@family(
    "stablelm",
    "StableLmForCausalLM",
    defaults={"max_position_embeddings": 4096, "num_key_value_heads": 32},
)
def lay_out_stablelm(sizes: Sizes) -> Layers:
    """StableLM."""
    if sizes.flag("qk_layernorm"):
        raise NotKnownError("a stablelm with qk_layernorm is not known by heart")
    weights = attention(sizes, bias=sizes.flag("use_qkv_bias")) + gated_mlp(sizes)
    names = ("input_layernorm",)
    if not sizes.flag("use_parallel_residual"):
        names = "input_layernorm", "post_attention_layernorm"
    weights += norm_weights(names, sizes.hidden, bias=True)
    return _lay_out(sizes, weights, _saved(sizes, 4), [None] * sizes.layers)


@family("nemotron", "NemotronForCausalLM", defaults={"max_position_embeddings": 4096})
def lay_out_nemotron(sizes: Sizes) -> Layers:
    """Nemotron: an MLP of two matrices with relu²."""
    bias = sizes.flag("attention_bias")
    weights = attention(sizes, bias=bias, output_bias=bias)
    weights += plain_mlp(sizes, ("up_proj", "down_proj"), bias=sizes.flag("mlp_bias"))
    weights += two_norms(sizes, bias=True)
    return _lay_out(sizes, weights, _saved(sizes, 3), [None] * sizes.layers)
