"""Reads sets made for evaluation: HumanEval's problems and MT-Bench's questions, under
their published ids."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from zsg_core.data.examples import Example
from zsg_core.data.readers.format import (
    Facts,
    Inspection,
    choose_form,
    find_files,
    note_other_forms,
    parse_rows,
    reader,
    root_folder,
)
from zsg_core.data.readers.intake import Intake, Malformed
from zsg_core.data.readers.rows import json_rows

ANSWERS = "reference_answer/gpt-4.jsonl"


class Problem(msgspec.Struct):
    """A problem of HumanEval. `test` defines `check(candidate)`, which is called with
    `entry_point`."""

    task_id: str
    prompt: str
    entry_point: str
    canonical_solution: str
    test: str


class Question(msgspec.Struct):
    """A question of MT-Bench, in one or two turns."""

    question_id: int
    category: str
    turns: list[str]


class ReferenceTurns(msgspec.Struct):
    """The turns of a reference answer."""

    turns: list[str]


class ReferenceAnswer(msgspec.Struct):
    """A reference answer, of a question in mathematics, reasoning or coding."""

    question_id: int
    choices: list[ReferenceTurns]


def read_problems(path: Path, intake: Intake) -> Iterator[Problem]:
    """HumanEval's problems, whole, for those who run their tests."""
    for file in _humaneval(path):
        yield from (
            row for chunk in json_rows(file, Problem, intake) for row in chunk.rows
        )


def _once(seen: set[str], make):
    def parse(row, name: str, intake: Intake) -> list[Example]:
        example = make(row)
        if example.id in seen:
            raise Malformed(f"{example.id!r} stands more than once")
        if not example.id.isprintable():
            raise Malformed(f"{example.id!r} is no id: it must be printable")
        seen.add(example.id)
        return [example]

    return parse


def _problem(row: Problem) -> Example:
    """A problem as an example; what is called in its tests stands in the tags."""
    turn, tags = (row.prompt, row.canonical_solution), (row.entry_point,)
    return Example(id=row.task_id, task="humaneval", turns=(turn,), tags=tags)


def _question(row: Question, answer: ReferenceAnswer | None) -> Example:
    """A question with its reference answers; a turn without one has an empty answer."""
    references = answer.choices[0].turns if answer and answer.choices else []
    if not row.turns:
        raise Malformed("`turns` is empty")
    turns = tuple(
        (question, references[i] if i < len(references) else "")
        for i, question in enumerate(row.turns)
    )
    return Example(id=f"mt_bench/{row.question_id}", task=row.category, turns=turns)


def _humaneval(path: Path) -> list[Path]:
    """The file of problems: given, or the one of the folder, gzipped as it is published
    or unpacked."""
    file = choose_form(path, "HumanEval.jsonl") if path.is_dir() else path
    return find_files(file, (".jsonl", ".json"))


def _questions(path: Path) -> list[Path]:
    """The file of questions: given, or the one of the folder."""
    file = choose_form(path, "question.jsonl") if path.is_dir() else path
    return find_files(file, (".jsonl", ".json"))


def _inspect_problems(path: Path, facts: Facts) -> Inspection:
    """Which other forms of the problems a folder has."""
    return Inspection(notes=note_other_forms(path, _humaneval(path)))


def _inspect_questions(path: Path, facts: Facts) -> Inspection:
    """Which other forms of the questions a folder has."""
    return Inspection(notes=note_other_forms(path, _questions(path)))


def _answers(folder: Path, intake: Intake) -> Iterator[ReferenceAnswer]:
    if (folder / ANSWERS).is_file():
        yield from (
            row
            for chunk in json_rows(folder / ANSWERS, ReferenceAnswer, intake)
            for row in chunk.rows
        )


def _question_files(path: Path) -> list[Path]:
    question_files = _questions(path)
    return question_files + [
        file.parent / ANSWERS
        for file in question_files
        if (root_folder(file) / ANSWERS).is_file()
    ]


@reader(
    "humaneval",
    about="HumanEval's problems, for evaluation: HumanEval.jsonl.gz",
    files=_humaneval,
    trains=False,
    inspect=_inspect_problems,
)
def read_humaneval(path: Path, intake: Intake) -> Iterator[Example]:
    """A problem as an example: the prompt, and the canonical solution that goes on from it."""
    seen: set[str] = set()
    for file in _humaneval(path):
        yield from parse_rows(
            file, json_rows(file, Problem, intake), _once(seen, _problem), intake
        )


@reader(
    "mt_bench",
    about=(
        "MT-Bench's questions, for evaluation: question.jsonl, and reference_answer/gpt-4.jsonl"
        " beside it"
    ),
    files=_question_files,
    many_tasks=True,
    trains=False,
    answered=False,
    inspect=_inspect_questions,
)
def read_mt_bench(path: Path, intake: Intake) -> Iterator[Example]:
    """A question as an example. Its answers are GPT-4's, or empty where there are none:
    they need a judge."""
    seen: set[str] = set()
    for file in _questions(path):
        answers = {row.question_id: row for row in _answers(file.parent, intake)}

        def question(
            row: Question, answers: dict[int, ReferenceAnswer] = answers
        ) -> Example:
            return _question(row, answers.get(row.question_id))

        yield from parse_rows(
            file, json_rows(file, Question, intake), _once(seen, question), intake
        )
