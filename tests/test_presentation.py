"""Are examples asked in the form that the grid says: with an instruction, a name or
nothing, with options, or turned round?"""

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from pydantic import ValidationError

from tests.lib.builders import task, write_niv2
from tests.lib.made_corpora import Make, make_corpora
from zsg_core.data import prompts
from zsg_core.data.examples import Example
from zsg_core.data.presentation import Presentation
from zsg_core.recipe import InputDigests, SourceDigests, make_recipe, run_id
from zsg_core.settings.run import Settings

DEFINED = Example(
    id="task1:1",
    task="task1_translation",
    turns=(("The dog runs.", "Le chien court."),),
    definition="Translate to French.",
    shots=(("A cat.", "Un chat."),),
)
CHOSEN = Example(
    id="nli:1",
    task="nli",
    turns=(("It rains. So it is wet?\n", "yes"),),
    options=("yes", "no"),
)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes the corpus of some data settings."""
    return make_corpora(tmp_path)


def ask(rule: dict[str, Any], example: Example) -> str:
    """The question of an example under the rule of a split."""
    presented = Presentation.from_recipe(rule).present(example)
    return prompts.build_question(presented, 2)


def test_an_instruction_may_be_a_name_or_nothing() -> None:
    """As in FLAN's ablation; positive examples are of the instruction and go with it."""
    assert ask({"instruction_form": "none"}, DEFINED) == "The dog runs."
    named = ask({"instruction_form": "name"}, DEFINED)
    assert named == "[task1_translation] The dog runs."
    natural = prompts.build_question(DEFINED, 2)
    assert ask({}, DEFINED) == natural
    assert "Translate to French." in natural
    assert ask({"instruction_form": "none"}, CHOSEN) == CHOSEN.input


def test_options_are_listed_below_the_question() -> None:
    """In FLAN's words; an example without any stays as it is."""
    shown = {"options": "shown"}
    assert ask(shown, CHOSEN) == "It rains. So it is wet?\n\nOPTIONS:\n- yes\n- no"
    assert ask(shown, DEFINED) == prompts.build_question(DEFINED, 2)


def test_a_share_of_the_examples_is_turned_round() -> None:
    """The question is learnt, asked by one of the wordings; a smaller share is part of a
    larger, and dialogues stay."""
    wordings = ["Write what is {answer} to answer.", "What was asked?"]

    def turned(share: str) -> dict[str, Example]:
        rule = {"inverted": {"share": share, "wordings": wordings, "seed": 1}}
        form = Presentation.from_recipe(rule)
        items = [structs.replace(CHOSEN, id=f"nli:{n}") for n in range(200)]
        return {item.id: form.invert(item) for item in items if form.is_inverted(item)}

    few, many = turned("1/4"), turned("3/4")

    assert few.keys() < many.keys()
    assert 30 < len(few) < 70
    assert 130 < len(many) < 170
    assert {example.turns for example in many.values()} == {
        (("Write what is yes to answer.", "It rains. So it is wet?"),),
        (("What was asked?\n\nyes", "It rains. So it is wet?"),),
    }
    assert {example.options for example in many.values()} == {()}
    rule = {"inverted": {"share": "1", "wordings": wordings, "seed": 1}}
    dialogue = structs.replace(CHOSEN, turns=CHOSEN.turns * 2)
    assert not Presentation.from_recipe(rule).is_inverted(dialogue)


def test_shots_are_asked_as_their_example_is(make: Make, tmp_path: Path) -> None:
    """Without instructions they have none, and before one that is turned round they are,
    too; test examples stay as published unless the grid says otherwise."""
    write_niv2(tmp_path / "data", {"task1": task(6), "task9": task(2)})
    path = str(tmp_path / "data")

    bare = make(path=path, few_shot={"k": 1}, instructions="none")
    named = make(path=path, instructions="name", test_instructions="name")
    invert = {"share": "1/2", "wordings": ["Which input gives {answer}?"]}
    mixed = make(path=path, few_shot={"k": 1}, invert=invert, train_per_task=None)

    for example in bare.train:
        assert example.few_shot is not None
        ((question, answer),) = example.few_shot.shots
        asked = prompts.build_question(example, 2)
        assert asked == f"{question} {answer}\n\n{example.input}"
    assert all(example.definition for example in bare.test)
    for example in (*named.train, *named.test):
        assert example.input.startswith(f"[{example.task}] ")
    seen: set[bool] = set()
    for example in mixed.train:
        assert example.few_shot is not None
        ((question, _),) = example.few_shot.shots
        is_inverted = example.input.startswith("Which input gives ")
        assert question.startswith("Which input gives ") == is_inverted
        assert bool(example.definition) != is_inverted
        seen.add(is_inverted)
    assert seen == {True, False}


def test_options_of_own_data_are_shown_where_asked(make: Make, tmp_path: Path) -> None:
    """In training and in tests each by its own key."""
    rows = [{"q": f"ask {n}", "c": ["a", "b"], "a": n % 2} for n in range(8)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data: dict[str, Any] = {"set": "records", "path": str(file)}
    data |= {"fields": {"prompt": "q", "answer": "a", "choices": "c"}}
    data |= {"held_out": {"share": "1/4"}}

    corpus = make(**data, show_options=True)
    tested = make(**data, test_show_options=True)

    assert {"OPTIONS:" in example.input for example in corpus.train} == {True}
    assert {"OPTIONS:" in example.input for example in corpus.test} == {False}
    assert {"OPTIONS:" in example.input for example in tested.train} == {False}
    assert {"OPTIONS:" in example.input for example in tested.test} == {True}


def test_forms_that_say_nothing_new_are_the_recipe_without() -> None:
    """natural, no options, a share of 0; all else is another run."""
    digests = InputDigests(sources={"": SourceDigests(data="d")})

    def identify(**data: Any) -> str:
        wanted = Settings.model_validate({"data": {"path": "p", **data}})
        return run_id(make_recipe(wanted, digests))

    invert = {"wordings": ["What was asked?"]}
    plain = identify()
    same = [
        identify(instructions="natural", test_instructions="natural"),
        identify(show_options=False),
        identify(invert={**invert, "share": 0}),
    ]
    other = [
        identify(instructions="name"),
        identify(instructions="none"),
        identify(test_instructions="none"),
        identify(set="p3", show_options=True),
        identify(invert=invert),
    ]
    assert set(same) == {plain}
    assert len({plain, *other}) == 6


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"set": "gsm8k", "instructions": "none"}, "instructions within its questions"),
        ({"set": "p3", "test_instructions": "name"}, "`test_instructions: name`"),
        ({"show_options": True}, "published without options"),
        ({"invert": {"wordings": [" "]}}, "a wording is blank"),
    ],
)
def test_a_form_that_the_data_cannot_have_is_refused(
    data: dict[str, Any], message: str
) -> None:
    """With the formats that can."""
    with pytest.raises(ValidationError, match=message):
        Settings.model_validate({"data": {"path": "p", **data}})
