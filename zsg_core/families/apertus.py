"""Apertus."""

from zsg_core.families.layers import (
    attention,
    gather_kinds,
    head_norms,
    last_norm,
    make_kind,
    plain_mlp,
    saved_by_head_norms,
    saved_plainly,
)
from zsg_core.families.registry import Layers, family
from zsg_core.families.sizes import Sizes
from zsg_core.training.decoder_layers import (
    BUFFER,
    OTHER,
    LayerKind,
    Weight,
    norm_weights,
)


@family(
    "apertus",
    "ApertusForCausalLM",
    defaults={"max_position_embeddings": 65536, "hidden_act": "xielu"},
)
def lay_out_apertus(sizes: Sizes) -> Layers:
    """An MLP of two matrices with xIELU, whose two numbers are trained and whose limits
    are stored."""
    bias = sizes.flag("attention_bias")
    weights = attention(sizes, bias=bias, output_bias=bias)
    weights += plain_mlp(sizes, ("up_proj", "down_proj"), bias=False)
    names = "attention_layernorm", "feedforward_layernorm"
    weights += norm_weights(names, sizes.hidden) + head_norms(sizes)
    if sizes.get("hidden_act") == "xielu":
        weights += [
            Weight("mlp.act_fn.alpha_p", (1,), OTHER),
            Weight("mlp.act_fn.alpha_n", (1,), OTHER),
            Weight("mlp.act_fn.beta", (), BUFFER),
            Weight("mlp.act_fn.eps", (), BUFFER),
        ]
    of_heads = saved_by_head_norms(sizes)
    # xIELU's two branches and what chooses between them
    saved = saved_plainly(sizes).add(of_heads.elements, of_heads.floats)
    saved = saved.add(4 * sizes.intermediate, 0)

    def describe(_number: int) -> LayerKind:
        return make_kind(sizes, weights, saved)

    return Layers(kinds=gather_kinds(sizes, describe), outside=last_norm(sizes))
