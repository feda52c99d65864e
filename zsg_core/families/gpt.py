"""GPT-2, GPT-Neo, GPT-J, GPT-NeoX and StarCoder's GPT-BigCode."""

from zsg_core.families.layers import (
    FusedNames,
    fused_attention,
    gather_kinds,
    last_norm,
    make_kind,
    plain_mlp,
    transpose,
)
from zsg_core.families.registry import Layers, family
from zsg_core.families.sizes import NotKnownError, Sizes
from zsg_core.training.decoder import Names
from zsg_core.training.decoder_layers import (
    OTHER,
    POSITIONS,
    LayerKind,
    Saved,
    Weight,
    attention_weights,
    norm_weights,
)

N_KEYS = {
    "hidden_size": ("n_embd", "hidden_size"),
    "intermediate_size": ("n_inner", "intermediate_size"),
    "num_hidden_layers": ("n_layer", "num_hidden_layers"),
    "num_attention_heads": ("n_head", "num_attention_heads"),
    "max_position_embeddings": ("n_positions", "max_position_embeddings"),
}
NAMES = Names(
    embedding="transformer.wte.weight",
    layer="transformer.h.{layer}.",
    prefix="transformer.",
)
GPT2 = {
    "max_position_embeddings": 1024,
    "vocab_size": 50257,
    "tie_word_embeddings": True,
    "intermediate_size": None,
    "resid_pdrop": 0.1,
    "embd_pdrop": 0.1,
    "attn_pdrop": 0.1,
}
THRICE = "3·hidden_size × hidden_size"
FUSED = FusedNames("attn", "c_attn", "c_proj", THRICE)


def saved_by_gpt2(sizes: Sizes) -> Saved:
    """Norms and projections, and what gelu_new keeps of its steps."""
    elements = 4 * sizes.hidden + 2 * sizes.queries + 2 * sizes.keys
    return Saved(elements + 5 * sizes.intermediate, sizes.heads + 2)


def _positions(sizes: Sizes) -> Weight:
    rows = sizes.count("max_position_embeddings")
    keys = "n_positions × hidden_size"
    return Weight("transformer.wpe.weight", (rows, sizes.hidden), POSITIONS, keys)


def _norms(sizes: Sizes) -> list[Weight]:
    return norm_weights(("ln_1", "ln_2"), sizes.hidden, bias=True)


def _with_positions(sizes: Sizes) -> tuple[Weight, ...]:
    return (_positions(sizes), *last_norm(sizes, "transformer.ln_f", bias=True))


@family("gpt2", "GPT2LMHeadModel", defaults=GPT2, keys=N_KEYS)
def lay_out_gpt2(sizes: Sizes) -> Layers:
    """GPT-2: learnt positions, and matrices that are kept inputs first."""
    weights = fused_attention(sizes, 3 * sizes.hidden, FUSED, bias=True)
    weights += plain_mlp(sizes, ("c_fc", "c_proj"), bias=True)
    weights = transpose(weights) + _norms(sizes)

    def describe(_number: int) -> LayerKind:
        return make_kind(sizes, weights, saved_by_gpt2(sizes))

    return Layers(
        kinds=gather_kinds(sizes, describe),
        outside=_with_positions(sizes),
        names=NAMES,
    )


@family(
    "gpt_bigcode",
    "GPTBigCodeForCausalLM",
    defaults={**GPT2, "multi_query": True},
    keys=N_KEYS,
)
def lay_out_gpt_bigcode(sizes: Sizes) -> Layers:
    """SantaCoder and StarCoder: a GPT-2 whose heads share one key and one value."""
    if not sizes.flag("multi_query"):
        raise NotKnownError("a gpt_bigcode without multi_query is not known by heart")
    rows = sizes.hidden + 2 * sizes.head_dim
    weights = fused_attention(sizes, rows, FUSED, bias=True)
    weights += plain_mlp(sizes, ("c_fc", "c_proj"), bias=True) + _norms(sizes)

    def describe(_number: int) -> LayerKind:
        return LayerKind(
            numbers=(),
            weights=tuple(weights),
            saved=saved_by_gpt2(sizes),
            pair_width=2 * sizes.queries,
            cache_width=2 * sizes.head_dim,
        )

    return Layers(
        kinds=gather_kinds(sizes, describe),
        outside=_with_positions(sizes),
        names=NAMES,
    )


