"""DeepSeek 2 and 3: latent attention (arXiv 2405.04434), and experts behind the first layers.

Queries and keys have a part of n elements without positions and one of r with them;
values have v; a and b are the ranks through which queries and keys are made.
"""

from dataclasses import dataclass

from zsg_core.families.layers import (
    ExpertNames,
    Experts,
    correction_bias,
    expert_weights,
    gated_mlp,
    gather_kinds,
    last_norm,
    saved_by_experts,
    saved_plainly,
    two_norms,
)
from zsg_core.families.registry import Layers, family
from zsg_core.families.sizes import Sizes
from zsg_core.training.decoder_layers import (
    ATTENTION,
    LayerKind,
    Saved,
    Weight,
    gated_mlp_weights,
    list_linear,
    norm_weights,
)


@dataclass(frozen=True)
class _Latent:
    """The widths of latent attention."""

    query_rank: int | None
    key_rank: int
    plain: int
    turned: int
    value: int

    @property
    def width(self) -> int:
        """Elements of a head of queries, and of keys."""
        return self.plain + self.turned


def _read_latent(sizes: Sizes) -> _Latent:
    return _Latent(
        query_rank=sizes.optional("q_lora_rank"),
        key_rank=sizes.count("kv_lora_rank"),
        plain=sizes.count("qk_nope_head_dim"),
        turned=sizes.count("qk_rope_head_dim"),
        value=sizes.count("v_head_dim"),
    )


COMMON = {
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
}
KEYS = {"n_routed_experts": ("n_routed_experts", "num_local_experts", "num_experts")}


@family(
    "deepseek_v3",
    "DeepseekV3ForCausalLM",
    defaults={
        **COMMON,
        "max_position_embeddings": 4096,
        "num_key_value_heads": 128,
        "first_k_dense_replace": 3,
        "n_routed_experts": 256,
        "n_shared_experts": 1,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 2048,
    },
    keys=KEYS,
)
def lay_out_deepseek_v3(sizes: Sizes) -> Layers:
    """DeepSeek 3, whose router's scores are corrected by a stored bias."""
    return _lay_out(sizes, [correction_bias(sizes.count("n_routed_experts"))], False)


@family(
    "deepseek_v2",
    "DeepseekV2ForCausalLM",
    defaults={
        **COMMON,
        "max_position_embeddings": 2048,
        "n_routed_experts": 64,
        "n_shared_experts": 2,
        "moe_intermediate_size": 1407,
    },
    keys=KEYS,
)
def lay_out_deepseek_v2(sizes: Sizes) -> Layers:
    """DeepSeek 2."""
    return _lay_out(sizes, [], sizes.flag("mlp_bias"))


def _lay_out(sizes: Sizes, of_router: list[Weight], mlp_bias: bool) -> Layers:
    """The layers of a decoder with latent attention and a mixture of experts.

    The first `first_k_dense_replace` layers have a plain MLP, all others the router's
    weights `of_router`, routed experts and, where `n_shared_experts` is not 0, one
    joined MLP that sees every token. The joined MLP keeps four tensors of its inner
    width a token for the backward pass, as a gated MLP does.
    """
    latent = _read_latent(sizes)
    around = _attention(sizes, latent) + two_norms(sizes)
    dense = around + gated_mlp(sizes, bias=mlp_bias)
    experts = Experts(
        sizes.count("n_routed_experts"),
        sizes.count("num_experts_per_tok"),
        sizes.count("moe_intermediate_size"),
    )
    names = ExpertNames(number_key="n_routed_experts")
    sparse = around + of_router + expert_weights(sizes, experts, names)
    shared = experts.inner * sizes.number("n_shared_experts")
    if shared:
        folder = "mlp.shared_experts"
        sparse += gated_mlp_weights(sizes.hidden, shared, bias=mlp_bias, folder=folder)
    first = sizes.number("first_k_dense_replace")
    of_latent = _saved_beside_llama(sizes, latent)
    of_experts = saved_by_experts(sizes, experts)
    of_experts = of_experts.add(4 * shared, 0)

    def describe(number: int) -> LayerKind:
        is_dense = number < first
        of_layer = saved_plainly(sizes) if is_dense else of_experts
        return LayerKind(
            numbers=(),
            weights=tuple(dense if is_dense else sparse),
            saved=of_layer.add(of_latent.elements, of_latent.floats),
            pair_width=sizes.heads * (latent.width + latent.value),
            cache_width=sizes.heads * (latent.width + latent.value),
        )

    return Layers(kinds=gather_kinds(sizes, describe), outside=last_norm(sizes))


def _attention(sizes: Sizes, latent: _Latent) -> list[Weight]:
    """H·a + a + a·h(n+r) + H(b+r) + b + b·h(n+v) + h·v·H."""
    hidden, heads, bias = sizes.hidden, sizes.heads, sizes.flag("attention_bias")
    queries = heads * latent.width
    weights: list[Weight] = []
    rank = latent.query_rank
    if rank is None:
        rows = [("q_proj", (queries, hidden), "qk_head_dim", False)]
    else:
        rows = [
            ("q_a_proj", (rank, hidden), "q_lora_rank × hidden_size", bias),
            ("q_b_proj", (queries, rank), "qk_head_dim × q_lora_rank", False),
        ]
        weights += norm_weights(("self_attn.q_a_layernorm",), rank, keys="q_lora_rank")
    compressed = latent.key_rank + latent.turned
    expanded = heads * (latent.plain + latent.value)
    of_keys = "kv_lora_rank + qk_rope_head_dim × hidden_size"
    rows += [
        ("kv_a_proj_with_mqa", (compressed, hidden), of_keys, bias),
        ("kv_b_proj", (expanded, latent.key_rank), "kv_lora_rank", False),
        ("o_proj", (hidden, heads * latent.value), "v_head_dim", bias),
    ]
    weights += norm_weights(
        ("self_attn.kv_a_layernorm",), latent.key_rank, keys="kv_lora_rank"
    )
    return weights + list_linear("self_attn", rows, ATTENTION)


def _saved_beside_llama(sizes: Sizes, latent: _Latent) -> Saved:
    """What latent attention keeps beside what `saved_plainly` counts for Q and K: whole
    queries, keys and values of all heads, values filled up to the queries' width, and
    the two norms between the ranks."""
    as_llama = 2 * sizes.queries + 2 * sizes.keys
    of_heads = 4 * sizes.heads * latent.width + sizes.heads * latent.value
    ranks = latent.key_rank + (latent.query_rank or 0)
    return Saved(of_heads + 2 * ranks + latent.turned - as_llama, ranks + 2)
