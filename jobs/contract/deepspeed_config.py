"""The DeepSpeed JSON of a run, which stands in its job.json: every key that matters,
with the value that zsg trains with.

DeepSpeed takes a misspelt key at the top level in silence and trains on with its
default, and its defaults have changed (clipping, overflow checks, overlap). So the
records below state every key once, with its type and its value. The JSON is generated
from them, and a job holds the JSON that it starts from against them. The time limit of
collectives is no key of it: see jobs.runtime.ranks.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from jobs.contract.folder import get_object
from zsg_core.errors import UserError
from zsg_core.schema_errors import find_first_problem
from zsg_core.settings.fields import Count, Positive, Strict

DeepSpeedJson = dict[str, Any]
Size = Annotated[int, Field(ge=0)]
Precision = Literal["bf16", "fp16", "fp32"]


class Bf16Config(Strict):
    """Master weights, gradients of the step and moments stay in fp32."""

    enabled: bool
    check_grad_overflow: Literal[True] = True
    immediate_grad_update: Literal[False] = False
    bf16_master_weights_and_grads: Literal[False] = False
    bf16_optimizer_states: Literal[False] = False


class Fp16Config(Strict):
    """`loss_scale` 0 means dynamic. The first scale is set by jobs.training.overflow:
    this JSON has powers of two only."""

    enabled: bool
    auto_cast: Literal[False] = False
    loss_scale: Annotated[float, Field(ge=0)] = 0.0
    initial_scale_power: Size
    # steps without an overflow after which the scale doubles; BMTrain's
    loss_scale_window: Count = 1024
    hysteresis: Count = 1  # the first overflow halves the scale
    consecutive_hysteresis: bool = False
    min_loss_scale: Count = 1
    fp16_master_weights_and_grads: Literal[False] = False


class DataTypesConfig(Strict):
    """In which type gradients are added up over micro-batches."""

    grad_accum_dtype: Precision


class ZeroConfig(Strict):
    """ZeRO at stages 0 to 2. Offloading and quantising are not among its keys: they
    change speed or numbers."""

    stage: Literal[0, 1, 2]
    # Wrong gradients were fixed in it as late as July 2026 for stages 1 and 2.
    overlap_comm: bool = False
    contiguous_gradients: bool = True
    reduce_scatter: bool = True
    reduce_bucket_size: Count = 200_000_000
    allgather_partitions: bool = True
    allgather_bucket_size: Count = 500_000_000
    round_robin_gradients: bool = False
    ignore_unused_parameters: bool = True


class Zero3Config(ZeroConfig):
    """ZeRO at stage 3; sizes in parameters."""

    stage: Literal[3] = 3  # pyright: ignore[reportIncompatibleVariableOverride]
    overlap_comm: bool = True
    sub_group_size: Count = 1_000_000_000
    stage3_prefetch_bucket_size: Size = 50_000_000
    stage3_param_persistence_threshold: Size = 100_000
    stage3_max_live_parameters: Count = 1_000_000_000
    stage3_max_reuse_distance: Count = 1_000_000_000
    stage3_gather_16bit_weights_on_model_save: bool = False
    zero_hpz_partition_size: Count = 1


class CheckpointConfig(Strict):
    """What happens if ranks save under different names."""

    tag_validation: Literal["Fail", "Warn", "Ignore"] = "Fail"


class DeepSpeedConfig(Strict):
    """The JSON. A step's boundary is `step()`, and its gradient the ranks' mean:
    jobs.training.train rests on both."""

    train_micro_batch_size_per_gpu: Literal[1] = 1
    gradient_accumulation_steps: Literal[1] = 1
    # Ranks run as many micro-batches as a step needs; `step()` is the boundary.
    managed_gradient_accumulation: Literal[False] = False
    gradient_allreduce_op: Literal["mean"] = "mean"
    prescale_gradients: Literal[False] = False
    gradient_predivide_factor: Positive = 1.0
    communication_data_type: Precision
    gradient_clipping: Positive
    bf16: Bf16Config
    fp16: Fp16Config
    data_types: DataTypesConfig
    zero_optimization: ZeroConfig
    zero_allow_untested_optimizer: Literal[True] = True
    checkpoint: CheckpointConfig = CheckpointConfig()
    steps_per_print: Count = 1_000_000_000
    wall_clock_breakdown: bool = False
    memory_breakdown: bool = False
    dump_state: bool = False


class Zero3DeepSpeedConfig(DeepSpeedConfig):
    """The JSON at stage 3."""

    zero_optimization: Zero3Config  # pyright: ignore[reportIncompatibleVariableOverride]


def build_deepspeed_config(
    *,
    zero_stage: int,
    precision: str,
    clip: float,
    loss_scale: float | None = None,
    hpz_ranks: int | None = None,
) -> DeepSpeedJson:
    """The JSON for a ZeRO stage (0–3) and a precision (bf16, fp16, fp32).

    `hpz_ranks`: of stage 3, among how many ranks a second copy of the weights is
    divided, from which the backward pass gathers them (hpZ of ZeRO++, Wang et al. 2023,
    arXiv 2306.10209).

    Raises UserError for 16 bits at stage 0: there DeepSpeed 0.19 steps through an
    optimiser of its own whose result differs from stages 1–3 (measured) and which
    starts fp16 from a loss scale of its own.
    """
    if zero_stage == 0 and precision != "fp32":
        raise UserError(
            f"deepspeed.zero_stage 0 cannot train in {precision} as stages 1–3 do; use stage 1, or"
            " fp32"
        )
    zero: dict[str, int] = {"stage": zero_stage}
    if hpz_ranks:
        zero["zero_hpz_partition_size"] = hpz_ranks
    scale_power = max(0, math.floor(math.log2(loss_scale or 1)))
    config = _choose_record(zero_stage).model_validate(
        {
            "communication_data_type": precision,
            "gradient_clipping": clip,
            "bf16": {"enabled": precision == "bf16"},
            "fp16": {
                "enabled": precision == "fp16",
                "initial_scale_power": scale_power,
            },
            "data_types": {"grad_accum_dtype": precision},
            "zero_optimization": zero,
        }
    )
    return config.model_dump()


def check_deepspeed_config(config: DeepSpeedJson) -> DeepSpeedJson:
    """The same JSON; UserError for a key that is unknown, missing, or of a value that
    jobs cannot run by."""
    zero = get_object(config.get("zero_optimization"))
    record = _choose_record(zero.get("stage"))
    try:
        complete = record.model_validate(config).model_dump()
    except ValidationError as error:
        _, message = find_first_problem(error, record)
        raise _refusal(message) from None
    missing_key = _find_missing_key(config, complete)
    if missing_key:
        raise _refusal(f"{missing_key} is missing and has no default")
    return config


def _choose_record(zero_stage: object) -> type[DeepSpeedConfig]:
    return Zero3DeepSpeedConfig if zero_stage == 3 else DeepSpeedConfig


def _find_missing_key(config: DeepSpeedJson, complete: DeepSpeedJson) -> str | None:
    """The first dotted key of the complete JSON that `config` leaves to a default."""
    for key, value in complete.items():
        if key not in config:
            return key
        nested = get_object(value)
        missing_key = _find_missing_key(config[key], nested) if nested else None
        if missing_key:
            return f"{key}.{missing_key}"
    return None


def _refusal(message: str) -> UserError:
    return UserError(f"job.json, deepspeed: {message}. `zsg submit` writes it anew")
