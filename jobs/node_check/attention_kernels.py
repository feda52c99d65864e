"""Holds attention on a device against the plain one: each example alone, in float32, on
the CPU.

Both are jobs.model.packed_attention's own `attend`. The plain side is given the very
numbers that the device is, rounded to 16 bits already, so what differs is what the
device's kernel rounds: the probabilities and its results.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from jobs.contract.node_check import Finding
from jobs.model import packed_attention
from jobs.model.packed_attention import Row
from jobs.node_check.context import CheckContext
from jobs.node_check.findings import report_ok, report_problem, report_skipped
from zsg_core.training.attention_kernel import LARGEST_HEAD

# of a packed row; the first and the last begin or end within a kernel's block
LENGTHS = (65, 200, 1, 118)
HEADS, KEY_HEADS = 4, 2
# Of the largest value: a result is rounded once (half an epsilon), and so is each of the
# probabilities that it is a mean by; a gradient passes through two such products.
FORWARD_EPSILONS, BACKWARD_EPSILONS = 4, 8

# tried whatever models need: one that is filled up for the kernel, one that is too large
ALWAYS_TRIED = (20, 264)
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
ADVICE = (
    "do not train with these versions of torch and driver: use those of constraints.txt,"
    " and send us this report"
)

Vectors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Attended:
    """What attention gives for a row: its result (T, H, D), and the gradients of
    queries, keys and values, all in float32 on the CPU."""

    result: torch.Tensor
    gradients: Sequence[torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A head size on a device against the plain way. Errors are shares of the largest
    value; `kernels`: the operators that torch chose; `leaks`: whether an example
    changed when another one did."""

    head_size: int
    dtype: torch.dtype
    forward_error: float
    backward_error: float
    kernels: Sequence[str]
    leaks: bool
    used_varlen: bool

    @property
    def is_sound(self) -> bool:
        """Whether nothing differs by more than rounding, and nothing leaks."""
        epsilon = torch.finfo(self.dtype).eps
        is_near = self.forward_error <= FORWARD_EPSILONS * epsilon
        is_near = is_near and self.backward_error <= BACKWARD_EPSILONS * epsilon
        return is_near and not self.leaks


def check_kernels(context: CheckContext) -> list[Finding]:
    """Each head size that the request names, and those always tried, in each of its
    precisions of 16 bits."""
    request = context.request
    names = [name for name in request.precisions if name in DTYPES]
    if not names:
        return [report_skipped("no precision of 16 bits is used, so no kernel is")]
    findings: list[Finding] = []
    for name in names:
        for size in sorted({*request.head_sizes, *ALWAYS_TRIED}):
            compared = compare_head_size(size, DTYPES[name], context.device)
            findings.append(judge_comparison(compared, name, on_gpu=context.has_gpu))
    return findings


def judge_comparison(compared: Comparison, precision: str, *, on_gpu: bool) -> Finding:
    """Whether a head size is sound, and done by the kernel that it should be."""
    size = compared.head_size
    key = f"{precision}_{size}"
    epsilon = torch.finfo(compared.dtype).eps
    figures = {
        "forward_epsilons": compared.forward_error / epsilon,
        "backward_epsilons": compared.backward_error / epsilon,
    }
    kernels = ", ".join(compared.kernels) or "no operator for attention"
    text = (
        f"heads of {size} in {precision} ({kernels}): results differ from the plain way"
        f" by {figures['forward_epsilons']:.1f} epsilons of the largest, gradients by"
        f" {figures['backward_epsilons']:.1f}"
    )
    if compared.leaks:
        leak = f"{text}; an example changes when the one beside it in a row does"
        return report_problem(leak, ADVICE, key, **figures)
    if not compared.is_sound:
        bounds = f"at most {FORWARD_EPSILONS} and {BACKWARD_EPSILONS} are rounding"
        return report_problem(f"{text}; {bounds}", ADVICE, key, **figures)
    if on_gpu and not compared.used_varlen and size <= LARGEST_HEAD:
        slow = f"{text}; torch's varlen kernel was not used, so training is slower"
        return report_problem(slow, ADVICE, key, **figures)
    return report_ok(text, key, **figures)


