"""Counts what it takes to score training examples by a model, before it is done. Pure."""

from dataclasses import dataclass

from launcher.clusters.profiles import Gpu
from launcher.planning.workload import Lengths
from zsg_core.model_scores.registry import SCORE_RULES
from zsg_core.training import estimate
from zsg_core.training.decoder import DecoderShape


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """One kind of scores of one corpus.

    `examples`, `lengths`: of the corpus, None where unknown; `is_counted`: whether they
    were counted, else they are the most that there can be.
    """

    name: str
    model: str
    shape: DecoderShape
    precision: str
    examples: int | None
    lengths: Lengths | None
    is_counted: bool

    @property
    def passes(self) -> int:
        """How many forward passes over each example it takes."""
        rule = SCORE_RULES[self.name]
        return rule.passes * (2 if rule.compares else 1)

    @property
    def takes_gradients(self) -> bool:
        """Whether a backward pass follows each forward pass."""
        return SCORE_RULES[self.name].takes_gradients

    def describe_passes(self) -> str:
        """The passes over each example, in words."""
        plural = "" if self.passes == 1 else "es"
        kind = "forward and backward" if self.takes_gradients else "forward"
        return f"{self.passes} {kind} pass{plural}"

    @property
    def flops(self) -> float | None:
        """Operations of all passes; a backward pass takes those of two forward ones."""
        if self.lengths is None:
            return None
        pass_flops = estimate.forward_flops(
            self.shape, self.lengths.tokens, self.lengths.squares
        )
        if self.takes_gradients:
            pass_flops = 3 * pass_flops
        return self.passes * pass_flops

    def count_gpu_hours(self, gpu: Gpu | None) -> float | None:
        """On such a GPU; None where that cannot be told, as in fp32."""
        if gpu is None or self.flops is None or self.precision == "fp32":
            return None
        return estimate.gpu_hours(self.flops, gpu.tflops, gpu.mfu)
