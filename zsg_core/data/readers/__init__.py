"""Which published formats are read, and by what?

One small module for each format, or for a few alike. A new format is a new module in this
folder: a msgspec type that states the keys of a row, and a function that makes examples of
a row under `@row_reader("name", …)`, or, for files that hold no JSON rows, a function that
reads a path under `@reader("name", …)`; see `format`.
"""

from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from zsg_core.data.examples import Example
from zsg_core.data.readers.format import FORMATS, Facts, Format, Inspection, Lists
from zsg_core.data.readers.intake import Intake, broken_file


def choose_format(name: str, fields: Mapping[str, Any] | None = None) -> Format:
    """A format by its name; `fields` are those of a recipe, where it has any."""
    chosen = FORMATS[name]
    return chosen if chosen.with_fields is None else chosen.with_fields(fields)


def read_lists(name: str, path: Path) -> Lists | None:
    """The published held-out list beside a data set, None without one. UserError for
    one that cannot be used."""
    return FORMATS[name].lists(path)


def read_published_ids(
    name: str, path: Path, skip: bool, fields: Mapping[str, Any] | None = None
) -> list[str | None]:
    """The id that each example's row was published with, as a text, in the order of
    `read_examples`; none where rows have none.

    `skip` as it was when the examples were read: rows that were passed over then are no examples.
    """
    read_ids = choose_format(name, fields).published_ids
    ids = read_ids(path, Intake(skip)) if read_ids else iter(())
    return [None if published is None else str(published) for published in ids]


def read_examples(
    name: str, path: Path, intake: Intake, fields: Mapping[str, Any] | None = None
) -> Iterator[Example]:
    """The examples of a data set, streamed. UserError for what cannot be read, or holds
    no example.

    `fields`: which columns are what, as a recipe says it, of a format that asks for it.
    """
    chosen_format = choose_format(name, fields)
    stream = _of_one_split(chosen_format.read(path, intake), path, intake)
    for first in stream:
        return chain([first], stream)
    raise broken_file(
        path, f"holds no example of the format {name} ({chosen_format.about})"
    )


def inspect_files(
    name: str,
    path: Path,
    facts: Facts | None = None,
    fields: Mapping[str, Any] | None = None,
) -> Inspection:
    """What the files of a data set tell before their rows are read. `facts` may
    remember what a format's own would say.

    UserError for files that cannot be opened.
    """
    chosen_format = choose_format(name, fields)
    return chosen_format.inspect(
        path, facts or chosen_format.facts or (lambda file: None)
    )


def _of_one_split(
    stream: Iterator[Example], path: Path, intake: Intake
) -> Iterator[Example]:
    """The examples. BadData at the end where rows said that they are of several splits."""
    yield from stream
    if len(intake.splits) > 1:
        splits = ", ".join(
            f"{name} ({count} rows)" for name, count in intake.splits.items()
        )
        raise broken_file(
            path,
            f"its rows say that they are of several splits: {splits}; write each split to a file of"
            " its own",
        )
