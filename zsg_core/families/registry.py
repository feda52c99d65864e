"""Which families of decoders are known by heart, and what shape a config.json of each
describes.

A family is a function under `@family("model_type", …)` in a module of this folder: from
the sizes that a config.json gives, and what the class takes where it says nothing, to
the layers. What is known so is exact, and plan needs no weights for it. A family that
is not here is counted from the tensors of its folder (`zsg_core.families.headers`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from zsg_core.families.sizes import Sizes, is_size
from zsg_core.registry import Registry
from zsg_core.training.decoder import DecoderShape, Names
from zsg_core.training.decoder_layers import LayerKind, Weight


@dataclass(frozen=True, kw_only=True)
class Layers:
    """What a family's function gives: kinds of layers, and what stands beside them.
    Without kinds they are a Llama's."""

    kinds: tuple[LayerKind, ...] = ()
    outside: tuple[Weight, ...] = ()
    names: Names = field(default_factory=Names)


Layout = Callable[[Sizes], Layers]
# of a model; the largest that are published have about 100,000, those of experts
MOST_TENSORS = 1_000_000
POSITIONS = "max_position_embeddings"
# how classes call it that are not known by heart (attribute_map of transformers 5.23);
# the first that is there counts
POSITION_KEYS = (
    POSITIONS,
    "n_positions",
    "model_max_length",
    "max_seq_len",
    "context_length",
    "n_ctx",
    "seq_length",
)


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family.

    `name`: config.json's model_type. `architecture`: the class that AutoModelForCausalLM
    takes for it. `defaults`: what that class takes for the keys that a config.json
    leaves out. `keys`: how config.json calls a size, where it is not called as a
    Llama's; the first that is there counts. `lay_out`: from sizes to layers.
    """

    name: str
    architecture: str
    lay_out: Layout
    defaults: Mapping[str, Any] = field(default_factory=dict)
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def read(self, config: Mapping[str, Any]) -> Sizes:
        """The sizes of a config.json. ValueError names one that is missing or is no count."""
        return Sizes(self.name, config, self.defaults, self.keys)

    def describe(self, config: Mapping[str, Any]) -> DecoderShape:
        """The shape that a config.json describes. ValueError as `read`, and for sizes
        that are no model's together."""
        sizes = self.read(config)
        layers = self.lay_out(sizes)
        is_llama = not layers.kinds
        shape = DecoderShape(
            hidden=sizes.hidden,
            intermediate=sizes.intermediate,
            layers=sizes.layers,
            heads=sizes.heads,
            kv_heads=sizes.kv_heads,
            head_dim=sizes.head_dim,
            vocab=sizes.vocab,
            tied=sizes.is_tied,
            attention_bias=is_llama and sizes.flag("attention_bias"),
            mlp_bias=is_llama and sizes.flag("mlp_bias"),
            family=self.name,
            kinds=layers.kinds,
            outside=layers.outside,
            names=layers.names,
        )
        _refuse_unreal(shape)
        return shape


def _refuse_unreal(shape: DecoderShape) -> None:
    """Raises ValueError for sizes of which no model is made: their names alone would fill
    the memory."""
    for kind in shape.layer_kinds:
        for weight in kind.weights:
            if weight.chosen > weight.experts:
                raise ValueError(
                    f"{weight.chosen:,} experts are chosen for each token, and there are"
                    f" {weight.experts:,}"
                )
    tensors = shape.tensor_count
    if tensors > MOST_TENSORS:
        raise ValueError(
            f"layers and experts make {tensors:,} tensors; zsg reads models of up to"
            f" {MOST_TENSORS:,}"
        )


FAMILIES: Registry[Family] = Registry("family of models", "zsg_core.families")


def family(name: str, architecture: str, **facts: Any) -> Callable[[Layout], Layout]:
    """Registers a function that lays out the family `name`; `facts` are the other fields
    of its Family."""

    def register(lay_out: Layout) -> Layout:
        entry = Family(name=name, architecture=architecture, lay_out=lay_out, **facts)
        FAMILIES.add(name, entry)
        return lay_out

    return register


def find_family(config: Mapping[str, Any]) -> Family | None:
    """The family of a config.json; None for one that is not known by heart. Without a
    model_type it is a Llama, as older configs of those are."""
    kind = config.get("model_type", "llama")
    return FAMILIES.get(kind) if isinstance(kind, str) else None


def shape_of_config(config: Mapping[str, Any]) -> DecoderShape:
    """The shape that a Hugging Face `config.json` describes.

    What older configs leave out is what the family's class takes it for. ValueError
    names a size that is missing or is no count, or the family that is not known.
    """
    entry = find_family(config)
    if entry is None:
        raise ValueError(
            f"the model_type {str(config.get('model_type'))[:80]!r} is none whose layers zsg"
            " knows by heart; they are counted from the tensors of a folder with weights"
        )
    return entry.describe(config)


def position_count(config: Mapping[str, Any]) -> int:
    """How many positions a model has by its config.json: the most tokens that it sees at
    once. Of a family that is not known by heart, what config.json says, else 2048."""
    key = find_position_key(config)
    if key is not None:
        return config[key]
    entry = find_family(config)
    defaults = {} if entry is None else entry.defaults
    return defaults.get(POSITIONS, 2048)


def find_position_key(config: Mapping[str, Any]) -> str | None:
    """Under which key a config.json says how many positions a model has; None where it
    says nothing."""
    entry = find_family(config)
    keys = POSITION_KEYS if entry is None else entry.keys.get(POSITIONS, (POSITIONS,))
    return next((key for key in keys if is_size(config.get(key))), None)
