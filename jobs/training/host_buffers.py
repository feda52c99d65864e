"""Makes room on the host for copies of tensors: pinned where there is a GPU, and no
larger than they are.

torch's own pinned memory is a power of two of bytes for each tensor, so that of a model
it may be twice the model (aten/cuda/CachingHostAllocator). Here it is one block, which
CUDA is asked to pin.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch

from jobs.model.weights import NamedTensor

logger = logging.getLogger(__name__)

ALIGNMENT = 64  # bytes, to which each tensor's room begins

# Blocks that CUDA has pinned stay until the process ends: freed, they could be handed
# out anew while CUDA still takes them for pinned.
_pinned_blocks: list[torch.Tensor] = []


def make_buffers(
    tensors: Sequence[NamedTensor], *, is_pinned: bool
) -> dict[str, torch.Tensor]:
    """A tensor of zeros for each of the tensors, by their names; all in one block."""
    offsets: list[int] = []
    size = 0
    for tensor in tensors:
        offsets.append(size)
        size += -(-tensor.bytes // ALIGNMENT) * ALIGNMENT
    # a page that was never written to is not there yet: training would wait for it
    block = torch.empty(size, dtype=torch.uint8).zero_()
    if is_pinned and size:
        _pin(block)
    return {
        tensor.name: block[offset : offset + tensor.bytes]
        .view(tensor.parameter.dtype)
        .view(tensor.shape)
        for tensor, offset in zip(tensors, offsets, strict=True)
    }


def _pin(block: torch.Tensor) -> None:
    """Has CUDA pin a block; where it will not, training waits for its copies, and that
    is said."""
    runtime: Any = torch.cuda.cudart()
    status = runtime.cudaHostRegister(block.data_ptr(), block.numel(), 0)
    if int(status) == 0:
        _pinned_blocks.append(block)
        return
    logger.warning(
        f"{block.numel() / 1e9:.1f} GB for copies of the weights cannot be pinned (CUDA error"
        f" {int(status)}); training waits for each snapshot to be copied"
    )
    _forget_error()


def _forget_error() -> None:
    """Takes the error that CUDA tells once more, at the next call."""
    with suppress(RuntimeError):
        torch.zeros(1, device="cuda")
