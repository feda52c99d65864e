"""Decides whether the memory of a node is enough for a run's ranks, and says so. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from launcher.planning.memory_fit import Layout, Load
from zsg_core.training import estimate
from zsg_core.training.estimate import GB

# Python, torch, transformers and DeepSpeed; on a GPU also CUDA and NCCL
PROCESS_GB, PROCESS_WITH_GPU_GB = 1.0, 4.0
LARGE_GB = 16.0  # more than which a site's default is not taken for enough
COPIES = 2  # of a rank's part of the weights: see jobs.training.weight_folders
SLURM_GB = 2**30 / GB  # sbatch's G is of 1024^3 bytes
# of a machine's memory, what runs may fill: the system, zsg and MLflow have the rest
SHARE_FOR_RUNS = 0.9


@dataclass(frozen=True, kw_only=True)
class HostNeed:
    """What a run's ranks need together of the memory of each node, in GB of 1e9 bytes."""

    ranks: int
    processes_gb: float
    trained_gb: float  # on a node without GPUs, all that a GPU would hold
    start_gb: float  # while DeepSpeed takes the model over
    copies_gb: float  # room for copies of the weights, which a thread writes
    resume_gb: float  # while a saved state is read

    @property
    def surely_gb(self) -> float:
        """Tensors that are there in every run, whatever else is."""
        return self.trained_gb + max(self.start_gb, self.copies_gb)

    @property
    def most_gb(self) -> float:
        """The most at any moment, that of a resume included."""
        moments = self.start_gb, self.copies_gb + self.resume_gb
        return self.processes_gb + self.trained_gb + max(moments)

    @property
    def to_set(self) -> int:
        """The least slurm.mem_gb that is enough."""
        return math.ceil(self.most_gb / SLURM_GB)


def estimate_host_need(
    load: Load,
    layout: Layout,
    copied: int,
    *,
    on_gpu: bool,
    gpu_memory_gb: float | None,
) -> HostNeed:
    """The need of a run whose snapshots hold `copied` parameters, 0 for one without.

    `gpu_memory_gb`: None where it is not known, or there are no GPUs.
    """
    tensors = estimate.estimate_host_tensors(
        load.shape.parameters,
        layout.zero_stage,
        layout.world,
        load.precision,
        load.trained,
        gpu_bytes=math.inf if gpu_memory_gb is None else gpu_memory_gb * GB,
    )
    ranks = layout.ranks_per_node
    copy = estimate.ELEMENT[load.precision] * copied / layout.nodes
    trained = 0.0 if on_gpu else load.need(layout, None) / GB
    process = PROCESS_WITH_GPU_GB if on_gpu else PROCESS_GB
    return HostNeed(
        ranks=ranks,
        processes_gb=ranks * process,
        trained_gb=ranks * trained,
        start_gb=ranks * tensors.start / GB,
        copies_gb=COPIES * copy / GB,
        resume_gb=ranks * tensors.resume / GB,
    )


def explain_short(need: HostNeed, mem_gb: int | None) -> str | None:
    """Why a node's memory cannot be enough, and what would be; None where it may be."""
    if mem_gb is None or need.surely_gb <= mem_gb * SLURM_GB:
        return None
    return (
        f"needs {need.surely_gb:.1f} GB of memory on each node at the least"
        f" ({describe_need(need)}), but slurm.mem_gb is {mem_gb}. Set slurm.mem_gb:"
        f" {need.to_set}, or use a higher deepspeed.zero_stage or more nodes"
    )


def find_note(
    need: HostNeed, mem_gb: int | None, option: str | None = None
) -> str | None:
    """What to say of a memory that may not be enough; None where it is.

    `option`: the option of sbatch by which the profile asks for memory otherwise.
    """
    if mem_gb is None and need.most_gb > LARGE_GB:
        source = "slurm.mem_gb is null, the site's default"
        if option:
            source = f"memory is asked for by slurm.sbatch.{option}"
        return (
            f"{source}; a train job needs up to {need.most_gb:.0f} GB on each node"
            f" ({describe_need(need)}): set slurm.mem_gb: {need.to_set}, unless that is more"
        )
    if mem_gb is not None and need.most_gb > mem_gb * SLURM_GB:
        return (
            f"slurm.mem_gb is {mem_gb}; a train job may need {need.most_gb:.0f} GB on each node"
            f" ({describe_need(need)}): set slurm.mem_gb: {need.to_set}"
        )
    return None


def find_crowded_note(
    needs: Sequence[HostNeed], at_once: int, memory_gb: float
) -> str | None:
    """What to say of runs that train side by side on this machine; None where
    SHARE_FOR_RUNS of its `memory_gb` holds those that need the most.

    `needs`: of every run, the largest first; `at_once`: how many of them train at the
    same time.
    """
    largest = needs[:at_once]
    together = sum(need.most_gb for need in largest)
    room = SHARE_FOR_RUNS * memory_gb
    if together <= room:
        return None
    fitting = 0
    taken = 0.0
    for need in largest:
        taken += need.most_gb
        if taken <= room:
            fitting += 1
    has = f"this machine has {memory_gb:.1f} GB of memory"
    made_of = describe_need(largest[0])
    if not fitting:
        return (
            f"{has}; a run may need {largest[0].most_gb:.1f} GB ({made_of}): the system ends"
            " what takes more than there is"
        )
    return (
        f"{has}; {len(largest)} runs side by side may need {together:.1f} GB, each up to"
        f" {largest[0].most_gb:.1f} ({made_of}): set max_parallel: {fitting} in the profile"
    )


def describe_need(need: HostNeed) -> str:
    """What the need is made of, for all ranks of a node."""
    gb_by_name = {
        f"{need.ranks} process{'es' * (need.ranks > 1)}": need.processes_gb,
        "what is trained": need.trained_gb,
        "DeepSpeed's start": need.start_gb,
        "copies for snapshots": need.copies_gb,
        "reading a state to resume from": need.resume_gb,
    }
    texts = [f"{name} {gb:.1f}" for name, gb in gb_by_name.items() if gb >= 0.05]
    return ", ".join(texts)
