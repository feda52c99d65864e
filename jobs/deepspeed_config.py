"""Writes the DeepSpeed JSON of a run, stating what changed its default in DeepSpeed's recent releases."""

from typing import Any

from zsg_core.errors import UserError

Config = dict[str, Any]


def deepspeed_config(*, zero_stage: int, precision: str, clip: float) -> Config:
    """The configuration for a ZeRO stage (0–3) and a precision (bf16, fp32).

    Raises UserError for bf16 at stage 0: there DeepSpeed 0.19 steps through an optimiser of its own whose
    result differs from stages 1–3 (measured), so the run's numbers would depend on the profile.
    """
    if zero_stage == 0 and precision == "bf16":
        raise UserError("deepspeed.zero_stage 0 cannot train in bf16 as stages 1–3 do; use stage 1, or fp32")
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        # Ranks run as many micro-batches as a step needs; `step()` is the boundary.
        "managed_gradient_accumulation": False,
        "bf16": {"enabled": precision == "bf16", "check_grad_overflow": True},
        "fp16": {"enabled": False},
        "gradient_clipping": clip,
        "zero_optimization": {
            "stage": zero_stage,
            # Wrong gradients were fixed in it as late as July 2026 for stages 1 and 2.
            "overlap_comm": zero_stage == 3,
            "contiguous_gradients": True,
            "reduce_scatter": True,
            "reduce_bucket_size": 200_000_000,
            "allgather_bucket_size": 500_000_000,
        },
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 1_000_000_000,
        "wall_clock_breakdown": False,
    }
