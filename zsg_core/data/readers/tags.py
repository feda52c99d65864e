"""Reads the tags of examples from a file of its own: JSON lines, as InsTag's tagger and
its like leave them.

A row is {"tags": […]}, a tag a text or {"tag": "…"}. Where rows have an `id` they
belong to the examples of these ids: zsg's own, or those that the examples were
published with, as dialogues of ShareGPT are. Else they belong to the examples at the
same places.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from zsg_core.data.readers.intake import Intake, broken_file
from zsg_core.data.readers.rows import json_rows
from zsg_core.errors import BadData

logger = logging.getLogger(__name__)

Tags = tuple[str, ...]


class Tag(msgspec.Struct):
    """A tag with its explanation, which is left aside."""

    tag: str


class TagsRow(msgspec.Struct):
    """The tags of one example."""

    tags: list[str | Tag]
    id: str | int | None = None


def read_tags(
    path: Path,
    ids: Sequence[str],
    published: Callable[[], Sequence[str | None]] = tuple,
    warn: Callable[[str], None] = logger.warning,
) -> list[Tags]:
    """The tags of each of the examples `ids`. UserError where rows and examples do not
    match, or a row is none.

    `published`: asked for the ids with which the examples were published, in their
    order, where the rows name none of zsg's. An example that no row is of then has no
    tags, and neither it nor a row of no example is passed over in silence: `warn` is
    told.
    """
    rows = [row for chunk in json_rows(path, TagsRow, Intake()) for row in chunk.rows]
    named = {str(row.id): _texts(row.tags) for row in rows if row.id is not None}
    if not named:
        return _by_place(path, rows, ids)
    if len(named) != len(rows):
        raise broken_file(
            path, "has rows without an id, or an id twice; give every example one row"
        )
    if named.keys().isdisjoint(ids):
        return _by_published(path, named, ids, published(), warn)
    return _by_id(path, named, ids)


def _by_place(path: Path, rows: Sequence[TagsRow], ids: Sequence[str]) -> list[Tags]:
    if len(rows) != len(ids):
        raise broken_file(
            path,
            f"has tags of {len(rows)} examples and there are {len(ids)}; give the rows ids",
        )
    return [_texts(row.tags) for row in rows]


def _by_id(path: Path, named: dict[str, Tags], ids: Sequence[str]) -> list[Tags]:
    missing = [example_id for example_id in ids if example_id not in named]
    if missing:
        raise broken_file(
            path, f"has no tags of {len(missing)} examples; the first: {missing[0]}"
        )
    return [named[example_id] for example_id in ids]


def _by_published(
    path: Path,
    named: dict[str, Tags],
    ids: Sequence[str],
    published_ids: Sequence[str | None],
    warn: Callable[[str], None],
) -> list[Tags]:
    """The tags of each example by the id that its data have published; who has none is
    told, and so is a row of no example."""
    if named.keys().isdisjoint(published_ids):
        raise _tags_of_others(path, named, ids, published_ids)
    if len(published_ids) != len(ids):
        raise broken_file(
            path,
            f"names {len(published_ids)} examples by the ids of the data, and {len(ids)}"
            " were read; read them anew",
        )
    untagged = [
        example_id
        for example_id, published_id in zip(ids, published_ids, strict=True)
        if published_id not in named
    ]
    if untagged:
        warn(
            f"{path.name} has no tags of {len(untagged)} of {len(ids)} examples, which count as"
            f" having none: {untagged[0]}, …"
        )
    unmatched = named.keys() - set(published_ids)
    if unmatched:
        warn(
            f"{path.name} has {len(unmatched)} of {len(named)} rows that are of no example;"
            f" the first: {min(unmatched)!r}"
        )
    return [named.get(key, ()) if key is not None else () for key in published_ids]


def _tags_of_others(
    path: Path,
    named: dict[str, Tags],
    ids: Sequence[str],
    published_ids: Sequence[str | None],
) -> BadData:
    """The error of a file none of whose ids an example has, by either way of naming."""
    first_published = next((key for key in published_ids if key is not None), None)
    if first_published:
        comparison = (
            f"the data call the first of theirs {first_published!r}, zsg {ids[0]!r}"
        )
    else:
        comparison = f"zsg's are as {ids[0]!r}"
    return broken_file(
        path,
        f"has tags of {len(named)} ids, none of which an example has; the first:"
        f" {next(iter(named))!r}, and {comparison}",
    )


def _texts(tags: Sequence[str | Tag]) -> Tags:
    return tuple(tag if isinstance(tag, str) else tag.tag for tag in tags)
