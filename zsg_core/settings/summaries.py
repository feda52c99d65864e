"""Says which summaries of several values a grid file names, for reports and claims.

They are of values that are kept, so they are part of no run.
"""

from typing import Annotated, Self

from pydantic import Field, FiniteFloat, field_validator, model_validator

from zsg_core.errors import UserError
from zsg_core.metrics import summaries
from zsg_core.settings.fields import Strict

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w-]{0,31}$")]
Chance = Annotated[FiniteFloat, Field(ge=0, lt=100)]
Chances = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=200)], Chance],
    Field(min_length=1),
]
Tasks = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]


def _check_key(key: str, averages: tuple[str, ...]) -> None:
    try:
        summaries.check_key(key, averages)
    except UserError as error:
        raise ValueError(str(error)) from None


def _check_suite(key: str) -> None:
    try:
        summaries.check_suite(key)
    except UserError as error:
        raise ValueError(str(error)) from None


class SummarySettings(Strict):
    """What reports, claims and MLflow are to know of, beside what is measured."""

    data_sets: dict[str, Tasks] = Field(
        default={},
        description=(
            "Which test tasks are prompts of one data set, for `prompts/median/KEY` and its "
            "quartiles: a mapping from set names to names or patterns of tasks. Empty means "
            "those of data.data_sets where it is a mapping, else the names of T0's sets."
        ),
    )
    averages: dict[Name, Chances] = Field(
        default={},
        description=(
            "Normalised averages, each a mapping from the keys of metrics in per cent to what "
            "a guess would have, such as {mmlu: {source/mmlu/rank_accuracy: 25}}: the "
            "mean of 100 (score - chance) / (100 - chance). Its key is average/NAME. Values "
            "of lm_eval/… are shares of 1 and count as per cent; losses, ratings and rewards "
            "are refused."
        ),
    )

    tracked: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(
        default=[],
        description=(
            "Keys of summaries that MLflow is to have, such as [source/mmlu/rouge1]. It has "
            "averages, and what claims are of, without being told."
        ),
    )

    @model_validator(mode="after")
    def _check_tracked(self) -> Self:
        for key in self.tracked:
            if not summaries.is_summary(key):
                raise ValueError(f"tracked: {key!r} is the key of no summary")
            _check_key(key, tuple(self.averages))
        return self

    @field_validator("averages")
    @classmethod
    def _check_keys(
        cls, averages: dict[str, dict[str, float]]
    ) -> dict[str, dict[str, float]]:
        for chances in averages.values():
            for key in chances:
                _check_suite(key)
        return averages
