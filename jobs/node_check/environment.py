"""Tells what a rank's process finds around it: the system, CPUs and memory, and the
engines that it can import."""

import locale
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from jobs.contract.node_check import Finding, NodeCheckRequest
from jobs.node_check.context import CheckContext
from jobs.node_check.findings import report_ok, report_problem, report_warning
from jobs.runtime import installed_versions
from zsg_core.node_limits import (
    count_cpus,
    read_locked_memory_limit,
    read_memory_limit,
)

GB = 1e9
SLURM_GB = 2**30  # sbatch's G
# of a limit that is a little less than what was asked for, nobody need know
NEARLY = 0.98
TEMPORARY_BYTES = 2e9
# of /dev/shm, through which NCCL's ranks on a node speak; a container's default is 64 MB
SHARED_MEMORY_BYTES = 1e9
SHARED_MEMORY = Path("/dev/shm")
DRIVER = Path("/proc/driver/nvidia/version")
COMPILERS = ("cc", "gcc", "clang", "c++", "g++")


def check_system(context: CheckContext) -> list[Finding]:
    """The system and Python; whether texts are UTF-8 and there is room for temporary
    files."""
    system = f"{context.node}: Linux {platform.release()}, {platform.machine()}"
    python = f"Python {platform.python_version()} ({sys.executable})"
    return [
        report_ok(f"{system}, {python}"),
        *_check_encoding(),
        *_check_temporary_folder(),
    ]


def _check_encoding() -> list[Finding]:
    encoding = locale.getpreferredencoding(False)
    if encoding.upper().replace("-", "") == "UTF8":
        return []
    return [
        report_warning(
            f"texts are read and written as {encoding} where nothing else is said",
            "have a line of the profile's setup say export LC_ALL=C.UTF-8",
            "encoding",
        )
    ]


def _check_temporary_folder() -> list[Finding]:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if free >= TEMPORARY_BYTES:
        return []
    return [
        report_warning(
            f"temporary files go to {folder}, which has {free / GB:.1f} GB free",
            "have a line of the profile's setup set TMPDIR to a larger disk of the node",
            "temporary",
            free_gb=free / GB,
        )
    ]


def check_node_size(context: CheckContext) -> list[Finding]:
    """CPUs and memory that this rank may use, against what the profile asks for."""
    request = context.request
    memory = read_memory_limit()
    return [
        *_judge_cpus(count_cpus(), request),
        *_judge_memory(memory, request),
        *_check_shared_memory(request),
        *_judge_locked_memory(read_locked_memory_limit(), request),
    ]


def _judge_cpus(cpus: int, request: NodeCheckRequest) -> list[Finding]:
    text = f"this rank may use {cpus} CPU{'s' * (cpus != 1)}"
    if cpus >= request.cpus_per_rank:
        return [report_ok(text, "cpus", cpus=cpus)]
    return [
        report_warning(
            f"{text}, of {request.cpus_per_rank} that the profile asks for",
            "see how the site binds tasks (cpus-per-task, --cpu-bind in slurm.srun_args)",
            "cpus",
            cpus=cpus,
        )
    ]


def _judge_memory(limit: int | None, request: NodeCheckRequest) -> list[Finding]:
    if limit is None:
        return []
    text = f"this rank's job may use {limit / GB:.1f} GB of the node's memory"
    asked_for = (request.mem_gb or 0) * SLURM_GB
    if limit >= NEARLY * asked_for:
        return [report_ok(text, "memory", memory_gb=limit / GB)]
    return [
        report_warning(
            f"{text}, of {asked_for / GB:.1f} GB that slurm.mem_gb asks for",
            "set slurm.mem_gb to what the nodes have, so that plan knows it",
            "memory",
            memory_gb=limit / GB,
        )
    ]


def _check_shared_memory(request: NodeCheckRequest) -> list[Finding]:
    if request.ranks_per_node == 1 or not request.has_gpus:
        return []
    if not SHARED_MEMORY.is_dir():
        return []
    free = shutil.disk_usage(SHARED_MEMORY).free
    if free >= SHARED_MEMORY_BYTES:
        return []
    return [
        report_warning(
            f"{SHARED_MEMORY}, by which NCCL's ranks on a node speak, has"
            f" {free / GB:.2f} GB free",
            "in a container, give it more (docker: --ipc=host or --shm-size)",
            "shared_memory",
            free_gb=free / GB,
        )
    ]


def _judge_locked_memory(limit: int | None, request: NodeCheckRequest) -> list[Finding]:
    """Networks with RDMA lock what they send; without them nothing does."""
    if limit is None or request.nodes == 1 or not request.has_gpus:
        return []
    return [
        report_warning(
            f"this rank may lock {limit / GB:.3f} GB in memory; InfiniBand needs more",
            "have the site set `ulimit -l unlimited` for jobs (slurmd's LimitMEMLOCK)",
            "locked_memory",
            locked_gb=limit / GB,
        )
    ]


def check_engines(context: CheckContext) -> list[Finding]:
    """Imports what trains, and tells its versions, and those of what torch brings."""
    import deepspeed
    import torch
    import transformers

    engines = (torch, transformers, deepspeed)
    names = [f"{engine.__name__} {engine.__version__}" for engine in engines]
    findings = [
        report_ok(", ".join([*names, *_list_cuda_versions(), *_list_drivers()])),
        *_check_compilers(context),
    ]
    difference = installed_versions.find_difference()
    if difference:
        advice = "install the same versions on both, or submit from a node like these"
        findings.append(report_warning(difference, advice, "versions"))
    if context.request.has_gpus and torch.version.cuda is None:
        findings.append(
            report_problem(
                f"torch {torch.__version__} is built without CUDA",
                "install a build of torch for the node's CUDA (see constraints.txt)",
                "cuda",
            )
        )
    return findings


def _list_cuda_versions() -> list[str]:
    import torch

    if torch.version.cuda is None:
        return []
    cuda: Any = torch.cuda
    nccl = cuda.nccl.version() if cuda.is_available() else ()
    words = [f"CUDA {torch.version.cuda}"]
    if nccl:
        words.append(f"NCCL {'.'.join(map(str, nccl))}")
    return words


def _list_drivers(path: Path = DRIVER) -> list[str]:
    """The version of NVIDIA's driver, where the kernel has it."""
    try:
        first_line = path.read_text().partition("\n")[0]
    except OSError:
        return []
    numbers = [word for word in first_line.split() if word[0].isdigit()]
    return [f"driver {numbers[0]}"] if numbers else []


def _check_compilers(context: CheckContext) -> list[Finding]:
    """Triton compiles small C programs where there are GPUs; on CPUs nothing does."""
    paths = filter(None, map(shutil.which, COMPILERS))
    compiler = os.environ.get("CC") or next(paths, None)
    if compiler:
        return [report_ok(f"a compiler is there: {compiler}", "compiler")]
    if not context.request.has_gpus:
        return [report_ok("no compiler is there, and none is needed", "compiler")]
    return [
        report_warning(
            "no C compiler is on the PATH or in CC; Triton and trainer.compile need one",
            "have gcc on the nodes: in the profile's setup, module load gcc",
            "compiler",
        )
    ]