@family(
    "gpt_neo",
    "GPTNeoForCausalLM",
    defaults={
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
        "intermediate_size": None,
        "window_size": 256,
    },
    keys={
        "num_hidden_layers": ("num_layers", "num_hidden_layers"),
        "num_attention_heads": ("num_heads", "num_attention_heads"),
    },
)
def lay_out_gpt_neo(sizes: Sizes) -> Layers:
    """GPT-Neo: in every other layer a window."""
    weights = attention_weights(
        sizes.hidden,
        sizes.queries,
        sizes.queries,
        output_bias=True,
        names=("attn.attention", "out_proj"),
    )
    weights += plain_mlp(sizes, ("c_fc", "c_proj"), bias=True) + _norms(sizes)
    local = sizes.get("attention_layers")
    window = sizes.count("window_size")

    def describe(number: int) -> LayerKind:
        is_local = number % 2 == 1
        if isinstance(local, list) and number < len(local):  # pyright: ignore[reportUnknownArgumentType]
            is_local = local[number] == "local"
        return make_kind(
            sizes,
            weights,
            saved_by_gpt2(sizes),
            window=window if is_local else None,
            has_plain_attention=True,
        )

    return Layers(
        kinds=gather_kinds(sizes, describe),
        outside=_with_positions(sizes),
        names=NAMES,
    )


@family(
    "gptj",
    "GPTJForCausalLM",
    defaults={"max_position_embeddings": 2048, "intermediate_size": None},
    keys=N_KEYS,
)
def lay_out_gptj(sizes: Sizes) -> Layers:
    """GPT-J: attention and MLP side by side, and an output layer with a bias."""
    weights = attention_weights(
        sizes.hidden, sizes.queries, sizes.queries, names=("attn", "out_proj")
    )
    weights += plain_mlp(sizes, ("fc_in", "fc_out"), bias=True)
    weights += norm_weights(("ln_1",), sizes.hidden, bias=True)

    def describe(_number: int) -> LayerKind:
        return make_kind(sizes, weights, saved_by_gpt2(sizes), has_plain_attention=True)

    of_output = Weight("lm_head.bias", (sizes.vocab,), OTHER, "vocab_size")
    outside = (*last_norm(sizes, "transformer.ln_f", bias=True), of_output)
    return Layers(kinds=gather_kinds(sizes, describe), outside=outside, names=NAMES)


@family(
    "gpt_neox",
    "GPTNeoXForCausalLM",
    defaults={"max_position_embeddings": 2048, "attention_bias": True},
)
def lay_out_gpt_neox(sizes: Sizes) -> Layers:
    """GPT-NeoX and Pythia: projections in one matrix, biases everywhere."""
    bias = sizes.flag("attention_bias")
    names = FusedNames("attention", "query_key_value", "dense", THRICE)
    weights = fused_attention(sizes, 3 * sizes.hidden, names, bias=bias)
    weights += plain_mlp(sizes, ("dense_h_to_4h", "dense_4h_to_h"), bias=True)
    norms = "input_layernorm", "post_attention_layernorm"
    weights += norm_weights(norms, sizes.hidden, bias=True)
    elements = 9 * sizes.hidden + 2 * sizes.intermediate
    saved = Saved(elements, sizes.heads + 2)

    def describe(_number: int) -> LayerKind:
        return make_kind(sizes, weights, saved)

    return Layers(
        kinds=gather_kinds(sizes, describe),
        outside=last_norm(sizes, "gpt_neox.final_layer_norm", bias=True),
        names=Names(
            embedding="gpt_neox.embed_in.weight",
            layer="gpt_neox.layers.{layer}.",
            head="embed_out.weight",
            prefix="gpt_neox.",
            head_module="lm_head",
        ),
    )
