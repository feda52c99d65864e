"""OPT."""

from zsg_core.families.layers import gather_kinds, last_norm, make_kind, plain_mlp
from zsg_core.families.registry import Layers, family
from zsg_core.families.sizes import NotKnownError, Sizes
from zsg_core.training.decoder import Names
from zsg_core.training.decoder_layers import (
    POSITIONS,
    LayerKind,
    Saved,
    Weight,
    attention_weights,
    norm_weights,
)

# rows that stand before the first position
OFFSET = 2


@family(
    "opt",
    "OPTForCausalLM",
    defaults={
        "intermediate_size": 3072,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
        "do_layer_norm_before": True,
        "enable_bias": True,
        "dropout": 0.1,
        "layer_norm_elementwise_affine": True,
    },
    keys={"intermediate_size": ("ffn_dim",)},
)
def lay_out_opt(sizes: Sizes) -> Layers:
    """OPT: learnt positions, relu. The one that projects its embedding is not known by heart."""
    if (sizes.optional("word_embed_proj_dim") or sizes.hidden) != sizes.hidden:
        raise NotKnownError("an opt whose embedding is projected is not known by heart")
    if not sizes.flag("layer_norm_elementwise_affine"):
        raise NotKnownError("an opt whose norms have no weights is not known by heart")
    bias = sizes.flag("enable_bias")
    weights = attention_weights(
        sizes.hidden,
        sizes.queries,
        sizes.queries,
        bias=bias,
        output_bias=bias,
        names=("self_attn", "out_proj"),
    )
    weights += plain_mlp(sizes, ("fc1", "fc2"), bias=bias, folder="")
    names = "self_attn_layer_norm", "final_layer_norm"
    weights += norm_weights(names, sizes.hidden, bias=True)
    saved = Saved(8 * sizes.hidden + sizes.intermediate, sizes.heads + 2)

    def describe(_number: int) -> LayerKind:
        return make_kind(sizes, weights, saved)

    rows = sizes.count("max_position_embeddings") + OFFSET
    outside = [
        Weight(
            "model.decoder.embed_positions.weight",
            (rows, sizes.hidden),
            POSITIONS,
            "max_position_embeddings + 2 × hidden_size",
        )
    ]
    if sizes.flag("do_layer_norm_before") and not sizes.flag(
        "_remove_final_layer_norm"
    ):
        outside += last_norm(sizes, "model.decoder.final_layer_norm", bias=True)
    return Layers(
        kinds=gather_kinds(sizes, describe),
        outside=tuple(outside),
        names=Names(
            embedding="model.decoder.embed_tokens.weight",
            layer="model.decoder.layers.{layer}.",
        ),
    )
