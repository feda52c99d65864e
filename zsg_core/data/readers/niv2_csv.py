"""Reads Tk-Instruct's CSV form of Natural Instructions: `input,output`, the whole
prompt in `input`.

A task is the folder of its file, <task>/<any name>.csv; two files of one task are
refused, since they hold samples of the same instances.
"""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from zsg_core.data.examples import Example
from zsg_core.data.readers.format import matching, parsed, reader
from zsg_core.data.readers.intake import Intake
from zsg_core.data.readers.rows import csv_rows
from zsg_core.errors import UserError


class Row(msgspec.Struct):
    """One instance."""

    input: str
    output: str


def files(path: Path) -> list[Path]:
    """One CSV per task. UserError where a task has two."""
    found = matching(path / "*/*.csv" if path.is_dir() else path, (".csv",))
    of_task: dict[str, Path] = {}
    for file in found:
        other = of_task.setdefault(file.parent.name, file)
        if other != file:
            raise UserError(
                f"{other} and {file} are of one task; choose one with a pattern, such as"
                f" */{file.name}"
            )
    return found


def _of_task(task: str):
    def parse(row: Row, name: str, intake: Intake) -> list[Example]:
        turn = row.input, row.output
        return [Example(id=intake.number(task), task=task, turns=(turn,))]

    return parse


@reader(
    "niv2_csv",
    about="Tk-Instruct's CSV: <task>/<name>.csv with the columns input, output",
    files=files,
    many_tasks=True,
    defined=True,
)
def read(path: Path, intake: Intake) -> Iterator[Example]:
    """The rows of every task."""
    for file in files(path):
        yield from parsed(
            file, csv_rows(file, Row, intake), _of_task(file.parent.name), intake
        )
