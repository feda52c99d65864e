"""Reads what an answer of somebody's own rows is among: choices, scored choices, or
classes whose numbers the rows hold."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import structs

from zsg_core.data.examples import Example
from zsg_core.data.readers.fields import (
    MISSING,
    MOST_DIGITS,
    SHOWN,
    Fields,
    Getter,
    is_absent,
    make_getter,
    read_list,
    read_text,
)
from zsg_core.data.readers.intake import Intake, Malformed

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

# puts into an example what its row says
Finish = Callable[[Any, Example, Intake], Example]


def _make_choice_getter(fields: Fields, columns: Sequence[str]) -> Getter:
    """A function that finds the choices of a row: those of one column, or of several a
    choice each, where the last ones may be absent."""
    if fields.choices is not None:
        return make_getter(fields.choices, columns)
    getters = [make_getter(path, columns) for path in fields.choice_columns]

    def get_choices(row: Any) -> Any:
        values = [get(row) for get in getters]
        while values and is_absent(values[-1]):
            values.pop()
        return values or MISSING

    return get_choices


def make_choices(fields: Fields, columns: Sequence[str]) -> Finish | None:
    """A function that keeps the choices that an answer is among; the answer may be one
    of their texts, its place from 0, or its letter.

    A whole number is a place first where the choices are texts, whatever these say: of
    the choices "3", "2", "0" the answer 0 is "3". So is the name of a choice's column:
    where A is "B" and B is "C", the answer B is "C".
    """
    if not fields.has_plain_choices:
        return None
    assert fields.answer is not None, "choices go with an answer"
    path = fields.choice_names
    answer_path = fields.answer
    get = _make_choice_getter(fields, columns)
    get_answer = make_getter(answer_path, columns)
    places = {column: place for place, column in enumerate(fields.choice_columns)}

    def put_choices(row: Any, example: Example, intake: Intake) -> Example:
        value = get(row)
        if is_absent(value):
            intake.note(f"row without `{path}`")
            return example
        choices = _read_choices(value, path)
        # a list of texts is read as it is, and a number among them is a place
        answer = get_answer(row) if choices is value else None
        right = _find_choice(example.answer, answer, places, choices)
        if right is None:
            beginning = example.answer[:SHOWN]
            raise Malformed(
                f"`{answer_path}` is {beginning!r}, which is none of `{path}`, nor the place or the"
                " letter of one"
            )
        turn = (example.input, right)
        return structs.replace(example, turns=(turn,), options=tuple(choices))

    return put_choices


def _read_choices(value: Any, path: str) -> list[str]:
    """The choices of a row. Malformed for less than two, and for two that are alike."""
    choices = read_list(value, path)
    if len(choices) < 2 or len(set(choices)) < len(choices):
        raise Malformed(f"`{path}` must hold two choices or more that differ")
    return choices


def _find_choice(
    text: str, answer: Any, places: Mapping[str, int], choices: Sequence[str]
) -> str | None:
    """The choice that an answer means; None where it means none.

    `text` is the answer as a text, `answer` what its column holds, None where no number
    of it counts as a place; `places` are those of the choices' own columns.
    """
    by_column = _choose_by_column(text, places, choices)
    if by_column is not None:
        return by_column
    by_number = _choose_by_number(answer, choices)
    if by_number is not None:
        return by_number
    return _choose(text, choices)


def _choose_by_column(
    text: str, places: Mapping[str, int], choices: Sequence[str]
) -> str | None:
    """The choice whose column an answer names; None where it names none that is there."""
    number = places.get(text.strip(), len(choices))
    return choices[number] if number < len(choices) else None


def _choose_by_number(answer: Any, choices: Sequence[str]) -> str | None:
    """The choice at the place that a whole number says; None where it says none."""
    if isinstance(answer, bool) or not isinstance(answer, int):
        return None
    return choices[answer] if 0 <= answer < len(choices) else None


def _choose(text: str, choices: Sequence[str]) -> str | None:
    """The choice that an answer means; None where it means none."""
    if text in choices:
        return text
    return _choose_by_place(text, choices)


def _choose_by_place(text: str, choices: Sequence[str]) -> str | None:
    """The choice at the place, or of the letter, that a text says; None where there is
    none."""
    bare = text.strip()
    index = _read_place(bare)
    if index is None or index >= len(choices):
        return None
    return choices[index]


def _read_place(text: str) -> int | None:
    """Which choice a number from 0 or a letter names; None for another text."""
    if text.isdecimal() and len(text) <= MOST_DIGITS:
        return int(text)
    if len(text) == 1 and text in LETTERS:
        return LETTERS.index(text)
    return None


def make_scored_choices(fields: Fields, columns: Sequence[str]) -> Finish | None:
    """A function that takes the best of a row's choices for its answer, by a score of
    each; of equals the first, and all of them are right.

    A row without choices has the answer that its own column holds, as the tasks of
    BIG-bench do that have none.
    """
    if fields.choice_scores is None:
        return None
    scores_path = fields.choice_scores
    path = fields.choice_names
    get = _make_choice_getter(fields, columns)
    get_scores = make_getter(scores_path, columns)
    answer_bare = _make_bare_answer(fields, columns)

    def put_best(row: Any, example: Example, intake: Intake) -> Example:
        value = get(row)
        if is_absent(value) or value == []:
            return answer_bare(row, example)
        choices = read_list(value, path)
        scores = _read_scores(get_scores(row), len(choices), scores_path)
        right = _choose_best(choices, scores, scores_path)
        answered = _answer_by(example, right)
        options = tuple(dict.fromkeys(choices))
        return structs.replace(answered, options=options if len(options) > 1 else ())

    return put_best


def _make_bare_answer(
    fields: Fields, columns: Sequence[str]
) -> Callable[[Any, Example], Example]:
    """A function that answers an example of a row without choices: by the column of
    answers, where there is one."""
    path = fields.answer
    if path is None:

        def refuse(row: Any, example: Example) -> Example:
            raise Malformed(f"has no `{fields.choice_names}`")

        return refuse
    get = make_getter(path, columns)

    def answer(row: Any, example: Example) -> Example:
        answers = _list_answers(get(row), path)
        return _answer_by(example, answers)

    return answer


def _choose_best(
    choices: Sequence[str], scores: Sequence[float], path: str
) -> list[str]:
    """The choices of the best score. Malformed where no score is above zero."""
    best = max(scores)
    if best <= 0:
        raise Malformed(f"`{path}` says of no choice that it is right")
    pairs = zip(choices, scores, strict=True)
    return [choice for choice, score in pairs if score == best]


def _list_answers(value: Any, path: str) -> list[str]:
    """The right answers that a column holds, one at least."""
    if not isinstance(value, list):
        return [read_text(value, path)]
    answers = read_list(value, path)
    if not answers:
        raise Malformed(f"`{path}` is an empty list of answers")
    return answers


def _answer_by(example: Example, answers: Sequence[str]) -> Example:
    """The example with the first of some right answers; of several it keeps all."""
    references = tuple(dict.fromkeys(answers))
    answered = example.answering(answers[0])
    if len(references) > 1:
        answered = structs.replace(answered, references=references)
    return answered


def _read_scores(value: Any, count: int, path: str) -> list[float]:
    """A score for each choice. Malformed for anything else."""
    if not isinstance(value, list) or len(value) != count:
        raise Malformed(f"`{path}` is no list of {count} scores, one for each choice")
    scores: list[float] = []
    for score in value:
        if not isinstance(score, int | float) or score != score:
            raise Malformed(f"`{path}` holds a score that is no number")
        scores.append(score)
    return scores


def make_labels(fields: Fields, columns: Sequence[str]) -> Finish | None:
    """A function that writes the class of a row by its name; the names of all classes
    are the options."""
    if not fields.labels or fields.answer is None:
        return None
    path = fields.answer
    labels = fields.labels
    get = make_getter(path, columns)

    def put_label(row: Any, example: Example, intake: Intake) -> Example:
        value = get(row)
        label = _name_class(value, labels, path)
        answered = example.answering(label)
        return structs.replace(answered, options=labels if len(labels) > 1 else ())

    return put_label


def _name_class(value: Any, labels: Sequence[str], path: str) -> str:
    """The name of a class by its number, or itself. Malformed for another value; -1,
    as hidden test sets have it, says no class."""
    if isinstance(value, str) and value in labels:
        return value
    text = read_text(value, path).strip()
    index = None
    if text.isdecimal() and len(text) <= MOST_DIGITS:
        index = int(text)
    if index is None or index >= len(labels):
        raise Malformed(
            f"`{path}` is {text[:SHOWN]!r}, no number of a class of fields.labels, from 0 to"
            f" {len(labels) - 1}, nor the name of one"
        )
    return labels[index]
