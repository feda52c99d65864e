"""Does the maker InsTag tag dialogues by a model's replies, whatever these are?"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from zsg_core.data.examples import Example
from zsg_core.data.readers.tags import read_tags
from zsg_core.makers import instag, tag_replies
from zsg_core.makers.registry import MAKERS, Made, Reply, Request, run_maker
from zsg_core.settings.makers import InstagSettings

pytestmark = pytest.mark.engine

DIALOGUES = [
    Example(
        id=f"chat:{number}", task="chat", turns=((f"q{number}", "a"), ("more", "b"))
    )
    for number in range(6)
]
REPLIES = [
    '[{"tag": "Poem", "explanation": "x"}, {"tag": "code review", "explanation": "y"}]',
    '["poems", "rhyme"]',
    "I am sorry, I cannot.",
    '{"tag": "Coding"}',
    "[" * 90_000,
    '["poem", "a\\u001b[2Jb"]',
]
SMALL = {"at_least": 1, "support": 0}


def make(
    replies: Sequence[Reply], examples: Sequence[Example] = DIALOGUES, **settings: Any
) -> tuple[Made, list[Request]]:
    """What InsTag makes of these replies, and what it asked."""
    requests: list[Request] = []

    def answer(round_of: Sequence[Request]) -> Sequence[Reply]:
        requests.extend(round_of)
        return replies

    wanted = InstagSettings.model_validate(settings)
    steps = MAKERS["instag"].start(examples, wanted, encode_by_length)
    return run_maker(steps, answer), requests


def encode_by_length(texts: Sequence[str]) -> NDArray[np.float32]:
    """Texts of one length have one vector."""
    vectors = np.zeros((len(texts), 30), np.float32)
    for row, text in enumerate(texts):
        vectors[row, len(text)] = 1
    return vectors


def as_replies(texts: Sequence[str]) -> list[Reply]:
    return [Reply(text=text) for text in texts]


def test_dialogues_stay_with_their_tags_and_bad_replies_cost_only_the_tags() -> None:
    """Each reply that is no list of tags is counted by its reason."""
    made, _ = make(as_replies(REPLIES), **SMALL)

    assert [(example.id, example.tags) for example in made.examples] == [
        ("chat:0", ("code review", "poem")),
        ("chat:1", ("poem", "rhyme")),
        ("chat:2", ()),
        ("chat:3", ("code",)),
        ("chat:4", ()),
        ("chat:5", ("poem",)),
    ]
    assert [example.turns for example in made.examples] == [
        example.turns for example in DIALOGUES
    ]
    assert made.refused == {tag_replies.NOT_JSON: 2}
    assert made.facts["tags that were no tags"] == 1
    assert made.facts["dialogues with tags"] == 4
    assert made.facts["different tags, written"] == 6
    assert made.facts["different tags, rules"] == 4


def test_the_tagger_is_asked_once_a_dialogue_for_what_its_user_asks() -> None:
    """All questions, or the first; cut where they are longer than wanted."""
    _, requests = make(as_replies(REPLIES))
    made, first = make(as_replies(REPLIES), turns="first", longest_query=1)

    assert [request.id for request in requests] == [one.id for one in DIALOGUES]
    assert requests[1].turns[-1][0].endswith("User query: q1\n\nmore")
    assert requests[1].sampling.temperature == 0
    assert first[1].turns[-1][0].endswith("User query: q")
    assert made.facts["queries that were cut"] == 6


def test_a_refused_or_unfinished_reply_has_no_tags() -> None:
    """Too long for the tagger, or not over after the last token."""
    replies = [Reply(refused="too long"), Reply(text='["poem"]', is_cut=True)]
    made, _ = make(replies, DIALOGUES[:2], **SMALL)

    assert [example.tags for example in made.examples] == [(), ()]
    assert made.refused == {"too long": 1, tag_replies.CUT: 1}


def test_dialogues_without_tags_are_dropped_where_that_is_wanted() -> None:
    """And counted."""
    made, _ = make(as_replies(REPLIES), untagged="drop", **SMALL)

    assert [example.id for example in made.examples] == [
        "chat:0",
        "chat:1",
        "chat:3",
        "chat:5",
    ]
    assert made.refused[instag.UNTAGGED] == 2


def test_few_diverse_dialogues_are_chosen() -> None:
    """Those with the most and with new tags first; the rest is counted."""
    made, _ = make(as_replies(REPLIES), choose=3, **SMALL)

    assert [example.id for example in made.examples] == ["chat:0", "chat:1", "chat:3"]
    assert made.refused[instag.NOT_CHOSEN] == 3


def test_the_published_thresholds_leave_nothing_of_few_dialogues() -> None:
    """Twenty dialogues must have a tag; plan's reader sees it in the counts."""
    made, _ = make(as_replies(REPLIES))

    assert made.facts["different tags, frequency"] == 0
    assert made.facts["dialogues with tags"] == 0


def test_the_files_beside_say_the_tags_and_what_became_of_each_spelling(
    tmp_path: Path,
) -> None:
    """`tags` of a source reads the one; the other is for people."""
    made, _ = make(as_replies(REPLIES), at_least=2, frequency="rules", support=0)
    tags_file = tmp_path / instag.TAGS_FILE
    tags_file.write_text(made.files[instag.TAGS_FILE], encoding="utf-8")

    ids = [example.id for example in DIALOGUES]
    assert read_tags(tags_file, ids) == [example.tags for example in made.examples]
    lines = made.files[instag.SPELLINGS_FILE].splitlines()
    spellings = {row["written"]: row["tag"] for row in map(json.loads, lines)}
    assert spellings["Poem"] == spellings["poems"] == "poem"
    assert spellings["rhyme"] is None


def test_tags_of_one_meaning_are_one_where_that_is_wanted() -> None:
    """Here those as long as each other: what is embedded is the spelling, not the
    stem."""
    replies = as_replies(['["poems", "rhyme"]', '["poems"]', '["code"]'])
    made, _ = make(replies, DIALOGUES[:3], meaning={}, **SMALL)
    apart, _ = make(replies, DIALOGUES[:3], **SMALL)

    assert [one.tags for one in made.examples] == [("poem",), ("poem",), ("code",)]
    assert apart.examples[0].tags == ("poem", "rhyme")
    assert made.facts["different tags, meaning"] == 2


def test_the_same_replies_make_the_same_set() -> None:
    """So a job that was killed ends with it."""
    assert make(as_replies(REPLIES), **SMALL) == make(as_replies(REPLIES), **SMALL)


@pytest.mark.parametrize("settings", [{}, {"meaning": {"embedding": "folder"}}])
def test_settings_are_read_again_as_a_recipe_has_them(settings: dict[str, Any]) -> None:
    """With every default written out, but for the place of the model that embeds."""
    recipe = InstagSettings.model_validate(settings).recipe

    assert InstagSettings.model_validate(recipe).recipe == recipe
    assert "folder" not in json.dumps(recipe)


@pytest.mark.parametrize("prompt", ["Tags, please.", "{query} and {query}"])
def test_a_prompt_without_one_place_for_the_query_is_refused(prompt: str) -> None:
    """Before anybody is asked."""
    with pytest.raises(ValidationError, match=r"needs \{query\} once"):
        InstagSettings(prompt=prompt)
