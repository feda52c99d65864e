"""Reads the shape of a decoder that lies in a folder. Of a loaded one:
jobs.model.measured_shape."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from jobs.contract.folder import read_json
from jobs.model import weight_files
from zsg_core.errors import UserError
from zsg_core.families.shape import Shapes, describe_shape
from zsg_core.training.decoder import DecoderShape


def describe_folder(folder: Path) -> DecoderShape:
    """The shape of a folder's model. UserError where neither its config.json nor its
    tensors tell it."""
    config: dict[str, Any] = read_json(folder / "config.json") or {}
    try:
        return describe_shape(config, lambda: _read_shapes(folder))
    except ValueError as error:
        raise UserError(f"{folder}: {error}") from error


def _read_shapes(folder: Path) -> Shapes:
    with ExitStack() as opened:
        sources = weight_files.open_weights(folder, opened, is_reading=False)
        return {name: source.shape for name, source in sources.items()}
