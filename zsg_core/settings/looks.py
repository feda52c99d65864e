"""Says when a study is looked at before its end, and what it may cost.

Fixed at the first submit, before any result: what changes later is kept as a deviation.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from zsg_core.settings.fields import Strict

OBRIEN_FLEMING = "obrien_fleming"
POCOCK = "pocock"
# fewer splits say nothing of others
FEWEST_SPLITS = 4
MOST_SPLITS = 64


class Expectation(Strict):
    """What the study expects, from which `zsg plan` says how often it would be found."""

    effect: Annotated[FiniteFloat, Field(gt=0)] = Field(
        description="The size of an effect that is to be found, in the metric's unit.",
    )
    split_sd: Annotated[FiniteFloat, Field(gt=0)] | None = Field(
        default=None,
        description=(
            "How far the effects of single held-out splits lie apart, as a standard"
            " deviation. Null means from `pilot`."
        ),
    )
    shared: Annotated[FiniteFloat, Field(ge=0, lt=1)] = Field(
        default=0.0,
        description=(
            "How alike splits are, since they share held-out tasks: the correlation of"
            " their effects. Of splits that are alike one more brings little."
        ),
    )
    pilot: str | None = Field(
        default=None,
        min_length=1,
        description=(
            "A submitted grid with the same claims, from whose verdicts `split_sd` and"
            " `shared` are taken. Null means none."
        ),
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.split_sd is None) == (self.pilot is None):
            raise ValueError("give either split_sd or pilot")
        return self


class Looks(Strict):
    """When claims are looked at while held-out splits come in.

    A claim is decided at the first look at which all its effects are clear enough.
    """

    at: list[Annotated[int, Field(ge=FEWEST_SPLITS, le=MOST_SPLITS)]] = Field(
        min_length=1,
        description=(
            "After how many held-out splits the claims are looked at, rising, the last"
            " after all of them, such as [4, 6, 8]."
        ),
    )
    error_rate: Annotated[FiniteFloat, Field(ge=0.001, le=0.2)] = Field(
        default=0.05,
        description=(
            "How often a claim without an effect may be decided, half of it on either"
            " side, all looks together."
        ),
    )
    spending: Literal["obrien_fleming", "pocock"] = Field(
        default=OBRIEN_FLEMING,
        description=(
            "How the error rate is spent: obrien_fleming = late, which costs little;"
            " pocock = evenly, which stops earlier and finds less."
        ),
    )
    futility: Annotated[FiniteFloat, Field(ge=0, lt=0.5)] = Field(
        default=0.0,
        description=(
            "A study ends as not supported where each claim, going on as it did, would"
            " be decided less often than this, such as 0.1. 0 means it never does."
        ),
    )
    gpu_hours: Annotated[FiniteFloat, Field(gt=0)] | None = Field(
        default=None,
        description=(
            "The budget: where the runs so far have taken more, what is left is not"
            " trained. Null means no limit."
        ),
    )
    expect: Expectation | None = Field(
        default=None,
        description="What is expected, for the power that `zsg plan` tells. Null means nothing.",
    )

    @model_validator(mode="after")
    def _rises(self) -> Self:
        later: list[Any] = self.at[1:]
        if any(after <= before for before, after in zip(self.at, later, strict=False)):
            raise ValueError("the numbers of splits in `at` must rise")
        return self

    @property
    def tail(self) -> float:
        """The error rate of one side."""
        return self.error_rate / 2
