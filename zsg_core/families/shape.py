"""Says the shape of a decoder, whoever asks: plan of a folder's files, a job of a folder
or of a model that is loaded. By its family's module, else by its tensors."""

from collections.abc import Callable, Mapping
from typing import Any

from zsg_core.families.headers import shape_of_tensors
from zsg_core.families.registry import find_family
from zsg_core.families.sizes import NotKnownError
from zsg_core.training.decoder import DecoderShape

Shapes = Mapping[str, tuple[int, ...]]

# what transformers' LlamaConfig takes where a config.json says nothing: older files of
# Llamas leave sizes out
LLAMA = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
}


def describe_known(config: Mapping[str, Any]) -> DecoderShape | None:
    """The shape of a family that is known by heart; None of another one, and of a variant
    that its module does not know.

    ValueError names a size that is missing or is no count.
    """
    entry = find_family(config)
    if entry is None:
        return None
    if entry.name == "llama":
        config = {**LLAMA, **config}
    try:
        return entry.describe(config)
    except NotKnownError:
        return None


def describe_shape(
    config: Mapping[str, Any], read_shapes: Callable[[], Shapes]
) -> DecoderShape:
    """The shape that a config.json describes; `read_shapes` gives those of its tensors by
    name, and is called only where the config does not tell.

    ValueError where neither tells it.
    """
    return describe_known(config) or shape_of_tensors(config, read_shapes())
