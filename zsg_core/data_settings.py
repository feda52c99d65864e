"""Says every setting of the data: what is trained on, how it is sampled and written out, and what is tested."""

from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from zsg_core.fields import Count, ExactFraction, FolderName, Seed, Strict
from zsg_core.readers import FORMATS

TEST_SETS = tuple(name for name, made in FORMATS.items() if made.answered)
TRAINING_SETS = tuple(name for name, made in FORMATS.items() if made.trains)


class HeldOut(Strict):
    """Which tasks are never trained on, and tested instead."""

    by: Literal["list", "seed", "family"] = Field(
        default="list",
        description="the published list, tasks drawn by seed, or one task of every family, by a task's first word",
    )
    tasks: Count | None = Field(default=None, description="how many tasks `seed` holds out")
    seed: Seed = Field(default=0, description="the draw's own seed; the top `seed` never changes it")

    @model_validator(mode="after")
    def _only_what_counts(self) -> "HeldOut":
        if (self.tasks is None) == (self.by == "seed"):
            raise ValueError("`tasks` is needed by `by: seed`, and by nothing else")
        if self.by == "list" and "seed" in self.model_fields_set:
            raise ValueError("`seed` draws nothing under `by: list`")
        return self


class DataSettings(Strict):
    """What is trained on, and the fixed test set."""

    set: Literal[TRAINING_SETS] = Field(default="niv2", description="format of the data")  # type: ignore[valid-type]
    path: FolderName = Field(description="a file, a folder, or a pattern such as tasks/*.json")
    test_set: Literal[TEST_SETS] | None = Field(  # type: ignore[valid-type]
        default=None, description="format of test_path; default: set. MT-Bench has no answers to take a loss of"
    )
    test_path: FolderName | None = Field(default=None, description="test data of their own, in place of held_out")
    held_out: HeldOut | None = Field(default=None, description="how held-out tasks are chosen; default: {by: list}")
    on_bad_row: Literal["error", "skip"] = Field(
        default="error", description="what a row that cannot be read is: an error, or counted, told and passed over"
    )
    train_per_task: Count | None = Field(
        default=20, description="most examples per training task; null = all, the default of sets that are one task"
    )
    test_per_task: Count | None = Field(
        default=5, description="most examples per held-out task; null = all, the default of sets that are one task"
    )
    train_tasks: Count | None = Field(default=None, description="only the first tasks of the training list; null = all")
    test_tasks: Count | None = Field(default=None, description="only the first held-out tasks of the list; null = all")
    sampling: Literal["random", "first"] = Field(default="random", description="how a task is capped")
    sample_seed: Seed | None = Field(
        default=None, description="seed of the sample and of the label drawn; default: seed"
    )
    test_seed: Seed = Field(default=0, description="the test set's own seed; `seed` never changes it")
    fraction: ExactFraction = Field(
        default=Fraction(1), description="exact share of the training data kept, such as 1/4"
    )
    template: Literal["zsg", "vicuna", "plain"] = Field(
        default="zsg", description="how examples are written out; see zsg_core.prompts"
    )
    positive_examples: Annotated[int, Field(ge=0, le=2)] = Field(
        default=2, description="niv2 only: positive examples in a prompt"
    )
    max_turns: Count | None = Field(default=None, description="only the first turns of a dialogue; null = all")

    @model_validator(mode="before")
    @classmethod
    def _caps_of_one_task(cls, values: Any) -> Any:
        # A cap per task means nothing where all examples are of one: 20 examples of GSM8K are nobody's wish.
        if not isinstance(values, dict):
            return values
        trained, tested = values.get("set", "niv2"), values.get("test_set") or values.get("set", "niv2")
        caps = {"train_per_task": None} if _is_one_task(trained) else {}
        caps |= {"test_per_task": None} if _is_one_task(tested) else {}
        return {**caps, **values}

    @model_validator(mode="after")
    def _one_test_set(self) -> "DataSettings":
        if self.test_path is None and self.test_set is not None:
            raise ValueError("`test_set` is the format of `test_path`, which is not given")
        if self.test_path is not None and self.held_out is not None:
            raise ValueError("`held_out` and `test_path` both say what is tested; give one of them")
        return self


def _is_one_task(name: Any) -> bool:
    return isinstance(name, str) and name in FORMATS and not FORMATS[name].many_tasks
