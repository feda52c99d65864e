"""Puts a model on the GPUs of a process: whole on one, or some of its layers on each of
several.

Several take turns: accelerate has what passes through the layers follow them from GPU
to GPU, and keys and values stay where their layer is. Embedding, last norm and output
layer are on the first, where tokens come in and logits go out.
"""

import logging
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from jobs.model import architecture
from jobs.model.base_model import load_model, read_config
from zsg_core.errors import UserError
from zsg_core.training import estimate, evaluation_memory

logger = logging.getLogger(__name__)


def load_on(
    used: Sequence[str],
    folder: Path,
    precision: str,
    beside: float = 0.0,
    attention: str | None = None,
) -> Any:
    """The model of a folder on these devices. `beside`: bytes of the last of them that
    another model is to take; `attention`: as for load_model."""
    if len(used) == 1:
        return load_model(folder, precision, used[0], attention=attention)
    skeleton = _make_skeleton(folder)
    counts = _count_layers(skeleton, precision, used, beside)
    parts = [f"{count} on {device}" for count, device in zip(counts, used, strict=True)]
    logger.info(f"{folder}: its {sum(counts)} layers are spread: {', '.join(parts)}")
    device_map = make_device_map(skeleton, counts, used)
    model = load_model(folder, precision, device_map, attention=attention)
    return spread_model(model, device_map)


def _make_skeleton(folder: Path) -> Any:
    """The model of a folder's config without memory. UserError for one that zsg does
    not load."""
    try:
        return architecture.make_skeleton(
            read_config(folder), dtype=torch.float32, attention="eager"
        )
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error


def _count_layers(
    skeleton: nn.Module, precision: str, used: Sequence[str], beside: float
) -> list[int]:
    """How many layers each device is to hold, by what is on it already; where they are
    not all as large, by their mean."""
    layers = architecture.find_layers(skeleton)
    size = estimate.ELEMENT[precision]
    layer_bytes = size * sum(map(_count_values, layers)) / len(layers)
    first = size * _count_values(skeleton) - layer_bytes * len(layers)
    held_bytes = [_held_bytes(device) for device in used]
    held_bytes[-1] += beside
    return evaluation_memory.spread_layers(len(layers), layer_bytes, first, held_bytes)


def _count_values(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def spread_model(
    model: Any, device_map: dict[str, str], *, force_hooks: bool = False
) -> Any:
    """The model with its parts where the map says, and what moves between them moved.

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


def make_device_map(
    skeleton: nn.Module, counts: Sequence[int], used: Sequence[str]
) -> dict[str, str]:
    """Where each part of a model goes, by transformers' names: so many layers, one
    after the other, on each device, and the rest on the first."""
    layers = [name for name, _layer in architecture.name_layers(skeleton)]
    device_map = dict.fromkeys(_name_rest(skeleton, set(layers)), used[0])
    devices = [
        device for count, device in zip(counts, used, strict=True) for _ in range(count)
    ]
    return device_map | dict(zip(layers, devices, strict=True))


def _name_rest(
    module: nn.Module, layers: Collection[str], name: str = ""
) -> Iterator[str]:
    """The largest parts of a module without a layer in them, and the tensors of its own
    of a module with one, by name."""
    prefix = f"{name}." if name else ""
    if name in layers:
        return
    if not any(layer.startswith(prefix) for layer in layers):
        yield name
        return
    for attribute, _tensor in [
        *module.named_parameters(recurse=False),
        *module.named_buffers(recurse=False),
    ]:
        yield f"{prefix}{attribute}"
    for attribute, child in module.named_children():
        yield from _name_rest(child, layers, f"{prefix}{attribute}")


def _held_bytes(device: str) -> float:
    """What of a GPU's memory is taken, by whomever: another model of this process, the
    driver, another process. What torch has reserved and does not use is free."""
    free, whole = torch.cuda.mem_get_info(device)
    reserved = torch.cuda.memory_reserved(device)
    unused = reserved - torch.cuda.memory_allocated(device)
    return float(whole - free - unused)
