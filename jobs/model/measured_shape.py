"""Says the shape of a model that is loaded: as its family has it, or, of a family that is
not known by heart, as its tensors have it. Of a folder's: jobs.model.folder_shape."""

from typing import Any

from zsg_core.families.shape import Shapes, describe_shape
from zsg_core.training.decoder import DecoderShape


def measure_shape(model: Any) -> DecoderShape:
    """The sizes of a model. Where its family is not known, what a layer keeps and
    computes is a bound."""
    return describe_shape(model.config.to_dict(), lambda: _list_shapes(model))


def _list_shapes(model: Any) -> Shapes:
    """The shapes of all parameters, as they are whole."""
    return {
        name: tuple(getattr(parameter, "ds_shape", parameter.shape))
        for name, parameter in model.named_parameters()
    }
