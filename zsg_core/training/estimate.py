"""Estimates what training a Llama takes: bytes on each GPU, floating-point operations,
bytes on disk.

Arithmetic on sizes alone. A GB is 1e9 bytes everywhere. Sources: ZeRO (Rajbhandari et
al. 2020, arXiv 1910.02054) for what is divided, DeepSpeed 0.19.8 for what is held
beyond it, and for the activations what autograd saves in transformers 5.23's Llama
under jobs.model.answer_loss (tests/test_estimate.py measures it).
"""

from dataclasses import dataclass

from zsg_core.training.decoder import DecoderShape
from zsg_core.training.optimizers import ADAMW, OptimizerRow

GB = 1e9
STAGES = (0, 1, 2, 3)
MASTER_BYTES = 4  # of a parameter's fp32 master weight
# bytes of a weight, a gradient, an activation
ELEMENT = {"bf16": 2, "fp16": 2, "fp32": 4}
# of the heads that torch's varlen kernel takes: see jobs.model.packed_attention
KERNEL_HEAD_STEP = 8
# DeepSpeed's defaults of stage 3, in parameters: updated at once (sub_group_size), gathered at once
# (stage3_max_live_parameters).
SUB_GROUP = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class Tensors:
    """Bytes per GPU of what does not depend on the batch."""

    weights: float
    gradients: float
    optimizer: float  # fp32 master weights, and what the optimizer remembers
    step_copy: float  # fp32 gradients, there during the optimiser's step only
    # stage 3: weights of the layers at work, there during the pass only
    gathered: float = 0.0

    @property
    def held(self) -> float:
        """What stays from step to step."""
        return self.weights + self.gradients + self.optimizer

    @property
    def at_step(self) -> float:
        """The most before activations, reached in the optimiser's step."""
        return self.held + self.step_copy

    def need(self, activations: float) -> float:
        """The most of all: activations are gone when the step makes its copy, so only
        the larger counts."""
        return self.held + max(self.step_copy, self.gathered + activations)


def estimate_tensors(
    parameters: int,
    stage: int,
    world: int,
    precision: str,
    trained: int | None = None,
    optimizer: OptimizerRow = ADAMW,
) -> Tensors:
    """Bytes per GPU of weights, gradients and optimiser at a ZeRO stage (0–3) on `world` GPUs.

    Of `parameters`, `trained` have gradients and an optimiser; None: all.

    Per parameter under AdamW in bf16 or fp16: weight 2, gradient 2, master and moments 12, and 4
    for the fp32 copy of the gradient that is made for the step (stage_1_and_2.py
    `step`). ZeRO divides from stage 1 optimiser and copy, from 2 the gradients, from 3
    the weights. At stage 3 the step copies one sub-group after the other, so its 4
    bytes count for at most 1e9 parameters; they are not divided, for what one GPU holds
    of a sub-group is smaller, but then communication buffers stand beside it. Stage 0
    in bf16 holds everything on every GPU, as stage 1 does on one (FP16_UnfusedOptimizer
    makes the same copies). In fp32 an element has 4 bytes and the stages from 1 keep a
    master all the same; stage 0 is torch's AdamW, which trains the weights and reads
    the gradients in place.
    """
    size, weights = ELEMENT[precision], parameters / world
    trained = parameters if trained is None else trained
    share = trained / world
    own_master = precision != "fp32" or stage >= 1
    master_bytes = MASTER_BYTES if own_master else 0
    per_parameter = master_bytes + optimizer.state_bytes
    copy = {0: 4.0 * trained if own_master else 0.0, 3: 4.0 * min(SUB_GROUP, trained)}
    return Tensors(
        weights=size * (weights if stage == 3 else parameters),
        gradients=size * (share if stage >= 2 else trained),
        optimizer=per_parameter * (share if stage >= 1 else trained),
        step_copy=copy.get(stage, 4 * share),
        gathered=size * min(SUB_GROUP, parameters) if stage == 3 and world > 1 else 0.0,
    )


@dataclass(frozen=True, kw_only=True)
class HostTensors:
    """Bytes of tensors that one rank holds in its node's memory for a moment, beside its GPU."""

    start: float  # while DeepSpeed takes the model over
    resume: float  # while a saved state is read


