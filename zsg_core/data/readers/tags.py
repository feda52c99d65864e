"""Reads the tags of examples from a file of its own: JSON lines, as InsTag's tagger and
its like leave them.

A row is {"tags": […]}, a tag a text or {"tag": "…"}. Where rows have an `id` they
belong to the examples of these ids: zsg's own, or those that the examples were
published with, as dialogues of ShareGPT are. Else they belong to the examples at the
same places.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from zsg_core.data.readers.intake import Intake, broken_file
from zsg_core.data.readers.rows import json_rows

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
    say: Callable[[str], None] = lambda text: None,
) -> list[Tags]:
    """The tags of each of the examples `ids`. UserError where rows and examples do not
    match, or a row is none.

    `published`: asked for the ids with which the examples were published, in their
    order, where the rows name none of zsg's. An example that no row is of then has no
    tags, and neither it nor a row of no example is passed over in silence: `say` is
    told.
    """
    rows = [row for chunk in json_rows(path, TagsRow, Intake()) for row in chunk.rows]
    named = {str(row.id): _texts(row.tags) for row in rows if row.id is not None}
    if not named:
        if len(rows) != len(ids):
            raise broken_file(
                path,
                f"has tags of {len(rows)} examples and there are {len(ids)}; give the rows ids",
            )
        return [_texts(row.tags) for row in rows]
    if len(named) != len(rows):
        raise broken_file(
            path, "has rows without an id, or an id twice; give every example one row"
        )
    if not any(one in named for one in ids):
        return _by_published(path, named, ids, published(), say)
    missing = [one for one in ids if one not in named]
    if missing:
        raise broken_file(
            path, f"has no tags of {len(missing)} examples; the first: {missing[0]}"
        )
    return [named[one] for one in ids]


def _by_published(
    path: Path,
    named: dict[str, Tags],
    ids: Sequence[str],
    own: Sequence[str | None],
    say: Callable[[str], None],
) -> list[Tags]:
    if not any(one in named for one in own):
        theirs = next((one for one in own if one is not None), None)
        known = (
            f"the data call the first of theirs {theirs!r}, zsg {ids[0]!r}"
            if theirs
            else f"zsg's are as {ids[0]!r}"
        )
        raise broken_file(
            path,
            f"has tags of {len(named)} ids, none of which an example has; the first:"
            f" {next(iter(named))!r}, and {known}",
        )
    if len(own) != len(ids):
        raise broken_file(
            path,
            f"names {len(own)} examples by the ids of the data, and {len(ids)} were read; read them"
            " anew",
        )
    bare = [made for made, one in zip(ids, own, strict=True) if one not in named]
    if bare:
        say(
            f"{path.name} has no tags of {len(bare)} of {len(ids)} examples, which count as having"
            f" none: {bare[0]}, …"
        )
    left = named.keys() - set(own)
    if left:
        say(
            f"{path.name} has {len(left)} of {len(named)} rows that are of no example; the first:"
            f" {min(left)!r}"
        )
    return [named.get(one, ()) if one is not None else () for one in own]


def _texts(tags: Sequence[str | Tag]) -> Tags:
    return tuple(tag if isinstance(tag, str) else tag.tag for tag in tags)
