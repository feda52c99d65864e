"""Reads the weights off an engine: their digest, to tell whether two models are the same, and a folder of them."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from jobs.folder import publish, write_json

SHARD = "4GB"


def digest_of(engine: Any) -> str:
    """SHA-256 over names, shapes and bytes of the weights of the forward pass, as rank 0 has them.

    All ranks call it together: under ZeRO-3 each tensor is gathered in turn, so no rank ever holds them all.
    """
    sha = hashlib.sha256()
    for name, tensor in _whole(engine):
        sha.update(f"{name}\t{tuple(tensor.shape)}\t{tensor.dtype}\n".encode())
        sha.update(_bytes(tensor))
    return sha.hexdigest()


def save(engine: Any, base: Path, folder: Path, meta: dict[str, Any]) -> None:
    """Publishes the model with its tokenizer as a Hugging Face folder; all ranks call it together.

    `base` is the folder that the run was loaded from; `meta` goes into meta.json.
    """
    import torch.distributed as dist
    from transformers import AutoTokenizer

    held = {}
    for name, tensor in _whole(engine):
        if dist.get_rank() == 0:
            held[name.removeprefix("llama.")] = tensor.detach().cpu().clone()
    if dist.get_rank() == 0:
        with publish(folder) as draft:
            engine.module.llama.save_pretrained(draft, state_dict=held, max_shard_size=SHARD)
            AutoTokenizer.from_pretrained(base, local_files_only=True).save_pretrained(draft)
            write_json(draft / "meta.json", meta)
    dist.barrier()


def _whole(engine: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Every parameter with its name, gathered for as long as it is looked at."""
    import deepspeed

    is_divided = engine.zero_optimization_stage() == 3
    for name, tensor in engine.module.named_parameters():
        with deepspeed.zero.GatheredParameters([tensor], enabled=is_divided):
            yield name, tensor


def _bytes(tensor: torch.Tensor) -> Any:
    return tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy()
