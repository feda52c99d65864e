"""Says what a study claims: tests that are written into its grid before any run has a value.

A claim is of the values of one metric, the lower the better only where the claim says
so. It holds for each group of runs that differ in nothing but the claim's own axis,
seeds and held-out splits; `where` picks among the groups. `zsg_core.stats.verdict`
decides it.
"""

import itertools
import math
from fractions import Fraction
from typing import Annotated, Any, Literal, Self

from pydantic import Field, FiniteFloat, TypeAdapter, model_validator

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
            "Published numbers to lay beside: the name of a file of templates/published (curves) "
            "or templates/published/tables. Null means none."
        ),
    )

    @property
    def axis(self) -> tuple[str, list[Any]] | None:
        """The axis that the claim goes along, and its places on it in order; None for a
        claim of each run alone."""
        return None

    @property
    def metrics(self) -> list[str]:
        """The metrics that the claim is of: one, or several of the same runs."""
        return [self.metric]

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


class Trends(_Claim):
    """A value rises along an axis on the whole: the slope of a straight line over its places.

    Less than `rises`, which wants every step up, and decided from two places on.
    """

    claim: Literal["trends"]
    of: Literal["end", "area"] = Field(
        default="end",
        description="What of a curve is compared: end = its last value, area = the area under it.",
    )
    along: AXIS
    values: Places = Field(
        description=(
            "Values of the axis `along` in order, the one with the lowest metric first."
        )
    )
    positions: Annotated[list[FiniteFloat], Field(min_length=2)] | None = Field(
        default=None,
        description=(
            "Where each of the values lies, rising, such as [7, 13, 33] for models of so many "
            "billion parameters. Null means one apart."
        ),
    )
    by: Annotated[FiniteFloat, Field(ge=0)] = Field(
        default=0.0,
        description="The slope must be at least this much for each 1 of the positions.",
    )

    @model_validator(mode="after")
    def _check_positions(self) -> Self:
        if self.positions is None:
            return self
        if len(self.positions) != len(self.values):
            raise ValueError(f"positions must be as many as values, {len(self.values)}")
        if any(after <= before for before, after in itertools.pairwise(self.positions)):
            raise ValueError("positions must rise from each to the next")
        return self

    @property
    def axis(self) -> tuple[str, list[Any]]:
        """The axis that the claim goes along, and its places on it in order."""
        return self.along, self.values


class _Early(_Claim):
    share: ExactFraction = Field(
        default=Fraction(4, 5),
        description="This share of the change from step 0 to the best value must be done early.",
    )
    within: ExactFraction = Field(
        default=Fraction(1, 20),
        description="Early means within this share of the run's steps.",
    )


class FallsEarly(_Early):
    """Most of the fall to the lowest value is done within the first steps."""

    claim: Literal["falls_early"]


class RisesEarly(_Early):
    """Most of the rise to the highest value is done within the first steps: of a score of
    answers, what falls_early is of a loss."""

    claim: Literal["rises_early"]
    average: Annotated[int, Field(ge=1)] = Field(
        default=1,
        description=(
            "Each value is the mean of so many checkpoints, the last of them its own: of a metric "
            "that swings from one to the next."
        ),
    )


class _At(_Claim):
    at: ExactFraction = Field(
        default=Fraction(1, 2),
        description="Where the order of examples turns, as a share of the steps.",
    )
    window: ExactFraction = Field(
        default=Fraction(1, 20),
        description="How much of the curve is compared before and after, as a share of the steps.",
    )


class FallsAt(_At):
    """Values fall faster after a step than before it, where an order of examples turns."""

    claim: Literal["falls_at"]


class RisesAt(_At):
    """Values rise faster after a step than before it, where an order of examples turns."""

    claim: Literal["rises_at"]


class _Suddenly(_Claim):
    along: AXIS
    value: Any = Field(
        description="Value of the axis `along` at which tasks are claimed to change suddenly."
    )
    against: Any = Field(
        description="Value of the axis `along` that it is compared with."
    )
    times: Positive = Field(
        default=3.0,
        description="A task changes suddenly if it does by this many times its usual change.",
    )

    @property
    def axis(self) -> tuple[str, list[Any]]:
        """The axis that the claim goes along, and the place claimed of before that of
        the comparison."""
        return self.along, [self.value, self.against]


