"""Reads the weights off an engine: whole tensors one after the other, and a digest that
tells models apart.

Full models go by the names that they are published under, LoRA's adapters by PEFT's.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from jobs.model import architecture, published_names
from jobs.model.lora import ADAPTER, name_in_file
from zsg_core.digest import combine_digests
from zsg_core.training import schedule


@dataclass(frozen=True)
class NamedTensor:
    """One tensor of the forward pass: a parameter, or a buffer that is a weight, too.

    Its name is that in the model, for adapters that in a folder of them.
    """

    name: str
    parameter: torch.Tensor
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return prod(self.shape) * self.parameter.element_size()


def list_tensors(engine: Any) -> list[NamedTensor]:
    """All tensors of the model that its files have: its parameters, tied ones once, then
    its buffers."""
    model = engine.module.model
    buffers = architecture.list_saved_buffers(model)
    named = [*model.named_parameters(), *buffers.items()]
    return [_part(name, tensor) for name, tensor in named]


def publish_tensor(engine: Any, name: str, tensor: torch.Tensor) -> dict[str, Any]:
    """What a tensor of the model is in a folder of weights, by the names there: views of
    it. With adapters the model is in no folder, and everything keeps its name."""
    if adapter_config(engine) is not None:
        return {name: tensor}
    return published_names.publish_tensor(engine.module.model, name, tensor)


def adapter_parts(engine: Any) -> list[NamedTensor]:
    """The tensors of LoRA's adapters; none if the model has no adapters."""
    if adapter_config(engine) is None:
        return []
    return named_adapters(
        [tensor for tensor in list_tensors(engine) if tensor.parameter.requires_grad]
    )


def named_adapters(tuned: Sequence[NamedTensor]) -> list[NamedTensor]:
    """The tensors of adapters under the names that they have in PEFT's files."""
    return [_part(name_in_file(tensor.name), tensor.parameter) for tensor in tuned]


def adapter_config(engine: Any) -> Any | None:
    """PEFT's configuration of the adapters, if the model has any."""
    return getattr(engine.module.model, "peft_config", {}).get(ADAPTER)


def adapter_settings(engine: Any, base: Path) -> dict[str, Any]:
    """What adapter_config.json says: how the adapters were made, and the folder of the
    model they are put on."""
    config = adapter_config(engine)
    assert config is not None, "the model has adapters"
    settings = {
        **config.to_dict(),
        "base_model_name_or_path": str(base),
        "task_type": "CAUSAL_LM",
        "inference_mode": True,
    }
    settings |= {
        "peft_type": str(config.peft_type.value),
        "target_modules": sorted(config.target_modules),
    }
    return {key: value for key, value in settings.items() if value is not None}


def assign_readers(tensors: Sequence[NamedTensor], world: int) -> dict[str, int]:
    """The rank that reads each tensor, so that all have about as many bytes."""
    shares = schedule.divide_batch([tensor.bytes for tensor in tensors], world)
    return {
        tensors[item].name: rank for rank, items in enumerate(shares) for item in items
    }


def gather_tensors(
    engine: Any, tensors: Sequence[NamedTensor]
) -> Iterator[tuple[NamedTensor, torch.Tensor]]:
    """Each tensor, all ranks together: under ZeRO-3 it is gathered for as long as it is
    looked at."""
    if engine.zero_optimization_stage() < 3:
        yield from ((described, described.parameter.detach()) for described in tensors)
        return
    import deepspeed

    for described in tensors:
        # buffers are whole on each rank
        is_divided = hasattr(described.parameter, "ds_id")
        divided = [described.parameter] if is_divided else []
        with deepspeed.zero.GatheredParameters(divided):
            yield described, described.parameter.detach()


def digest_of(engine: Any) -> str:
    """The digest of the weights of the forward pass as they are published; all ranks
    call it together, and each reads its share."""
    tensors = list_tensors(engine)
    reader_of = assign_readers(tensors, dist.get_world_size())
    read: dict[str, str] = {}
    for described, tensor in gather_tensors(engine, tensors):
        if reader_of[described.name] == dist.get_rank():
            published = publish_tensor(engine, described.name, tensor)
            read |= {name: tensor_digest(view) for name, view in published.items()}
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, read)
    return combine_digests(
        {name: digest for digests in gathered for name, digest in digests.items()}
    )


def tensor_digest(tensor: torch.Tensor) -> str:
    """Shape, type and SHA-256 of the bytes of one tensor."""
    data: Any = tensor.contiguous().cpu().reshape(-1).view(torch.uint8).numpy()
    return f"{tuple(tensor.shape)} {tensor.dtype} {hashlib.sha256(data).hexdigest()}"


def _part(name: str, tensor: Any) -> NamedTensor:
    return NamedTensor(name, tensor, tuple(getattr(tensor, "ds_shape", tensor.shape)))
