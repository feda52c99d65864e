"""OLMo 1 to 3, and OLMoE."""

from zsg_core.families.layers import (
    ExpertNames,
    Experts,
    attention,
    expert_weights,
    gated_mlp,
    gather_kinds,
    last_norm,
    make_kind,
    saved_by_experts,
    saved_plainly,
    two_norms,
    wide_norms,
)
from zsg_core.families.registry import Layers, family
from zsg_core.families.sizes import Sizes
from zsg_core.training.decoder_layers import LayerKind, Saved, norm_weights

NORMS_BEHIND = "post_attention_layernorm", "post_feedforward_layernorm"


@family("olmo", "OlmoForCausalLM", defaults={"max_position_embeddings": 2048})
def lay_out_olmo(sizes: Sizes) -> Layers:
    """OLMo 1: its norms have no weights."""
    bias = sizes.flag("attention_bias")
    weights = attention(sizes, bias=bias, output_bias=bias) + gated_mlp(sizes)

    def describe(_number: int) -> LayerKind:
        return make_kind(sizes, weights, saved_plainly(sizes))

    return Layers(kinds=gather_kinds(sizes, describe))


@family("olmo2", "Olmo2ForCausalLM", defaults={"max_position_embeddings": 2048})
@family(
    "olmo3",
    "Olmo3ForCausalLM",
    defaults={"max_position_embeddings": 2048, "sliding_window": 4096},
)
def lay_out_olmo2(sizes: Sizes) -> Layers:
    """OLMo 2 and 3: norms behind attention and MLP, and of all queries and all keys; of
    OLMo 3's four layers three have a window."""
    bias = sizes.flag("attention_bias")
    weights = attention(sizes, bias=bias, output_bias=bias) + gated_mlp(sizes)
    weights += norm_weights(NORMS_BEHIND, sizes.hidden) + wide_norms(sizes)
    elements = 2 * sizes.hidden + 2 * sizes.queries + 2 * sizes.keys
    elements += 4 * sizes.intermediate
    floats = 4 * sizes.hidden + 2 * sizes.queries + 2 * sizes.keys + sizes.heads + 4
    windows = sizes.windows(4)

    def describe(number: int) -> LayerKind:
        return make_kind(
            sizes, weights, Saved(elements, floats), window=windows[number]
        )

    return Layers(kinds=gather_kinds(sizes, describe), outside=last_norm(sizes))


@family(
    "olmoe",
    "OlmoeForCausalLM",
    defaults={
        "max_position_embeddings": 4096,
        "num_experts": 64,
        "num_experts_per_tok": 8,
    },
    keys={"num_experts": ("num_experts", "num_local_experts")},
)
def lay_out_olmoe(sizes: Sizes) -> Layers:
    """OLMo with experts for its MLPs."""
    bias = sizes.flag("attention_bias")
    experts = Experts(
        sizes.count("num_experts"),
        sizes.count("num_experts_per_tok"),
        sizes.intermediate,
    )
    names = ExpertNames(width_key="intermediate_size")
    weights = attention(sizes, bias=bias, output_bias=bias)
    weights += two_norms(sizes) + wide_norms(sizes)
    weights += expert_weights(sizes, experts, names)
    saved = saved_by_experts(sizes, experts)
    wide = sizes.queries + sizes.keys

    def describe(_number: int) -> LayerKind:
        return make_kind(sizes, weights, saved.add(wide, wide + 2))

    return Layers(kinds=gather_kinds(sizes, describe), outside=last_norm(sizes))
