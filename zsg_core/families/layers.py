"""Puts the layers of a family together: what most of them share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from zsg_core.families.sizes import Sizes
from zsg_core.training.decoder_layers import (
    ATTENTION,
    BUFFER,
    EXPERT,
    EXPERTS,
    MLP,
    NORM,
    ROUTER,
    LayerKind,
    Saved,
    Weight,
    attention_weights,
    gated_mlp_weights,
    list_linear,
    norm_weights,
    saved_by_llama,
)

# before attention and before the MLP, as in most families
TWO_NORMS = ("input_layernorm", "post_attention_layernorm")


def gather_kinds(
    sizes: Sizes, describe: Callable[[int], LayerKind]
) -> tuple[LayerKind, ...]:
    """The layers in kinds: `describe` says of one layer's number what it is; those that
    differ in nothing but their number are one kind."""
    numbers_by_kind: dict[LayerKind, list[int]] = {}
    for number in sizes.numbers:
        kind = replace(describe(number), numbers=())
        numbers_by_kind.setdefault(kind, []).append(number)
    return tuple(
        replace(kind, numbers=tuple(numbers))
        for kind, numbers in numbers_by_kind.items()
    )


def make_kind(
    sizes: Sizes,
    weights: Sequence[Weight],
    saved: Saved,
    *,
    window: int | None = None,
    has_plain_attention: bool = False,
) -> LayerKind:
    """A layer whose queries, keys and values are alike in width."""
    return LayerKind(
        numbers=(),
        weights=tuple(weights),
        saved=saved,
        pair_width=2 * sizes.queries,
        cache_width=2 * sizes.keys,
        window=window,
        has_plain_attention=has_plain_attention,
    )


def attention(
    sizes: Sizes, *, bias: bool = False, output_bias: bool = False
) -> list[Weight]:
    """Four projections, as a Llama's."""
    return attention_weights(
        sizes.hidden, sizes.queries, sizes.keys, bias=bias, output_bias=output_bias
    )


def gated_mlp(sizes: Sizes, *, bias: bool = False) -> list[Weight]:
    """A gated MLP, as a Llama's."""
    return gated_mlp_weights(sizes.hidden, sizes.intermediate, bias=bias)


def plain_mlp(
    sizes: Sizes, names: tuple[str, str], *, bias: bool, folder: str = "mlp"
) -> list[Weight]:
    """An MLP of two matrices, called so: 2HI."""
    hidden, inner = sizes.hidden, sizes.intermediate
    into, out = "intermediate_size × hidden_size", "hidden_size × intermediate_size"
    rows = [
        (names[0], (inner, hidden), into, bias),
        (names[1], (hidden, inner), out, bias),
    ]
    return list_linear(folder, rows, MLP)


def head_norms(
    sizes: Sizes, names: tuple[str, str] = ("self_attn.q_norm", "self_attn.k_norm")
) -> list[Weight]:
    """Norms over each head of queries and of keys: 2d."""
    return norm_weights(names, sizes.head_dim, keys="head_dim")


def wide_norms(sizes: Sizes) -> list[Weight]:
    """Norms over all queries and over all keys: Q + K."""
    of_queries = Weight(
        "self_attn.q_norm.weight",
        (sizes.queries,),
        NORM,
        "num_attention_heads·head_dim",
    )
    of_keys = Weight(
        "self_attn.k_norm.weight", (sizes.keys,), NORM, "num_key_value_heads·head_dim"
    )
    return [of_queries, of_keys]


@dataclass(frozen=True, kw_only=True)
class ExpertNames:
    """How the tensors of experts are called: their folder, a gated MLP's three
    matrices, the router; and what config.json calls their number and their width."""

    folder: str = "mlp.experts"
    gate: str = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"
    router: str = "mlp.gate.weight"
    number_key: str = "num_experts"
    width_key: str = "moe_intermediate_size"


@dataclass(frozen=True)
class Experts:
    """Gated MLPs of the width `inner`, of which a router chooses some for each token."""

    count: int
    chosen: int
    inner: int


