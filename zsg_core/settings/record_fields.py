"""Says the setting of which column of somebody's own data is what."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from zsg_core.data.readers.fields import Fields
from zsg_core.settings.fields import Strict, check_printable


def check_path(text: str) -> str:
    """A column, or a path into one: names that dots part, none of them empty."""
    check_printable(text)
    if not all(text.split(".")):
        raise ValueError("has a dot with no name before or after it")
    return text


Column = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(check_path)]
Columns = Annotated[list[Column], Field(min_length=1, max_length=20)]
Speaker = Annotated[
    str, Field(min_length=1, max_length=200), AfterValidator(check_printable)
]
Side = Literal["user", "assistant", "system"]


class RecordFields(Strict):
    """Which column of a row is what. Paths into a column are joined by dots, such as
    `data.question`, `answers.text` or `turns.0`."""

    prompt: Column | Columns | None = Field(
        default=None,
        description=(
            "The column that the model is asked, or several, which are joined by line "
            "breaks, such as [instruction, context]. It goes with `answer`."
        ),
    )
    answer: Column | None = Field(
        default=None,
        description=(
            "The column of the right answer, which is trained on. A list holds several right "
            "answers, of which the first is. With `choices` also the place of one, from 0, "
            "or its letter."
        ),
    )
    messages: Column | None = Field(
        default=None,
        description=(
            "The column of a dialogue, a list of messages, in place of `prompt` and "
            "`answer`. Texts without keys are the user's and the assistant's by turns."
        ),
    )
    role: Speaker | None = Field(
        default=None,
        description=(
            "The key under which a message says who speaks. Null means role, from, "
            "speaker or author, whichever there is."
        ),
    )
    content: Speaker | None = Field(
        default=None,
        description=(
            "The key under which a message says what is said. Null means content, value, "
            "text, utterance or message, whichever there is."
        ),
    )
    roles: dict[Speaker, Side] | None = Field(
        default=None,
        description=(
            "Who is who, where speakers are called otherwise than user, human, assistant, "
            "gpt and their like: such as {customer: user, agent: assistant}."
        ),
    )
    text: Column | None = Field(
        default=None,
        description=(
            "The column of a raw text, in place of `prompt` and `answer`: nothing is "
            "asked, no template is put around it, and all of it is trained on."
        ),
    )
    system: Column | None = Field(
        default=None,
        description="The column of a system text; a row may be without one.",
    )
    task: Column | None = Field(
        default=None,
        description=(
            "The column that names a row's task, such as a category. Null means one task "
            "for all rows, called records."
        ),
    )
    task_from: Literal["file", "folder"] | None = Field(
        default=None,
        description=(
            "Tasks by where rows lie, in place of `task`: file = each file's name is a "
            "task; folder = that of the folder that a file lies in."
        ),
    )
    choices: Column | None = Field(
        default=None,
        description="The column of the list of choices that the answer is among.",
    )
    id: Column | None = Field(
        default=None,
        description=(
            "The column of ids of your own, each different. They then stand in answers, "
            "orders and tags. Null means ids by task and place, such as records:0."
        ),
    )
    tags: Column | None = Field(
        default=None,
        description=(
            "The column of a row's tags, a list of texts or one, for `keep_tags` and "
            "`drop_tags`."
        ),
    )

    @model_validator(mode="after")
    def _say_what_is_learnt(self) -> "RecordFields":
        forms = self._list_forms()
        if len(forms) != 1:
            raise ValueError(
                "needs `prompt` and `answer`, or `messages`, or `text`, and only one of"
                f" these; found {', '.join(forms) or 'none'}"
            )
        problem = self._explain_half_pair() or self._explain_idle_key()
        if problem:
            raise ValueError(problem)
        return self

    def _list_forms(self) -> list[str]:
        """In which of the three forms a row's dialogue is said to stand."""
        forms: list[str] = []
        if self.prompt is not None or self.answer is not None:
            forms.append("prompt and answer")
        if self.messages is not None:
            forms.append("messages")
        if self.text is not None:
            forms.append("text")
        return forms

    def _explain_half_pair(self) -> str | None:
        """Which of prompt and answer is missing; None where neither is, or both are."""
        if self.prompt is not None and self.answer is None:
            return "`prompt` and `answer` go together; `answer` is missing"
        if self.answer is not None and self.prompt is None:
            return "`prompt` and `answer` go together; `prompt` is missing"
        return None

    def _explain_idle_key(self) -> str | None:
        """Which key does nothing beside the others; None where none does."""
        of_messages = (self.role, self.content, self.roles)
        if self.messages is None and any(of_messages):
            return "`role`, `content` and `roles` are of `messages`, which is not given"
        if self.choices and not self.answer:
            return "`choices` go with `prompt` and `answer`"
        if self.text and self.system:
            return "`system` goes with a dialogue; a raw text has none"
        if self.task and self.task_from:
            return (
                "`task` and `task_from` both say what a row's task is; give one of them"
            )
        return None

    @property
    def recipe(self) -> dict[str, Any]:
        """What enters the recipe of a run: what is given, and nothing else."""
        values = self.model_dump(exclude_none=True)
        prompt = values.pop("prompt", ())
        values["prompt"] = (prompt,) if isinstance(prompt, str) else tuple(prompt)
        # in pairs: as a mapping a speaker `seed` would be taken for a seed
        values["roles"] = tuple(sorted(values.get("roles", {}).items()))
        return Fields(**values).recipe
