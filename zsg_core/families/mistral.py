"""Mistral, Ministral, Mixtral."""

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
)
from zsg_core.families.registry import Layers, family
from zsg_core.families.sizes import Sizes
from zsg_core.training.decoder_layers import LayerKind

DEFAULTS = {
    "max_position_embeddings": 131072,
    "num_key_value_heads": 8,
    "sliding_window": 4096,
}

MIXTRAL = ExpertNames(
    folder="block_sparse_moe.experts",
    gate="w1",
    up="w3",
    down="w2",
    router="block_sparse_moe.gate.weight",
    number_key="num_local_experts",
    width_key="intermediate_size",
)


@family("mistral", "MistralForCausalLM", defaults=DEFAULTS)
@family("ministral", "MinistralForCausalLM", defaults=DEFAULTS)
@family(
    "ministral3",
    "Ministral3ForCausalLM",
    defaults={
        "max_position_embeddings": 262144,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
)
def lay_out_mistral(sizes: Sizes) -> Layers:
    """A Llama whose layers all have the window, where config.json has one."""
    weights = attention(sizes) + gated_mlp(sizes) + two_norms(sizes)
    windows = sizes.windows()

    def describe(number: int) -> LayerKind:
        return make_kind(sizes, weights, saved_plainly(sizes), window=windows[number])

    return Layers(kinds=gather_kinds(sizes, describe), outside=last_norm(sizes))


@family(
    "mixtral",
    "MixtralForCausalLM",
    defaults={
        "max_position_embeddings": 131072,
        "num_key_value_heads": 8,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    },
)
def lay_out_mixtral(sizes: Sizes) -> Layers:
    """A Mistral with experts for its MLPs."""
    experts = Experts(
        sizes.count("num_local_experts"),
        sizes.count("num_experts_per_tok"),
        sizes.intermediate,
    )
    weights = attention(sizes) + two_norms(sizes)
    weights += expert_weights(sizes, experts, MIXTRAL)
    saved = saved_by_experts(sizes, experts)
    windows = sizes.windows()

    def describe(number: int) -> LayerKind:
        return make_kind(sizes, weights, saved, window=windows[number])

    return Layers(kinds=gather_kinds(sizes, describe), outside=last_norm(sizes))
