"""Handles gradient overflow: stops or skips at a step whose gradient is not finite, and
counts the skipped steps.

DeepSpeed skips the update of such a step (and halves fp16's loss scale). The run then
stops, or, under `train.overflow: skip`, continues: the step's data are lost and the
learning rate does not advance.
"""

import math
from collections.abc import Mapping
from typing import Any

from zsg_core.errors import Diverged, UserError

LEAST_SCALE = 1.0


def refuse_fp16() -> None:
    """Raises UserError if DeepSpeed cannot train in fp16 on this device: a CPU without
    fp16 arithmetic."""
    from deepspeed.accelerator import get_accelerator

    accelerator = get_accelerator()
    if accelerator is None or not accelerator.is_fp16_supported():
        raise UserError(
            "this node's processor has no fp16 arithmetic, so DeepSpeed cannot train in it; use a"
            " GPU, or train.precision: bf16 or fp32 (train.preset: paper takes either, and says so"
            " in its recipe)"
        )


def advise_settings(settings: Mapping[str, Any]) -> str:
    """What to change in a stage's settings where a number is not finite: what would do
    something in them."""
    advice = f"lower train.lr (it is {settings['lr']:g})"
    wider = {"fp16": "bf16 or fp32", "bf16": "fp32"}.get(settings["precision"])
    return advice + (f", or use train.precision: {wider}" if wider else "")


class Updates:
    """The updates of one engine's optimiser. What it counts is in the engine's state
    and so survives a resume.

    A rank's part of the loss is multiplied by the ranks, over which the engine
    averages; the loss scale is divided by them (as BMTrain does), so that a gradient
    overflows on many ranks about where it would on one.
    """

    def __init__(self, engine: Any, settings: dict[str, Any], world: int) -> None:
        """`settings` are the run's training settings, `world` the ranks over which the
        engine averages. With fp16 the engine's loss scale is set anew here."""
        self._engine, self._skips = engine, settings.get("overflow") == "skip"
        self._settings = settings
        if settings["precision"] == "fp16":
            # DeepSpeed's JSON takes powers of two only; a saved state brings its own scale.
            engine.optimizer.loss_scale = settings["loss_scale"] / world

    @property
    def skipped(self) -> int:
        """Steps lost so far in this stage."""
        return self._engine.skipped_steps

    def metrics(self) -> dict[str, float]:
        """What the journal has of the last step: the gradient's norm if it was applied,
        how many were lost."""
        # None at ZeRO stage 0
        norm = float(self._engine.get_global_grad_norm() or math.nan)
        values = {"train/grad_norm": norm} if math.isfinite(norm) else {}
        return values | ({"train/skipped": float(self.skipped)} if self._skips else {})

    def refuse_broken(
        self, step: int, loss: float, skipped: int, before: float | None = None
    ) -> None:
        """Raises Diverged if a step went wrong and may not be passed over; `skipped`
        were lost before it.

        `before`: the training loss of the step before, if there was one.
        """
        last = "" if before is None else f" (of the step before it was {before:.4g})"
        was_skipped = self.skipped > skipped
        if was_skipped and self._skips:
            if getattr(self._engine.optimizer, "dynamic_loss_scale", False):
                self._refuse_least_scale(step)
        elif not math.isfinite(loss):
            raise Diverged(
                step,
                f"the training loss is {loss}{last}; {advise_settings(self._settings)}",
            )
        elif was_skipped:
            skip = (
                ", or train.overflow: skip, which loses such steps"
                if self._settings["precision"] == "fp16"
                else ""
            )
            raise Diverged(
                step,
                "DeepSpeed skipped the update because a gradient was not finite, at a training"
                f" loss of {loss:.4g}{last}; {advise_settings(self._settings)}{skip}",
            )

    def _refuse_least_scale(self, step: int) -> None:
        if self._engine.optimizer.loss_scale <= LEAST_SCALE:
            raise Diverged(
                step,
                f"the gradient is not finite and the loss scale has fallen to {LEAST_SCALE:g}, so"
                f" every later step would be lost too; {advise_settings(self._settings)}",
            )
