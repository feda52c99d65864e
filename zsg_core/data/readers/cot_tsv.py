"""Reads the Flan collection's chain-of-thought files: question, answer, rationale,
separated by tabs, no header.

A newline inside a field is written as the two characters `\\n`. The assistant gives the
rationale and then `The answer is <answer>.`; a task is a file, named by what stands
before `_train`.
"""

from collections.abc import Iterator
from pathlib import Path

from zsg_core.data.examples import Example
from zsg_core.data.readers.format import (
    Facts,
    Inspection,
    find_files,
    list_folder,
    note_unread_files,
    parse_rows,
    reader,
)
from zsg_core.data.readers.intake import Intake
from zsg_core.data.readers.rows import tab_rows


def parse_line(row: list[str], name: str, intake: Intake) -> list[Example]:
    """One example."""
    question, answer, rationale = (field.replace("\\n", "\n") for field in row)
    task = name.partition("_train")[0]
    explained_answer = f"{rationale}\nThe answer is {answer}."
    return [
        Example(
            id=intake.next_id(task), task=task, turns=((question, explained_answer),)
        )
    ]


def list_files(path: Path) -> list[Path]:
    """The files of a folder, in the order of their names."""
    return (
        list_folder(path, (".tsv",)) if path.is_dir() else find_files(path, (".tsv",))
    )


def inspect_files(path: Path, facts: Facts) -> Inspection:
    """Which files of a folder are not read."""
    if not path.is_dir():
        return Inspection()
    return Inspection(notes=note_unread_files(path, list_files(path), (".tsv",)))


@reader(
    "cot_tsv",
    about="the Flan collection's chain-of-thought TSV: a folder of <task>_train.tsv",
    files=list_files,
    many_tasks=True,
    inspect=inspect_files,
)
def read_examples(path: Path, intake: Intake) -> Iterator[Example]:
    """The lines of every file."""
    for file in list_files(path):
        yield from parse_rows(file, tab_rows(file, 3, intake), parse_line, intake)
