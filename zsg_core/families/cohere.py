"""Command R: Cohere 1 and 2."""

from zsg_core.families.layers import (
    attention,
    gated_mlp,
    gather_kinds,
    last_norm,
    make_kind,
)
from zsg_core.families.registry import Layers, family
from zsg_core.families.sizes import Sizes
from zsg_core.training.decoder_layers import (
    NORM,
    LayerKind,
    Saved,
    Weight,
    norm_weights,
)

COMMON = {"max_position_embeddings": 8192, "tie_word_embeddings": True}


@family("cohere", "CohereForCausalLM", defaults=COMMON)
@family(
    "cohere2",
    "Cohere2ForCausalLM",
    defaults={**COMMON, "sliding_window": 4096, "sliding_window_pattern": 4},
)
def lay_out_cohere(sizes: Sizes) -> Layers:
    """Attention and MLP side by side behind one norm without a bias; of Cohere 2's four
    layers three have a window."""
    bias = sizes.flag("attention_bias")
    weights = attention(sizes, bias=bias, output_bias=bias) + gated_mlp(sizes)
    weights += norm_weights(("input_layernorm",), sizes.hidden)
    floats = 3 * sizes.hidden + sizes.heads + 1
    if sizes.flag("use_qk_norm"):
        weights += _norms_of_heads(sizes)
        floats += 3 * (sizes.queries + sizes.keys) + sizes.heads + sizes.kv_heads
    elements = sizes.hidden + 2 * sizes.queries + 2 * sizes.keys
    elements += 4 * sizes.intermediate
    windows = sizes.windows(sizes.number("sliding_window_pattern") or 4)

    def describe(number: int) -> LayerKind:
        return make_kind(
            sizes, weights, Saved(elements, floats), window=windows[number]
        )

    return Layers(kinds=gather_kinds(sizes, describe), outside=last_norm(sizes))


def _norms_of_heads(sizes: Sizes) -> list[Weight]:
    """A norm whose weights differ by head."""
    rows = {"q_norm": sizes.heads, "k_norm": sizes.kv_heads}
    return [
        Weight(f"self_attn.{name}.weight", (heads, sizes.head_dim), NORM, "heads")
        for name, heads in rows.items()
    ]
