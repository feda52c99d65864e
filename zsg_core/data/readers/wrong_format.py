"""Says of data that are not of the format asked for what they are: which keys their
rows have, and which format reads them.

Only the first rows of the first file are looked at, and nothing is changed: what is
said is advice.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from zsg_core.data import published_sets
from zsg_core.data.readers import hugging_face, keys, row_files
from zsg_core.data.readers.fields import Fields, make_row_type
from zsg_core.data.readers.format import FORMATS, Format
from zsg_core.data.readers.intake import Intake, Malformed
from zsg_core.data.readers.own_rows import NAME, make_parser
from zsg_core.data.readers.row_files import Rows
from zsg_core.errors import UserError

Guessed = str | list[str]  # a column, or several that make one text

SCALARS = (str, int, float)
MOST_KEYS = 12  # keys that are told; of more the first
SAME_COLUMNS = "; the columns are those that were asked for: repair the rows, or name other columns"


# What columns are often called that hold a part of an example, the more telling first.
PROMPTS = (
    "question",
    "prompt",
    "instruction",
    "query",
    "problem",
    "input",
    "inputs",
    "source",
    "user",
    "human",
    "request",
    "post",
)
ANSWERS = (
    "answer",
    "response",
    "output",
    "completion",
    "target",
    "targets",
    "solution",
    "outputs",
    "assistant",
    "reply",
    "answers",
    "label",
    "summary",
)
TASKS = (
    "task",
    "category",
    "task_name",
    "topic",
    "subject",
    "domain",
    "type",
    "source",
)
IDS = ("id", "_id", "uid", "uuid", "idx", "key", "example_id", "question_id")
# what goes with an instruction, below it
PARTS = ("input", "context")
SYSTEMS = ("system", "system_prompt", "system_message")
CHOICES = ("choices", "options")
DIALOGUES = ("messages", "conversations", "conversation", "dialogue", "dialog", "turns")
# what YAML reads as a truth value or as nothing
YAML_WORDS = ("true", "false", "null")
TEXTS = ("text", "document", "content", "article", "body")


def describe(
    name: str,
    path: Path,
    fields: Mapping[str, Any] | None = None,
    mapping: str | None = None,
) -> str | None:
    """Why data are not of a format, and what reads them; None where some of the first
    rows are of it, or nothing can be told. `mapping`: the published set that the fields
    are of."""
    try:
        file = row_files.find_row_files(path)[0]
        rows = row_files.read_first_rows(file)
    except (UserError, OSError, msgspec.MsgspecError):
        return None
    columns = row_files.list_keys(rows)
    if not columns:
        return None
    misfit = _find_misfit(name, fields, rows, mapping)
    if misfit is None:
        return None
    first_columns = ", ".join(sorted(columns)[:MOST_KEYS])
    if len(columns) > MOST_KEYS:
        first_columns += ", …"
    advice = _advise(rows, columns, fields)
    return f"{file.name} {misfit}: its rows have {first_columns}{advice}"


def _find_misfit(
    name: str, fields: Mapping[str, Any] | None, rows: Rows, mapping: str | None
) -> str | None:
    """What a file is not, in words that follow its name; None where a row is of the
    format."""
    if name != NAME:
        if _fits(name, rows):
            return None
        about = _strip_name(FORMATS[name].about)
        return f"is not of the format {name} ({about})"
    if fields is None:
        return None
    reason = _find_reason(fields, rows)
    if reason is None and mapping is not None:
        return _find_other_layout(fields, rows, mapping)
    if reason is None:
        return None
    if mapping is not None:
        about = published_sets.MAPPINGS[mapping].about
        return f"has no row of mapping {mapping} ({about}; the first {reason})"
    return f"has no row that data.fields fit (the first {reason})"


def _find_other_layout(
    fields: Mapping[str, Any], rows: Rows, mapping: str
) -> str | None:
    """That rows are not of the mapping asked for, where they are of another: some can be
    read by it, and would be read as what they are not. None for fields that the user
    has changed, who knows better."""
    published = published_sets.MAPPINGS[mapping]
    fitting = published_sets.find_fitting(rows)
    if not fitting or mapping in fitting or not _is_tried(published.fields, fields):
        return None
    return f"has not the layout of mapping {mapping} ({published.about})"


def _strip_name(about: str) -> str:
    """What a format's rows have, without what it is called."""
    _, _, keys_of_a_row = about.partition(": ")
    return keys_of_a_row or about


def _fits(name: str, rows: Rows) -> bool:
    """Whether a format can read one of the rows; True where that cannot be told."""
    if name == hugging_face.NAME:
        return _is_shape(rows)
    reads_row = FORMATS[name].reads_row
    if reads_row is None:
        return True
    return any(reads_row(row) for row in rows)


def _is_shape(rows: Rows) -> bool:
    """Whether the columns are those of a shape that the hub's data sets have."""
    columns = set(row_files.list_keys(rows))
    for needed, _, _ in hugging_face.SHAPES:
        if needed <= columns:
            return True
    return False


