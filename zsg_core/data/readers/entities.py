"""Writes the entities of tagged sentences as text, and reads rows of such sentences.

A row has words and, for each word, a tag of the BIO kind: `B-GPE` begins an entity of
the type GPE, `I-GPE` goes on with it, `O` is outside of all. An entity that begins with
`I-`, as in older sets, is one as well. Tags may be texts, or places in a list of names.
The answer is written as in InstructUIE (arXiv 2304.08085): `GPE: Iceland; DATE: 1944`,
and `None` for a sentence without entities.
"""

from collections.abc import Callable, Sequence
from typing import Any

from zsg_core.data.examples import Example, Turn
from zsg_core.data.readers.ask import write_value
from zsg_core.data.readers.fields import (
    SHOWN,
    Fields,
    Getter,
    is_absent,
    make_getter,
    read_list,
)
from zsg_core.data.readers.intake import Intake, Malformed
from zsg_core.data.readers.wordings import Part, parse_wording

OUTSIDE = "O"
BEGINS, GOES_ON = "B-", "I-"
NO_ENTITY = "None"

Entity = tuple[str, str]  # its type, its words
ReadTask = Callable[[Any, str], str]
MakeId = Callable[[Any, str, Intake], str]


def find_entities(words: Sequence[str], tags: Sequence[str]) -> list[Entity]:
    """The entities of a sentence in their order. Malformed for a tag of another kind."""
    # each with its words apart, as an entity may go on for the whole of a long text
    found: list[tuple[str, list[str]]] = []
    open_type = ""
    for word, tag in zip(words, tags, strict=True):
        if tag == OUTSIDE:
            open_type = ""
            continue
        mark, kind = tag[:2], tag[2:]
        if mark not in (BEGINS, GOES_ON) or not kind:
            raise Malformed(
                f"{tag[:SHOWN]!r} is no tag of an entity, which is O, B-TYPE or I-TYPE"
            )
        if mark == GOES_ON and kind == open_type:
            _, of_entity = found[-1]
            of_entity.append(word)
        else:
            found.append((kind, [word]))
        open_type = kind
    return [(kind, " ".join(spoken)) for kind, spoken in found]


def write_entities(entities: Sequence[Entity]) -> str:
    """Entities as text: `GPE: Iceland; DATE: 1944`, or None."""
    if not entities:
        return NO_ENTITY
    written = [f"{kind}: {words}" for kind, words in entities]
    return "; ".join(written)


def name_tags(tags: Any, names: Sequence[str], path: str) -> list[str]:
    """The tags of a sentence as texts. Malformed for a place that has no name."""
    if not isinstance(tags, list):
        raise Malformed(f"`{path}` is no list of tags")
    count = len(names)
    named: list[str] = []
    for tag in tags:
        # most are places that have a name
        if tag.__class__ is int and 0 <= tag < count:
            place: int = tag
            named.append(names[place])
        else:
            text = _name_tag(tag, names, path)
            named.append(text)
    return named


def _name_tag(tag: Any, names: Sequence[str], path: str) -> str:
    """One tag as a text."""
    if isinstance(tag, str):
        return tag
    is_place = isinstance(tag, int) and not isinstance(tag, bool)
    if not is_place:
        raise Malformed(f"`{path}` holds a tag that is neither a text nor a number")
    if not names:
        raise Malformed(
            f"`{path}` holds the numbers of tags; say their names in fields.labels: a list, or"
            " `file` where the file has them"
        )
    if not 0 <= tag < len(names):
        raise Malformed(f"`{path}` holds {tag}, and fields.labels are {len(names)}")
    return names[tag]


def make_entity_parser(
    fields: Fields, read_task: ReadTask, make_id: MakeId
) -> Callable[[Any, str, Intake], list[Example]]:
    """A function that makes the examples of a row: one of each of its sentences.

    `fields` name `words` and `word_tags`. Either is a list, of one sentence, or a list
    of lists, of several. An own id of a row of several is followed by `/` and the place
    of the sentence.
    """
    assert fields.words is not None, "the parser reads words"
    assert fields.word_tags is not None, "words go with their tags"
    columns = fields.columns
    words_path, tags_path = fields.words, fields.word_tags
    get_words = make_getter(words_path, columns)
    get_tags = make_getter(tags_path, columns)
    asker = _SentenceAsker(fields, columns)
    has_own_ids = fields.id is not None

    def parse(row: Any, name: str, intake: Intake) -> list[Example]:
        sentences, is_nested = _list_sentences(get_words(row), words_path)
        tags_of, _ = _list_sentences(get_tags(row), tags_path)
        _refuse_other_length(sentences, tags_of, fields)
        task = read_task(row, name)
        turns: list[Turn] = []
        for words, tags in zip(sentences, tags_of, strict=True):
            texts = read_list(words, words_path)
            named = name_tags(tags, fields.labels, tags_path)
            _refuse_other_length(texts, named, fields)
            if not texts:
                continue
            entities = find_entities(texts, named)
            answer = write_entities(entities)
            question = asker.ask(row, texts)
            turns.append((question, answer))
        if not turns:
            raise Malformed(f"`{words_path}` has no words")
        # last, so that a row that is none takes no number
        first_id = make_id(row, task, intake)
        examples: list[Example] = []
        for number, turn in enumerate(turns):
            example_id = first_id
            if is_nested and has_own_ids:
                example_id = f"{first_id}/{number}"
            elif number:
                example_id = intake.next_id(task)
            example = Example(id=example_id, task=task, turns=(turn,))
            examples.append(example)
        return examples

    return parse


def _refuse_other_length(
    words: Sequence[Any], tags: Sequence[Any], fields: Fields
) -> None:
    """Malformed for words that are not as many as their tags."""
    if len(words) == len(tags):
        return
    raise Malformed(
        f"`{fields.words}` has {len(words)}, and `{fields.word_tags}` {len(tags)}: each word has"
        " one tag"
    )


def _list_sentences(value: Any, path: str) -> tuple[list[Any], bool]:
    """The sentences of a row, and whether they stand in a list of their own."""
    if is_absent(value):
        raise Malformed(f"has no `{path}`")
    if not isinstance(value, list):
        raise Malformed(f"`{path}` is no list of words")
    is_nested = bool(value) and all(isinstance(item, list) for item in value)
    return (value, True) if is_nested else ([value], False)


class _SentenceAsker:
    """Words the question of a sentence: the wording of the fields, in which the path of
    the words stands for the sentence, or the sentence alone."""

    def __init__(self, fields: Fields, columns: Sequence[str]) -> None:
        self._words = fields.words
        self._pieces: list[Part] = []
        self._getters: dict[str, Getter] = {}
        if fields.ask is None:
            return
        self._pieces = parse_wording(fields.ask)
        for piece in self._pieces:
            if piece.is_path and piece.text != self._words:
                self._getters[piece.text] = make_getter(piece.text, columns)

    def ask(self, row: Any, words: Sequence[str]) -> str:
        """The question of one sentence of a row."""
        sentence = " ".join(words)
        if not self._pieces:
            return sentence
        texts: list[str] = []
        for piece in self._pieces:
            text = piece.text
            if piece.is_path and piece.text == self._words:
                text = sentence
            elif piece.is_path:
                value = self._getters[piece.text](row)
                text = write_value(value, piece.text)
            texts.append(text)
        return "".join(texts)
