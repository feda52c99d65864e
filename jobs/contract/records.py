"""Reads and writes the small files of a run folder, each as one typed record.

A record has its own class, a msgspec Struct, in the module that is named after its
file; no other module knows the file's name or its keys. Keys that this zsg does not
know are passed over: a later one of the same schema wrote them.
"""

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from jobs.contract.folder import (
    SCHEMA,
    Damaged,
    get_object,
    make_unreadable,
    read_json,
    write_json,
)
from jobs.contract.json_values import DECODE_ERRORS, convert_json

T = TypeVar("T", bound=msgspec.Struct)
USUAL = 1 << 20  # bytes; a record of more is read in two steps


def read_record(
    path: Path, kind: type[T], advice: str = "look at the disk", size: int = USUAL
) -> T | None:
    """The record of a file, or None if there is no file. `size`: bytes that are read at
    once, -1 for all.

    Damaged, with the file's path and an advice, for what is no such record, or is one
    of a newer zsg; Unreadable for what the system refuses.
    """
    try:
        with path.open("rb") as file:
            record = msgspec.json.decode(file.read(size), type=kind)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise make_unreadable(path, error) from error
    except DECODE_ERRORS:
        return _read_or_refuse(path, kind, advice)
    refuse_newer(path, {"schema": getattr(record, "schema", None)})
    return record


def _read_or_refuse(path: Path, kind: type[T], advice: str) -> T | None:
    """The record, where Python's JSON reads more than msgspec's (halves of characters
    in names); else why not."""
    value = read_json(path)
    refuse_newer(path, value)
    if value is None and not path.exists():
        return None
    try:
        return convert_json(value, kind)
    except msgspec.ValidationError as error:
        raise Damaged(
            f"{path}: is not what zsg writes there: {error}; {advice}"
        ) from None


def refuse_newer(path: Path, value: Any) -> None:
    """Raises Damaged for what a zsg wrote whose schema this one does not know."""
    schema = get_object(value).get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise Damaged(
            f"{path}: has schema {schema}, and this zsg reads up to {SCHEMA}: use the zsg that"
            " wrote it"
        )


def write_record(path: Path, record: msgspec.Struct) -> None:
    """Writes a record that is either the old or the new one, whatever dies. Fields that
    are unset are left out."""
    write_json(path, msgspec.to_builtins(record))
