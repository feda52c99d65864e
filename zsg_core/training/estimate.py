"""Estimates what training a decoder takes: bytes on each GPU, floating-point operations,
bytes on disk.

Arithmetic on sizes alone. A GB is 1e9 bytes everywhere. Sources: ZeRO (Rajbhandari et
al. 2020, arXiv 1910.02054) for what is divided, DeepSpeed 0.19.8 for what is held
beyond it, and for the activations what autograd saves in transformers 5.23's classes
under jobs.model.answer_loss (tests/test_estimate.py measures it).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from zsg_core.training import schedule, tuning
from zsg_core.training.decoder import DecoderShape
from zsg_core.training.decoder_layers import LayerKind
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


@dataclass(frozen=True, kw_only=True)
class Activations:
    """What autograd holds of micro-batches on a kind of device, `cuda` or `cpu`.

    With `recompute` a layer keeps its input only, and one layer at a time is whole.
    `length`: the longest example; only where scores stand in memory does it count.
    `dropping`: LoRA's targets, where it has dropout.
    """

    shape: DecoderShape
    precision: str
    recompute: bool = False
    device: str = "cuda"
    length: int = 0
    dropping: tuple[str, ...] = ()

    @property
    def token_bytes(self) -> float:
        """Bytes of a token, but for its logits."""
        shape, size = self.shape, ELEMENT[self.precision]
        if self.recompute:
            whole = max(map(self._layer_bytes, shape.layer_kinds))
            layers = size * shape.hidden * shape.layers + whole
        else:
            layers = sum(
                kind.count * self._layer_bytes(kind) for kind in shape.layer_kinds
            )
        last_norm = (4 + 2 * size) * shape.hidden + 4
        return float(layers + last_norm + size * shape.hidden)

    def logit_bytes(self, tokens: int) -> float:
        """Bytes of the logits of so many learnt tokens, made in pieces: float32
        log-probabilities, their gradient and the logits' are 12 bytes per token and
        word of a piece. Where there are several, gradients are made with the losses:
        those of the states, and of the output layer."""
        shape, size = self.shape, ELEMENT[self.precision]
        pieces = schedule.count_logit_pieces(tokens, shape.vocab, self.device)
        of_piece = 12.0 * shape.vocab * -(-tokens // pieces)
        if pieces == 1:
            return of_piece
        return of_piece + size * (shape.head + shape.hidden * tokens)

    def count_bytes(self, tokens: int) -> float:
        """Bytes of a micro-batch of so many tokens, every one of them a target."""
        masks = masking_bytes(self.device) if self.dropping else 0.0
        return tokens * self.token_bytes + self.logit_bytes(tokens) + masks

    def count_fitting(self, room: float) -> int:
        """The most tokens of a micro-batch for which so many bytes are enough."""
        if room <= 0:
            return 0
        low, high = 0, 1
        while self.count_bytes(high) <= room:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            if self.count_bytes(middle) <= room:
                low = middle
            else:
                high = middle
        return low

    def _layer_bytes(self, kind: LayerKind) -> float:
        of_scores = 0.0
        if kind.has_plain_attention:
            of_scores = score_bytes(self.shape, self.precision, self.length)
        of_dropout = dropout_bytes(kind, self.precision, self.dropping)
        return kind_bytes(self.shape, kind, self.precision) + of_scores + of_dropout


def activation_bytes(
    shape: DecoderShape, tokens: int, precision: str, *, recompute: bool = False
) -> float:
    """Bytes that autograd holds on a GPU for a micro-batch of `tokens` tokens, every one
    of them a target, but for scores that stand in memory: see Activations."""
    activations = Activations(shape=shape, precision=precision, recompute=recompute)
    return activations.count_bytes(tokens)


def layer_bytes(shape: DecoderShape, precision: str) -> int:
    """Bytes per token that one layer holds for its backward pass; the largest, where
    layers differ."""
    return max(kind_bytes(shape, kind, precision) for kind in shape.layer_kinds)


def kind_bytes(shape: DecoderShape, kind: LayerKind, precision: str) -> int:
    """Bytes per token that a layer of a kind holds for its backward pass; exact for
    transformers 5.23, packed, on a GPU, where the family is known by heart.

    In 16 bits a head that is no multiple of 8 is filled up to one for the kernel, and the
    output is there without what was filled up, too.
    """
    size = ELEMENT[precision]
    total = kind.saved.count_bytes(size)
    head = shape.head_dim
    if size == 2 and head % KERNEL_HEAD_STEP:
        filled = -(-head // KERNEL_HEAD_STEP) * KERNEL_HEAD_STEP
        total += 2 * size * (shape.heads + shape.kv_heads) * (filled - head)
        total += size * shape.queries
    return total


def dropout_bytes(kind: LayerKind, precision: str, targets: Iterable[str]) -> float:
    """Bytes per token that LoRA's dropout before these targets adds to a layer: of all
    that goes into each, what is left of it, and which was dropped."""
    return float((ELEMENT[precision] + 1) * tuning.count_dropping(kind, targets))


def masking_bytes(device: str) -> float:
    """Bytes that are there while LoRA's dropout chooses what it drops."""
    return float(tuning.MASKED_BYTES * tuning.MASKED_AT_ONCE[device])


def score_bytes(shape: DecoderShape, precision: str, length: int) -> float:
    """Bytes per token that a layer holds of scores that are computed by plain products:
    8 for each head and each of `length` keys, the capped score, its share in float32,
    and that in the precision of the values; and keys and values as they are repeated
    for all heads."""
    repeated = 2.0 * ELEMENT[precision] * (shape.queries - shape.keys)
    return 8.0 * shape.heads * length + repeated


def training_flops(shape: DecoderShape, tokens: float, squares: float) -> float:
    """Operations to train on `tokens` real tokens, `squares` being Σn² over the
    examples' lengths n.

    6·(N_body + N_head)·Σn, of experts only the chosen ones, and for attention, of L
    layers that multiply p elements for each pair of tokens, 3·L·p·Σn²; with a window w no
    more than 6·L·p·w·Σn. Causal attention, nothing recomputed, padding not counted; the
    numerator of MFU. A forward pass alone is a third of it: 2 operations per parameter
    and token.
    """
    of_weights = 6.0 * shape.active * tokens
    of_pairs = sum(
        3.0 * kind.count * kind.pair_width * _count_squares(kind, tokens, squares)
        for kind in shape.layer_kinds
    )
    return of_weights + of_pairs


def _count_squares(kind: LayerKind, tokens: float, squares: float) -> float:
    """Twice the pairs of tokens that see each other: all, or as many as a window lets."""
    if kind.window is None:
        return squares
    return min(squares, 2.0 * kind.window * tokens)


def forward_flops(shape: DecoderShape, tokens: float, squares: float) -> float:
    """Operations of one evaluation of `tokens` real tokens."""
    return training_flops(shape, tokens, squares) / 3


def gpu_hours(flops: float, tflops: float, mfu: float) -> float:
    """GPU-hours at a share `mfu` of a peak of `tflops` 1e12 operations a second; of all
    GPUs together."""
    return flops / (tflops * 1e12 * mfu) / 3600
