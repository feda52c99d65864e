"""Says every setting of checkpoints: when metrics are taken, which weights are kept, when a run is saved."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

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


def _stride_or_none(value: Any) -> Any:
    return None if value is None else checkpoint_stride(value)


_STRIDES: list[dict[str, Any]] = [
    {"type": "integer", "minimum": 1},
    {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 1}},
    {"type": "string", "pattern": r"^\s*\d+-\d*:\d+\s*(,\s*\d+-\d*:\d+\s*)*$"},
]
CheckpointSteps = Annotated[Any, BeforeValidator(checkpoint_stride), WithJsonSchema({"anyOf": _STRIDES})]
SnapshotSteps = Annotated[
    Any, BeforeValidator(_stride_or_none), WithJsonSchema({"anyOf": [*_STRIDES, {"type": "null"}]})
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


class KeepRule(Strict):
    """Which snapshots stay: each that one of these names."""

    first: Count | None = Field(default=None, description="so many of the first")
    last: Count | None = Field(default=None, description="so many of the newest")
    best: Count | None = Field(default=None, description="so many of the lowest loss")
    every: Count | None = Field(default=None, description="those of steps that are multiples of this")

    @model_validator(mode="after")
    def _something_stays(self) -> "KeepRule":
        if not any((self.first, self.last, self.best, self.every)):
            raise ValueError("keeps nothing; give first, last, best or every, or take `snapshots` out")
        return self


KEEP_WORDS: dict[str, dict[str, int] | None] = {"all": None, "last": {"last": 1}}


def _keep_rule(value: Any) -> Any:
    """The rule that a word stands for, or what was given."""
    if isinstance(value, str) and value not in KEEP_WORDS:
        raise ValueError("must be all, last, or a rule such as {last: 2, best: 1, every: 100}")
    return KEEP_WORDS[value] if isinstance(value, str) else value


class _Words:
    """Tells the JSON Schema of the words; as a part of the type they would spoil the messages about the rule."""

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        return {"anyOf": [{"enum": list(KEEP_WORDS)}, *handler(core)["anyOf"]]}


Keep = Annotated[KeepRule | None, BeforeValidator(_keep_rule), _Words()]


class CheckpointSettings(Strict):
    """When metrics are taken, which weights are kept, when a run is saved; not part of a run's identity."""

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
    snapshots: SnapshotSteps = Field(
        default=None,
        description="steps after which the weights are kept, in the words of `every`; the last always counts, and each "
        "is a checkpoint too",
    )
    keep: Keep = Field(
        default=None,
        description="which snapshots stay: all, last, or {first: 1, last: 2, best: 1, every: 100}; one that is being "
        "evaluated always does",
    )
    state_every_min: Positive | None = Field(
        default=30.0, description="minutes between full states to go on from; null = only when told to stop"
    )
    state_every: Count | None = Field(default=None, description="also after every so many steps")
    keep_state: bool = Field(default=False, description="keep the last full state of a run that is done")
