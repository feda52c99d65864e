"""Copies small things to the device that computes, so that nothing waits for them."""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray

Integers = Sequence[int] | NDArray[np.int64]


def send_tensor(tensor: torch.Tensor, device: str | torch.device) -> torch.Tensor:
    """A tensor of the host on a device. To a GPU it goes by way of pinned memory: else
    the host waits until all that it has asked of the GPU before is done."""
    if torch.device(device).type == "cuda":
        tensor = pin_tensor(tensor)
    return tensor.to(device, non_blocking=True)


def send_integers(
    device: str | torch.device, *arrays: Integers
) -> tuple[torch.Tensor, ...]:
    """Each array as int64 on the device, all by one copy."""
    as_arrays = [np.asarray(array, dtype=np.int64) for array in arrays]
    joined = torch.from_numpy(np.concatenate(as_arrays))
    ends = list(accumulate(map(len, arrays)))
    sent = send_tensor(joined, device)
    return sent.tensor_split(ends[:-1])


def pin_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in memory that a GPU reads by itself."""
    return tensor.pin_memory()
