"""Puts a model on the GPUs of a process: whole on one, or some of its layers on each of
several.

Several take turns: accelerate has what passes through the layers follow them from GPU
to GPU, and keys and values stay where their layer is. Embedding, last norm and output
layer are on the first, where tokens come in and logits go out.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from jobs.contract.folder import read_json
from jobs.model.base_model import load_model
from zsg_core.families.registry import shape_of_config
from zsg_core.training import estimate, evaluation_memory
from zsg_core.training.decoder import DecoderShape

logger = logging.getLogger(__name__)

FIRST: tuple[str, ...] = (
    "model.embed_tokens",
    "model.rotary_emb",
    "model.norm",
    "lm_head",
)


def load_on(
    used: Sequence[str], folder: Path, precision: str, beside: float = 0.0
) -> Any:
    """The Llama of a folder on these devices. `beside`: bytes of the last of them that
    another model is to take."""
    if len(used) == 1:
        return load_model(folder, precision, used[0])
    config: dict[str, Any] = read_json(folder / "config.json") or {}
    shape = shape_of_config(config)
    counts = _count_layers(shape, precision, used, beside)
    parts = [f"{count} on {device}" for count, device in zip(counts, used, strict=True)]
    logger.info(f"{folder}: its {shape.layers} layers are spread: {', '.join(parts)}")
    device_map = make_device_map(counts, used)
    return spread_model(load_model(folder, precision, device_map), device_map)


def _count_layers(
    shape: DecoderShape, precision: str, used: Sequence[str], beside: float
) -> list[int]:
    """How many layers each device is to hold, by what is on it already."""
    size = estimate.ELEMENT[precision]
    layer = float(size * shape.layer_parameters)
    first = size * shape.parameters - layer * shape.layers
    held_bytes = [_held_bytes(device) for device in used]
    held_bytes[-1] += beside
    return evaluation_memory.spread_layers(
        shape.layers,
        layer,
        first,
        held_bytes,
    )


def spread_model(
    model: Any, device_map: dict[str, str], *, force_hooks: bool = False
) -> Any:
    """The Llama with its parts where the map says, and what moves between them moved.

    `force_hooks`: has them there also where all parts are on one device.
    """
    from accelerate import dispatch_model

    return dispatch_model(
        model,
        dict[str, str | int | torch.device](device_map),
        # a cache is on all GPUs at once
        skip_keys=model._skip_keys_device_placement,
        force_hooks=force_hooks,
    )


def make_device_map(counts: Sequence[int], used: Sequence[str]) -> dict[str, str]:
    """Where each part of a Llama goes, by transformers' names: so many layers, one
    after the other, on each device, and the rest on the first."""
    device_map: dict[str, str] = dict.fromkeys(FIRST, used[0])
    layer = 0
    for count, device in zip(counts, used, strict=True):
        for _ in range(count):
            device_map[f"model.layers.{layer}"] = device
            layer += 1
    return device_map


def _held_bytes(device: str) -> float:
    """What of a GPU's memory is taken, by whomever: another model of this process, the
    driver, another process. What torch has reserved and does not use is free."""
    free, whole = torch.cuda.mem_get_info(device)
    reserved = torch.cuda.memory_reserved(device)
    unused = reserved - torch.cuda.memory_allocated(device)
    return float(whole - free - unused)
