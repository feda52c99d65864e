"""Are tags read from a tagger's reply, and does every other reply end as a reason?"""

import json

import pytest

from zsg_core.data.examples import Example
from zsg_core.makers import tag_replies
from zsg_core.makers.tag_replies import (
    CUT,
    LONG,
    MANY_TAGS,
    NO_TAG,
    NOT_JSON,
    NOT_TAGS,
    TagReply,
    read_tags,
)


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(
            '[{"tag": "poem", "explanation": "x"}, {"tag": "rhyme", "explanation": ""}]',
            id="a list of objects, as asked for",
        ),
        pytest.param('["poem", "rhyme"]', id="a list of texts"),
        pytest.param(
            '{"tag": "poem", "explanation": "x"}\n{"tag": "rhyme"}',
            id="objects on lines",
        ),
        pytest.param('{"tag": "poem"}, {"tag": "rhyme"}', id="objects and commas"),
        pytest.param(
            'Here they are:\n```json\n[{"tag": " poem "}, {"tag": "rhyme"}]\n``` Bye {',
            id="text around the list, blanks around a tag",
        ),
        pytest.param('["poem", "rhyme", "poem"]', id="a tag twice"),
    ],
)
def test_tags_are_read_from_all_that_models_make_of_the_prompt(reply: str) -> None:
    """Each tag once, in the order of the reply."""
    assert read_tags(reply) == TagReply(tags=("poem", "rhyme"))


@pytest.mark.parametrize(
    ("reply", "refusal"),
    [
        pytest.param("", NOT_JSON, id="empty"),
        pytest.param("The tags are poem and rhyme.", NOT_JSON, id="prose"),
        pytest.param('[{"tag": "poem"}, {"tag": "rh', NOT_JSON, id="a broken list"),
        pytest.param('{"tag": "a"}\n{"tag": ', NOT_JSON, id="a broken second object"),
        pytest.param("[" * 50_000, NOT_JSON, id="brackets without end"),
        pytest.param(
            '{"tag":' * 10_000 + "1" + "}" * 10_000, NOT_JSON, id="deeply nested"
        ),
        pytest.param("[" + "9" * 50_000 + "]", NOT_JSON, id="a number of no end"),
        pytest.param("[1, 2]", NOT_TAGS, id="numbers"),
        pytest.param('[["poem"]]', NOT_TAGS, id="a list in a list"),
        pytest.param('{"tags": ["poem"]}', NOT_TAGS, id="another key"),
        pytest.param('[{"tag": "poem"}, null]', NOT_TAGS, id="a null among tags"),
        pytest.param("[NaN]", NOT_TAGS, id="no number"),
        pytest.param("x" * 200_000, LONG, id="huge"),
        pytest.param(json.dumps(["a"] * 51), MANY_TAGS, id="a flood of tags"),
        pytest.param('{"tag": "a"}' * 5_000, MANY_TAGS, id="a flood of objects"),
        pytest.param("[]", NO_TAG, id="no tag"),
        pytest.param('["", " ", "—"]', NO_TAG, id="tags without a letter"),
    ],
)
def test_any_other_reply_is_refused_with_its_reason(reply: str, refusal: str) -> None:
    """Nothing is raised, and nothing of a broken reply counts."""
    read = read_tags(reply)

    assert read.refusal == refusal
    assert read.tags == ()
    assert refusal in tag_replies.REFUSALS


@pytest.mark.parametrize(
    "tag", ["a\x1b[31mb", "a\nb", "a\u202eb", "a\x00", "\ud800", "x" * 101]
)
def test_a_tag_that_does_not_show_is_left_out_and_counted(tag: str) -> None:
    """Control characters, halves of characters and whole texts never become tags."""
    read = read_tags(json.dumps(["poem", tag]))

    assert read == TagReply(tags=("poem",), bad_tags=1)


def test_a_reply_that_was_cut_off_is_refused_even_where_it_reads_well() -> None:
    """Who knows which tags would have followed."""
    assert read_tags('{"tag": "poem"}', is_cut=True) == TagReply(refusal=CUT)


def test_a_query_is_text_whatever_it_holds() -> None:
    """A mark like the template's within a query is not filled in again."""
    prompt = tag_replies.write_prompt("Tags of {query}!", "a {query} b")

    assert prompt == "Tags of a {query} b!"


@pytest.mark.parametrize(("turns", "query"), [("first", "a"), ("all", "a\n\nb")])
def test_a_dialogue_is_tagged_by_what_its_user_asks(turns: str, query: str) -> None:
    """The first question, or all of them; never the answers."""
    dialogue = Example(id="d:0", task="d", turns=(("a", "x"), ("b", "y")))

    assert tag_replies.write_query(dialogue, turns) == query
