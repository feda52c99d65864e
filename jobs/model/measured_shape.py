"""Says the shape of a model that is loaded: as its family has it, or, of a family that is
not known by heart, as it is found in its modules."""

from contextlib import suppress
from typing import Any

from torch import nn

from jobs.model.architecture import find_embedding, find_layers
from zsg_core.families.registry import find_family, shape_of_config
from zsg_core.families.sizes import NotKnownError
from zsg_core.training.decoder import BOUND, DecoderShape


def measure_shape(model: Any) -> DecoderShape:
    """The sizes of a model. Where its family is not known they are a bound: no fewer
    keys than queries, and every layer as wide as the widest of all."""
    config = model.config.to_dict()
    if find_family(config) is not None:
        with suppress(NotKnownError):
            return shape_of_config(config)
    embedding = find_embedding(model)
    rows, hidden = embedding.weight.shape
    layers = find_layers(model)
    heads = getattr(model.config, "num_attention_heads", None) or 1
    return DecoderShape(
        hidden=hidden,
        intermediate=max(map(_find_width, layers), default=hidden),
        layers=len(layers),
        heads=heads,
        kv_heads=heads,
        head_dim=getattr(model.config, "head_dim", None) or -(-hidden // heads),
        vocab=rows,
        tied=bool(getattr(model.config, "tie_word_embeddings", False)),
        family=str(model.config.model_type),
        known=BOUND,
    )


def _find_width(layer: nn.Module) -> int:
    """The most numbers that a token becomes within a layer: the largest side of any of
    its matrices."""
    sides = (
        max(parameter.shape) for parameter in layer.parameters() if parameter.dim() == 2
    )
    return max(sides, default=1)
