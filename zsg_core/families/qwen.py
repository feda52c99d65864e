"""Qwen 2 and 3, and those of them with experts."""

from typing import Any

from zsg_core.families.layers import (
    Experts,
    attention,
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
from zsg_core.families.registry import Layers, family
from zsg_core.families.sizes import Sizes
from zsg_core.training.decoder_layers import (
    ROUTER,
    LayerKind,
    Saved,
    Weight,
    gated_mlp_weights,
)

WINDOWED = {
    "max_position_embeddings": 32768,
    "sliding_window": 4096,
    "max_window_layers": 28,
}
DENSE = {**WINDOWED, "num_key_value_heads": 32}


def find_windows(sizes: Sizes) -> list[int | None]:
    """The windows of a Qwen's layers: none unless use_sliding_window, and then from
    max_window_layers on."""
    if not sizes.flag("use_sliding_window"):
        return [None] * sizes.layers
    if isinstance(sizes.get("layer_types"), list):
        return sizes.windows()
    window, first = (
        sizes.number("sliding_window") or None,
        sizes.number("max_window_layers"),
    )
    return [window if number >= first else None for number in sizes.numbers]


def find_sparse_layers(sizes: Sizes) -> list[bool]:
    """Which layers have experts: every decoder_sparse_step-th, but mlp_only_layers."""
    listed = sizes.get("mlp_only_layers")
    entries: list[Any] = listed if isinstance(listed, list) else []
    dense = {entry for entry in entries if isinstance(entry, int)}
    step = sizes.count("decoder_sparse_step")
    return [
        number not in dense and (number + 1) % step == 0 for number in sizes.numbers
    ]


@family("qwen2", "Qwen2ForCausalLM", defaults=DENSE)
def lay_out_qwen2(sizes: Sizes) -> Layers:
    """A Llama with biases of queries, keys and values."""
    weights = attention(sizes, bias=True) + gated_mlp(sizes) + two_norms(sizes)
    windows = find_windows(sizes)

    def describe(number: int) -> LayerKind:
        return make_kind(sizes, weights, saved_plainly(sizes), window=windows[number])

    return Layers(kinds=gather_kinds(sizes, describe), outside=last_norm(sizes))


@family("qwen3", "Qwen3ForCausalLM", defaults={**DENSE, "head_dim": 128})
def lay_out_qwen3(sizes: Sizes) -> Layers:
    """A Llama with a norm of each head of queries and keys."""
    bias = sizes.flag("attention_bias")
    weights = attention(sizes, bias=bias, output_bias=bias)
    weights += gated_mlp(sizes) + two_norms(sizes) + head_norms(sizes)
    of_norms = saved_by_head_norms(sizes)
    saved = saved_plainly(sizes).add(of_norms.elements, of_norms.floats)
    windows = find_windows(sizes)

    def describe(number: int) -> LayerKind:
        return make_kind(sizes, weights, saved, window=windows[number])

    return Layers(kinds=gather_kinds(sizes, describe), outside=last_norm(sizes))


@family(
    "qwen2_moe",
    "Qwen2MoeForCausalLM",
    defaults={
        **WINDOWED,
        "num_key_value_heads": 16,
        "decoder_sparse_step": 1,
        "moe_intermediate_size": 1408,
        "shared_expert_intermediate_size": 5632,
        "num_experts_per_tok": 4,
        "num_experts": 60,
        "qkv_bias": True,
    },
)
def lay_out_qwen2_moe(sizes: Sizes) -> Layers:
    """A Qwen 2 with experts, and one beside them that every token meets."""
    around = attention(sizes, bias=sizes.flag("qkv_bias")) + two_norms(sizes)
    shared = sizes.count("shared_expert_intermediate_size")
    sparse = around + expert_weights(sizes, _read_experts(sizes))
    sparse += gated_mlp_weights(sizes.hidden, shared, folder="mlp.shared_expert")
    sparse.append(Weight("mlp.shared_expert_gate.weight", (1, sizes.hidden), ROUTER))
    saved = saved_by_experts(sizes, _read_experts(sizes)).add(
        4 * shared + sizes.hidden, 0
    )
    return _with_experts(sizes, around + gated_mlp(sizes), sparse, saved, Saved(0, 0))


@family(
    "qwen3_moe",
    "Qwen3MoeForCausalLM",
    defaults={
        "max_position_embeddings": 32768,
        "sliding_window": 4096,
        "num_key_value_heads": 4,
        "decoder_sparse_step": 1,
        "moe_intermediate_size": 768,
        "num_experts_per_tok": 8,
        "num_experts": 128,
    },
    keys={"num_experts": ("num_experts", "num_local_experts")},
)
def lay_out_qwen3_moe(sizes: Sizes) -> Layers:
    """A Qwen 3 with experts."""
    bias = sizes.flag("attention_bias")
    around = attention(sizes, bias=bias, output_bias=bias)
    around += two_norms(sizes) + head_norms(sizes)
    sparse = around + expert_weights(sizes, _read_experts(sizes))
    saved = saved_by_experts(sizes, _read_experts(sizes))
    of_norms = saved_by_head_norms(sizes)
    return _with_experts(sizes, around + gated_mlp(sizes), sparse, saved, of_norms)


def _read_experts(sizes: Sizes) -> Experts:
    return Experts(
        sizes.count("num_experts"),
        sizes.count("num_experts_per_tok"),
        sizes.count("moe_intermediate_size"),
    )


def _with_experts(
    sizes: Sizes,
    dense: list[Weight],
    sparse: list[Weight],
    saved_sparse: Saved,
    of_norms: Saved,
) -> Layers:
    """Layers of both kinds; `of_norms`: what the norms of heads keep in each."""
    windows, is_sparse = _windows_of_experts(sizes), find_sparse_layers(sizes)

    def describe(number: int) -> LayerKind:
        saved = saved_sparse if is_sparse[number] else saved_plainly(sizes)
        return make_kind(
            sizes,
            sparse if is_sparse[number] else dense,
            saved.add(of_norms.elements, of_norms.floats),
            window=windows[number],
        )

    return Layers(kinds=gather_kinds(sizes, describe), outside=last_norm(sizes))


def _windows_of_experts(sizes: Sizes) -> list[int | None]:
    """Qwen 3's with experts have the window in all layers, where it is used."""
    if sizes.flag("use_sliding_window") and sizes.get("max_window_layers") is None:
        return sizes.windows()
    return find_windows(sizes)
