"""Says the shape of a Llama: how many parameters it has, and where they stand. From its
config alone."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

NEEDED = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
)
# What transformers' LlamaConfig takes where a config.json says nothing.
DEFAULTS = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
}


@dataclass(frozen=True, kw_only=True)
class LlamaShape:
    """The sizes of a Llama (arXiv 2302.13971): RMSNorm, gated MLP, and rotary
    positions, which have no parameters."""

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

    @property
    def queries(self) -> int:
        """Width of attention: heads × head_dim, for most models the hidden size."""
        return self.heads * self.head_dim

    @property
    def head(self) -> int:
        """Parameters of the output layer, which multiply every token whether it shares
        the embedding or not."""
        return self.vocab * self.hidden

    @property
    def body(self) -> int:
        """Parameters between embedding and output layer: all layers and the last norm."""
        return self.layers * self.layer_parameters + self.hidden

    @property
    def layer_parameters(self) -> int:
        """Parameters of one layer: attention, MLP, two norms, biases."""
        biases = self.biases // self.layers
        return self._attention + self._mlp + 2 * self.hidden + biases

    @property
    def parameters(self) -> int:
        """All parameters: embedding, body, and an output layer of its own unless tied."""
        return self.body + self.head * (1 if self.tied else 2)

    @property
    def biases(self) -> int:
        """Parameters that are biases; LLaMA and LLaMA-2 have none."""
        keys = self.kv_heads * self.head_dim
        attention = self.queries + 2 * keys + self.hidden if self.attention_bias else 0
        mlp = 2 * self.intermediate + self.hidden if self.mlp_bias else 0
        return self.layers * (attention + mlp)

    @property
    def _attention(self) -> int:
        return 2 * self.hidden * (self.queries + self.kv_heads * self.head_dim)

    @property
    def _mlp(self) -> int:
        return 3 * self.hidden * self.intermediate


def shape_of_config(config: Mapping[str, Any]) -> LlamaShape:
    """The shape that a Hugging Face `config.json` describes.

    What older configs leave out is what LlamaConfig takes it for: one key head per
    head, untied, no biases. ValueError names a size that is missing or is no count.
    """
    hidden, intermediate, layers, heads, vocab = (
        _read_count(config, key) for key in NEEDED
    )
    kv_heads = (
        _read_count(config, "num_key_value_heads")
        if config.get("num_key_value_heads") is not None
        else heads
    )
    head_dim = (
        _read_count(config, "head_dim")
        if config.get("head_dim") is not None
        else hidden // heads
    )
    return LlamaShape(
        hidden=hidden,
        intermediate=intermediate,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab=vocab,
        tied=bool(config.get("tie_word_embeddings", False)),
        attention_bias=bool(config.get("attention_bias")),
        mlp_bias=bool(config.get("mlp_bias")),
    )


def position_count(config: Mapping[str, Any]) -> int:
    """How many positions a Llama has by its config.json: the most tokens that it sees at once."""
    positions = config.get("max_position_embeddings")
    return (
        positions
        if isinstance(positions, int) and positions > 0
        else DEFAULTS["max_position_embeddings"]
    )


def tiny_shape(base: Mapping[str, Any]) -> LlamaShape:
    """The shape of the `tiny` model from its recipe's hidden, layers, heads and vocab."""
    hidden, heads = base["hidden"], base["heads"]
    return LlamaShape(
        hidden=hidden,
        intermediate=tiny_intermediate(hidden),
        layers=base["layers"],
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        vocab=base["vocab"],
        tied=True,
    )


def add_tokens(shape: LlamaShape, count: int) -> LlamaShape:
    """The shape once `count` tokens have been added; the same if none are."""
    return replace(shape, vocab=padded_vocab(shape.vocab + count)) if count else shape


def padded_vocab(tokens: int) -> int:
    """Rows of an embedding for so many tokens: the next multiple of 64, which suits a
    GPU's tiles (DELIA's code)."""
    return -(-tokens // 64) * 64


def tiny_intermediate(hidden: int) -> int:
    """The width of tiny's gated MLP: Llama's 8/3·hidden, rounded up to a multiple of 8."""
    return -(-8 * hidden // 24) * 8


def _read_count(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        problem = f"is {value!r}, not a count" if key in config else "is missing"
        raise ValueError(f"{key} {problem}; a Llama's config has {', '.join(NEEDED)}")
    return value
