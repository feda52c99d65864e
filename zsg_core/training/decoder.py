"""Says the shape of a decoder: how many parameters it has, and where they stand.

What a config.json says is read by `zsg_core.families`; here is what plan, training and
evaluation ask of a shape, whatever its family.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from zsg_core.training.decoder_layers import (
    ATTENTION,
    BUFFER,
    EXPERTS,
    FROZEN,
    MIXER,
    MLP,
    NORM,
    OTHER,
    POSITIONS,
    ROUTER,
    LayerKind,
    Weight,
    attention_weights,
    gated_mlp_weights,
    norm_weights,
    saved_by_llama,
)

# how well a shape is known: by its family's module, or from the names and shapes of
# its tensors alone, where activations and operations are bounds
EXACT, BOUND = "exact", "bound"
# the parts of a layer that have matrices
MATRICES = (ATTENTION, MLP, MIXER, EXPERTS, ROUTER)


@dataclass(frozen=True, kw_only=True)
class Names:
    """How tensors are called in published files; `layer` stands before the names within
    a layer, `prefix` is what some files leave out. `head_module`: how the output layer
    is called in memory, where transformers gives it another name; else nothing."""

    embedding: str = "model.embed_tokens.weight"
    layer: str = "model.layers.{layer}."
    head: str = "lm_head.weight"
    prefix: str = "model."
    head_module: str = ""

    @property
    def tables(self) -> tuple[str, str]:
        """The modules of the embedding and of the output layer, as in memory."""
        head = self.head_module or self.head.removesuffix(".weight")
        return self.embedding.removesuffix(".weight"), head


@dataclass(frozen=True)
class LinearModules:
    """Matrices of one name, in all layers of the model: what goes in and comes out.

    `name` is that within a layer; `part`: one of MATRICES, or OTHER for embedding and
    output layer.
    """

    name: str
    part: str
    inputs: int
    outputs: int
    count: int


@dataclass(frozen=True, kw_only=True)
class DecoderShape:
    """The sizes of a decoder.

    Without `kinds` it is a Llama (arXiv 2302.13971): RMSNorm, gated MLP, and rotary
    positions, which have no parameters; `attention_bias` and `mlp_bias` are of those.
    `kinds` are layers that are alike, `outside` what stands beside layers, embedding and
    output layer. `known`: EXACT or BOUND.
    """

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool
    attention_bias: bool = False
    mlp_bias: bool = False
    family: str = "llama"
    kinds: tuple[LayerKind, ...] = ()
    outside: tuple[Weight, ...] = ()
    names: Names = field(default_factory=Names)
    known: str = EXACT

    @property
    def queries(self) -> int:
        """Width of attention: heads × head_dim, for most models the hidden size."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Width of the keys, and of the values: kv_heads × head_dim."""
        return self.kv_heads * self.head_dim

    @property
    def head(self) -> int:
        """Parameters of the output layer, which multiply every token whether it shares
        the embedding or not."""
        return self.vocab * self.hidden

    @cached_property
    def layer_kinds(self) -> tuple[LayerKind, ...]:
        """The kinds of its layers."""
        return self.kinds or (self._llama_kind(),)

    @cached_property
    def weights_outside(self) -> tuple[Weight, ...]:
        """What stands beside layers, embedding and output layer: a last norm, most often."""
        if self.kinds:
            return self.outside
        return tuple(norm_weights(("model.norm",), self.hidden))

    @cached_property
    def body(self) -> int:
        """Parameters between embedding and output layer."""
        return self._in_layers + _count(self.weights_outside)

    @cached_property
    def active_body(self) -> int:
        """Of them those that multiply one token: of experts only the chosen ones, and no
        table of positions."""
        layers = sum(kind.count * kind.active for kind in self.layer_kinds)
        outside = [
            weight for weight in self.weights_outside if weight.part != POSITIONS
        ]
        return layers + _count(outside)

    @cached_property
    def layer_parameters(self) -> int:
        """Parameters of one layer; their mean where layers differ, rounded up."""
        return -(-self._in_layers // self.layers)

    @cached_property
    def parameters(self) -> int:
        """All parameters: embedding, body, and an output layer of its own unless tied."""
        return self.body + self.head * (1 if self.tied else 2)

    @property
    def active(self) -> int:
        """Parameters that multiply one token: of the body, and the output layer's."""
        return self.active_body + self.head

    @cached_property
    def biases(self) -> int:
        """Parameters that are biases; LLaMA and LLaMA-2 have none."""
        return sum(
            count * weight.numel for weight, count in self._counted() if weight.is_bias
        )

    @cached_property
    def norms(self) -> int:
        """Parameters of the norms, their biases among them."""
        return sum(
            count * weight.numel
            for weight, count in self._counted()
            if weight.part == NORM
        )

    @property
    def tensor_count(self) -> int:
        """How many tensors its files hold, but for embedding and output layer."""
        return sum(count * weight.copies for weight, count in self._counted())

    @cached_property
    def frozen(self) -> int:
        """Parameters that no gradient trains, as their class has them."""
        return sum(
            count * weight.numel
            for weight, count in self._counted()
            if weight.part == FROZEN
        )

    @cached_property
    def has_experts(self) -> bool:
        """Whether some weights are chosen token by token."""
        return any(weight.experts for weight, _ in self._counted())

    @cached_property
    def linear_modules(self) -> tuple[LinearModules, ...]:
        """The matrices of the layers that LoRA can take."""
        counts: dict[tuple[str, str, int, int], int] = {}
        for kind in self.layer_kinds:
            for weight in filter(is_matrix, kind.weights):
                outputs, inputs = weight.shape[-2:]
                module = weight.module or weight.name
                key = (module, weight.part, inputs, outputs)
                of_layer = weight.experts or 1
                earlier = counts.get(key, 0)
                counts[key] = earlier + kind.count * of_layer
        modules = [LinearModules(*key, count) for key, count in counts.items()]
        return tuple(modules)

    @property
    def table_modules(self) -> tuple[LinearModules, LinearModules]:
        """The embedding and the output layer, as LoRA takes them."""
        embedding, head = self.names.tables
        return (
            LinearModules(embedding, OTHER, self.vocab, self.hidden, 1),
            LinearModules(head, OTHER, self.hidden, self.vocab, 1),
        )

    def list_tensors(self) -> Iterator[tuple[str, Weight]]:
        """Every tensor that a folder of its weights must hold, by its published name;
        embedding and output layer are not among them."""
        for weight in self.weights_outside:
            yield weight.name, weight
        for kind in self.layer_kinds:
            for number in kind.numbers:
                start = self.names.layer.format(layer=number)
                for weight in kind.weights:
                    for name in weight.list_names():
                        yield start + name, weight

    @property
    def _in_layers(self) -> int:
        return sum(kind.count * kind.parameters for kind in self.layer_kinds)

    def _counted(self) -> Iterator[tuple[Weight, int]]:
        """Each weight with how often it is there."""
        for kind in self.layer_kinds:
            for weight in kind.weights:
                yield weight, kind.count
        for weight in self.weights_outside:
            yield weight, 1

    def _llama_kind(self) -> LayerKind:
        weights = attention_weights(
            self.hidden,
            self.queries,
            self.keys,
            bias=self.attention_bias,
            output_bias=self.attention_bias,
        )
        weights += gated_mlp_weights(self.hidden, self.intermediate, bias=self.mlp_bias)
        weights += norm_weights(
            ("input_layernorm", "post_attention_layernorm"), self.hidden
        )
        saved = saved_by_llama(
            self.hidden, self.queries, self.keys, self.intermediate, self.heads
        )
        return LayerKind(
            numbers=tuple(range(self.layers)),
            weights=tuple(weights),
            saved=saved,
            pair_width=2 * self.queries,
            cache_width=2 * self.keys,
        )


def is_matrix(weight: Weight) -> bool:
    """Whether a weight is multiplied as a linear layer's is: a matrix, or one for each
    expert. A convolution's has three dimensions, and what is no module's `weight` is
    used otherwise."""
    if weight.is_bias or weight.part not in MATRICES:
        return False
    if weight.part == EXPERTS:
        return len(weight.shape) >= 2
    return len(weight.shape) == 2 and weight.name.endswith(".weight")


def _count(weights: Iterator[Weight] | tuple[Weight, ...] | list[Weight]) -> int:
    """The parameters of some weights together. Buffers are saved with a model but are
    no parameters: nothing learns them and no optimiser holds anything for them."""
    return sum(weight.numel for weight in weights if weight.part != BUFFER)


def tiny_shape(base: Mapping[str, Any]) -> DecoderShape:
    """The shape of the `tiny` model from its recipe's hidden, layers, heads and vocab."""
    hidden, heads = base["hidden"], base["heads"]
    return DecoderShape(
        hidden=hidden,
        intermediate=tiny_intermediate(hidden),
        layers=base["layers"],
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        vocab=base["vocab"],
        tied=True,
    )


def add_tokens(shape: DecoderShape, count: int) -> DecoderShape:
    """The shape once `count` tokens have been added; the same if none are."""
    return replace(shape, vocab=padded_vocab(shape.vocab + count)) if count else shape


def padded_vocab(tokens: int) -> int:
    """Rows of an embedding for so many tokens: the next multiple of 64, which suits a
    GPU's tiles (DELIA's code)."""
    return -(-tokens // 64) * 64


def tiny_intermediate(hidden: int) -> int:
    """The width of tiny's gated MLP: Llama's 8/3·hidden, rounded up to a multiple of 8."""
    return -(-8 * hidden // 24) * 8
