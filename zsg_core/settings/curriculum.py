"""What becomes of an ordered list before it is trained on: pacing, buckets, replay."""

from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, model_validator

from zsg_core.orders.buckets import STYLES
from zsg_core.orders.pacing import COMPETENCE, CURVES, DRAWS, ONCE
from zsg_core.settings.data import SourceName
from zsg_core.settings.fields import Count, Strict

Share = Annotated[FiniteFloat, Field(gt=0, le=1)]


class PacingSettings(Strict):
    """How much of the ordered list each step may see."""

    curve: Literal[CURVES] = Field(  # type: ignore[valid-type]
        description=(
            "How the share that a step may see grows from `start` to 1. competence = the "
            "`power`-th root of a line in its powers; linear, root, quadratic, exp and log "
            "grow so with the time; step = `start` until `until`, then everything."
        ),
    )
    draw: Literal[DRAWS] = Field(  # type: ignore[valid-type]
        description=(
            "repeats = each step draws its batch anew from all that it may see, as "
            "published: examples come again in later steps, and some may never come; once = "
            "from what is not drawn yet, so that each example is seen once."
        ),
    )
    start: Share = Field(
        default=0.01, description="The share of the list that the first step may see."
    )
    until: Share = Field(
        default=0.9,
        description="The share of all steps after which a step may see everything.",
    )
    power: Annotated[FiniteFloat, Field(ge=0.1, le=20)] | None = Field(
        default=None,
        description=(
            "Curve competence only: 1 = a line, 2 = the published root. Null means 2."
        ),
    )
    over_steps: Count | None = Field(
        default=None,
        description=(
            "Draw repeats only: for how many steps the list is drawn. Null means those of "
            "one pass over the data, and at most train.steps."
        ),
    )

    @model_validator(mode="after")
    def _only_what_counts(self) -> "PacingSettings":
        if self.power is not None and self.curve != COMPETENCE:
            raise ValueError(
                f"`power` is that of curve competence, not of {self.curve}; take it out"
            )
        if self.over_steps is not None and self.draw == ONCE:
            raise ValueError(
                "`over_steps` is of draw repeats: a list that is drawn once has each example"
                " once; take it out"
            )
        return self


class BucketSettings(Strict):
    """Buckets of the ordered list, one after the other."""

    number: Annotated[int, Field(ge=2, le=100_000)] = Field(
        description="How many equal buckets the ordered list is divided into."
    )
    style: Literal[STYLES] = Field(  # type: ignore[valid-type]
        description=(
            "one_pass = each bucket by itself, shuffled; baby_steps = each together with "
            "all before it, shuffled anew, so that what stands early comes again."
        ),
    )


class ReplaySettings(Strict):
    """A source that comes again and again between the others."""

    source: SourceName = Field(
        description="Which of data.sources is replayed; it begins again when it runs out."
    )
    every: Annotated[int, Field(ge=2)] = Field(
        description="Each so many-th place is one of `source`, the others are not."
    )
