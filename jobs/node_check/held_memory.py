"""Reads how much memory this process holds, and the most that it has held since it was
last asked to begin anew."""

import re
from pathlib import Path

import torch

from jobs.runtime import devices

STATUS = Path("/proc/self/status")
FORGET_PEAK = Path("/proc/self/clear_refs")
# what proc(5) has for the peak of the resident set
PEAK = "5"


class MemoryPeak:
    """The most bytes that are held beyond those at the start: of tensors on a GPU, or of
    the whole process on a CPU, where what is mapped and what the allocator keeps count,
    too."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._before = 0

    def start(self) -> None:
        """Begins anew."""
        if self._device == devices.CPU:
            FORGET_PEAK.write_text(PEAK)
            self._before = read_status("VmRSS")
            return
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._device)
        self._before = torch.cuda.memory_allocated(self._device)

    @property
    def tensors(self) -> int:
        """The most of tensors since then."""
        if self._device == devices.CPU:
            return read_status("VmHWM") - self._before
        torch.cuda.synchronize(self._device)
        return torch.cuda.max_memory_allocated(self._device) - self._before

    @property
    def reserved(self) -> int:
        """The most that the allocator had of the GPU, what lay unused included; on a CPU
        as `tensors`."""
        if self._device == devices.CPU:
            return self.tensors
        return torch.cuda.max_memory_reserved(self._device)


def read_status(name: str, path: Path = STATUS) -> int:
    """Bytes under a name in the kernel's table of this process; KeyError without one."""
    line = re.search(rf"^{name}:\s+(\d+) kB$", path.read_text(), re.MULTILINE)
    if line is None:
        raise KeyError(name)
    return 1024 * int(line[1])
