"""Are wordings of a text read from a model's list, and do only new ones count?"""

import json
from pathlib import Path
from typing import Any

import pytest

from zsg_core.makers import wordings
from zsg_core.makers.wordings import WordingList, WordingPool, read_numbered_list
from zsg_core.settings.makers import WORDING_PROMPT


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param("1. Sort it.\n2. Order it.", id="as asked for"),
        pytest.param("Sure!\n\n 1) Sort it.\n 2) Order it.\n\nBye.", id="text around"),
        pytest.param('1. "Sort it."\n2: “Order it.”', id="quotation marks"),
        pytest.param("1. Sort it.\r\n\r\n2. Order it.\r\n", id="line ends of Windows"),
    ],
)
def test_a_numbered_list_is_read_whatever_stands_around_it(reply: str) -> None:
    """Numbers and quotation marks are no part of the entries."""
    assert read_numbered_list(reply) == WordingList(("Sort it.", "Order it."))


def test_an_entry_may_have_lines_and_words_in_quotes() -> None:
    """Only marks around the whole of it go."""
    reply = '1. "Sort" and "order"\n   it.\n2. Say "x".'

    assert read_numbered_list(reply).entries == ('"Sort" and "order"\nit.', 'Say "x".')


def test_the_last_entry_of_a_reply_that_was_cut_off_is_left_out() -> None:
    """It may be half a sentence."""
    cut = read_numbered_list("1. Sort it.\n2. Order", is_cut=True)

    assert cut == WordingList(("Sort it.",), lost=True)
    assert read_numbered_list("Sure", is_cut=True).refusal == wordings.CUT


@pytest.mark.parametrize(
    ("reply", "refusal"),
    [
        pytest.param("", wordings.NO_LIST, id="empty"),
        pytest.param("I cannot do that.", wordings.NO_LIST, id="prose"),
        pytest.param('["a", "b"]', wordings.NO_LIST, id="JSON"),
        pytest.param("1. a\n" * 50_000, wordings.LONG_REPLY, id="huge"),
        pytest.param("[" * 90_000, wordings.NO_LIST, id="brackets"),
        pytest.param(" " * 90_000, wordings.NO_LIST, id="blanks"),
    ],
)
def test_a_reply_without_a_list_is_refused_with_its_reason(
    reply: str, refusal: str
) -> None:
    """Nothing is raised."""
    assert read_numbered_list(reply) == WordingList(refusal=refusal)


@pytest.mark.engine
def test_only_new_wordings_with_all_marks_count() -> None:
    """Each reason, in the order in which they are looked for."""
    text = "Sort the <obj> values by field size."
    pool = WordingPool(text, wordings.find_marks(text, ["<obj>", "size", "other"]), 0.7)

    said = [
        "Arrange <obj> so that size goes up.",
        "Arrange values so that size goes up.",
        "SORT the <obj>  values by field size.",
        "Arrange <obj> so that size goes up!",
        "",
        "<obj> size\x1b[2J",
        "<obj> size " + "x" * 400,
    ]
    assert [pool.add(wording) for wording in said] == [
        None,
        wordings.NO_MARK,
        wordings.NEAR,
        wordings.NEAR,
        wordings.EMPTY,
        wordings.NOT_SHOWN,
        wordings.LONG,
    ]
    assert pool.wordings == [said[0]]


@pytest.mark.engine
def test_similarities_are_those_of_another_implementation(real_data: Path) -> None:
    """Self-Instruct's decisions: what is nearer than 0.7 to a text before it goes, and
    0.7 itself stays."""
    path = real_data.parent / "goldens" / "makers_goldens.json"
    golden: dict[str, Any] = json.loads(path.read_text())["self_instruct"]["rouge"]
    first, *others = golden["pool"]
    pool = WordingPool(first, (), 0.7, wordings=list(others))

    for row in golden["rows"]:
        nearest = pool.similarity(row["nearest"], row["candidate"])
        assert nearest == pytest.approx(row["highest"], abs=1e-6)
        assert (pool.add(row["candidate"]) is None) == row["kept"]
    edge = golden["edge of 0.7"]
    assert WordingPool(edge["a"], (), 0.7).add(edge["b"]) is None


@pytest.mark.engine
def test_texts_of_another_script_are_compared_too() -> None:
    """By their words, and texts of no words by their signs."""
    pool = WordingPool("Переведи это предложение на английский", (), 0.7)

    assert pool.add("Переведи предложение на английский") == wordings.NEAR
    assert pool.add("Как сказать по-английски следующее") is None
    assert WordingPool("→ ?", (), 0.7).add("→  ?") == wordings.NEAR


def test_nothing_in_a_text_is_taken_for_a_place_of_the_prompt() -> None:
    """A text that speaks of {count} stays as it is."""
    prompt = wordings.write_prompt(
        "{count}x: {text}.{marks}", "a {count} {text}", 3, []
    )

    assert prompt == "3x: a {count} {text}."


def test_the_prompt_names_the_marks() -> None:
    """And says nothing of marks where there are none."""
    with_marks = wordings.write_prompt(WORDING_PROMPT, "T", 2, ["<x>", "y"])

    assert "Keep these exactly as they are: <x>, y." in with_marks
    assert "Keep these" not in wordings.write_prompt(WORDING_PROMPT, "T", 2, [])
