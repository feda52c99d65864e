"""Tries the room that snapshots are copied to: pinned, no larger than the weights, and
read right by a GPU that goes on computing."""

import torch

from jobs.contract.node_check import Finding
from jobs.model.weights import NamedTensor
from jobs.node_check.context import CheckContext
from jobs.node_check.findings import report_ok, report_problem, report_warning
from jobs.training.host_buffers import ALIGNMENT, make_buffers

# none of which is a power of two of bytes
SHAPES = ((1000, 333), (77,), (4096, 1025))


def make_tensors(device: str) -> list[NamedTensor]:
    """A few tensors in bf16 on a device."""
    return [
        NamedTensor(
            f"tensor {number}",
            torch.nn.Parameter(
                torch.randn(shape, device=device).bfloat16(), requires_grad=False
            ),
            shape,
        )
        for number, shape in enumerate(SHAPES)
    ]


def check_pinned_copies(context: CheckContext) -> list[Finding]:
    """Copies tensors into one pinned block on a stream beside the one that computes."""
    tensors = make_tensors(context.device)
    buffers = make_buffers(tensors, is_pinned=True)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for tensor in tensors:
            buffers[tensor.name].copy_(tensor.parameter, non_blocking=True)
    side.synchronize()
    return [judge_copies(tensors, buffers)]


def judge_copies(
    tensors: list[NamedTensor], buffers: dict[str, torch.Tensor]
) -> Finding:
    """Whether the copies are the tensors, their room is pinned, and no larger."""
    wrong = [
        tensor.name
        for tensor in tensors
        if not torch.equal(buffers[tensor.name], tensor.parameter.cpu())
    ]
    if wrong:
        text = f"copies of {len(wrong)} tensors in pinned memory are not what they were"
        return report_problem(text, "do not keep snapshots on this node")
    size = measure_room(buffers)
    whole = sum(tensor.bytes for tensor in tensors)
    text = f"{whole:,} bytes of weights were copied into a block of {size:,}"
    if not all(buffer.is_pinned() for buffer in buffers.values()):
        advice = (
            "training waits for each copy; see the limit of locked memory (ulimit -l)"
        )
        return report_warning(f"{text}, which could not be pinned", advice)
    if size > whole + ALIGNMENT * len(tensors):
        return report_problem(
            f"{text}, which is larger than it need be", "send us this"
        )
    return report_ok(f"{text}, which is pinned", room_bytes=size)


def measure_room(buffers: dict[str, torch.Tensor]) -> int:
    """The bytes of the block that all buffers lie in."""
    return next(iter(buffers.values())).untyped_storage().nbytes()
