"""Phi 1 and 2, and Phi 3 and 4."""

from zsg_core.families.layers import (
    FusedNames,
    attention,
    fused_attention,
    gather_kinds,
    last_norm,
    make_kind,
    plain_mlp,
    two_norms,
)
from zsg_core.families.registry import Layers, family
from zsg_core.families.sizes import Sizes
from zsg_core.training.decoder_layers import (
    MLP,
    OTHER,
    LayerKind,
    Saved,
    Weight,
    list_linear,
    norm_weights,
)


@family("phi", "PhiForCausalLM", defaults={"max_position_embeddings": 2048})
def lay_out_phi(sizes: Sizes) -> Layers:
    """Attention and MLP side by side behind one norm, biases everywhere, in the output
    layer, too."""
    weights = [
        _rename_output(weight)
        for weight in attention(sizes, bias=True, output_bias=True)
    ]
    weights += plain_mlp(sizes, ("fc1", "fc2"), bias=True)
    weights += norm_weights(("input_layernorm",), sizes.hidden, bias=True)
    if sizes.flag("qk_layernorm"):
        for name in ("self_attn.q_layernorm", "self_attn.k_layernorm"):
            weights += norm_weights((name,), sizes.head_dim, bias=True, keys="head_dim")
    elements = 3 * sizes.hidden + 2 * sizes.queries + 2 * sizes.keys
    elements += 5 * sizes.intermediate
    saved = Saved(elements, sizes.heads + 2)

    def describe(_number: int) -> LayerKind:
        return make_kind(sizes, weights, saved)

    of_output = Weight("lm_head.bias", (sizes.vocab,), OTHER, "vocab_size")
    outside = (*last_norm(sizes, "model.final_layernorm", bias=True), of_output)
    return Layers(kinds=gather_kinds(sizes, describe), outside=outside)


def _rename_output(weight: Weight) -> Weight:
    name = weight.name.replace("o_proj", "dense")
    return Weight(name, weight.shape, weight.part, weight.keys)


@family(
    "phi3",
    "Phi3ForCausalLM",
    defaults={
        "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096,
    },
)
def lay_out_phi3(sizes: Sizes) -> Layers:
    """A Llama that has its projections in one matrix, and gate and up in another."""
    rows = sizes.queries + 2 * sizes.keys
    names = FusedNames("self_attn", "qkv_proj", "o_proj")
    weights = fused_attention(sizes, rows, names, bias=False)
    weights += fused_mlp(sizes)
    weights += two_norms(sizes)
    elements = 4 * sizes.hidden + 3 * sizes.queries + 3 * sizes.keys
    elements += 4 * sizes.intermediate
    saved = Saved(elements, 2 * sizes.hidden + sizes.heads + 2)
    windows = sizes.windows()

    def describe(number: int) -> LayerKind:
        return make_kind(sizes, weights, saved, window=windows[number])

    return Layers(kinds=gather_kinds(sizes, describe), outside=last_norm(sizes))


def fused_mlp(sizes: Sizes) -> list[Weight]:
    """A gated MLP whose gate and up are one matrix."""
    hidden, inner = sizes.hidden, sizes.intermediate
    rows = [
        (
            "gate_up_proj",
            (2 * inner, hidden),
            "2·intermediate_size × hidden_size",
            False,
        ),
        ("down_proj", (hidden, inner), "hidden_size × intermediate_size", False),
    ]
    return list_linear("mlp", rows, MLP)
