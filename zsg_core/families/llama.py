"""Llama and those whose layers are a Llama's in all but a few weights."""

from zsg_core.families.layers import (
    attention,
    gated_mlp,
    gather_kinds,
    head_norms,
    last_norm,
    make_kind,
    plain_mlp,
    saved_by_head_norms,
    saved_plainly,
    two_norms,
)
from zsg_core.families.registry import Layers, family
from zsg_core.families.sizes import Sizes
from zsg_core.training.decoder_layers import LayerKind, Saved, Weight, norm_weights


def _add(first: Saved, second: Saved) -> Saved:
    return first.add(second.elements, second.floats)


def _dense(
    sizes: Sizes,
    *,
    bias: bool = False,
    output_bias: bool = False,
    mlp_bias: bool = False,
    windows: list[int | None] | None = None,
) -> Layers:
    """A Llama with such biases and windows."""
    weights = attention(sizes, bias=bias, output_bias=output_bias)
    weights += gated_mlp(sizes, bias=mlp_bias)
    weights += two_norms(sizes)
    seen = windows or [None] * sizes.layers

    def describe(number: int) -> LayerKind:
        return make_kind(sizes, weights, saved_plainly(sizes), window=seen[number])

    return Layers(kinds=gather_kinds(sizes, describe), outside=last_norm(sizes))


@family(
    "llama",
    "LlamaForCausalLM",
    defaults={"max_position_embeddings": 2048, "tie_word_embeddings": False},
)
def lay_out_llama(_sizes: Sizes) -> Layers:
    """Llama 1 to 3 and what is built as they are."""
    return Layers()


@family(
    "helium",
    "HeliumForCausalLM",
    defaults={
        "max_position_embeddings": 4096,
        "num_key_value_heads": 20,
        "head_dim": 128,
    },
)
def lay_out_helium(sizes: Sizes) -> Layers:
    """Helium."""
    return _dense(sizes, bias=sizes.flag("attention_bias"))


@family("granite", "GraniteForCausalLM", defaults={"max_position_embeddings": 2048})
def lay_out_granite(sizes: Sizes) -> Layers:
    """Granite: a Llama with factors, which have no weights."""
    bias = sizes.flag("attention_bias")
    return _dense(sizes, bias=bias, output_bias=bias, mlp_bias=sizes.flag("mlp_bias"))


@family(
    "smollm3",
    "SmolLM3ForCausalLM",
    defaults={
        "max_position_embeddings": 32768,
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
        "no_rope_layer_interval": 4,
    },
)
def lay_out_smollm3(sizes: Sizes) -> Layers:
    """SmolLM 3: every fourth layer turns no positions, and may have a window."""
    bias = sizes.flag("attention_bias")
    windows: list[int | None] = [None] * sizes.layers
    if isinstance(sizes.get("layer_types"), list):
        windows = sizes.windows()
    elif sizes.flag("use_sliding_window"):
        window = sizes.optional("sliding_window")
        every = sizes.count("no_rope_layer_interval")
        windows = [window if (n + 1) % every == 0 else None for n in sizes.numbers]
    return _dense(
        sizes,
        bias=bias,
        output_bias=bias,
        mlp_bias=sizes.flag("mlp_bias"),
        windows=windows,
    )


@family(
    "seed_oss",
    "SeedOssForCausalLM",
    defaults={
        "max_position_embeddings": 524288,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "attention_bias": True,
        "attention_dropout": 0.1,
        "residual_dropout": 0.1,
    },
)
def lay_out_seed_oss(sizes: Sizes) -> Layers:
    """Seed-OSS."""
    return _dense(
        sizes,
        bias=sizes.flag("attention_bias"),
        output_bias=sizes.flag("attention_out_bias"),
        mlp_bias=sizes.flag("mlp_bias"),
    )


@family(
    "ernie4_5",
    "Ernie4_5ForCausalLM",
    defaults={
        "max_position_embeddings": 131072,
        "num_key_value_heads": 2,
        "head_dim": 128,
        "tie_word_embeddings": True,
    },
)
def lay_out_ernie(sizes: Sizes) -> Layers:
    """ERNIE 4.5."""
    bias = sizes.flag("use_bias")
    return _dense(sizes, bias=bias, output_bias=bias, mlp_bias=bias)


@family("arcee", "ArceeForCausalLM", defaults={"max_position_embeddings": 4096})
def lay_out_arcee(sizes: Sizes) -> Layers:
    """Arcee: a Llama with an MLP of two matrices and relu²."""
    bias = sizes.flag("attention_bias")
    weights = attention(sizes, bias=bias, output_bias=bias)
    weights += plain_mlp(sizes, ("up_proj", "down_proj"), bias=sizes.flag("mlp_bias"))
    weights += two_norms(sizes)
    return _of_one_kind(sizes, weights, saved_plainly(sizes))


@family(
    "hunyuan_v1_dense",
    "HunYuanDenseV1ForCausalLM",
    defaults={"max_position_embeddings": 2048},
)
def lay_out_hunyuan(sizes: Sizes) -> Layers:
    """HunYuan, with a norm of each head."""
    bias = sizes.flag("attention_bias")
    weights = attention(sizes, bias=bias, output_bias=bias) + gated_mlp(sizes)
    weights += two_norms(sizes)
    names = "self_attn.query_layernorm", "self_attn.key_layernorm"
    weights += head_norms(sizes, names)
    saved = _add(saved_plainly(sizes), saved_by_head_norms(sizes))
    return _of_one_kind(sizes, weights, saved)


@family(
    "exaone4",
    "Exaone4ForCausalLM",
    defaults={
        "max_position_embeddings": 2048,
        "num_key_value_heads": 32,
        "sliding_window": 4096,
        "sliding_window_pattern": 4,
    },
)
def lay_out_exaone4(sizes: Sizes) -> Layers:
    """EXAONE 4: norms behind attention and MLP, and of each head."""
    weights = attention(sizes) + gated_mlp(sizes) + head_norms(sizes)
    names = "post_attention_layernorm", "post_feedforward_layernorm"
    weights += norm_weights(names, sizes.hidden)
    every = sizes.get("sliding_window_pattern")
    windows = sizes.windows(every if isinstance(every, int) and every > 0 else 4)
    saved = _add(saved_plainly(sizes), saved_by_head_norms(sizes))

    def describe(number: int) -> LayerKind:
        return make_kind(sizes, weights, saved, window=windows[number])

    return Layers(kinds=gather_kinds(sizes, describe), outside=last_norm(sizes))


@family(
    "cwm",
    "CwmForCausalLM",
    defaults={
        "max_position_embeddings": 131072,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "sliding_window": 8192,
    },
)
def lay_out_cwm(sizes: Sizes) -> Layers:
    """Code World Model: of four layers the first sees all."""
    return _dense(sizes, windows=sizes.windows(4, full=0))


def _of_one_kind(sizes: Sizes, weights: list[Weight], saved: Saved) -> Layers:
    def describe(_number: int) -> LayerKind:
        return make_kind(sizes, weights, saved)

    return Layers(kinds=gather_kinds(sizes, describe), outside=last_norm(sizes))
