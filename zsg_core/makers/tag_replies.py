"""Asks a model for the tags of a dialogue, and reads them from its reply (InsTag,
arXiv 2308.07074).

Tags are free: the model invents them. A reply is somebody else's text, so whatever it
is, it ends as tags or as one of the reasons of `REFUSALS`; nothing in it is run.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zsg_core.data.examples import Example
from zsg_core.settings.makers import QUERY

MOST_CHARACTERS = 100_000  # of a reply
MOST_TAGS = 50  # of a reply; published replies have fewer than twenty
LONGEST_TAG = 100  # characters

CUT = "cut off at the limit of tokens"
LONG = "longer than a reply may be"
NOT_JSON = "not JSON"
NOT_TAGS = "JSON, but no tags"
MANY_TAGS = "more tags than a dialogue may have"
NO_TAG = "no tag that can be used"
REFUSALS = (CUT, LONG, NOT_JSON, NOT_TAGS, MANY_TAGS, NO_TAG)

FIRST, ALL = TURNS = ("first", "all")

_DECODER = json.JSONDecoder()
_BRACKET = re.compile(r"[\[{]")


@dataclass(frozen=True)
class TagReply:
    """What a reply says. `refusal`: why the reply counts for nothing, of REFUSALS;
    None where it has tags. `bad_tags`: tags beside the good ones that were left out."""

    tags: tuple[str, ...] = ()
    refusal: str | None = None
    bad_tags: int = 0


def write_query(example: Example, turns: str) -> str:
    """What the user asks in a dialogue: its first question, or all of them with a blank
    line between two."""
    questions = [question for question, _ in example.turns]
    if turns == FIRST:
        return questions[0]
    return "\n\n".join(questions)


def write_prompt(template: str, query: str) -> str:
    """The prompt with the query in its place. Whatever the query holds is text: a mark
    like the template's within it stays as it is."""
    before, _, after = template.partition(QUERY)
    return before + query + after


def read_tags(reply: str, is_cut: bool = False) -> TagReply:
    """The tags of a reply, each once, in its order.

    Read are a list of objects with a `tag`, a list of texts, one object, or objects one
    after another, which is what models make of the prompt's wording; text before the
    first bracket and after the last one is passed over. `is_cut`: whether the reply was
    ended by the limit of tokens: then nobody knows which tags would have followed.
    """
    if is_cut:
        return TagReply(refusal=CUT)
    if len(reply) > MOST_CHARACTERS:
        return TagReply(refusal=LONG)
    values = _read_values(reply)
    if not values:
        return TagReply(refusal=NOT_JSON)
    named = _list_tags(values)
    if named is None:
        return TagReply(refusal=NOT_TAGS)
    if len(named) > MOST_TAGS:
        return TagReply(refusal=MANY_TAGS)
    stripped = [tag.strip() for tag in named]
    usable = [tag for tag in stripped if is_usable(tag)]
    bad_tags = len(stripped) - len(usable)
    if not usable:
        return TagReply(refusal=NO_TAG, bad_tags=bad_tags)
    return TagReply(tags=tuple(dict.fromkeys(usable)), bad_tags=bad_tags)


def is_usable(tag: str) -> bool:
    """Whether a tag is a short text on one line that shows as it is: no control
    characters, no halves of characters, a letter or a digit in it."""
    if not tag or len(tag) > LONGEST_TAG:
        return False
    return tag.isprintable() and any(character.isalnum() for character in tag)


def _read_values(reply: str) -> list[Any]:
    """The JSON values of a reply from its first bracket on, one after another; none
    where one of them is broken or too deeply nested to be read."""
    values: list[Any] = []
    position = _find_bracket(reply, 0)
    while position is not None:
        try:
            value, end = _DECODER.raw_decode(reply, position)
        except (ValueError, RecursionError):
            return []
        values.append(value)
        if len(values) > MOST_TAGS:
            break
        position = _find_next_object(reply, end)
    return values


def _find_bracket(reply: str, start: int) -> int | None:
    """Where the first list or object of a text begins; None where there is none."""
    bracket = _BRACKET.search(reply, start)
    if bracket is None:
        return None
    return bracket.start()


def _find_next_object(reply: str, start: int) -> int | None:
    """Where another object follows after blanks, commas and line ends; None where
    something else does."""
    position = start
    while position < len(reply) and reply[position] in " ,;\r\n\t":
        position += 1
    if reply.startswith("{", position):
        return position
    return None


def _list_tags(values: Sequence[Any]) -> list[str] | None:
    """The tags in JSON values, as they are written; None where an entry is no tag."""
    entries = values
    if len(values) == 1 and isinstance(values[0], list):
        entries = values[0]
    tags: list[str] = []
    for entry in entries:
        tag = entry
        if isinstance(entry, dict):
            tag = entry.get("tag")
        if not isinstance(tag, str):
            return None
        tags.append(tag)
    return tags
