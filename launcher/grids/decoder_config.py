"""Says what in a config.json of any family but Llama zsg cannot train: a model of several
parts, an encoder-decoder, sizes that are none.

What attention does with packed examples is not judged here: it is proven, from the same
config.json, before a run trains (`zsg doctor --model`).
"""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from zsg_core.families import model_types
from zsg_core.families.registry import find_family
from zsg_core.families.sizes import (
    MOST_LAYERS,
    NotKnownError,
    explain_no_size,
    is_size,
)
from zsg_core.schema_errors import format_brief

# configs of other parts than the language model's
PARTS = (
    "text_config",
    "vision_config",
    "audio_config",
    "llm_config",
    "language_config",
    "thinker_config",
    "encoder",
    "decoder",
)
TRAINS = "zsg trains decoders of text, as AutoModelForCausalLM takes them"
FLAGS = (
    "tie_word_embeddings",
    "attention_bias",
    "mlp_bias",
    "use_bias",
    "qkv_bias",
    "use_qk_norm",
    "use_sliding_window",
    "use_cache",
)
COUNTS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "max_position_embeddings",
    "sliding_window",
    "num_experts",
    "num_local_experts",
    "num_experts_per_tok",
    "n_embd",
    "n_layer",
    "n_head",
    "n_positions",
)
# of which a class may take its own where null stands
OPTIONAL = (
    "intermediate_size",
    "num_key_value_heads",
    "head_dim",
    "sliding_window",
    "num_experts",
    "num_local_experts",
    "num_experts_per_tok",
)
# 0 says that there are none, or no window
MAY_BE_ZERO = ("num_experts", "num_local_experts", "sliding_window")


def explain_other_kind(config: Mapping[str, Any]) -> str | None:
    """Why a model is none that zsg trains, by what its config.json says that it is; None
    for a decoder."""
    kind = config.get("model_type")
    if not isinstance(kind, str):
        return f"config.json: model_type is {format_brief(kind)}, not a name; {TRAINS}"
    name = kind[:80]
    part_key = next((key for key in PARTS if isinstance(config.get(key), dict)), None)
    if part_key is not None or kind in model_types.NESTED:
        lies = f" (config.json has {part_key})" if part_key else ""
        return (
            f"is a {name!r} model of several parts{lies}; {TRAINS}, with a config.json of their"
            " own: save its language model alone, by transformers' class for the text part"
        )
    return _explain_other_family(config, kind)


def _explain_other_family(config: Mapping[str, Any], kind: str) -> str | None:
    """Why a model of one part is no decoder; None for one that is."""
    name = kind[:80]
    if config.get("is_encoder_decoder") is True or kind in model_types.HALVES:
        return f"is a {name!r} model, an encoder-decoder or a half of one; {TRAINS}"
    if kind in model_types.BIDIRECTIONAL:
        return (
            f"is a {name!r} model, made to see what comes after a token, too; {TRAINS}"
        )
    if kind not in model_types.DECODERS and not config.get("auto_map"):
        return f"is a {name!r} model, which transformers does not have; {TRAINS}"
    return None


def explain_other_class(config: Mapping[str, Any], names: list[Any]) -> str | None:
    """Why the class that wrote the weights is none that zsg trains; None for a causal
    language model's, or where no class is told."""
    entry = find_family(config)
    if not names or (entry is not None and entry.architecture in names):
        return None
    class_names = [str(name)[:80] for name in names]
    if entry is None and any(
        name.endswith(("ForCausalLM", "LMHeadModel")) for name in class_names
    ):
        return None
    wanted_class = entry.architecture if entry is not None else "a class ForCausalLM"
    kind = str(config.get("model_type"))[:80]
    return (
        f"is a {', '.join(class_names)[:80]!r} model of the type {kind!r}; zsg trains"
        f" {wanted_class} of that type"
    )


def find_wrong_values(config: Mapping[str, Any]) -> Iterator[str]:
    """Flags that are neither true nor false, and sizes that are no counts."""
    for key in FLAGS:
        value = config.get(key)
        if value is not None and not isinstance(value, bool):
            yield f"config.json: {key} is {format_brief(value)}, neither true nor false"
    is_known = find_family(config) is not None
    for key in COUNTS:
        if key not in config:
            continue
        is_sound = _is_count if is_known else _is_count_or_counts
        if not is_sound(key, config[key]):
            reason = explain_no_size(config[key])
            yield f"config.json: {key} is {format_brief(config[key])}, {reason}"
    types = config.get("layer_types")
    if types is not None and not _is_list_of_names(types):
        yield f"config.json: layer_types is {format_brief(types)}, not a list of names"


def find_shape_faults(config: Mapping[str, Any]) -> Iterator[str]:
    """Sizes that do not go together, and those that are missing, of a family that is
    known by heart."""
    entry = find_family(config)
    if entry is None:
        return
    try:
        shape = entry.describe(config)
    except NotKnownError:
        return
    except ValueError as error:
        yield f"config.json: {error}"
        return
    if shape.heads % shape.kv_heads:
        yield (
            f"config.json: {shape.heads} heads of queries are no multiple of {shape.kv_heads} of"
            " keys"
        )
    if shape.head_dim < 1:
        yield (
            f"config.json: the hidden size {shape.hidden} is less than {shape.heads} heads"
        )


def find_wrong_dropouts(config: Mapping[str, Any]) -> Iterator[str]:
    """Dropouts and jitters that are no share."""
    for key, value in config.items():
        if not _is_drawn(key) or value is None:
            continue
        if type(value) not in (int, float) or not 0 <= value < 1:
            yield f"config.json: {key} is {format_brief(value)}, not a share below 1"


def list_dropouts(config: Mapping[str, Any]) -> list[str]:
    """The dropouts and jitters of a config.json or of its class that are not 0, as
    `key value`. They are set to 0 for training: draws would differ by rank."""
    entry = find_family(config)
    values = {**(entry.defaults if entry is not None else {}), **config}
    return [
        f"{key} {value:g}"
        for key, value in sorted(values.items())
        if _is_drawn(key)
        and isinstance(value, int | float)
        and not isinstance(value, bool)
        and value > 0
    ]


def _is_drawn(key: str) -> bool:
    """Whether a key's value is a share of what is drawn in training; those of heads that
    zsg does not train are none."""
    is_drawn = key.endswith(("drop", "dropout", "jitter_noise"))
    return is_drawn and not key.startswith(("classifier", "summary"))


def _is_count(key: str, value: object) -> bool:
    if value is None:
        return key in OPTIONAL
    if value == 0 and type(value) is int:
        return key in MAY_BE_ZERO
    return is_size(value)


def _is_count_or_counts(key: str, value: object) -> bool:
    """Whether a value is a count, or a list with one for each layer, as some classes
    have it."""
    if not isinstance(value, list):
        return _is_count(key, value)
    counts = cast("list[Any]", value)
    return len(counts) < MOST_LAYERS and all(_is_count(key, count) for count in counts)


def _is_list_of_names(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(name, str) for name in cast("list[Any]", value)
    )
