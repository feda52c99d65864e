"""Decides what becomes of a step whose gradient is not finite, and counts the steps that were lost.

DeepSpeed skips the update of such a step (and halves fp16's loss scale). The run then stops, or, under
`train.overflow: skip`, goes on: the step's data are lost and the learning rate does not advance.
"""

import math
from typing import Any

from zsg_core.errors import ClusterError, UserError

LEAST_SCALE = 1.0


def refuse_fp16() -> None:
    """Raises UserError if DeepSpeed cannot train in fp16 on this device: a CPU without fp16 arithmetic."""
    from deepspeed.accelerator import get_accelerator

    accelerator = get_accelerator()
    if accelerator is None or not accelerator.is_fp16_supported():
        raise UserError(
            "this node's processor has no fp16 arithmetic, so DeepSpeed cannot train in it; use a GPU, or "
            "train.precision: bf16 or fp32 (train.preset: paper takes either, and says so in its recipe)"
        )


class Updates:
    """The updates of one engine's optimiser. What it counts is in the engine's state and so survives a resume.

    A rank's part of the loss is multiplied by the ranks, over which the engine averages; the loss scale is divided
    by them (as BMTrain does), so that a gradient overflows on many ranks about where it would on one.
    """

    def __init__(self, engine: Any, settings: dict[str, Any], world: int) -> None:
        self._engine, self._skips = engine, settings.get("overflow") == "skip"
        if settings["precision"] == "fp16":
            # DeepSpeed's JSON takes powers of two only; a saved state brings its own scale.
            engine.optimizer.loss_scale = settings["loss_scale"] / world

    @property
    def skipped(self) -> int:
        """Steps lost so far in this stage."""
        return self._engine.skipped_steps

    def metrics(self) -> dict[str, float]:
        """What the journal has of the last step: the gradient's norm if it was applied, how many were lost."""
        norm = float(self._engine.get_global_grad_norm() or math.nan)  # None at ZeRO stage 0
        known = {"train/grad_norm": norm} if math.isfinite(norm) else {}
        return known | ({"train/skipped": float(self.skipped)} if self._skips else {})

    def refuse_broken(self, step: int, loss: float, skipped: int) -> None:
        """Raises ClusterError if a step went wrong and may not be passed over; `skipped` were lost before it."""
        was_skipped = self.skipped > skipped
        if was_skipped and self._skips:
            if getattr(self._engine.optimizer, "dynamic_loss_scale", False):
                self._refuse_least_scale(step)
        elif not math.isfinite(loss):
            raise ClusterError(
                f"step {step}: the training loss is {loss}; lower train.lr, or use train.precision: fp32"
            )
        elif was_skipped:
            raise ClusterError(
                f"step {step}: DeepSpeed skipped the update because a gradient was not finite; a skipped step is "
                "another experiment. Lower train.lr, use train.precision: fp32, or train.overflow: skip"
            )

    def _refuse_least_scale(self, step: int) -> None:
        if self._engine.optimizer.loss_scale <= LEAST_SCALE:
            raise ClusterError(
                f"step {step}: the gradient is not finite and the loss scale has fallen to {LEAST_SCALE:g}, so every "
                "later step would be lost too; lower train.lr, or use train.precision: fp32"
            )
