"""Takes the time of what a device does. A GPU is still at work when the host has asked
for all of it, so whoever looks at the clock waits for it first."""

import time
from collections.abc import Callable

import torch

from jobs.runtime import devices


def wait_for_device(device: str) -> None:
    """Returns once a device has done all that it was asked for."""
    if device != devices.CPU:
        torch.cuda.synchronize(device)


def time_calls(
    compute: Callable[[], object], device: str, *, calls: int, warm_up: int
) -> float:
    """Seconds of one call, the mean of so many one after the other; those before, which
    warm up, are not counted."""
    for _ in range(warm_up):
        compute()
    wait_for_device(device)
    started = time.perf_counter()
    for _ in range(calls):
        compute()
    wait_for_device(device)
    return (time.perf_counter() - started) / calls
