"""Says what the nodes of a profile are asked to show, and what plan assumes of them. Pure."""

from jobs.contract.node_check import (
    KIND,
    LONGEST_CHECK_S,
    AssumedGpu,
    NodeCheckRequest,
    Trial,
)
from launcher.clusters import cluster as clusters
from launcher.clusters.profiles import JobSize, Profile, gpus_per_node, mem_gb
from launcher.planning.memory_fit import Layout, Load
from zsg_core.training.decoder import DecoderShape
from zsg_core.training.estimate import GB
from zsg_core.training.schedule import MICRO_TOKENS

PRECISIONS = ("bf16", "fp16")
# of the models of the templates, and one that the kernel takes only padded
HEAD_SIZES = (64, 80, 96, 128)
MAX_LENGTH = 1024
# of a job, for its start and its setup lines: what is begun must end before Slurm ends it
SPARE_S = 60.0
LEAST_BUDGET_S = 60.0
SMALL = "25M"
# LLaMA-2's 7B, and Llama-3.2's 3B and 1B with its vocabulary; the largest that fits is tried.
MODELS = {
    "7B": DecoderShape(
        hidden=4096,
        intermediate=11_008,
        layers=32,
        heads=32,
        kv_heads=32,
        head_dim=128,
        vocab=32_000,
        tied=False,
    ),
    "3B": DecoderShape(
        hidden=3072,
        intermediate=8192,
        layers=28,
        heads=24,
        kv_heads=8,
        head_dim=128,
        vocab=32_000,
        tied=True,
    ),
    "1B": DecoderShape(
        hidden=2048,
        intermediate=8192,
        layers=16,
        heads=32,
        kv_heads=8,
        head_dim=64,
        vocab=32_000,
        tied=True,
    ),
    SMALL: DecoderShape(
        hidden=512,
        intermediate=1376,
        layers=4,
        heads=8,
        kv_heads=8,
        head_dim=64,
        vocab=32_000,
        tied=True,
    ),
}
ON_CPUS = {
    "toy": DecoderShape(
        hidden=64,
        intermediate=128,
        layers=2,
        heads=4,
        kv_heads=2,
        head_dim=16,
        vocab=600,
        tied=True,
    )
}


def make_request(profile: Profile, size: JobSize) -> NodeCheckRequest:
    """What the nodes are asked to show, in a job of that size."""
    gpus = count_gpus(profile)
    return NodeCheckRequest(
        nodes=size.nodes,
        ranks_per_node=size.ranks_per_node,
        cpus_per_rank=size.cpus_per_rank,
        gpus_per_node=gpus,
        mem_gb=mem_gb(profile, KIND),
        gpu=_describe_gpu(profile),
        precisions=list(PRECISIONS),
        head_sizes=list(HEAD_SIZES),
        trial=choose_trial(profile, size, on_gpus=gpus > 0),
        budget_s=_choose_budget(size),
        setup_lines=len(profile.setup),
    )


def _choose_budget(size: JobSize) -> float:
    """For how many seconds checks are begun: the last must end within the time limit."""
    return max(LEAST_BUDGET_S, 60.0 * size.time_min - SPARE_S - LONGEST_CHECK_S)


def count_gpus(profile: Profile) -> int:
    """The GPUs of each node that the job asks Slurm for."""
    if profile.kind == "slurm" and profile.slurm.gres:
        return sum(clusters.parse_gpus(profile.slurm.gres).values())
    return gpus_per_node(profile, KIND)


def _describe_gpu(profile: Profile) -> AssumedGpu | None:
    """The GPU as the profile describes it; None where it does not."""
    gpu = profile.gpu
    if gpu is None:
        return None
    return AssumedGpu(
        name=gpu.name, memory_gb=gpu.memory_gb, peak_tflops=gpu.tflops, mfu=gpu.mfu
    )


def choose_trial(profile: Profile, size: JobSize, *, on_gpus: bool) -> Trial | None:
    """The largest model that fits on the GPUs as the profile spreads it, with what plan
    predicts of it; None if none does. Without the GPUs' memory it is a small one."""
    if not on_gpus:
        return _fit_trial(profile, size, ON_CPUS, "fp32", "cpu")
    if profile.gpu is None:
        return _fit_trial(profile, size, {SMALL: MODELS[SMALL]}, "bf16", "cuda")
    return _fit_trial(profile, size, MODELS, "bf16", "cuda")


def _fit_trial(
    profile: Profile,
    size: JobSize,
    models: dict[str, DecoderShape],
    precision: str,
    device: str,
) -> Trial | None:
    """The first of these models that fits in the memory of a GPU; where that is not
    known, simply the first."""
    memory_gb = profile.gpu.memory_gb if profile.gpu else None
    layout = _make_layout(profile, size)
    for name, shape in models.items():
        load = _make_load(profile, layout, shape, precision, MICRO_TOKENS[device])
        if memory_gb is None or load.need(layout, memory_gb) <= memory_gb * GB:
            return _make_trial(name, load, layout, memory_gb)
    return None


def _make_layout(profile: Profile, size: JobSize) -> Layout:
    """How the profile spreads a model over the ranks of a job of that size."""
    settings = profile.deepspeed
    return Layout(
        zero_stage=settings.zero_stage,
        nodes=size.nodes,
        ranks_per_node=size.ranks_per_node,
        hpz_ranks=settings.count_hpz_ranks(size.nodes * size.ranks_per_node),
    )


def _make_load(
    profile: Profile, layout: Layout, shape: DecoderShape, precision: str, budget: int
) -> Load:
    """A step with a full micro-batch on every rank."""
    return Load(
        shape=shape,
        trained=shape.parameters,
        precision=precision,
        batch=layout.world * max(1, budget // MAX_LENGTH),
        max_length=MAX_LENGTH,
        budget=budget,
        recompute=profile.trainer.recompute,
    )


def _make_trial(
    name: str, load: Load, layout: Layout, memory_gb: float | None
) -> Trial:
    """The model with what plan predicts of it, in bytes on each GPU."""
    return Trial(
        name=name,
        shape=load.shape,
        precision=load.precision,
        zero_stage=layout.zero_stage,
        hpz_ranks=layout.hpz_ranks,
        batch=load.batch,
        max_length=load.max_length,
        micro_tokens=load.micro_tokens(layout, memory_gb),
        recompute=load.recomputes(layout, memory_gb),
        held_bytes=load.tensors(layout).held,
        need_bytes=load.need(layout, memory_gb),
    )
