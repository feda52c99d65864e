"""GLM and GLM 4, dense and with experts."""

from zsg_core.families.layers import (
    ExpertNames,
    Experts,
    attention,
    correction_bias,
    expert_weights,
    gated_mlp,
    gather_kinds,
    head_norms,
    last_norm,
    make_kind,
    saved_by_experts,
    saved_by_head_norms,
    saved_plainly,
    two_norms,
)
from zsg_core.families.phi import fused_mlp
from zsg_core.families.registry import Layers, family
from zsg_core.families.sizes import Sizes
from zsg_core.training.decoder_layers import (
    LayerKind,
    Saved,
    gated_mlp_weights,
    norm_weights,
)

COMMON = {
    "max_position_embeddings": 131072,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "attention_bias": True,
}
FOUR_NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "post_self_attn_layernorm",
    "post_mlp_layernorm",
)


def _saved(sizes: Sizes) -> Saved:
    """A bound: heads that are turned in part only are kept in pieces (28H + 6Q + 5K + 8I)."""
    elements = 6 * sizes.hidden + 3 * sizes.queries + 3 * sizes.keys
    elements += 4 * sizes.intermediate
    return Saved(elements, 4 * sizes.hidden + sizes.heads + 4)


@family("glm", "GlmForCausalLM", defaults=COMMON)
def lay_out_glm(sizes: Sizes) -> Layers:
    """GLM: a Llama with biases of queries, keys and values, gate and up in one matrix."""
    weights = attention(sizes, bias=sizes.flag("attention_bias"))
    weights += fused_mlp(sizes) + two_norms(sizes)

    def describe(_number: int) -> LayerKind:
        return make_kind(sizes, weights, _saved(sizes))

    return Layers(kinds=gather_kinds(sizes, describe), outside=last_norm(sizes))


@family("glm4", "Glm4ForCausalLM", defaults=COMMON)
def lay_out_glm4(sizes: Sizes) -> Layers:
    """GLM 4: four norms."""
    weights = attention(sizes, bias=sizes.flag("attention_bias"))
    weights += fused_mlp(sizes) + norm_weights(FOUR_NORMS, sizes.hidden)

    def describe(_number: int) -> LayerKind:
        return make_kind(sizes, weights, _saved(sizes))

    return Layers(kinds=gather_kinds(sizes, describe), outside=last_norm(sizes))


@family(
    "glm4_moe",
    "Glm4MoeForCausalLM",
    defaults={
        "max_position_embeddings": 131072,
        "num_key_value_heads": 8,
        "moe_intermediate_size": 1408,
        "num_experts_per_tok": 8,
        "n_shared_experts": 1,
        "n_routed_experts": 128,
        "first_k_dense_replace": 1,
    },
    keys={"n_routed_experts": ("n_routed_experts", "num_local_experts")},
)
def lay_out_glm4_moe(sizes: Sizes) -> Layers:
    """GLM 4.5: experts behind the first layers."""
    experts = Experts(
        sizes.count("n_routed_experts"),
        sizes.count("num_experts_per_tok"),
        sizes.count("moe_intermediate_size"),
    )
    names = ExpertNames(number_key="n_routed_experts")
    shared = experts.inner * sizes.count("n_shared_experts")
    around = attention(sizes, bias=sizes.flag("attention_bias")) + two_norms(sizes)
    of_attention = Saved(sizes.queries + sizes.keys, 0)
    if sizes.flag("use_qk_norm"):
        around += head_norms(sizes)
        of_heads = saved_by_head_norms(sizes)
        of_attention = of_attention.add(of_heads.elements, of_heads.floats)
    sparse = around + expert_weights(sizes, experts, names)
    sparse += gated_mlp_weights(sizes.hidden, shared, folder="mlp.shared_experts")
    sparse.append(correction_bias(experts.count))
    of_experts = saved_by_experts(sizes, experts)
    of_experts = of_experts.add(4 * shared, 0)
    first = sizes.number("first_k_dense_replace")

    def describe(number: int) -> LayerKind:
        is_dense = number < first
        saved = saved_plainly(sizes) if is_dense else of_experts
        return make_kind(
            sizes,
            around + gated_mlp(sizes) if is_dense else sparse,
            saved.add(of_attention.elements, of_attention.floats),
        )

    return Layers(kinds=gather_kinds(sizes, describe), outside=last_norm(sizes))
