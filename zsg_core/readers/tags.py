"""Reads the tags of examples from a file of its own: JSON lines, as InsTag's tagger and its like leave them.

A row is {"tags": […]}, a tag a text or {"tag": "…"}. Where rows have an `id` they belong to the examples of these
ids, else to the examples at the same places.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from zsg_core.readers.intake import Intake, broken
from zsg_core.readers.rows import json_rows

Tags = tuple[str, ...]


class Tag(msgspec.Struct):
    """A tag with its explanation, which is left aside."""

    tag: str


class Row(msgspec.Struct):
    """The tags of one example."""

    tags: list[str | Tag]
    id: str | None = None


def read(path: Path, ids: Sequence[str]) -> list[Tags]:
    """The tags of each of the examples `ids`. UserError where rows and examples do not match, or a row is none."""
    rows = [row for chunk in json_rows(path, Row, Intake()) for row in chunk.rows]
    named = {row.id: _texts(row.tags) for row in rows if row.id is not None}
    if not named:
        if len(rows) != len(ids):
            raise broken(path, f"has tags of {len(rows)} examples and there are {len(ids)}; give the rows ids")
        return [_texts(row.tags) for row in rows]
    if len(named) != len(rows):
        raise broken(path, "has rows without an id, or an id twice; give every example one row")
    missing = [one for one in ids if one not in named]
    if missing:
        raise broken(path, f"has no tags of {len(missing)} examples; the first: {missing[0]}")
    return [named[one] for one in ids]


def _texts(tags: Sequence[str | Tag]) -> Tags:
    return tuple(tag if isinstance(tag, str) else tag.tag for tag in tags)
