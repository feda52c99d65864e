"""Measures the machine while it trains: tokens a second, the share of its GPUs' peak, memory.

MFU (Chowdhery et al. 2022, arXiv 2204.02311, appendix B) counts the operations that
training must do, none that is done twice to save memory, and no padding.
"""

import resource
import time
from collections.abc import Sequence

from jobs.contract.job_file import TrainJob
from jobs.contract.journal import SPEED
from jobs.model.folder_shape import describe_folder
from zsg_core.training.estimate import GB, training_flops


class Speed:
    """The speed of one train job. `job` names the peak of a GPU, if the profile does."""

    def __init__(self, job: TrainJob, world: int, device: str) -> None:
        """Notes once what the utilisation is computed from; without it only tokens a
        second are told.

        The peak is of all GPUs together, in operations a second; it is used only for a
        full training, since the usual count of operations assumes a gradient of every
        weight.
        """
        peak = job.resources.peak_tflops
        # Of weights that are frozen no gradient is made, so the count would be too high.
        is_full = job.train["tuning"]["method"] == "full"
        self._peak = peak * 1e12 * world if peak and is_full else None
        self._shape = describe_folder(job.base_folder) if self._peak else None
        self._on_gpu = device.startswith("cuda")

    def of_step(self, lengths: Sequence[int], started: float) -> dict[str, float]:
        """A step over examples of these many tokens that began at `started`, by
        time.perf_counter."""
        seconds, tokens = time.perf_counter() - started, sum(lengths)
        data = {f"{SPEED}tokens_per_s": tokens / seconds}
        if self._peak and self._shape:
            flops = training_flops(
                self._shape, tokens, sum(length * length for length in lengths)
            )
            data[f"{SPEED}mfu"] = flops / seconds / self._peak
        return data

    def memory(self) -> dict[str, float]:
        """The most that this rank has held so far, in GB of 1e9 bytes: on its GPU, or
        of the machine's memory."""
        if self._on_gpu:
            import torch

            return {f"{SPEED}gpu_memory_gb": torch.cuda.max_memory_allocated() / GB}
        return {
            f"{SPEED}memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            * 1024
            / GB
        }