def _find_reason(recipe: Mapping[str, Any], rows: Rows) -> str | None:
    """Why the fields of a recipe make an example of none of the rows; None where they do
    of one."""
    reasons = _list_reasons(recipe, rows)
    return reasons[0] if reasons and len(reasons) == len(rows) else None


def _list_reasons(recipe: Mapping[str, Any], rows: Rows) -> list[str]:
    """Why the fields of a recipe make no example of a row, for each of which they make
    none."""
    fields = Fields.from_recipe(recipe)
    kind = make_row_type(fields)
    parse = make_parser(fields)
    intake = Intake()
    hook = keys.make_decode_hook(intake)
    reasons: list[str] = []
    for row in rows:
        try:
            record = msgspec.convert(row, kind, dec_hook=hook)
            parse(record, NAME, intake)
        except keys.UnsupportedRow:
            continue
        except (Malformed, msgspec.ValidationError) as error:
            reasons.append(str(error))
    return reasons


def _advise(rows: Rows, columns: Sequence[str], tried: Mapping[str, Any] | None) -> str:
    """Which format reads the rows; of what only `records` can, with which fields.

    `tried`: the fields of a recipe that made no example of them, which are not advised
    again.
    """
    mapped = _list_mappings(rows)
    if any(_is_tried(fitting.fields, tried) for fitting in mapped):
        return SAME_COLUMNS
    if mapped:
        written = " or ".join(fitting.written for fitting in mapped)
        return f", which set {NAME} reads with mapping: {written}"
    guess = guess_fields(rows, columns)
    if guess is not None and _is_tried(guess, tried):
        return SAME_COLUMNS
    if guess is not None:
        return f", which set {NAME} reads with fields: {write_fields(guess)}"
    for name, candidate in FORMATS.items():
        if candidate.trains and _reads_all(candidate, rows):
            return f", which set {name} reads"
    return (
        f"; set {NAME} reads rows of any columns, with fields such as {{prompt: COLUMN,"
        " answer: COLUMN}"
    )


def _is_tried(fields: Mapping[str, Any], tried: Mapping[str, Any] | None) -> bool:
    """Whether fields are those of a recipe."""
    if tried is None:
        return False
    written = Fields.from_recipe(tried).written
    # as JSON, in which a tuple is a list
    return json.dumps(fields, sort_keys=True) == json.dumps(written, sort_keys=True)


@dataclass(frozen=True)
class Guess:
    """What a file's rows seem to be: the format that reads them, and, of rows of
    somebody's own, the fields; of those of a published set its mapping, too."""

    reader: str
    fields: Mapping[str, Guessed] | None = None
    mapping: str | None = None


def guess_format(path: Path) -> Guess:
    """What reads the rows of a file, a folder or a pattern, by the first of them.

    UserError, with the columns, where nothing is sure to; or for what cannot be read.
    """
    file = row_files.find_row_files(path)[0]
    rows = row_files.read_first_rows(file)
    columns = row_files.list_keys(rows)
    if not columns:
        raise UserError(
            f"{file}: holds no row with columns: it is empty, or its first rows cannot be read"
        )
    mapped = _list_mappings(rows)
    if mapped:
        fitting = mapped[0]
        return Guess(NAME, fitting.fields, fitting.written)
    fields = guess_fields(rows, columns)
    if fields is not None:
        return Guess(NAME, fields)
    for name, candidate in FORMATS.items():
        if candidate.trains and _reads_all(candidate, rows):
            return Guess(name)
    first_columns = ", ".join(columns[:MOST_KEYS])
    raise UserError(
        f"{file}: its rows have {first_columns}, which do not say what is asked and what is"
        " answered; name them, as fields: {prompt: COLUMN, answer: COLUMN}"
    )


@dataclass(frozen=True)
class FittingSet:
    """A published set whose layout rows have; of translations with two languages of
    theirs, such as is-en."""

    name: str
    languages: str | None = None

    @property
    def written(self) -> str:
        """The mapping as a grid names it."""
        if self.languages is None:
            return self.name
        return f"{{name: {self.name}, languages: {self.languages}}}"

    @property
    def fields(self) -> dict[str, Any]:
        """Which column is what, in the words of `data.fields`."""
        return published_sets.fill_fields(self.name, self.languages)


def _list_mappings(rows: Rows) -> list[FittingSet]:
    """The published sets whose layout the rows have."""
    fitting: list[FittingSet] = []
    for name in published_sets.find_fitting(rows):
        published = published_sets.MAPPINGS[name]
        if not published.has_languages:
            fitting.append(FittingSet(name))
            continue
        codes = published_sets.list_languages(published, rows)
        plain = [code for code in codes if re.fullmatch(published_sets.CODE, code)]
        if len(plain) >= 2:
            fitting.append(FittingSet(name, "-".join(plain[:2])))
    return fitting


def _reads_all(candidate: Format, rows: Rows) -> bool:
    """Whether a format makes examples of all of the rows."""
    reads_row = candidate.reads_row
    if reads_row is None:
        return False
    return all(reads_row(row) for row in rows)


