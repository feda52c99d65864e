"""Says what a study claims: tests that are written into its grid before any run has a value.

A claim is of the values of one metric, the lower the better only where the claim says
so. It holds for each group of runs that differ in nothing but the claim's own axis,
seeds and held-out splits; `where` picks among the groups. `zsg_core.stats.verdict`
decides it.
"""

import math
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, TypeAdapter

from zsg_core.settings.fields import Count, ExactFraction, Positive, Strict

AXIS = Annotated[
    str,
    Field(
        min_length=1,
        description="The axis of the grid that is compared along, such as arrangement.order.",
    ),
]
Places = Annotated[list[Any], Field(min_length=2)]
FEWEST_PLACES = (
    # a perfect order of four places comes by chance in 1 of 24 studies, 4.2 %: more
    # than the 2.5 % allowed
    5
)
Where = Annotated[dict[str, Any], Field(min_length=1)]


class _Claim(Strict):
    metric: str = Field(
        default="loss",
        min_length=1,
        description=(
            "The metric whose values are judged; the lower the better only where the "
            "claim says so."
        ),
    )
    where: Where | None = Field(
        default=None,
        description=(
            "Judge only runs whose axes have these values, such as {model.name: "
            "llama-7b}. Null means all runs."
        ),
    )
    stage: Count | None = Field(
        default=None,
        description=(
            "Judge only this stage's part of the curve, its first checkpoint included. "
            "Null means all of it."
        ),
    )
    published: str | None = Field(
        default=None,
        description=(
            "Published curves to draw beside: the name of a file of templates/published. "
            "Null means none."
        ),
    )

    @property
    def axis(self) -> tuple[str, list[Any]] | None:
        """The axis that the claim goes along, and its places on it in order; None for a
        claim of each run alone."""
        return None

    @property
    def places(self) -> list[tuple[str, Any]]:
        """Every axis and value that the claim names."""
        along = [(self.axis[0], value) for value in self.axis[1]] if self.axis else []
        return [*(self.where or {}).items(), *along]


class Rises(_Claim):
    """A value rises from one place of an axis to the next: area(nft) < area(rt) < area(fft)."""

    claim: Literal["rises"]
    of: Literal["end", "area"] = Field(
        default="end",
        description="What of a curve is compared: end = its last value, area = the area under it.",
    )
    along: AXIS
    values: Places = Field(
        description="Values of the axis `along`, the one with the lowest metric first."
    )
    by: Annotated[FiniteFloat, Field(ge=0)] = Field(
        default=0.0,
        description="Each value must be higher than the one before by at least this.",
    )

    @property
    def axis(self) -> tuple[str, list[Any]]:
        """The axis that the claim goes along, and its places on it in order."""
        return self.along, self.values


class Correlates(_Claim):
    """Ranks agree: Spearman's correlation of the place on an axis with the metric.

    It is held against all orders of the places, so of fewer than five nothing can be
    decided.
    """

    claim: Literal["correlates"]
    of: Literal["end", "area"] = Field(
        default="end",
        description="What of a curve is compared: end = its last value, area = the area under it.",
    )
    along: AXIS
    values: Annotated[list[Any], Field(min_length=4)] = Field(
        description=(
            f"Values of the axis `along`, in order; with fewer than {FEWEST_PLACES} nothing can be"
            " decided."
        )
    )
    at_least: Annotated[FiniteFloat, Field(gt=0, le=1)] = Field(
        default=0.8,
        description="The smallest Spearman correlation that supports the claim.",
    )

    @property
    def axis(self) -> tuple[str, list[Any]]:
        """The axis that the claim goes along, and its places on it in order."""
        return self.along, self.values


class FallsEarly(_Claim):
    """Most of the fall to the lowest value is done within the first steps."""

    claim: Literal["falls_early"]
    share: ExactFraction = Field(
        default=Fraction(4, 5),
        description="This share of the fall from step 0 to the lowest value must be done early.",
    )
    within: ExactFraction = Field(
        default=Fraction(1, 20),
        description="Early means within this share of the run's steps.",
    )


class FallsAt(_Claim):
    """Values fall faster after a step than before it, where an order of examples turns."""

    claim: Literal["falls_at"]
    at: ExactFraction = Field(
        default=Fraction(1, 2),
        description="Where the order of examples turns, as a share of the steps.",
    )
    window: ExactFraction = Field(
        default=Fraction(1, 20),
        description="How much of the curve is compared before and after, as a share of the steps.",
    )


class FallsSuddenly(_Claim):
    """More tasks than elsewhere have an interval in which they fall by many times their
    usual change.

    The largest of many noisy changes is often several times the usual one, in any
    order. So the share of tasks that fall suddenly counts only against that under
    another order.
    """

    claim: Literal["falls_suddenly"]
    along: AXIS
    value: Any = Field(
        description="Value of the axis `along` at which tasks are claimed to fall suddenly."
    )
    against: Any = Field(
        description="Value of the axis `along` that it is compared with."
    )
    times: Positive = Field(
        default=3.0,
        description="A task falls suddenly if it falls by this many times its usual change.",
    )

    @property
    def axis(self) -> tuple[str, list[Any]]:
        """The axis that the claim goes along, and the place claimed of before that of
        the comparison."""
        return self.along, [self.value, self.against]


Claim = Rises | Correlates | FallsEarly | FallsAt | FallsSuddenly
OF_A_GRID: TypeAdapter[list[Claim]] = TypeAdapter(
    list[Annotated[Claim, Field(discriminator="claim")]]
)
KINDS: dict[str, type[Strict]] = {
    "rises": Rises,
    "correlates": Correlates,
    "falls_early": FallsEarly,
    "falls_at": FallsAt,
    "falls_suddenly": FallsSuddenly,
}


def explain_too_few_places(count: int) -> str:
    """Why a correlation over so many places, fewer than FEWEST_PLACES, cannot be decided."""
    orders = math.factorial(count)
    return (
        f"of the {orders} orders of {count} places one rises throughout, so {1 / orders:.1%} of"
        f" studies would be supported by chance; a correlation can be decided from {FEWEST_PLACES}"
        " places on"
    )
