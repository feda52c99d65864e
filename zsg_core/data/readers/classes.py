"""Finds the names of classes where rows hold their numbers.

`datasets` keeps a class as a whole number, and the names of all of them in the schema
of its Parquet and Arrow files, under the key `huggingface`: `ClassLabel`. A file of
text has no names; there the user says them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from zsg_core.data.readers import columns
from zsg_core.data.readers.intake import broken_file
from zsg_core.data.readers.json_array import BAD
from zsg_core.data.readers.row_files import OF_COLUMNS, find_form
from zsg_core.errors import UserError

CLASS_LABEL = "ClassLabel"
# how `datasets` names lists, over the years; `feature` is what their items are
LISTS = ("Sequence", "List", "LargeList")
SHOWN = 5  # names that are told


def read_names(file: Path, path: str) -> list[str] | None:
    """The names of the classes at a path of a file; None where it says none.

    UserError for a file that cannot be read.
    """
    if find_form(file) not in OF_COLUMNS:
        return None
    schema = columns.read_schema(file)
    written = (schema.metadata or {}).get(b"huggingface", b"{}")
    return find_names(written, path)


def find_names(written: bytes, path: str) -> list[str] | None:
    """The same of the features that `datasets` writes beside a schema, as JSON."""
    try:
        features = msgspec.json.decode(written)["info"]["features"]
    except (*BAD, KeyError, TypeError):
        return None
    if not isinstance(features, dict):
        return None
    if path in features:
        return _take_names(features[path])
    return _take_names(_walk(features, path.split(".")))


def _walk(feature: Any, steps: Sequence[str]) -> Any:
    """The feature at the end of a path; lists on the way are those of its items."""
    for step in steps:
        feature = _unwrap(feature)
        if not isinstance(feature, Mapping):
            return None
        feature = feature.get(step)
    return feature


def _unwrap(feature: Any) -> Any:
    """What the items of a list of lists are; another feature as it is."""
    while True:
        if isinstance(feature, list) and feature:
            feature = feature[0]
        elif isinstance(feature, Mapping) and feature.get("_type") in LISTS:
            feature = feature.get("feature")
        else:
            return feature


def _take_names(feature: Any) -> list[str] | None:
    """The names of a feature that is a class; None for another."""
    feature = _unwrap(feature)
    if not isinstance(feature, Mapping) or feature.get("_type") != CLASS_LABEL:
        return None
    names = feature.get("names")
    if not isinstance(names, list) or not names:
        return None
    if not all(isinstance(name, str) for name in names):
        return None
    return names


def find_labels(files: Sequence[Path], path: str) -> tuple[str, ...]:
    """The names of classes that all files give at a path.

    BadData where one gives none, or gives others than the first.
    """
    first: list[str] | None = None
    for file in files:
        names = read_names(file, path)
        if names is None:
            raise broken_file(
                file,
                f"has no names of the classes of `{path}`: `datasets` writes them into Parquet and"
                " Arrow files alone. Give them in fields.labels as a list, in the order of their"
                " numbers: [negative, positive]",
            )
        if not are_names(names):
            written = write_names(names)
            raise broken_file(
                file,
                f"the names of the classes of `{path}` are {written}: one is blank, or stands"
                " twice. Give them in fields.labels as a list, in the order of their numbers",
            )
        if first is not None and names != first:
            raise _differ(file, path, names, first)
        first = names
    return tuple(first or ())


def are_names(names: Sequence[str]) -> bool:
    """Whether names tell classes apart: none is blank, and no two are the same."""
    different = set(names)
    return len(different) == len(names) and all(name.strip() for name in names)


def refuse_other_names(files: Sequence[Path], path: str, labels: Sequence[str]) -> None:
    """BadData where a file gives other names of its classes than the user does."""
    for file in files:
        names = read_names(file, path)
        if names is None or not are_names(names):
            continue
        if names != list(labels):
            raise _differ(file, path, names, labels)


def _differ(
    file: Path, path: str, names: Sequence[str], labels: Sequence[str]
) -> UserError:
    """The error of a file whose classes are not those that were expected."""
    actual = write_names(names)
    expected = write_names(labels)
    return broken_file(
        file, f"the classes of `{path}` are {actual}, and fields.labels are {expected}"
    )


def write_names(names: Sequence[str]) -> str:
    """The first of some names, and how many there are."""
    joined = ", ".join(name[:40] for name in names[:SHOWN])
    if len(names) > SHOWN:
        return f"{joined}, … ({len(names)} in all)"
    return joined
