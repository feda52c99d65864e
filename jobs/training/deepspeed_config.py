"""Writes and checks the DeepSpeed JSON of a run: every key that matters stated, no key unknown.

DeepSpeed takes a misspelt key at the top level in silence and trains on with its
default, and its defaults have changed (clipping, overflow checks, overlap). So the
models below say what a run's JSON holds, no more and no less, and it is held against
them when it is written and again when a job starts from it. The time limit of
collectives is no key of it: see jobs.runtime.ranks.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from zsg_core.errors import UserError
from zsg_core.schema_errors import first_problem
from zsg_core.settings.fields import Count, Positive, Strict

Config = dict[str, Any]
Size = Annotated[int, Field(ge=0)]
# steps without an overflow after which the loss scale doubles; BMTrain's
LOSS_SCALE_WINDOW = 1024


class Bf16(Strict):
    """Master weights, gradients of the step and moments stay in fp32."""

    enabled: bool
    check_grad_overflow: Literal[True]
    immediate_grad_update: Literal[False]
    bf16_master_weights_and_grads: Literal[False]
    bf16_optimizer_states: Literal[False]


class Fp16(Strict):
    """`loss_scale` 0 means dynamic. The first scale is set by updates.py: this JSON has
    powers of two only."""

    enabled: bool
    auto_cast: Literal[False]
    loss_scale: Annotated[float, Field(ge=0)]
    initial_scale_power: Size
    loss_scale_window: Count
    hysteresis: Count
    consecutive_hysteresis: bool
    min_loss_scale: Count
    fp16_master_weights_and_grads: Literal[False]


class DataTypes(Strict):
    """In which type gradients are added up over micro-batches."""

    grad_accum_dtype: Literal["bf16", "fp16", "fp32"]


class Zero(Strict):
    """ZeRO at stages 0 to 2. Offloading and quantising are not among its keys: they
    change speed or numbers."""

    stage: Literal[0, 1, 2]
    overlap_comm: bool
    contiguous_gradients: bool
    reduce_scatter: bool
    reduce_bucket_size: Count
    allgather_partitions: bool
    allgather_bucket_size: Count
    round_robin_gradients: bool
    ignore_unused_parameters: bool


class Zero3(Zero):
    """ZeRO at stage 3; sizes in parameters."""

    stage: Literal[3]  # pyright: ignore[reportIncompatibleVariableOverride]
    sub_group_size: Count
    stage3_prefetch_bucket_size: Size
    stage3_param_persistence_threshold: Size
    stage3_max_live_parameters: Count
    stage3_max_reuse_distance: Count
    stage3_gather_16bit_weights_on_model_save: bool
    zero_hpz_partition_size: Count


class CheckpointTags(Strict):
    """What happens if ranks save under different names."""

    tag_validation: Literal["Fail", "Warn", "Ignore"]


class Whole(Strict):
    """The JSON. A step's boundary is `step()`, and its gradient the ranks' mean:
    jobs.training.train rests on both."""

    train_micro_batch_size_per_gpu: Literal[1]
    gradient_accumulation_steps: Literal[1]
    managed_gradient_accumulation: Literal[False]
    gradient_allreduce_op: Literal["mean"]
    prescale_gradients: Literal[False]
    gradient_predivide_factor: Positive
    communication_data_type: Literal["bf16", "fp16", "fp32"]
    gradient_clipping: Positive
    bf16: Bf16
    fp16: Fp16
    data_types: DataTypes
    zero_optimization: Zero
    zero_allow_untested_optimizer: Literal[True]
    checkpoint: CheckpointTags
    steps_per_print: Count
    wall_clock_breakdown: bool
    memory_breakdown: bool
    dump_state: bool


class WholeAtStage3(Whole):
    """The JSON at stage 3."""

    zero_optimization: Zero3  # pyright: ignore[reportIncompatibleVariableOverride]


def deepspeed_config(
    *, zero_stage: int, precision: str, clip: float, loss_scale: float | None = None
) -> Config:
    """The configuration for a ZeRO stage (0–3) and a precision (bf16, fp16, fp32).

    Raises UserError for 16 bits at stage 0: there DeepSpeed 0.19 steps through an
    optimiser of its own whose result differs from stages 1–3 (measured) and which
    starts fp16 from a loss scale of its own.
    """
    if zero_stage == 0 and precision != "fp32":
        raise UserError(
            f"deepspeed.zero_stage 0 cannot train in {precision} as stages 1–3 do; use stage 1, or"
            " fp32"
        )
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        # Ranks run as many micro-batches as a step needs; `step()` is the boundary.
        "managed_gradient_accumulation": False,
        "gradient_allreduce_op": "mean",
        "prescale_gradients": False,
        "gradient_predivide_factor": 1.0,
        "communication_data_type": precision,
        "gradient_clipping": clip,
        "bf16": {
            "enabled": precision == "bf16",
            "check_grad_overflow": True,
            "immediate_grad_update": False,
            "bf16_master_weights_and_grads": False,
            "bf16_optimizer_states": False,
        },
        "fp16": {
            "enabled": precision == "fp16",
            "auto_cast": False,
            "loss_scale": 0.0,
            "initial_scale_power": max(0, math.floor(math.log2(loss_scale or 1))),
            "loss_scale_window": LOSS_SCALE_WINDOW,
            "hysteresis": 1,  # the first overflow halves the scale
            "consecutive_hysteresis": False,
            "min_loss_scale": 1,
            "fp16_master_weights_and_grads": False,
        },
        "data_types": {"grad_accum_dtype": precision},
        "zero_optimization": _zero(zero_stage),
        "zero_allow_untested_optimizer": True,
        "checkpoint": {"tag_validation": "Fail"},
        "steps_per_print": 1_000_000_000,
        "wall_clock_breakdown": False,
        "memory_breakdown": False,
        "dump_state": False,
    }
    return checked(config)


def _zero(stage: int) -> Config:
    common = {
        "stage": stage,
        # Wrong gradients were fixed in it as late as July 2026 for stages 1 and 2.
        "overlap_comm": stage == 3,
        "contiguous_gradients": True,
        "reduce_scatter": True,
        "reduce_bucket_size": 200_000_000,
        "allgather_partitions": True,
        "allgather_bucket_size": 500_000_000,
        "round_robin_gradients": False,
        "ignore_unused_parameters": True,
    }
    of_stage_3 = {
        "sub_group_size": 1_000_000_000,
        "stage3_prefetch_bucket_size": 50_000_000,
        "stage3_param_persistence_threshold": 100_000,
        "stage3_max_live_parameters": 1_000_000_000,
        "stage3_max_reuse_distance": 1_000_000_000,
        "stage3_gather_16bit_weights_on_model_save": False,
        "zero_hpz_partition_size": 1,
    }
    return common | (of_stage_3 if stage == 3 else {})


def checked(config: Config) -> Config:
    """The same configuration; UserError for a key that is unknown, missing, or of a
    value that jobs cannot run by."""
    zero = config.get("zero_optimization")
    schema = (
        WholeAtStage3 if isinstance(zero, dict) and zero.get("stage") == 3 else Whole
    )
    try:
        schema.model_validate(config)
    except ValidationError as error:
        _, message = first_problem(error, schema)
        raise UserError(
            f"job.json, deepspeed: {message}. `zsg submit` writes it anew"
        ) from None
    return config
