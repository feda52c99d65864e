"""Has each example the wording that it should have, and is what was drawn written down?"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.lib.mixed_sources import make, rows
from zsg_core.data import instructions, readers
from zsg_core.data.examples import Example
from zsg_core.data.readers.intake import Intake
from zsg_core.errors import BadData
from zsg_core.settings.run import Settings

__all__ = ["make", "rows"]

WORDINGS = ["Do it.", "Get it done.", "Please do it."]


def asked(question: str, **rule: Any) -> str:
    """The question with the one wording `Do it.`."""
    example = Example(id="a:0", task="a", turns=((question, "x"), ("more", "y")))
    made = instructions.apply_wording(
        example, WORDINGS[:1], {"place": "after", "replaces": False, **rule}
    )
    assert made.turns[1:] == example.turns[1:] and made.turns[0][1] == "x"
    return made.input


@pytest.mark.parametrize(
    ("question", "rule", "wanted"),
    [
        ("2, 3\n", {}, "2, 3\n\nDo it."),
        ("\n2, 3", {"place": "before"}, "Do it.\n\n2, 3"),
        ("\n2\n\n3\n\n\nAdd them.\nNow.", {"replaces": True}, "2\n\n3\n\n\nDo it."),
        (
            "Add them.\n \n2\n\n3\n",
            {"replaces": True, "place": "before"},
            "Do it.\n \n2\n\n3",
        ),
    ],
)
def test_a_wording_is_put_in_its_place(
    question: str, rule: dict[str, Any], wanted: str
) -> None:
    """Beside the question, or for its last or first paragraph."""
    assert asked(question, **rule) == wanted


def test_the_instruction_of_every_published_example_is_its_last_paragraph(
    real_data: Path,
) -> None:
    """So DELIA's own data can be given one wording; all of the hundred hold the token before."""
    found = list(
        readers.read_examples(
            "delia", real_data / "delia_tell/delia/train_dataset.jsonl", Intake()
        )
    )
    made = [
        instructions.apply_wording(
            e, ["One <sep>."], {"place": "after", "replaces": True}
        ).input
        for e in found
    ]

    assert len(made) == 100
    assert all("<sep>" in e.input.rpartition("\n\n")[2] for e in found)
    assert all(
        text.endswith("\n\nOne <sep>.") and text.count("<sep>") == 1 for text in made
    )


def test_a_question_of_one_paragraph_has_no_instruction_to_replace() -> None:
    """It is told with the example's id."""
    with pytest.raises(BadData, match="a:0: its question has one paragraph"):
        asked("2, 3", replaces=True)


def test_wordings_are_read_from_lines_or_a_list(tmp_path: Path) -> None:
    """Blank ones are none; a file of none is told."""
    (tmp_path / "a.txt").write_text("Do it.\n\n  Get it done.  \n")
    (tmp_path / "a.json").write_text(json.dumps(["Do\nit."]))
    (tmp_path / "b.json").write_text('{"a": 1}')
    (tmp_path / "none.txt").write_text("\n")

    assert instructions.read_wordings(tmp_path / "a.txt") == ["Do it.", "Get it done."]
    assert instructions.read_wordings(tmp_path / "a.json") == ["Do\nit."]
    for name, said in (
        ("b.json", "must be a list of texts"),
        ("none.txt", "holds no wording"),
        ("x", "cannot be read"),
    ):
        with pytest.raises(BadData, match=said):
            instructions.read_wordings(tmp_path / name)


def test_examples_draw_their_wordings_and_a_corpus_tells_how_many(
    make: Any,
    rows: Any,
    tmp_path: Path,
) -> None:
    """By the sample's seed and each example's id; without diversify all have the first,
    as test examples always do."""
    (tmp_path / "wordings.txt").write_text("\n".join(WORDINGS))
    train = rows(
        "train.jsonl", [{"question": f"{i}", "answer": f"{i}"} for i in range(60)]
    )
    test = rows(
        "test.jsonl", [{"question": f"t{i}", "answer": f"{i}"} for i in range(5)]
    )

    def corpus(diversify: bool = True, seed: int = 0) -> Any:
        worded = {"path": str(tmp_path / "wordings.txt"), "diversify": diversify}
        [made] = make(
            set="gsm8k",
            path=train,
            test_path=test,
            instructions=worded,
            sample_seed=seed,
        )
        return made

    one, again, other, plain = (
        corpus(),
        corpus(),
        corpus(seed=1),
        corpus(diversify=False),
    )
    texts = [[e.input for e in made.train] for made in (one, again, other, plain)]
    drawn = Counter(text.rpartition("\n\n")[2] for text in texts[0])

    assert texts[0] == texts[1] != texts[2]
    assert set(drawn) == set(WORDINGS)
    assert one.meta["sources"][""]["worded"] == [drawn[text] for text in WORDINGS]
    assert texts[3] == [f"{i}\n\nDo it." for i in range(60)]
    assert plain.meta["sources"][""]["worded"] == [60, 0, 0]
    assert {tuple(e.input for e in made.test) for made in (one, other, plain)} == {
        tuple(f"t{i}\n\nDo it." for i in range(5))
    }


def test_a_seed_counts_only_where_wordings_are_drawn() -> None:
    """All of a set that is taken whole, with one wording, is the same under any seed."""
    from tests.lib.builders import digests
    from zsg_core.recipe import corpus_id, make_recipe

    def corpus(seed: int, **worded: Any) -> str:
        data = {
            "set": "gsm8k",
            "path": "d",
            "test_path": "t",
            "instructions": {"path": "w", **worded},
        }
        return corpus_id(
            make_recipe(
                Settings.model_validate({"seed": seed, "data": data}), digests(test="t")
            )
        )

    assert corpus(0) != corpus(1)
    assert corpus(0, diversify=False) == corpus(1, diversify=False)
    assert corpus(0, replaces=True) != corpus(0)


def test_what_has_definitions_takes_no_wordings() -> None:
    """Natural Instructions say what is asked in a place of their own."""
    with pytest.raises(ValueError, match="`instructions` do nothing to niv2"):
        Settings.model_validate({"data": {"path": "d", "instructions": {"path": "w"}}})
