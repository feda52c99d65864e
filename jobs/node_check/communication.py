"""Tries what ranks do together in every step: sums over all of them, right and fast, and
waiting for one another."""

import statistics
import time

import torch
import torch.distributed as dist

from jobs.contract.node_check import Finding
from jobs.node_check.context import CheckContext
from jobs.node_check.device_times import time_calls, wait_for_device
from jobs.node_check.findings import count_ranks, report_ok, report_problem

GB = 1e9
GPU_ELEMENTS, CPU_ELEMENTS = 1 << 27, 1 << 20
CALLS, WARM_UP = 5, 2
BARRIERS = 20
# whole numbers of bf16 that are exact
EXACT = 256


def check_sums(context: CheckContext) -> list[Finding]:
    """A sum over all ranks is right, and how many bytes a second it takes; all ranks
    call it together."""
    dtype = torch.bfloat16 if context.has_gpu else torch.float32
    elements = GPU_ELEMENTS if context.has_gpu else CPU_ELEMENTS
    wrong = count_wrong_sums(context.device, dtype, context.ranks.world)
    if wrong:
        return [
            report_problem(
                f"a sum over {count_ranks(context.ranks.world)} is wrong in {wrong} elements",
                "a network or a GPU damages what it sends; have the site look at"
                f" {context.node}, and try NCCL_DEBUG=INFO in the profile's setup",
            )
        ]
    block = torch.zeros(elements, dtype=dtype, device=context.device)
    seconds = time_calls(
        lambda: dist.all_reduce(block), context.device, calls=CALLS, warm_up=WARM_UP
    )
    return _describe_sums(context, block.numel() * block.element_size(), seconds)


def count_wrong_sums(device: str, dtype: torch.dtype, world: int) -> int:
    """How many elements of a sum over all ranks are not what they must be, to the bit."""
    rank = dist.get_rank()
    pattern = torch.arange(4096, device=device) % 3
    summed = (pattern + rank % 5).to(dtype)
    dist.all_reduce(summed)
    added = sum(number % 5 for number in range(world))
    expected = pattern * world + added
    # beyond it bf16 rounds, in an order of the network's own
    is_exact = expected <= EXACT
    differs = summed.float() != expected.float()
    return int((differs & is_exact).sum().item())


def _describe_sums(context: CheckContext, size: int, seconds: float) -> list[Finding]:
    if not context.ranks.is_main:
        return []
    world = context.ranks.world
    if world == 1:
        return [report_ok("there is one rank, so nothing is sent")]
    bus = compute_bus_speed(size, seconds, world) / GB
    text = (
        f"a sum of {size / 1e6:.0f} MB over {world} ranks takes {1000 * seconds:.1f} ms:"
        f" {bus:.1f} GB/s on the slowest link"
    )
    return [report_ok(text, sum_s=seconds, bus_gb_per_s=bus)]


def compute_bus_speed(size: int, seconds: float, world: int) -> float:
    """Bytes a second that pass the slowest link: of a ring, each rank sends and receives
    2(n − 1)/n of what is summed (NCCL's "bus bandwidth")."""
    return 2 * (world - 1) / world * size / seconds


def check_barriers(context: CheckContext) -> list[Finding]:
    """How long the ranks take to wait for one another; all ranks call it together."""
    seconds = [measure_barrier(context.device) for _ in range(BARRIERS)]
    median = statistics.median(seconds)
    if not context.ranks.is_main:
        return []
    text = f"ranks wait for one another in {1000 * median:.2f} ms (the median)"
    return [report_ok(text, barrier_s=median, longest_barrier_s=max(seconds))]


def measure_barrier(device: str) -> float:
    """Seconds of one barrier."""
    started = time.perf_counter()
    dist.barrier()
    wait_for_device(device)
    return time.perf_counter() - started
