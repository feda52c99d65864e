"""Says the settings of few-shot training data: which examples of its own task stand
before a training example, and how."""

from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from zsg_core.data.few_shot import ANSWERS, IN_ONE, LAST, LEARNT_ANSWERS, TURN_FORMS
from zsg_core.settings.fields import ExactPart, Seed, Strict

# more than a prompt of today's models has room for; a larger number is a slip
MOST_SHOTS = 256


class FewShotSettings(Strict):
    """Solved examples of the same task before each training example.

    They come from the training examples of the task, whatever of these is sampled to be
    learnt.
    """

    k: Annotated[int, Field(ge=0, le=MOST_SHOTS)] = Field(
        description=(
            "How many examples stand before each training example; 0 = none, the same as "
            "without few_shot."
        )
    )
    share: ExactPart = Field(
        default=Fraction(1),
        description=(
            "Share of the training examples that have any, drawn for each by itself, such "
            "as 1/2 for a mixture of zero-shot and few-shot; smaller shares are subsets "
            "of larger ones."
        ),
    )
    fixed: Literal["first"] | None = Field(
        default=None,
        description=(
            "first = all examples of a task have the same k, the first of the task; those "
            "k themselves have the next one in place of themselves. Null means drawn by "
            "`seed` for each example."
        ),
    )
    turns: Literal[TURN_FORMS] = Field(  # type: ignore[valid-type]
        default=IN_ONE,
        description=(
            "one = all stand in the text of the question, each with its answer; many = "
            "each is a question and an answer of the dialogue, as the template writes "
            "turns."
        ),
    )
    loss_on: Literal[LEARNT_ANSWERS] = Field(  # type: ignore[valid-type]
        default=LAST,
        description=(
            "Which answers are trained on: last = the example's own; answers = those of the "
            "examples before it, too, which needs `turns: many`."
        ),
    )
    seed: Seed | None = Field(
        default=None,
        description="Seed of the draws. Null means data.sample_seed.",
    )

    @model_validator(mode="after")
    def _learns_turns(self) -> "FewShotSettings":
        """Refuses keys that cannot do what they say beside the others."""
        if self.loss_on == ANSWERS and self.turns == IN_ONE:
            raise ValueError(
                "`loss_on: answers` learns the answers of turns, and `turns: one` makes one turn;"
                " set turns: many"
            )
        if self.fixed and self.seed is not None and self.share == 1:
            raise ValueError("`seed` draws nothing under `fixed: first`; take it out")
        return self

    @property
    def is_used(self) -> bool:
        """Whether any example has shots."""
        return self.k > 0 and self.share > 0

    def make_recipe(self, seed: int) -> dict[str, Any]:
        """What decides the shots of each example; `seed` where none is set here.

        What does nothing is absent: a share of all, a seed where nothing is drawn.
        """
        recipe: dict[str, Any] = {
            "k": self.k,
            "turns": self.turns,
            "loss_on": self.loss_on,
        }
        if self.fixed is not None:
            recipe["fixed"] = self.fixed
        if self.share != 1:
            recipe["share"] = str(self.share)
        if self.fixed is None or self.share != 1:
            recipe["seed"] = seed if self.seed is None else self.seed
        return recipe
