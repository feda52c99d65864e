"""Says the settings of DELIA's two kinds of diverse data (arXiv 2408.10841): a model's
own answers, reworded tasks."""

from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat

from zsg_core.settings.fields import Count, FolderName, Positive, Seed, Strict


class SelfSampleSettings(Strict):
    """The model's own answers to a data set's questions, in place of the data's; as
    published unless it is said.

    A dialogue's first question and answer are its example of how to answer: the model
    sees `system`, the question, the answer, and the question again. Whatever of this
    changes makes other answers, kept by content.
    """

    system: str = Field(
        default="You are a helpful AI assistant.",
        description="what stands before the dialogue",
    )
    temperature: Positive = Field(default=0.7, description="of the draws")
    top_p: Annotated[FiniteFloat, Field(gt=0, le=1)] = Field(
        default=0.95,
        description=(
            "of the likeliest tokens the fewest that together have this probability are drawn"
        ),
    )
    max_new_tokens: Count = Field(default=512, description="most tokens of an answer")
    cut: Annotated[int, Field(ge=0)] = Field(
        default=2,
        description=(
            "characters left out at the beginning of every answer: Llama-2-chat begins with two"
            " blanks. Characters that were no blanks are counted and told; 0 for another model or"
            " template"
        ),
    )
    items: Count | None = Field(
        default=None,
        description="so many of the questions, drawn by `seed`; null = all",
    )
    seed: Seed = Field(
        default=0,
        description="of the draws, of which each question has its own; no other seed counts",
    )

    @property
    def how(self) -> dict[str, Any]:
        """All that decides the draws, in the words of jobs.model.generate."""
        drawn = {
            "top_p": self.top_p,
            "temperature": self.temperature,
            "seed": self.seed,
        }
        return {
            "decoding": "fast_nucleus",
            **drawn,
            "max_new_tokens": self.max_new_tokens,
        }

    @property
    def recipe(self) -> dict[str, Any]:
        """What makes two sets of answers the same, but for questions, model and template."""
        items = {} if self.items is None else {"items": self.items}
        return {"system": self.system, "how": self.how, "cut": self.cut, **items}


class InstructionSettings(Strict):
    """What a source's questions ask for, in the words of a file."""

    path: FolderName = Field(
        description="the wordings: a text file with one a line, or .json with a list of texts"
    )
    diversify: bool = Field(
        default=True,
        description=(
            "each training example has a wording drawn for it by sample_seed; false: all have the"
            " first"
        ),
    )
    place: Literal["after", "before"] = Field(
        default="after",
        description="where it stands: below or above the question, a blank line between them",
    )
    replaces: bool = Field(
        default=False,
        description=(
            "whether it takes the place of the question's last (first) paragraph, in training"
            " examples only; else it is added, to test examples the first wording, whatever"
            " `diversify` says"
        ),
    )

    def of_train(self, digest: str | None, seed: int) -> dict[str, Any]:
        """What decides the wordings of training examples."""
        drawn = {"seed": seed} if self.diversify else {}
        return {
            "digest": digest,
            "place": self.place,
            "replaces": self.replaces,
            **drawn,
        }

    def of_test(self, digest: str | None) -> dict[str, Any] | None:
        """What decides those of test examples; None where they keep their own."""
        return (
            None
            if self.replaces
            else {"digest": digest, "place": self.place, "replaces": False}
        )
