"""Reads rows of somebody's own, under column names of her own: the format `records`.

`data.fields` says which column is the prompt, which the answer, and so on; see
`fields`. Files may have any form that `row_files` knows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from zsg_core.data.examples import Example
from zsg_core.data.readers import classes, row_files
from zsg_core.data.readers.fields import Fields, make_row_type
from zsg_core.data.readers.format import (
    FORMATS,
    SHOWN,
    Facts,
    Format,
    Inspection,
    name_some,
    parse_rows,
    root_folder,
)
from zsg_core.data.readers.intake import Intake
from zsg_core.data.readers.own_rows import NAME, make_parser
from zsg_core.errors import UserError

ABOUT = "rows of your own: fields says which column is what"


def make_format(recipe: Mapping[str, Any] | None) -> Format:
    """The format of rows that have these fields; without fields it can only list files."""
    fields = None if recipe is None else Fields.from_recipe(recipe)

    def read(path: Path, intake: Intake) -> Iterator[Example]:
        return _read_examples(path, _need(fields, path), intake)

    def inspect(path: Path, facts: Facts) -> Inspection:
        notes = _note_unread(path)
        if fields is not None:
            notes += _note_unread_columns(path, fields, facts)
            notes += _note_unnamed_classes(path, fields)
        return Inspection(notes=notes)

    return Format(
        about=ABOUT,
        files=row_files.find_row_files,
        read=read,
        facts=_read_facts,
        inspect=inspect,
        options=True,
        is_on_hub=True,
        with_fields=make_format,
    )


def _need(fields: Fields | None, path: Path) -> Fields:
    if fields is None:
        raise UserError(
            f"{path}: set records reads columns of your own, so it needs data.fields, such as"
            " {prompt: question, answer: answer}"
        )
    return fields


def _read_examples(path: Path, fields: Fields, intake: Intake) -> Iterator[Example]:
    """The rows of every file, in the order of the files' names."""
    files = row_files.find_row_files(path)
    fields = _name_classes(files, fields)
    kind = make_row_type(fields)
    parse = make_parser(fields)
    for file in files:
        name = _name_task(path, file, fields)
        rows = row_files.read_row_file(file, kind, intake, fields.needed)
        yield from parse_rows(file, rows, parse, intake, name)


def _name_classes(files: Sequence[Path], fields: Fields) -> Fields:
    """The fields with the names of the classes that the files give, where they are asked
    for. BadData for files that give none, or others than the fields do."""
    path = fields.classified
    if path is None:
        return fields
    if fields.labels_in_file:
        labels = classes.find_labels(files, path)
        return replace(fields, labels=labels)
    if fields.labels:
        classes.refuse_other_names(files, path, fields.labels)
    return fields


def _note_unnamed_classes(path: Path, fields: Fields) -> tuple[str, ...]:
    """A note where the answers are numbers of classes whose names the first file has."""
    answer = fields.answer
    is_told = bool(fields.labels) or fields.labels_in_file or fields.has_choices
    if answer is None or is_told:
        return ()
    file = row_files.find_row_files(path)[0]
    names = classes.read_names(file, answer)
    if names is None:
        return ()
    written = classes.write_names(names)
    note = (
        f"{file}: {answer} holds the numbers of the classes {written}; with data.fields.labels:"
        " file the answers are their names"
    )
    return (note,)


def _name_task(path: Path, file: Path, fields: Fields) -> str:
    """What a file or its folder calls a task, where `task_from` asks for that."""
    if fields.task_from == "file":
        return row_files.bare_name(file)
    if fields.task_from is None:
        return NAME
    root = root_folder(path)
    folder = file.parent.relative_to(root)
    below = folder.as_posix()
    if below == ".":
        raise UserError(
            f"{file}: fields.task_from: folder takes a task's name from the folder of its file"
            " below data.path; give a pattern such as data/*/rows.jsonl"
        )
    return below


def _note_unread(path: Path) -> tuple[str, ...]:
    """A note on files of rows that lie in the folder and are not read."""
    files = row_files.find_row_files(path)
    unread = row_files.list_unread(path, files)
    if not unread:
        return ()
    files_read = name_some(files)
    files_left = name_some(unread)
    return (f"{path}: {files_read} is read; left out: {files_left}",)


def _read_facts(file: Path) -> list[str]:
    """The keys of a file's first rows."""
    return row_files.list_keys(row_files.read_first_rows(file))


def _note_unread_columns(path: Path, fields: Fields, facts: Facts) -> tuple[str, ...]:
    """A note on the columns of the first file that no field names."""
    file = row_files.find_row_files(path)[0]
    columns = facts(file) or []
    read = set(fields.columns)
    unread = [column for column in columns if column not in read]
    if not unread:
        return ()
    joined = ", ".join(unread[:SHOWN])
    ellipsis = ", …" if len(unread) > SHOWN else ""
    note = f"{file}: columns that are not read: {joined}{ellipsis} (data.fields names the others)"
    return (note,)


FORMATS.add(NAME, make_format(None))