def estimate_host_tensors(
    parameters: int,
    stage: int,
    world: int,
    precision: str,
    trained: int,
    *,
    gpu_bytes: float,
) -> HostTensors:
    """Bytes on the host of one of `world` ranks whose GPU has `gpu_bytes`.

    The weights as they lie on the disk are no part of it: they are mapped, read tensor
    by tensor, and the system drops them where memory is short. At stages 1 and 2
    DeepSpeed 0.19.8 lays the trained weights one behind the other, beside them on the
    GPU, or, where they do not fit there twice, on the host, where it needs them twice
    (stage_1_and_2.py); at stage 3 it lays a rank's part so on the host (zero/utils.py
    `defragment`). A state is read whole by torch.load: below stage 3 all weights by
    every rank, then its part of the optimizer.
    """
    size = ELEMENT[precision]
    tensors = estimate_tensors(parameters, stage, world, precision, trained)
    start = 0.0
    if stage == 3:
        start = size * trained / world
    elif stage and gpu_bytes < size * (parameters + trained):
        start = 2.0 * size * trained
    resume = max(tensors.weights, tensors.optimizer)
    if stage in (0, 3):  # both are in one file
        resume = tensors.weights + tensors.optimizer
    return HostTensors(start=start, resume=resume)


def state_bytes(
    parameters: int,
    stage: int,
    precision: str,
    trained: int | None = None,
    optimizer: OptimizerRow = ADAMW,
) -> float:
    """Bytes on disk of one full resumable state: weights, master, moments; of all GPUs together.

    14 bytes per parameter under AdamW in bf16, whatever the stage.
    """
    whole = estimate_tensors(parameters, stage, 1, precision, trained, optimizer)
    return whole.weights + whole.optimizer


def micro_tokens(batch: int, world: int, max_length: int, budget: int) -> int:
    """The most tokens of a micro-batch: a rank's equal share of the batch, all examples
    of full length.

    Within the trainer's budget, but for an example longer than that, which stands alone.
    """
    return min(max(budget, max_length), -(-batch // world) * max_length)


def activation_bytes(
    shape: DecoderShape, tokens: int, precision: str, *, recompute: bool = False
) -> float:
    """Bytes that autograd holds for a micro-batch of `tokens` tokens, every one of them a target.

    With `recompute` a layer keeps its input only, and one layer at a time is whole. The
    output layer's float32 log-probabilities, their gradient and the logits' are 12
    bytes per token and word.
    """
    layer = layer_bytes(shape, precision)
    size = ELEMENT[precision]
    layers = (
        size * shape.hidden * shape.layers + layer
        if recompute
        else layer * shape.layers
    )
    last_norm = (4 + 2 * size) * shape.hidden + 4
    output = size * shape.hidden + 12 * shape.vocab
    return tokens * float(layers + last_norm + output)


def layer_bytes(shape: DecoderShape, precision: str) -> int:
    """Bytes per token that one layer holds for its backward pass; exact for
    transformers 5.23, packed, on a GPU.

    Two norms: the input as float32, normalised, and scaled (4 + 2s each, s bytes an
    element), and 4 for its root. Attention: queries, keys, values, output, and float32
    log-sums per head; in 16 bits a head that is no multiple of 8 is filled up to one for
    the kernel, and the output is there without what was filled up, too. Gated MLP: gate,
    its SiLU, up, and their product.
    """
    size = ELEMENT[precision]
    norms = 2 * ((4 + 2 * size) * shape.hidden + 4)
    head, again = shape.head_dim, 0
    if size == 2 and head % KERNEL_HEAD_STEP:
        head = -(-head // KERNEL_HEAD_STEP) * KERNEL_HEAD_STEP
        again = size * shape.queries
    attention = 2 * size * (shape.heads + shape.kv_heads) * head + 4 * shape.heads
    attention += again
    return norms + attention + 4 * size * shape.intermediate


def training_flops(shape: DecoderShape, tokens: float, squares: float) -> float:
    """Operations to train on `tokens` real tokens, `squares` being Σn² over the
    examples' lengths n.

    (6·(N_body + N_head)·Σn + 6·L·d·Σn²): causal attention, nothing recomputed, padding
    not counted; the numerator of MFU. A forward pass alone is a third of it: 2
    operations per parameter and token.
    """
    return (
        6.0 * (shape.body + shape.head) * tokens
        + 6.0 * shape.layers * shape.queries * squares
    )


def forward_flops(shape: DecoderShape, tokens: float, squares: float) -> float:
    """Operations of one evaluation of `tokens` real tokens."""
    return training_flops(shape, tokens, squares) / 3


def gpu_hours(flops: float, tflops: float, mfu: float) -> float:
    """GPU-hours at a share `mfu` of a peak of `tflops` 1e12 operations a second; of all
    GPUs together."""
    return flops / (tflops * 1e12 * mfu) / 3600
