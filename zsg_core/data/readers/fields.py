"""Says where in a row of somebody's own each part of an example stands: in which
column, or along which path into one.

A path is a column's name, or names joined by dots: `data.question` is the `question`
within `data`. A column whose whole name has the dot comes first. Within a list a number
is a place (`answers.0`), and any other name is looked up in every item
(`choices.text`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal

import msgspec

from zsg_core.data.readers import keys
from zsg_core.data.readers.intake import Intake, Malformed
from zsg_core.data.readers.wordings import list_paths

Getter = Callable[[Any], Any]
COLUMN = "column{}"  # what a column is called in the type of a row, by its number
MISSING = msgspec.UNSET
SHOWN = 60  # characters of a value that are told
MOST_DIGITS = 9  # of a place in a list
DEEPEST = 32  # lists within lists that a name is looked up in


@dataclass(frozen=True, kw_only=True)
class Fields:
    """Which columns are read, and as what.

    One of three: `prompt` and `answer`; `messages`; or `text`. Several columns of
    `prompt` are joined by line breaks, without blank ones. `role` and `content` name the
    keys of a message where they are other than the usual; `roles` says which of the
    data's speakers is the user, the assistant or the system. `task_from`: the task is
    called as the row's file, or as the folder of the file.

    In place of `prompt` there may be `ask`, a wording with paths in braces, and in place
    of `answer` the best of the `choices` by `choice_scores`. `choice_columns` are
    choices that stand in a column each. `labels` are the names of the classes whose
    numbers rows hold, in their order; `labels_in_file`: the file says them. `words` and
    `word_tags` are sentences with the BIO tags of their entities, a form of its own.
    `task_else` is the task of rows that name none. `definition` is that of the row's
    task, as of Natural Instructions.
    """

    prompt: tuple[str, ...] = ()
    answer: str | None = None
    messages: str | None = None
    text: str | None = None
    system: str | None = None
    task: str | None = None
    task_from: Literal["file", "folder"] | None = None
    choices: str | None = None
    id: str | None = None
    tags: str | None = None
    role: str | None = None
    content: str | None = None
    roles: tuple[tuple[str, str], ...] = ()
    ask: str | None = None
    definition: str | None = None
    choice_columns: tuple[str, ...] = ()
    choice_scores: str | None = None
    labels: tuple[str, ...] = ()
    labels_in_file: bool = False
    words: str | None = None
    word_tags: str | None = None
    task_else: str | None = None

    @classmethod
    def from_recipe(cls, recipe: Mapping[str, Any]) -> "Fields":
        """The fields of a recipe. ValidationError for what is none of them."""
        values = dict(recipe)
        return msgspec.convert(values, cls)

    @property
    def recipe(self) -> dict[str, Any]:
        """What enters a recipe: what is given, and nothing else."""
        recipe: dict[str, Any] = {}
        for name, value in vars(self).items():
            if not value:
                continue
            is_list = isinstance(value, tuple)
            recipe[name] = _make_list(value) if is_list else value
        return recipe

    @property
    def written(self) -> dict[str, Any]:
        """The fields as `data.fields` has them."""
        values = {name: value for name, value in vars(self).items() if value}
        if len(self.prompt) == 1:
            values["prompt"] = self.prompt[0]
        if self.roles:
            values["roles"] = dict(self.roles)
        if self.choice_columns:
            values["choices"] = values.pop("choice_columns")
        if self.labels_in_file:
            values["labels"] = "file"
            values.pop("labels_in_file")
        return values

    @property
    def paths(self) -> list[str]:
        """Every path that is read, each once, in the order of the fields."""
        single = (
            self.answer,
            self.messages,
            self.text,
            self.system,
            self.task,
            self.choices,
            self.id,
            self.tags,
            self.definition,
            self.choice_scores,
            self.words,
            self.word_tags,
        )
        named = [path for path in single if path is not None]
        lists = [*self.prompt, *named, *self.choice_columns, *self.asked]
        return list(dict.fromkeys(lists))

    @property
    def has_choices(self) -> bool:
        """Whether rows say what their answer is among."""
        return self.choices is not None or bool(self.choice_columns)

    @property
    def has_plain_choices(self) -> bool:
        """Whether an answer says itself which of its choices it is."""
        return self.has_choices and self.choice_scores is None

    @property
    def choice_names(self) -> str:
        """The columns of the choices, as messages name them."""
        return self.choices or ", ".join(self.choice_columns)

    @property
    def classified(self) -> str | None:
        """The path of what `labels` name: of tags, or of the answer."""
        return self.word_tags or self.answer

    @property
    def asked(self) -> list[str]:
        """The paths of the wording, each once."""
        return [] if self.ask is None else list_paths(self.ask)

    @property
    def needed(self) -> list[str]:
        """The paths without which no row is an example."""
        task = None if self.task_else is not None else self.task
        # of a row with scored choices the best of these is the answer
        answer = None if self.choice_scores is not None else self.answer
        single = (
            answer,
            self.messages,
            self.text,
            task,
            self.id,
            self.definition,
            self.words,
            self.word_tags,
            *self.asked,
        )
        # of several columns of a prompt some may be left out of a row
        needed = list(self.prompt[:1])
        for path in single:
            if path is not None and path not in needed:
                needed.append(path)
        return needed

    @property
    def columns(self) -> list[str]:
        """Every column that may be read: of a path with dots, the whole and its head."""
        columns: dict[str, None] = {}
        for path in self.paths:
            columns[path] = None
            columns[find_head(path)] = None
        return list(columns)


def _make_list(value: Any) -> Any:
    """Tuples within one another as lists, which is how JSON has them."""
    if not isinstance(value, tuple):
        return value
    return [_make_list(item) for item in value]


def find_head(path: str) -> str:
    """The column that a path begins with."""
    return path.partition(".")[0]


def make_row_type(fields: Fields) -> type[msgspec.Struct]:
    """A type of rows that takes the columns of the fields as whatever they are, and of
    the other keys those that change what a row means (see `keys`)."""
    columns = fields.columns
    members: list[tuple[str, Any, Any]] = []
    for number, column in enumerate(columns):
        name = COLUMN.format(number)
        default = msgspec.field(name=column, default=MISSING)
        members.append((name, Any, default))
    marks = dict.fromkeys((*keys.ROW, keys.SPLIT))
    if fields.prompt or fields.ask:
        marks |= dict.fromkeys(keys.QUESTION)
    for mark in marks:
        if mark in columns:
            continue
        members.append((mark, keys.KeyValue | None, None))
    return msgspec.defstruct("OwnRow", members, gc=False, kw_only=True)


def make_getter(path: str, columns: Sequence[str]) -> Getter:
    """A function that finds what stands at a path of a row, MISSING where nothing does.

    `columns`: those of the row's type, in its order.
    """
    whole: Getter = attrgetter(COLUMN.format(columns.index(path)))
    head, *steps = path.split(".")
    if not steps:
        return whole
    outer: Getter = attrgetter(COLUMN.format(columns.index(head)))

    def get_nested(row: Any) -> Any:
        value = whole(row)
        if value is not MISSING:
            return value
        return _walk(outer(row), steps)

    return get_nested


def _walk(value: Any, steps: Sequence[str], depth: int = 0) -> Any:
    """What stands at the end of some steps into a value; MISSING where nothing does, or
    below more lists than any text stands in. `depth`: how many it is within."""
    if depth > DEEPEST:
        return MISSING
    for number, step in enumerate(steps):
        if isinstance(value, Mapping):
            value = value.get(step, MISSING)
        elif not isinstance(value, list):
            return MISSING
        elif step.isdecimal():
            value = _take_item(value, step)
        else:
            further = steps[number:]
            return [_walk(item, further, depth + 1) for item in value]
    return value


def _take_item(items: list[Any], step: str) -> Any:
    """The item at the place that a step names; MISSING where the list is shorter."""
    index = int(step[:MOST_DIGITS])
    if index >= len(items):
        return MISSING
    return items[index]


def is_absent(value: Any) -> bool:
    """Whether a row says nothing here: no such key, null, or pandas' word for it, a
    number that is none."""
    return value is MISSING or value is None or value != value


def read_text(value: Any, path: str) -> str:
    """A value as a text: itself, or a number or truth value as JSON writes it.

    Malformed for what is absent, a list, a mapping, or of another type.
    """
    if isinstance(value, str):
        return value
    if value is MISSING:
        raise Malformed(f"has no `{path}`")
    if is_absent(value):
        raise Malformed(f"`{path}` is null")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return _write_integer(value, path)
    if isinstance(value, float) and math.isfinite(value):
        return msgspec.json.encode(value).decode()
    raise Malformed(f"`{path}` is {_describe(value)}, not a text")


def _write_integer(value: int, path: str) -> str:
    try:
        return str(value)
    except ValueError:
        raise Malformed(f"`{path}` is a number of thousands of digits") from None


def read_optional(value: Any, path: str, intake: Intake) -> str:
    """The same where it may be absent: then an empty text. A null is counted."""
    if is_absent(value):
        if value is None:
            intake.note_nulls(**{path: None})
        return ""
    return read_text(value, path)


def read_list(value: Any, path: str) -> list[str]:
    """A list of texts. Malformed for another value, or one of its items."""
    if not isinstance(value, list):
        kind = _describe(value)
        raise Malformed(f"`{path}` is {kind}, not a list of texts")
    if are_all(value, str):
        return value
    return [read_text(item, f"{path}[{number}]") for number, item in enumerate(value)]


def are_all(values: Sequence[Any], kind: type) -> bool:
    """Whether all values are of one type itself, as those of most lists are."""
    for value in values:  # quicker than any function over a generator
        if value.__class__ is not kind:
            return False
    return True


def _describe(value: Any) -> str:
    """What a value is, in words that a reader of the row understands."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, Mapping):
        named = ", ".join(str(key) for key in list(value)[:5])
        return f"a mapping of {named}"[:SHOWN]
    if isinstance(value, float):
        return "a number that is not finite"
    return f"of type {type(value).__name__}"
