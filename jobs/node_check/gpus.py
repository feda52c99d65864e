"""Looks at the GPU of a rank: is it what the profile says, free, and the rank's alone?"""

from dataclasses import dataclass

import torch

from jobs.contract.node_check import AssumedGpu, Finding
from jobs.node_check.context import CheckContext
from jobs.node_check.findings import (
    add_comparison,
    report_ok,
    report_problem,
    report_warning,
)
from jobs.runtime import devices

GB = 1e9
# with arithmetic for bf16, and torch's varlen kernel
CAPABILITY = (8, 0)
# of CUDA and NCCL; more is somebody else's
OWN_BYTES = 2e9


@dataclass(frozen=True, kw_only=True)
class SeenGpu:
    """A GPU as its driver tells of it; bytes, of which `taken` are not free."""

    device: str
    visible: int
    name: str
    memory: int
    taken: int
    capability: tuple[int, int]
    uuid: str


def look_at_gpu(device: str) -> SeenGpu:
    """The GPU of this rank."""
    properties = torch.cuda.get_device_properties(device)
    free, whole = torch.cuda.mem_get_info(device)
    return SeenGpu(
        device=device,
        visible=len(devices.list_devices(0)),
        name=properties.name,
        memory=properties.total_memory,
        taken=whole - free,
        capability=(properties.major, properties.minor),
        uuid=str(properties.uuid),
    )


def check_gpu(context: CheckContext) -> list[Finding]:
    """This rank's GPU against what the profile says of it."""
    seen = look_at_gpu(context.device)
    major, minor = seen.capability
    text = (
        f"rank {context.ranks.rank} computes on {seen.device} of {seen.visible} that it"
        f" sees: {seen.name}, {seen.memory / GB:.1f} GB, compute capability"
        f" {major}.{minor}"
    )
    findings = [report_ok(text, visible_gpus=seen.visible)]
    findings += judge_visible(seen, context.request.gpus_per_node)
    findings += judge_capability(seen)
    findings += judge_taken(seen)
    if context.request.gpu:
        findings += judge_profile(seen, context.request.gpu)
    return findings


def judge_visible(seen: SeenGpu, gpus_per_node: int) -> list[Finding]:
    """Whether the rank sees all GPUs of the node, or the one that is bound to it."""
    if seen.visible in (1, gpus_per_node):
        return []
    return [
        report_warning(
            f"this rank sees {seen.visible} GPUs; the profile asks for {gpus_per_node} on"
            " each node",
            "see what CUDA_VISIBLE_DEVICES, --gpu-bind and slurm.gpus_by do here",
            "visible",
        )
    ]


def judge_capability(seen: SeenGpu) -> list[Finding]:
    """Whether the GPU has bf16 and the kernels that training takes."""
    if seen.capability >= CAPABILITY:
        return []
    return [
        report_problem(
            f"{seen.name} is older than the attention kernel and bf16 arithmetic, which"
            " need compute capability 8.0 (A100)",
            "use newer GPUs: slurm.constraint or slurm.gpu_type in the profile",
            "capability",
        )
    ]


def judge_taken(seen: SeenGpu) -> list[Finding]:
    """Whether somebody else is on the GPU."""
    if seen.taken <= OWN_BYTES:
        return []
    return [
        report_warning(
            f"{seen.taken / GB:.1f} GB of {seen.device} were taken before this check"
            " took any",
            "see who else computes there (nvidia-smi); the site may share GPUs",
            "taken",
            taken_gb=seen.taken / GB,
        )
    ]


def judge_profile(seen: SeenGpu, assumed: AssumedGpu) -> list[Finding]:
    """Whether name and memory are those that plan reckons with."""
    findings: list[Finding] = []
    if not names_agree(seen.name, assumed.name):
        findings.append(
            report_warning(
                f"the profile calls the GPU {assumed.name}, its driver {seen.name}",
                "mend gpu.name, gpu.memory_gb and gpu.peak_tflops in the profile",
                "name",
            )
        )
    measured = seen.memory / GB
    text = f"the GPU has {measured:.1f} GB; plan reckons with {assumed.memory_gb:g}"
    if measured < assumed.memory_gb:
        advice = f"set gpu.memory_gb: {int(measured)}, or plan admits what does not fit"
        finding = report_problem(text, advice, "memory")
    else:
        finding = report_ok(text, "memory")
    compared = add_comparison(
        finding, assumed=assumed.memory_gb, measured=measured, unit="GB"
    )
    return [*findings, compared]


def names_agree(driver_name: str, profile_name: str) -> bool:
    """Whether a profile's name of a GPU, such as A800-80G, may be that of what its
    driver calls NVIDIA A800-SXM4-80GB: the model is a word of both."""
    words = driver_name.upper().replace("-", " ").split()
    model = profile_name.upper().replace("-", " ").split()[0]
    return model in words


def check_owners(context: CheckContext) -> list[Finding]:
    """Each rank has a GPU of its own; all ranks call it together."""
    assert context.meeting
    identity = f"{context.node} {look_at_gpu(context.device).uuid}"
    everyone = context.meeting.exchange("GPU of each rank", identity)
    ranks = [rank for rank, gpu in enumerate(everyone) if gpu == identity]
    if ranks == [context.ranks.rank]:
        return [report_ok("no other rank computes on this rank's GPU")]
    return [
        report_problem(
            f"ranks {', '.join(map(str, ranks))} compute on one GPU of {context.node}",
            "ask for as many GPUs as ranks on each node (gpus_per_node), and see"
            " --gpu-bind in slurm.srun_args",
        )
    ]
