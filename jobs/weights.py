"""Says whether two models are the same, bit for bit: one digest of all weights."""

import hashlib
from typing import Any

import torch


def digest_of(engine: Any) -> str:
    """SHA-256 over names, shapes and bytes of the weights of the forward pass, as rank 0 has them.

    All ranks call it together: under ZeRO-3 each tensor is gathered in turn, so no rank ever holds them all.
    """
    import deepspeed

    sha = hashlib.sha256()
    is_divided = engine.zero_optimization_stage() == 3
    for name, tensor in engine.module.named_parameters():
        with deepspeed.zero.GatheredParameters([tensor], enabled=is_divided):
            sha.update(f"{name}\t{tuple(tensor.shape)}\t{tensor.dtype}\n".encode())
            sha.update(_bytes(tensor))
    return sha.hexdigest()


def _bytes(tensor: torch.Tensor) -> Any:
    return tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy()
