"""Says the setting of which column of somebody's own data is what."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from zsg_core.data.readers.fields import Fields
from zsg_core.data.readers.wordings import parse_wording
from zsg_core.settings.fields import Strict, check_printable


def check_path(text: str) -> str:
    """A column, or a path into one: names that dots part, none of them empty."""
    check_printable(text)
    if not all(text.split(".")):
        raise ValueError("has a dot with no name before or after it")
    return text


def check_wording(text: str) -> str:
    """A wording in which columns stand in braces. It may have lines, and no other
    characters that control a terminal."""
    bare = text.replace("\n", "").replace("\t", "")
    check_printable(bare)
    for piece in parse_wording(text):
        if piece.is_path:
            check_path(piece.text)
    return text


def check_label(text: str) -> str:
    """The name of a class: it may be empty or blank nowhere, and shows."""
    if not text.strip():
        raise ValueError("is blank")
    return check_printable(text)


Column = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(check_path)]
Columns = Annotated[list[Column], Field(min_length=1, max_length=20)]
Speaker = Annotated[
    str, Field(min_length=1, max_length=200), AfterValidator(check_printable)
]
Side = Literal["user", "assistant", "system"]
Wording = Annotated[
    str, Field(min_length=1, max_length=20_000), AfterValidator(check_wording)
]
Label = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(check_label)]
Labels = Annotated[list[Label], Field(min_length=2, max_length=1000)]


class FieldSettings(Strict):
    """Which column of a row is what. Paths into a column are joined by dots, such as
    `data.question`, `answers.text` or `turns.0`."""

    prompt: Column | Columns | None = Field(
        default=None,
        description=(
            "The column that the model is asked, or several, which are joined by line "
            "breaks, such as [instruction, context]. It goes with `answer`."
        ),
    )
    ask: Wording | None = Field(
        default=None,
        description=(
            "A wording of the question, in place of `prompt`, in which columns stand in "
            "braces, such as 'Sum this up: {article}'. A list stands there a line each; "
            "{{ and }} are braces."
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
    task_else: Speaker | None = Field(
        default=None,
        description=(
            "What rows are called whose `task` is null or empty. Null means that such a "
            "row cannot be read."
        ),
    )
    definition: Column | None = Field(
        default=None,
        description=(
            "The column of the definition of a row's task, which the template words as "
            "that of Natural Instructions. All rows of a task have the same."
        ),
    )
    choices: Column | Columns | None = Field(
        default=None,
        description=(
            "The column of the list of choices that the answer is among, or several "
            "columns, a choice each, such as [A, B, C, D]."
        ),
    )
    choice_scores: Column | None = Field(
        default=None,
        description=(
            "The column of a score for each of the `choices`: the best is the answer, and "
            "of equals each is right. Rows without choices have that of `answer`."
        ),
    )
    labels: Literal["file"] | Labels | None = Field(
        default=None,
        description=(
            "The names of the classes where `answer` is the number of one, from 0: a "
            "list, or file = those that a Parquet or Arrow file of `datasets` gives. They "
            "are the options. Of `word_tags` the names of the tags."
        ),
    )
    words: Column | None = Field(
        default=None,
        description=(
            "The column of a sentence's words, a list of texts, whose entities are the "
            "answer, in place of `prompt` and `answer`; a list of such lists is several "
            "examples. It goes with `word_tags`."
        ),
    )
    word_tags: Column | None = Field(
        default=None,
        description=(
            "The column of the tags of `words`: O, B-TYPE or I-TYPE, or their numbers, "
            "named by `labels`."
        ),
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


class RecordFields(FieldSettings):
    """The fields of data, whole: they say what is asked and answered, and nothing twice."""

    @model_validator(mode="after")
    def _say_what_is_learnt(self) -> "RecordFields":
        forms = self._list_forms()
        if len(forms) != 1:
            raise ValueError(
                "needs `prompt` and `answer`, or `messages`, or `text`, or `words` and"
                f" `word_tags`, and only one of these; found {', '.join(forms) or 'none'}"
            )
        problem = (
            self._explain_half_pair()
            or self._explain_idle_key()
            or self._explain_idle_choices()
            or self._explain_bad_labels()
        )
        if problem:
            raise ValueError(problem)
        return self

    def _list_forms(self) -> list[str]:
        """In which of the forms a row's dialogue is said to stand."""
        forms: list[str] = []
        if self.prompt or self.answer or (self.ask and not self.words):
            forms.append("prompt and answer")
        if self.messages is not None:
            forms.append("messages")
        if self.text is not None:
            forms.append("text")
        if self.words is not None or self.word_tags is not None:
            forms.append("words and word_tags")
        return forms

    def _explain_half_pair(self) -> str | None:
        """Which half of a form is missing; None where none is."""
        if (self.words is None) != (self.word_tags is None):
            return "`words` and `word_tags` go together, a tag for each word"
        if self.prompt and self.ask:
            return "`prompt` and `ask` both say what is asked; give one of them"
        if self.words is not None:
            return None
        key = "ask" if self.ask else "prompt"
        is_question = getattr(self, key) is not None
        if is_question and not self._has_answer:
            return f"`{key}` and `answer` go together; `answer` is missing"
        if self._has_answer and not is_question:
            return "`prompt` and `answer` go together; `prompt` is missing"
        return None

    @property
    def _has_answer(self) -> bool:
        """Whether it is said where an answer stands, or which choice is the best."""
        return self.answer is not None or self.choice_scores is not None

    def _explain_idle_key(self) -> str | None:
        """Which key does nothing beside the others; None where none does."""
        of_messages = (self.role, self.content, self.roles)
        if self.messages is None and any(of_messages):
            return "`role`, `content` and `roles` are of `messages`, which is not given"
        if self.text and self.system:
            return "`system` goes with a dialogue; a raw text has none"
        if self.words and (self.system or self.tags):
            return "`system` and `tags` are not read beside `words`"
        return self._explain_idle_task()

    def _explain_idle_task(self) -> str | None:
        """Which key of a row's task does nothing beside the others; None where none
        does."""
        if self.task and self.task_from:
            return (
                "`task` and `task_from` both say what a row's task is; give one of them"
            )
        if self.task_else and not self.task:
            return "`task_else` is the task of rows whose `task` says none; give `task`"
        if self.definition and not self.task:
            return "`definition` is that of a row's task; give `task`"
        if self.definition and (self.text or self.words):
            return "`definition` goes with `prompt` and `answer`, or `messages`"
        return None

    def _explain_idle_choices(self) -> str | None:
        """Which key of choices does nothing beside the others; None where none does."""
        if self.choice_scores and not self.choices:
            return "`choice_scores` go with `choices`"
        if self.choices and not self._has_answer:
            return "`choices` go with `prompt` and `answer`"
        return None

    def _explain_bad_labels(self) -> str | None:
        """Why the names of classes are none; None where they are, or there are none."""
        if self.labels is None:
            return None
        if self.choices:
            return "`labels` and `choices` both say what an answer is among; give one of them"
        if self.answer is None and self.word_tags is None:
            return "`labels` name the classes of `answer`, or of `word_tags`"
        if self.labels != "file" and len(set(self.labels)) < len(self.labels):
            return "`labels` name a class twice"
        return None

    @property
    def recipe(self) -> dict[str, Any]:
        """What enters the recipe of a run: what is given, and nothing else."""
        values = self.model_dump(exclude_none=True)
        prompt = values.pop("prompt", ())
        values["prompt"] = (prompt,) if isinstance(prompt, str) else tuple(prompt)
        if isinstance(values.get("choices"), list):
            values["choice_columns"] = tuple(values.pop("choices"))
        labels = values.pop("labels", ())
        values["labels_in_file"] = labels == "file"
        values["labels"] = () if labels == "file" else tuple(labels)
        # in pairs: as a mapping a speaker `seed` would be taken for a seed
        values["roles"] = tuple(sorted(values.get("roles", {}).items()))
        return Fields(**values).recipe
