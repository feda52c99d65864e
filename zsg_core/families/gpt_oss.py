"""gpt-oss and Granite's MoE: experts that are stored as one tensor."""

from zsg_core.families.layers import (
    Experts,
    attention,
    gather_kinds,
    last_norm,
    make_kind,
    saved_by_experts,
    two_norms,
)
from zsg_core.families.registry import Layers, family
from zsg_core.families.sizes import Sizes
from zsg_core.training.decoder_layers import (
    EXPERTS,
    OTHER,
    ROUTER,
    LayerKind,
    Saved,
    Weight,
)

NUMBER = "num_local_experts"


@family(
    "gpt_oss",
    "GptOssForCausalLM",
    defaults={
        "max_position_embeddings": 131072,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "num_local_experts": 128,
        "num_experts_per_tok": 4,
        "sliding_window": 128,
        "attention_bias": True,
    },
    keys={
        "num_experts_per_tok": ("num_experts_per_tok", "experts_per_token"),
        "num_local_experts": ("num_local_experts", "num_experts"),
    },
)
def lay_out_gpt_oss(sizes: Sizes) -> Layers:
    """gpt-oss: sinks, a window in every other layer, biases in router and experts."""
    experts, chosen = sizes.count(NUMBER), sizes.count("num_experts_per_tok")
    bias = sizes.flag("attention_bias")
    weights = attention(sizes, bias=bias, output_bias=bias) + two_norms(sizes)
    weights.append(
        Weight("self_attn.sinks", (sizes.heads,), OTHER, "num_attention_heads")
    )
    weights += _experts(sizes, experts, chosen)
    elements = 6 * sizes.hidden + 2 * sizes.queries + 2 * sizes.keys
    elements += 2 * chosen * sizes.hidden + 7 * chosen * sizes.intermediate
    floats = 2 * sizes.hidden + 2 * sizes.heads + 2 + 11 * chosen + experts
    windows = sizes.windows(2)

    def describe(number: int) -> LayerKind:
        return make_kind(
            sizes,
            weights,
            Saved(elements, floats),
            window=windows[number],
            has_plain_attention=True,
        )

    return Layers(kinds=gather_kinds(sizes, describe), outside=last_norm(sizes))


def _experts(sizes: Sizes, experts: int, chosen: int) -> list[Weight]:
    """The router and the experts of one layer, of which `chosen` of `experts` see a
    token.

    All experts lie in one tensor of each kind. Gate and up are joined, interleaved
    column by column, and everything has a bias; unlike in other families input comes
    before output in the shapes.
    """
    hidden, inner = sizes.hidden, sizes.intermediate
    rows = {
        "gate_up_proj": (experts, hidden, 2 * inner),
        "gate_up_proj_bias": (experts, 2 * inner),
        "down_proj": (experts, inner, hidden),
        "down_proj_bias": (experts, hidden),
    }
    weights = [
        Weight(f"mlp.experts.{name}", shape, EXPERTS, NUMBER, experts, chosen)
        for name, shape in rows.items()
    ]
    by_number = f"{NUMBER} × hidden_size"
    weights.append(Weight("mlp.router.weight", (experts, hidden), ROUTER, by_number))
    weights.append(Weight("mlp.router.bias", (experts,), ROUTER, NUMBER))
    return weights


@family(
    "granitemoe",
    "GraniteMoeForCausalLM",
    defaults={
        "max_position_embeddings": 2048,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    },
)
def lay_out_granitemoe(sizes: Sizes) -> Layers:
    """A Granite with experts for its MLPs."""
    experts, chosen = sizes.count(NUMBER), sizes.count("num_experts_per_tok")
    hidden, inner = sizes.hidden, sizes.intermediate
    bias = sizes.flag("attention_bias")
    weights = attention(sizes, bias=bias, output_bias=bias) + two_norms(sizes)
    folder = "block_sparse_moe"
    rows = {
        "input_linear": (experts, 2 * inner, hidden),
        "output_linear": (experts, hidden, inner),
    }
    weights += [
        Weight(f"{folder}.{name}.weight", shape, EXPERTS, NUMBER, experts, chosen)
        for name, shape in rows.items()
    ]
    router = f"{folder}.router.layer.weight"
    weights.append(Weight(router, (experts, hidden), ROUTER, NUMBER))
    saved = saved_by_experts(sizes, Experts(experts, chosen, inner))

    def describe(_number: int) -> LayerKind:
        return make_kind(sizes, weights, saved)

    return Layers(kinds=gather_kinds(sizes, describe), outside=last_norm(sizes))
