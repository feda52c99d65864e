"""Says the settings of DELIA's two kinds of diverse data (arXiv 2408.10841): a model's
own answers, reworded tasks."""

from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat

from zsg_core.settings.fields import Count, FolderName, Positive, Seed, Strict


class SelfSampleSettings(Strict):
    """The model's own answers to a data set's questions, in place of the data's; the
    defaults are as published.

    A dialogue's first question and answer are its example of how to answer: the model
    sees `system`, the question, the answer, and the question again. Whatever of this
    changes makes other answers, kept by content.
    """

    system: str = Field(
        default="You are a helpful AI assistant.",
        description="The system text before the dialogue, as the model sees it.",
    )
    temperature: Positive = Field(
        default=0.7, description="Temperature of the draws; higher is more random."
    )
    top_p: Annotated[FiniteFloat, Field(gt=0, le=1)] = Field(
        default=0.95,
        description=(
            "Nucleus sampling: draw from the fewest most likely tokens that together have "
            "this probability."
        ),
    )
    max_new_tokens: Count = Field(
        default=512, description="Longest answer, in tokens; a longer one is cut there."
    )
    cut: Annotated[int, Field(ge=0)] = Field(
        default=2,
        description=(
            "Characters removed from the beginning of every answer: 2 for Llama-2-chat, "
            "whose answers begin with two blanks; 0 for another model or template. "
            "Removed characters that are not blanks are counted and reported."
        ),
    )
    items: Count | None = Field(
        default=None,
        description="Use only this many questions, drawn by `seed`. Null means all.",
    )
    seed: Seed = Field(
        default=0,
        description=(
            "Seed of the draws; each question has a stream of its own. No other seed "
            "changes them."
        ),
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
        description=(
            "File with the wordings: a text file with one on each line, or .json with a "
            "list of texts. Its content enters the run id."
        )
    )
    diversify: bool = Field(
        default=True,
        description=(
            "Whether a wording is drawn for each training example, by data.sample_seed; "
            "false = all have the first wording."
        ),
    )
    place: Literal["after", "before"] = Field(
        default="after",
        description=(
            "Whether the wording stands after or before the question, with a blank line "
            "between them."
        ),
    )
    replaces: bool = Field(
        default=False,
        description=(
            "Whether the wording replaces the last paragraph of the question (the first, "
            "with `place: before`), in training examples only. false = it is added, and "
            "test examples get the first wording, whatever `diversify` says."
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
