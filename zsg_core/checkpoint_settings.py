"""Says every setting of checkpoints: when metrics are taken, when a run is saved to go on from."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from zsg_core import schedule
from zsg_core.fields import Count, Positive, Strict


def checkpoint_stride(value: Any) -> Any:
    """A stride, the steps themselves, or spans with a stride each; see `schedule.checkpoint_steps`."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    if isinstance(value, list | tuple) and value and all(type(step) is int and step >= 1 for step in value):
        return tuple(sorted(set(value)))
    if isinstance(value, str):
        schedule.spans(value)
        return value
    raise ValueError("must be steps between checkpoints such as 10, a list of steps, or spans such as '1-50:1, 50-:10'")


CheckpointSteps = Annotated[
    Any,
    BeforeValidator(checkpoint_stride),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1},
                {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 1}},
                {"type": "string", "pattern": r"^\s*\d+-\d*:\d+\s*(,\s*\d+-\d*:\d+\s*)*$"},
            ]
        }
    ),
]


class QuickSettings(Strict):
    """A small part of the test set that is measured at every checkpoint, where the whole would cost too much."""

    items: Count = Field(
        description="how many test items, each task having its share; drawn by the test set's own seed, so the same "
        "in all runs of the data. Their loss has a key of its own, loss_quick_<items>"
    )
    full_every: CheckpointSteps = Field(
        default=100,
        description="when the whole test set is measured: a stride, steps or spans as in `every`; step 0 and the last "
        "always count",
    )


class CheckpointSettings(Strict):
    """When metrics are taken and when a run is saved to go on from; not part of a run's identity."""

    every: CheckpointSteps = Field(
        default=10,
        description="steps between checkpoints, or the steps [1, 2, 5], or spans `1-50:1, 50-500:10, 500-:50`; "
        "step 0 and the last always count",
    )
    quick: QuickSettings | None = Field(
        default=None, description="measure some items at every checkpoint and all only now and then; null = all, always"
    )
    metrics: Annotated[list[Literal["loss"]], Field(min_length=1)] = Field(
        default=["loss"], description="what is measured"
    )
    state_every_min: Positive | None = Field(
        default=30.0, description="minutes between full states to go on from; null = only when told to stop"
    )
    state_every: Count | None = Field(default=None, description="also after every so many steps")
    keep_state: bool = Field(default=False, description="keep the last full state of a run that is done")
