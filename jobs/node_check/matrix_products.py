"""Measures what a device reaches in large matrix products: the ceiling of training.

A vendor's peak is of a chip at its highest clock. What a node's power and cooling allow
shows here, and a GPU that is slower than those beside it, too.
"""

import torch

from jobs.contract.node_check import Finding
from jobs.node_check.context import CheckContext
from jobs.node_check.device_times import time_calls
from jobs.node_check.findings import add_comparison, report_ok, report_warning
from jobs.runtime import devices

# of square matrices; a GPU is best at one of them, which one differs
GPU_SIZES = (4096, 8192, 16_384)
CPU_SIZES = (512,)
CALLS, WARM_UP = 10, 3
# below it something holds the GPU back: power, heat, or another process
LEAST_CEILING = 0.6


def measure_tflops(device: str) -> float:
    """The most of several sizes, in 1e12 operations a second: of bf16 on a GPU, of
    float32 on a CPU."""
    on_cpu = device == devices.CPU
    dtype = torch.float32 if on_cpu else torch.bfloat16
    sizes = CPU_SIZES if on_cpu else GPU_SIZES
    return max(_measure_size(size, dtype, device) for size in sizes)


def _measure_size(size: int, dtype: torch.dtype, device: str) -> float:
    first = torch.randn(size, size, dtype=dtype, device=device)
    second = torch.randn(size, size, dtype=dtype, device=device)
    product = torch.empty_like(first)

    def multiply() -> None:
        torch.mm(first, second, out=product)

    seconds = time_calls(multiply, device, calls=CALLS, warm_up=WARM_UP)
    return count_operations(size) / seconds / 1e12


def count_operations(size: int) -> float:
    """Of a product of two square matrices: a multiplication and an addition for each
    of size³ terms."""
    return 2.0 * size**3


def check_ceiling(context: CheckContext) -> list[Finding]:
    """What a large matrix product reaches, of the peak that the profile tells."""
    return [judge_ceiling(context, measure_tflops(context.device))]


def judge_ceiling(context: CheckContext, tflops: float) -> Finding:
    """A device's best matrix product against its vendor's peak."""
    text = f"a matrix product reaches {tflops:.4g} TFLOP/s on {context.device}"
    gpu = context.request.gpu
    if gpu is None or not context.has_gpu:
        return report_ok(text, tflops=tflops)
    share = tflops / gpu.peak_tflops
    text += f", {share:.2f} of the peak of {gpu.peak_tflops:g}"
    finding = report_ok(text, share=share)
    if share < LEAST_CEILING:
        advice = "see its clocks, power and heat (nvidia-smi -q), or gpu.peak_tflops"
        finding = report_warning(text, advice, share=share)
    return add_comparison(
        finding, assumed=gpu.peak_tflops, measured=tflops, unit="TFLOP/s"
    )
