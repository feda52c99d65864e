"""Does the maker of paraphrases word an instruction or questions anew, in rounds, and
give examples their wordings?"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from zsg_core.data.examples import Example
from zsg_core.data.instructions import read_wordings
from zsg_core.makers import paraphrases, wordings
from zsg_core.makers.registry import MAKERS, Made, Reply, Request, run_maker
from zsg_core.settings.makers import ParaphraseSettings

pytestmark = pytest.mark.engine

INSTRUCTION = "Write the answer as JSON with the field name."
# what differs, round by round
LISTS = [
    "1. Reply in JSON, using name.\n2. Reply in JSON, using name!\n3. Give plain text.",
    "1. JSON only: one object whose key is name.\n2. Use name as key of a JSON reply.",
    "1. Put it under name.",
]
ITEMS = [
    Example(id=f"t:{number}", task="t", turns=((f"Who is {number}?\n\nSay it.", "x"),))
    for number in range(30)
]


def make(
    answer: Callable[[Request], Reply],
    examples: Sequence[Example] = ITEMS,
    **settings: Any,
) -> tuple[Made, list[Request]]:
    """What the maker makes of a model's replies, and what it asked."""
    requests: list[Request] = []

    def reply(round_of: Sequence[Request]) -> Sequence[Reply]:
        requests.extend(round_of)
        return [answer(request) for request in round_of]

    wanted = ParaphraseSettings.model_validate(settings)
    return run_maker(MAKERS["paraphrases"].make(examples, wanted), reply), requests


def answer_by_round(request: Request) -> Reply:
    number = int(request.id.rpartition("/")[2])
    return Reply(text=LISTS[number])


def test_one_instruction_is_worded_anew_in_rounds_until_there_is_enough() -> None:
    """What is too near, has not every mark or comes too late is counted."""
    made, requests = make(
        answer_by_round,
        instruction=INSTRUCTION,
        wordings=2,
        marks=["name", "JSON"],
    )

    assert [request.id for request in requests] == ["instruction/0", "instruction/1"]
    assert json.loads(made.files[paraphrases.WORDINGS_FILE]) == [
        INSTRUCTION,
        "Reply in JSON, using name.",
        "JSON only: one object whose key is name.",
    ]
    assert made.refused == {
        wordings.NEAR: 1,
        wordings.NO_MARK: 1,
        wordings.ENOUGH: 1,
    }
    assert made.facts["texts with fewer wordings than wanted"] == 0


def test_every_example_gets_one_wording_and_all_wordings_come_up() -> None:
    """Drawn by the example's id: another seed draws anew, the same seed the same."""
    given = {"instruction": INSTRUCTION, "wordings": 2, "marks": ["JSON"]}
    made, _ = make(answer_by_round, **given)
    again, _ = make(answer_by_round, ITEMS[5:9], **given)
    other, _ = make(answer_by_round, seed=1, **given)

    ends = [example.input.split("\n\n")[-1] for example in made.examples]
    assert len(set(ends)) == 3
    assert [one.id for one in made.examples] == [one.id for one in ITEMS]
    assert again.examples == made.examples[5:9]
    assert other.examples != made.examples


def test_a_paragraph_is_replaced_and_questions_without_one_are_counted() -> None:
    """As `instructions.replaces` does."""
    bare = Example(id="t:b", task="t", turns=(("Who?", "x"),))
    made, _ = make(
        answer_by_round,
        [ITEMS[0], bare],
        instruction=INSTRUCTION,
        wordings=1,
        original=False,
        replaces=True,
    )

    assert [example.input for example in made.examples] == [
        "Who is 0?\n\nReply in JSON, using name."
    ]
    assert made.refused[paraphrases.ONE_PARAGRAPH] == 1


def test_the_file_of_wordings_is_what_instructions_read(tmp_path: Path) -> None:
    """The original first, which test examples get."""
    made, _ = make(answer_by_round, instruction=INSTRUCTION, rounds=2)
    path = tmp_path / paraphrases.WORDINGS_FILE
    path.write_text(made.files[paraphrases.WORDINGS_FILE], encoding="utf-8")

    assert read_wordings(path)[0] == INSTRUCTION
    assert len(read_wordings(path)) == 5


def test_every_question_is_worded_anew_with_its_own_answer() -> None:
    """Only texts that lack wordings are asked again; what follows in the dialogue
    stays."""
    dialogue = Example(
        id="d:0", task="d", turns=(("Where is Oslo?", "N"), ("And?", "E"))
    )
    easy = Example(id="d:1", task="d", turns=(("Where is Rome?", "I"),))
    said = {
        "d:0/0": "1. Where is Oslo?",
        "d:0/1": "1. In which country does Oslo lie?",
        "d:1/0": "1. Which state has Rome in it?",
    }
    made, requests = make(
        lambda request: Reply(text=said[request.id]),
        [dialogue, easy],
        wordings=1,
        rounds=3,
        marks=["Oslo", "Rome"],
    )

    assert [request.id for request in requests] == ["d:0/0", "d:1/0", "d:0/1"]
    assert "Oslo" in requests[0].turns[-1][0].split("Text:")[0]
    assert "Rome" not in requests[0].turns[-1][0]
    assert [(one.id, one.turns) for one in made.examples] == [
        ("d:0/0", dialogue.turns),
        ("d:0/1", (("In which country does Oslo lie?", "N"), ("And?", "E"))),
        ("d:1/0", easy.turns),
        ("d:1/1", (("Which state has Rome in it?", "I"),)),
    ]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        pytest.param(Reply(refused="HTTP 400"), "HTTP 400", id="refused"),
        pytest.param(Reply(text='{"a": ['), wordings.NO_LIST, id="no list"),
        pytest.param(Reply(text="1. " + "x" * 10**6), wordings.LONG_REPLY, id="huge"),
        pytest.param(Reply(text="1. half", is_cut=True), wordings.CUT, id="cut"),
        pytest.param(Reply(text="1. \x1b]0;x\x07"), wordings.NOT_SHOWN, id="control"),
        pytest.param(Reply(text="1. \ud800"), wordings.NOT_SHOWN, id="half a letter"),
    ],
)
def test_hostile_replies_cost_the_wordings_only(reply: Reply, reason: str) -> None:
    """Every round is counted, and the originals stay."""
    made, _ = make(lambda request: reply, ITEMS[:2], wordings=1, rounds=2)

    assert made.refused == {reason: 4, paraphrases.NO_WORDING: 2}
    assert [example.turns for example in made.examples] == [
        example.turns for example in ITEMS[:2]
    ]


@pytest.mark.parametrize("settings", [{}, {"instruction": INSTRUCTION}])
def test_settings_are_read_again_as_a_recipe_has_them(settings: dict[str, Any]) -> None:
    """With every default written out: so the job reads them."""
    wanted = ParaphraseSettings.model_validate(settings)

    assert ParaphraseSettings.model_validate(wanted.recipe) == wanted


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"prompt": "Word it anew."}, "needs {text} once"),
        ({"replaces": True}, "`replaces` is of an `instruction`"),
        ({"instruction": "Sort.", "marks": ["<obj>"]}, "does not stand in"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    settings: dict[str, Any], why: str
) -> None:
    """Before anybody is asked."""
    with pytest.raises(ValidationError, match=why):
        ParaphraseSettings.model_validate(settings)