class AttentionOperators(TorchDispatchMode):
    """Notes which of torch's operators for attention are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        is_attention = "attention" in name or "attn" in name
        if is_attention and name not in self.names:
            self.names.append(name)
        return func(*args, **(kwargs or {}))


def compare_head_size(
    head_size: int, dtype: torch.dtype, device: str, lengths: Sequence[int] = LENGTHS
) -> Comparison:
    """Attends over one packed row in both ways, and once more with another second
    example, which must change no bit of those before and behind it."""
    vectors = draw_vectors(head_size, dtype, sum(lengths))
    with AttentionOperators() as operators:
        packed = attend_packed(vectors, lengths, device)
    plain = attend_alone(vectors, lengths)
    changed = attend_packed(change_second(vectors, lengths), lengths, device)
    unchanged = list_unchanged(lengths)
    queries = vectors[0].to(device)
    return Comparison(
        head_size=head_size,
        dtype=dtype,
        forward_error=compute_error(packed.result, plain.result),
        backward_error=max(
            compute_error(*pair)
            for pair in zip(packed.gradients, plain.gradients, strict=True)
        ),
        kernels=operators.names,
        leaks=not torch.equal(packed.result[unchanged], changed.result[unchanged]),
        used_varlen=packed_attention.uses_kernel(queries),
    )


def draw_vectors(head_size: int, dtype: torch.dtype, tokens: int) -> Vectors:
    """Queries (1, H, T, D), keys and values (1, H', T, D) on the CPU; the same each time."""
    generator = torch.Generator().manual_seed(head_size)
    shapes = [(1, heads, tokens, head_size) for heads in (HEADS, KEY_HEADS, KEY_HEADS)]
    queries, keys, values = (
        torch.randn(shape, generator=generator).to(dtype) for shape in shapes
    )
    return queries, keys, values


def change_second(vectors: Vectors, lengths: Sequence[int]) -> Vectors:
    """The same with other keys and values in the second example."""
    second = slice(lengths[0], lengths[0] + lengths[1])
    queries, keys, values = (tensor.clone() for tensor in vectors)
    keys[:, :, second] *= -2
    values[:, :, second] += 3
    return queries, keys, values


def list_unchanged(lengths: Sequence[int]) -> list[int]:
    """The places in a row of all examples but the second."""
    behind = lengths[0] + lengths[1]
    return [*range(lengths[0]), *range(behind, sum(lengths))]


def attend_packed(vectors: Vectors, lengths: Sequence[int], device: str) -> Attended:
    """Attention over the whole row at once, on a device."""
    leaves = [tensor.detach().to(device, copy=True) for tensor in vectors]
    for leaf in leaves:
        leaf.requires_grad_()
    queries, keys, values = leaves
    result, _ = packed_attention.attend(
        nn.Identity(), queries, keys, values, None, row=Row(lengths)
    )
    return _differentiate(result[0], leaves)


def attend_alone(vectors: Vectors, lengths: Sequence[int]) -> Attended:
    """Attention over each example in a row of its own, in float32 on the CPU."""
    leaves = [tensor.detach().float() for tensor in vectors]
    for leaf in leaves:
        leaf.requires_grad_()
    examples = zip(*(leaf.split(list(lengths), dim=2) for leaf in leaves), strict=True)
    results: list[torch.Tensor] = []
    for queries, keys, values in examples:
        row = Row([queries.shape[2]])
        result, _ = packed_attention.attend(
            nn.Identity(), queries, keys, values, None, row=row
        )
        results.append(result[0])
    return _differentiate(torch.cat(results), leaves)


def _differentiate(result: torch.Tensor, leaves: Sequence[torch.Tensor]) -> Attended:
    """A result with its gradients, for weights that are the same everywhere."""
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(result.shape, generator=generator)
    # as rounded on both sides, like the vectors
    weights = weights.bfloat16().to(result.device, result.dtype)
    (result * weights).sum().backward()
    gradients = [leaf.grad for leaf in leaves]
    return Attended(
        result=result.detach().float().cpu(),
        gradients=[g.float().cpu() for g in gradients if g is not None],
    )


def compute_error(measured: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, as a share of the largest value; infinite for what is no
    number."""
    difference = (measured - expected).abs().max() / expected.abs().max()
    return difference.nan_to_num(nan=torch.inf).item()
