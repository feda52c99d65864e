"""Reads Tk-Instruct's CSV form of Natural Instructions: `input,output`, the whole
prompt in `input`.

A task is the folder of its file, <task>/<any name>.csv; two files of one task are
refused, since they hold samples of the same instances.
"""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from zsg_core.data.examples import Example
from zsg_core.data.readers.format import (
    GZIP,
    OTHER_PACKINGS,
    SHOWN,
    Facts,
    Inspection,
    find_files,
    parse_rows,
    reader,
)
from zsg_core.data.readers.intake import Intake
from zsg_core.data.readers.rows import csv_rows
from zsg_core.errors import UserError


class CsvRow(msgspec.Struct):
    """One instance."""

    input: str
    output: str


def list_files(path: Path) -> list[Path]:
    """One CSV per task. UserError where a task has two; of one that lies there packed,
    too, the plain one is read."""
    csv_files = _find_in_folders(path) if path.is_dir() else find_files(path, (".csv",))
    of_task: dict[str, Path] = {}
    for file in csv_files:
        first = of_task.setdefault(file.parent.name, file)
        if first != file:
            raise UserError(
                f"{first} and {file} are of one task; choose one with a pattern, such as"
                f" */{file.name}"
            )
    return csv_files


def _find_in_folders(path: Path) -> list[Path]:
    """The plain and gzipped files of a folder's tasks, by their folders' names."""
    packed = any(path.glob(f"*/*.csv{GZIP}"))
    patterns = [f"*/*.csv{GZIP}"] if packed else []
    if any(path.glob("*/*.csv")) or not packed:
        patterns.insert(0, "*/*.csv")
    files = [
        file for pattern in patterns for file in find_files(path / pattern, (".csv",))
    ]
    plain = set(files)
    return sorted(file for file in files if _unpacked(file) not in plain - {file})


def _unpacked(file: Path) -> Path:
    """The file that a packed one was made of; a plain one itself."""
    return file.with_name(file.name.removesuffix(GZIP))


def inspect_files(path: Path, facts: Facts) -> Inspection:
    """Which packed files of a folder are not read."""
    if not path.is_dir():
        return Inspection()
    packed = sorted(path.glob("*/*.csv.*"))
    unknown = [file for file in packed if file.suffix in OTHER_PACKINGS]
    doubled = [
        file for file in packed if file.suffix == GZIP and _unpacked(file).exists()
    ]
    why_unknown = f"unpack them, or pack them by gzip: zsg unpacks {GZIP} alone"
    notes = [
        _describe_unread(path, unknown, why_unknown),
        _describe_unread(path, doubled, "the same beside them is not packed"),
    ]
    return Inspection(notes=tuple(filter(None, notes)))


def _describe_unread(path: Path, files: list[Path], why: str) -> str:
    """The files of a folder that are not read, and why; nothing where there are none."""
    if not files:
        return ""
    names = [str(file.relative_to(path)) for file in files[:SHOWN]]
    more = ", …" if len(files) > SHOWN else ""
    return f"{path}: left out: {', '.join(names)}{more} ({why})"


def _of_task(task: str):
    def parse(row: CsvRow, name: str, intake: Intake) -> list[Example]:
        turn = row.input, row.output
        return [Example(id=intake.next_id(task), task=task, turns=(turn,))]

    return parse


@reader(
    "niv2_csv",
    about="Tk-Instruct's CSV: <task>/<name>.csv with the columns input, output",
    files=list_files,
    many_tasks=True,
    defined=True,
    inspect=inspect_files,
)
def read_examples(path: Path, intake: Intake) -> Iterator[Example]:
    """The rows of every task."""
    for file in list_files(path):
        yield from parse_rows(
            file, csv_rows(file, CsvRow, intake), _of_task(file.parent.name), intake
        )
