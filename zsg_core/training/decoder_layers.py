"""What stands in the layers of a decoder: its weights by name and shape, and what a
layer holds for its backward pass.

Sizes: H hidden, Q all heads of queries together, K all heads of keys, I the width of
the MLP, E experts of which each token is given to k.
"""

from dataclasses import dataclass
from math import prod

# what a weight does in its layer; a mixer carries tokens on without attention, as Mamba's
ATTENTION, MLP, MIXER, EXPERTS, ROUTER, NORM, OTHER = (
    "attention",
    "mlp",
    "mixer",
    "experts",
    "router",
    "norm",
    "other",
)
# a position table is looked up and multiplies nothing; a buffer is stored and not
# trained; a frozen parameter is one that no gradient trains
POSITIONS, BUFFER, FROZEN = "positions", "buffer", "frozen"
EXPERT = "{expert}"


@dataclass(frozen=True)
class Weight:
    """A tensor of a layer, or one of each expert where `{expert}` stands in its name.

    `name`: as published, within the layer. `keys`: which keys of config.json give the
    shape, for messages. Of `experts` each token meets `chosen`; 0: every token meets it
    all. `is_transposed`: whether inputs come first in the shape.
    """

    name: str
    shape: tuple[int, ...]
    part: str
    keys: str = ""
    experts: int = 0
    chosen: int = 0
    is_transposed: bool = False

    @property
    def inputs(self) -> int:
        """What goes into a matrix, of one token."""
        return self.shape[-2 if self.is_transposed else -1]

    @property
    def copies(self) -> int:
        """How many tensors of that name are stored."""
        return self.experts if EXPERT in self.name else 1

    @property
    def numel(self) -> int:
        """Elements of all its tensors."""
        return prod(self.shape) * self.copies

    @property
    def active(self) -> int:
        """Elements that one token meets."""
        return self.numel * self.chosen // self.experts if self.experts else self.numel

    @property
    def is_bias(self) -> bool:
        """Whether it is added rather than multiplied."""
        is_trained = self.part not in (BUFFER, FROZEN)
        return is_trained and self.name.endswith(("bias", "_b"))

    @property
    def module(self) -> str:
        """The module that it belongs to, within the layer: `self_attn.q_proj`."""
        return self.name.rpartition(".")[0]

    def list_names(self) -> list[str]:
        """The names of all its tensors, within the layer."""
        if EXPERT not in self.name:
            return [self.name]
        return [self.name.replace(EXPERT, str(n)) for n in range(self.experts)]


@dataclass(frozen=True)
class Saved:
    """What autograd keeps of one token in one layer: `elements` in the precision of the
    training, `floats` of 4 bytes whatever it is."""

    elements: int
    floats: int

    def count_bytes(self, element: int) -> int:
        """Bytes where an element of the training's precision has so many."""
        return element * self.elements + 4 * self.floats

    def add(self, elements: int, floats: int) -> "Saved":
        """So much more of both."""
        return Saved(self.elements + elements, self.floats + floats)


@dataclass(frozen=True, kw_only=True)
class LayerKind:
    """Layers that are alike: how many, their weights, and what they do with a token.

    `pair_width`: elements that a token multiplies for each token that it sees, scores
    and values together; 2Q but for latent attention. `cache_width`: elements of keys
    and values kept of a token. `window`: how many tokens it sees, itself among them;
    None: all before it. `has_plain_attention`: whether its scores stand in memory, as
    no kernel does a soft cap or sinks.
    """

    numbers: tuple[int, ...]
    weights: tuple[Weight, ...]
    saved: Saved
    pair_width: int
    cache_width: int
    window: int | None = None
    has_plain_attention: bool = False

    @property
    def count(self) -> int:
        """How many layers of this kind there are."""
        return len(self.numbers)

    @property
    def parameters(self) -> int:
        """Parameters of one of them."""
        return sum(weight.numel for weight in self.weights if weight.part != BUFFER)

    @property
    def active(self) -> int:
        """Parameters of one of them that one token meets."""
        return sum(weight.active for weight in self.weights if weight.part != BUFFER)


def attention_weights(
    hidden: int,
    queries: int,
    keys: int,
    *,
    bias: bool = False,
    output_bias: bool = False,
    names: tuple[str, str] = ("self_attn", "o_proj"),
) -> list[Weight]:
    """Projections of queries, keys and values and of what attention gives: 2HQ + 2HK.

    `names`: the module that they lie in, and the last of them.
    """
    folder, output = names
    of_queries = "num_attention_heads·head_dim × hidden_size"
    of_keys = "num_key_value_heads·head_dim × hidden_size"
    of_output = "hidden_size × num_attention_heads·head_dim"
    rows = [
        ("q_proj", (queries, hidden), of_queries, bias),
        ("k_proj", (keys, hidden), of_keys, bias),
        ("v_proj", (keys, hidden), of_keys, bias),
        (output, (hidden, queries), of_output, output_bias),
    ]
    return list_linear(folder, rows, ATTENTION)


def gated_mlp_weights(
    hidden: int, inner: int, *, bias: bool = False, folder: str = "mlp"
) -> list[Weight]:
    """The three matrices of a gated MLP: 3HI."""
    into, out = "intermediate_size × hidden_size", "hidden_size × intermediate_size"
    rows = [
        ("gate_proj", (inner, hidden), into, bias),
        ("up_proj", (inner, hidden), into, bias),
        ("down_proj", (hidden, inner), out, bias),
    ]
    return list_linear(folder, rows, MLP)


def list_linear(
    folder: str, rows: list[tuple[str, tuple[int, int], str, bool]], part: str
) -> list[Weight]:
    """Weights of linear layers from (name, shape, keys, whether it has a bias); `folder`
    is the module that they lie in, or nothing."""
    weights: list[Weight] = []
    for name, shape, keys, bias in rows:
        module = f"{folder}.{name}" if folder else name
        weights.append(Weight(f"{module}.weight", shape, part, keys))
        if bias:
            weights.append(Weight(f"{module}.bias", shape[:1], part, keys))
    return weights


def norm_weights(
    names: tuple[str, ...], width: int, *, bias: bool = False, keys: str = "hidden_size"
) -> list[Weight]:
    """Norms over so many elements each."""
    kinds = ("weight", "bias") if bias else ("weight",)
    return [
        Weight(f"{name}.{kind}", (width,), NORM, keys)
        for name in names
        for kind in kinds
    ]


def saved_by_llama(
    hidden: int, queries: int, keys: int, inner: int, heads: int
) -> Saved:
    """What a Llama's layer keeps of a token; exact for transformers 5.23, packed, on a
    GPU.

    Two norms: the input as float32, normalised, and scaled, and one float for its root.
    Attention: queries, keys, values, output, and float32 log-sums per head. Gated MLP:
    gate, its SiLU, up, and their product.
    """
    elements = 4 * hidden + 2 * queries + 2 * keys + 4 * inner
    return Saved(elements, 2 * hidden + 2 + heads)
