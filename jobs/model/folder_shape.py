"""Describes the shape of a decoder that lies in a folder: by its family's module, else by
its tensors. Of a loaded one: jobs.model.measured_shape."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from jobs.contract.folder import read_json
from jobs.model import weight_files
from zsg_core.errors import UserError
from zsg_core.families.headers import shape_of_tensors
from zsg_core.families.registry import find_family
from zsg_core.families.sizes import NotKnownError
from zsg_core.training.decoder import DecoderShape


def describe_folder(folder: Path) -> DecoderShape:
    """The shape of a folder's model. UserError where neither its config.json nor its
    tensors tell it."""
    config: dict[str, Any] = read_json(folder / "config.json") or {}
    try:
        return _describe_known(config) or shape_of_tensors(config, _read_shapes(folder))
    except ValueError as error:
        raise UserError(f"{folder}: {error}") from error


def _read_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    with ExitStack() as opened:
        sources = weight_files.open_weights(folder, opened, is_reading=False)
        return {name: source.shape for name, source in sources.items()}


def _describe_known(config: Mapping[str, Any]) -> DecoderShape | None:
    """The shape of a family that is known by heart; None of another."""
    entry = find_family(config)
    if entry is None:
        return None
    try:
        return entry.describe(config)
    except NotKnownError:
        return None