def expert_weights(
    sizes: Sizes, experts: Experts, names: ExpertNames | None = None
) -> list[Weight]:
    """The experts' matrices, each tensor of its own, and the router's: E·3H·I + E·H."""
    names = names or ExpertNames()
    hidden, inner = sizes.hidden, experts.inner
    into = f"{names.width_key} × hidden_size"
    out = f"hidden_size × {names.width_key}"
    rows = [
        (names.gate, (inner, hidden), into),
        (names.up, (inner, hidden), into),
        (names.down, (hidden, inner), out),
    ]
    weights = [
        Weight(
            f"{names.folder}.{EXPERT}.{name}.weight",
            shape,
            EXPERTS,
            keys,
            experts.count,
            experts.chosen,
        )
        for name, shape, keys in rows
    ]
    by_number = f"{names.number_key} × hidden_size"
    router = Weight(names.router, (experts.count, hidden), ROUTER, by_number)
    return [*weights, router]


def correction_bias(experts: int) -> Weight:
    """What DeepSeek's router adds to its scores: stored, and trained by no gradient."""
    name = "mlp.gate.e_score_correction_bias"
    return Weight(name, (experts,), BUFFER, "n_routed_experts")


@dataclass(frozen=True)
class FusedNames:
    """How a family calls the matrix of queries, keys and values, and the output's;
    `keys`: which keys of config.json give the rows."""

    folder: str
    projections: str
    output: str
    keys: str = "(num_attention_heads + 2·num_key_value_heads)·head_dim × hidden_size"


def fused_attention(
    sizes: Sizes, rows: int, names: FusedNames, *, bias: bool
) -> list[Weight]:
    """Queries, keys and values by one matrix of so many rows, and the output's."""
    of_output = "hidden_size × num_attention_heads·head_dim"
    linear = [
        (names.projections, (rows, sizes.hidden), names.keys, bias),
        (names.output, (sizes.hidden, sizes.queries), of_output, bias),
    ]
    return list_linear(names.folder, linear, ATTENTION)


def transpose(weights: Sequence[Weight]) -> list[Weight]:
    """The same matrices as transformers' Conv1D keeps them: inputs first."""
    return [
        replace(weight, shape=weight.shape[::-1], is_transposed=True)
        for weight in weights
    ]


def saved_plainly(sizes: Sizes) -> Saved:
    """What a layer keeps of a token that computes as a Llama's does."""
    return saved_by_llama(
        sizes.hidden, sizes.queries, sizes.keys, sizes.intermediate, sizes.heads
    )


def saved_by_head_norms(sizes: Sizes, *, in_floats: bool = False) -> Saved:
    """What norms over heads keep beside it: input as float32, normalised, and roots;
    `in_floats`: the normalised as float32, too, as Gemma's."""
    wide = sizes.queries + sizes.keys
    roots = sizes.heads + sizes.kv_heads
    if in_floats:
        return Saved(0, 2 * wide + roots)
    return Saved(wide, wide + roots)


def saved_by_experts(sizes: Sizes, experts: Experts) -> Saved:
    """What a layer of experts keeps in place of an MLP: each chosen expert's input and
    what its MLP makes of it, and the router's scores."""
    without_mlp = saved_plainly(sizes).add(-4 * sizes.intermediate, 0)
    chosen = experts.chosen
    elements = 2 * chosen * sizes.hidden + 4 * chosen * experts.inner
    return without_mlp.add(elements, 10 * chosen + experts.count)


def last_norm(
    sizes: Sizes, name: str = "model.norm", *, bias: bool = False
) -> tuple[Weight, ...]:
    """The norm behind the last layer."""
    return tuple(norm_weights((name,), sizes.hidden, bias=bias))


def two_norms(sizes: Sizes, *, bias: bool = False) -> list[Weight]:
    """A norm before attention and one before the MLP."""
    return norm_weights(TWO_NORMS, sizes.hidden, bias=bias)
