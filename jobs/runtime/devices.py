"""Chooses the devices that a process computes on, among the GPUs that it can see.

How many those are is the site's to say: all of a node, or the one that Slurm bound to
the rank (`--gpus-per-task`, `--gpu-bind`). Torch numbers them from 0 in every process.
"""

import logging

from zsg_core.errors import ClusterError

logger = logging.getLogger(__name__)

CPU = "cpu"


def list_devices(gpus: int) -> list[str]:
    """The devices that this process sees: `cuda:0` and on, or the CPU where there is no GPU.

    ClusterError where `gpus` of the node were asked for and torch sees none: computing
    on in silence on the CPU would hold them for nothing.
    """
    import torch

    if torch.cuda.is_available():
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if gpus:
        raise ClusterError(
            f"{gpus} GPU{'s were' if gpus > 1 else ' was'} asked for on this node, but torch sees"
            " none (driver? build?)"
        )
    return [CPU]


def choose_devices(gpus: int) -> list[str]:
    """The devices of a job of one process that was given so many GPUs, 0 where nothing
    was said; ClusterError as above.

    Says so where the process sees fewer than that.
    """
    visible = list_devices(gpus)
    if len(visible) < gpus:
        logger.warning(
            f"{gpus} GPUs were asked for, but this process sees {len(visible)}: does --gpu-bind"
            " (slurm.srun_args, slurm.sbatch) or the site show it fewer?"
        )
    return visible[: max(1, gpus)]


def choose_device(local: int, gpus: int) -> str:
    """The device of the rank with the number `local` on its node; ClusterError as above.

    Ranks that see the same GPUs take one each. A rank that sees its own alone takes it.
    """
    devices = list_devices(gpus)
    return devices[local % len(devices)]


def read_index(device: str) -> int:
    """The number of a GPU among those that the process sees."""
    return int(device.partition(":")[2])