class FallsSuddenly(_Suddenly):
    """More tasks than elsewhere have an interval in which they fall by many times their
    usual change.

    The largest of many noisy changes is often several times the usual one, in any
    order. So the share of tasks that fall suddenly counts only against that under
    another order.
    """

    claim: Literal["falls_suddenly"]


class RisesSuddenly(_Suddenly):
    """More tasks than elsewhere have an interval in which they rise by many times their
    usual change; see falls_suddenly."""

    claim: Literal["rises_suddenly"]


class _OfMetrics(_Claim):
    """A claim that compares metrics of the same runs, on the test items that have all."""

    than: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)] = (
        Field(
            description=(
                "The metrics that `metric` is compared with, such as [rouge1, exact_match]: each "
                "must be so."
            )
        )
    )

    @model_validator(mode="after")
    def _check_metrics(self) -> Self:
        if len(set(self.metrics)) < len(self.metrics):
            raise ValueError("than must name other metrics than `metric`, each once")
        return self

    @property
    def metrics(self) -> list[str]:
        """The metric that is compared before those it is compared with."""
        return [self.metric, *self.than]


class IsEarlier(_OfMetrics):
    """A metric is further on its way in the first steps than others of the same runs.

    Of each its mean way from step 0 within the first steps is taken, as a share of that
    to the mean of its later values; so it does not matter which falls and which rises.
    """

    claim: Literal["is_earlier"]
    within: ExactFraction = Field(
        default=Fraction(1, 20),
        description="The first steps are this share of the run's steps.",
    )
    by: Annotated[FiniteFloat, Field(ge=0, lt=1)] = Field(
        default=0.0,
        description="Its share must be larger than that of the others by at least this.",
    )


class IsSteadier(_OfMetrics):
    """A metric swings less from checkpoint to checkpoint than others of the same runs.

    Of each the distance of a checkpoint from the line between its neighbours is taken
    (root mean square, after the first steps), as a share of the way from step 0 to the
    mean of its later values.
    """

    claim: Literal["is_steadier"]
    within: ExactFraction = Field(
        default=Fraction(1, 20),
        description="The first steps, which are left out, are this share of the run's steps.",
    )
    times: Annotated[FiniteFloat, Field(ge=1)] = Field(
        default=1.0,
        description="The others must swing at least this many times as much.",
    )


class IsHigher(_OfMetrics):
    """A metric has higher values than others of the same runs, such as one source's silhouette."""

    claim: Literal["is_higher"]
    of: Literal["end", "area"] = Field(
        default="end",
        description="What of a curve is compared: end = its last value, area = the area under it.",
    )
    by: Annotated[FiniteFloat, Field(ge=0)] = Field(
        default=0.0,
        description="It must be higher than each of the others by at least this.",
    )


Claim = (
    Rises
    | Correlates
    | Trends
    | FallsEarly
    | RisesEarly
    | FallsAt
    | RisesAt
    | FallsSuddenly
    | RisesSuddenly
    | IsEarlier
    | IsSteadier
    | IsHigher
)
OF_METRICS = (IsEarlier, IsSteadier, IsHigher)
# those that are of a part of the steps, and need checkpoints within it
OF_EARLY_STEPS = (FallsEarly, RisesEarly, IsEarlier, IsSteadier)
OF_A_GRID: TypeAdapter[list[Claim]] = TypeAdapter(
    list[Annotated[Claim, Field(discriminator="claim")]]
)
KINDS: dict[str, type[Strict]] = {
    "rises": Rises,
    "correlates": Correlates,
    "trends": Trends,
    "falls_early": FallsEarly,
    "rises_early": RisesEarly,
    "falls_at": FallsAt,
    "rises_at": RisesAt,
    "falls_suddenly": FallsSuddenly,
    "rises_suddenly": RisesSuddenly,
    "is_earlier": IsEarlier,
    "is_steadier": IsSteadier,
    "is_higher": IsHigher,
}


def explain_too_few_places(count: int) -> str:
    """Why a correlation over so many places, fewer than FEWEST_PLACES, cannot be decided."""
    orders = math.factorial(count)
    return (
        f"of the {orders} orders of {count} places one rises throughout, so {1 / orders:.1%} of"
        f" studies would be supported by chance; a correlation can be decided from {FEWEST_PLACES}"
        " places on"
    )
