"""Says the settings of examples that are turned round (FLAN's inverted templates)."""

from fractions import Fraction
from typing import Annotated, Any

from pydantic import Field, field_validator

from zsg_core.settings.fields import ExactPart, Seed, Strict

MOST_CHARACTERS = 10_000  # of a wording

Wording = Annotated[str, Field(min_length=1, max_length=MOST_CHARACTERS)]


class InvertSettings(Strict):
    """Training examples of which the question is to be found for the answer.

    FLAN turns up to three of ten templates of a data set round. Dialogues and raw texts
    stay as they are.
    """

    wordings: Annotated[list[Wording], Field(min_length=1)] = Field(
        description=(
            "What is asked instead, one drawn for each example, such as ['Write a review "
            "that is {answer}.']. {answer} is where the answer stands; without it, it "
            "stands below, after a blank line."
        )
    )
    share: ExactPart = Field(
        default=Fraction(3, 10),
        description=(
            "Share of the training examples that is turned round, drawn for each by "
            "itself; smaller shares are subsets of larger ones. 0 = none."
        ),
    )
    seed: Seed | None = Field(
        default=None,
        description="Seed of the draws. Null means data.sample_seed.",
    )

    @field_validator("wordings")
    @classmethod
    def _say_something(cls, wordings: list[str]) -> list[str]:
        """Refuses a wording of blanks."""
        if not all(wording.strip() for wording in wordings):
            raise ValueError("a wording is blank; write what is asked")
        return wordings

    def make_recipe(self, seed: int) -> dict[str, Any]:
        """What decides which examples are turned round; `seed` where none is set here."""
        return {
            "share": str(self.share),
            "wordings": list(self.wordings),
            "seed": seed if self.seed is None else self.seed,
        }