def guess_fields(rows: Rows, columns: Sequence[str]) -> dict[str, Guessed] | None:
    """Which columns are what, by their names and what stands in them; None where they
    do not tell."""
    texts = [column for column in columns if _holds(rows, column, SCALARS)]
    fields = _guess_dialogue(rows, columns, texts)
    if not fields:
        return None
    choices = _guess_choices(rows, columns, fields)
    if choices is not None:
        fields["choices"] = choices
    used = _list_used(fields)
    unused = [column for column in texts if column not in used]
    return fields | _guess_facts(rows, unused, is_text="text" in fields)


def _guess_choices(
    rows: Rows, columns: Sequence[str], fields: Mapping[str, Guessed]
) -> str | None:
    """The column of what the answers are among, where each is surely one of its row's:
    its text, its letter, or its place where some are 0, as places count from there."""
    answer = fields.get("answer")
    if not isinstance(answer, str):
        return None
    lists = [column for column in columns if _holds(rows, column, (list,))]
    column = _first(CHOICES, lists)
    if column is None:
        return None
    written = {str(row.get(answer)).strip() for row in rows}
    numbers = [text for text in written if text.isdecimal()]
    if numbers and "0" not in numbers:
        return None
    recipe = {"prompt": _list_used(fields)[:1], "answer": answer, "choices": column}
    return None if _list_reasons(recipe, rows) else column


def _guess_facts(
    rows: Rows, unused: Sequence[str], *, is_text: bool
) -> dict[str, Guessed]:
    """Which of the columns that are left hold a system text, a task and an id."""
    fields: dict[str, Guessed] = {}
    system = _first(SYSTEMS, unused)
    if system is not None and not is_text:
        fields["system"] = system
    task = _first(TASKS, unused)
    if task is not None:
        fields["task"] = task
    own_id = _first(IDS, unused)
    if own_id is not None and _differ(rows, own_id):
        fields["id"] = own_id
    return fields


def _list_used(fields: Mapping[str, Guessed]) -> list[str]:
    """Every column that fields name."""
    used: list[str] = []
    for column in fields.values():
        used += [column] if isinstance(column, str) else column
    return used


def _guess_dialogue(
    rows: Rows, columns: Sequence[str], texts: Sequence[str]
) -> dict[str, Guessed]:
    """Which columns hold what is asked and answered; none where no name tells."""
    lists = [column for column in columns if _holds(rows, column, (list,))]
    dialogue = _first(DIALOGUES, lists)
    if dialogue is not None:
        return {"messages": dialogue}
    prompt = _first(PROMPTS, texts)
    answer = _first(ANSWERS, [*texts, *lists])
    if prompt is not None and answer is not None:
        return {"prompt": _add_parts(prompt, answer, texts), "answer": answer}
    text = _first(TEXTS, texts)
    if text is not None:
        return {"text": text}
    return {}


def _add_parts(prompt: str, answer: str, texts: Sequence[str]) -> Guessed:
    """The column that is asked, with that of an instruction's input where there is one."""
    if prompt.lower() != "instruction":
        return prompt
    unanswered = [column for column in texts if column != answer]
    below = _first(PARTS, unanswered)
    return prompt if below is None else [prompt, below]


def _holds(rows: Rows, column: str, kinds: tuple[type, ...]) -> bool:
    """Whether a column's values are of these kinds, where there are any."""
    is_met = False
    for row in rows:
        value = row.get(column)
        if value is None:
            continue
        if not isinstance(value, kinds):
            return False
        is_met = True
    return is_met


def _differ(rows: Rows, column: str) -> bool:
    """Whether every row has another value in a column, as an id is."""
    values = {str(row.get(column)) for row in rows}
    return len(values) == len(rows)


def _first(names: Sequence[str], columns: Sequence[str]) -> str | None:
    """The first of these names that a column has, in whatever case."""
    by_name = {column.lower(): column for column in columns}
    for name in names:
        if name in by_name:
            return by_name[name]
    return None


def write_fields(fields: Mapping[str, Any]) -> str:
    """Fields as YAML writes them on one line."""
    pairs: list[str] = []
    for field, column in fields.items():
        name = _write_column(field)
        written = _write_columns(column)
        pairs.append(f"{name}: {written}")
    joined = ", ".join(pairs)
    return f"{{{joined}}}"


def _write_columns(columns: Any) -> str:
    """A column, several as a list, or a mapping of such."""
    if isinstance(columns, str):
        return _write_column(columns)
    if isinstance(columns, Mapping):
        return write_fields(columns)
    return f"[{', '.join(map(_write_column, columns))}]"


def _write_column(column: str) -> str:
    """A column's name in YAML, in quotes where it needs some."""
    letters = column.replace("_", "")
    is_plain = letters.isascii() and letters.isalnum() and not column[0].isdigit()
    if is_plain and column.lower() not in YAML_WORDS:
        return column
    # YAML reads no sign that is written as a pair of escapes, as JSON may have them
    return json.dumps(column, ensure_ascii=False)
