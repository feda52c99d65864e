"""Are answers that must be an object with a label read as a person would read them, and
counted once?"""

import json
from pathlib import Path

import pytest

from zsg_core.data import readers
from zsg_core.data.readers.intake import Intake
from zsg_core.metrics import json_answers, metrics
from zsg_core.metrics.scoring import Answered

VALID = [
    ('{"thought": "fine", "hallucination": "no"}', "no"),
    ("{'thought': 'fine', 'hallucination': 'yes'}", "yes"),
    ("""{'thought': "the user's wish", 'hallucination': 'no'}""", "no"),
    ("""{'thought': 'the user's wish, isn't it', 'hallucination': 'no'}""", "no"),
    (r"""{'thought': 'the user\'s "wish"', 'hallucination': 'yes'}""", "yes"),
    ("""{"thought": "he said "yes" to it", "hallucination": "no"}""", "no"),
    ('  {"hallucination": " No ",\n "thought": "a\nb"}\n', "no"),
    (r"""{'thought': 'C:\\dir\new \d', 'hallucination': 'no'}""", "no"),
]
INVALID = [
    "",
    "no",
    '"no"',
    '["no"]',
    '{"hallucination": "no"}',
    '{"thought": "fine", "hallucination": "maybe"}',
    '{"thought": "fine", "hallucination": false}',
    '{"thought": 3, "hallucination": "no"}',
    '{"thought": "fine", "hallucination": "no", "why": "so"}',
    'Sure: {"thought": "fine", "hallucination": "no"}',
    '{"thought": "fine", "hallucination": "no"} {"thought": "fine", "hallucination": "yes"}',
    '{"thought": "fine", "hallucination": "no"',
    "{'thought': 'fine, 'hallucination': 'no'",
    "{" * 100_000,
    "['" * 50_000,
]


@pytest.mark.parametrize(("answer", "wanted"), VALID)
def test_an_object_is_read_whatever_its_quotes(answer: str, wanted: str) -> None:
    """JSON, Python's dicts, and quotes within texts that nobody escaped."""
    assert json_answers.read_label(answer) == wanted


@pytest.mark.parametrize("answer", INVALID, ids=lambda answer: answer[:40])
def test_anything_else_is_not_valid(answer: str) -> None:
    """Other keys, other values, words around it, half of it."""
    assert json_answers.read_label(answer) is None


def test_every_published_answer_is_valid(real_data: Path) -> None:
    """The 111 of DELIA, in single quotes, each with the label that it ends on."""
    files = [
        real_data / "delia_tell/delia" / f"{split}_dataset.jsonl"
        for split in ("train", "eval")
    ]
    found = [
        json_answers.read_label(one.answer)
        for file in files
        for one in readers.read_examples("delia", file, Intake())
    ]
    told = [
        line.rpartition("'hallucination': '")[2][:2]
        for file in files
        for line in file.read_text().strip().split("\n")
    ]

    assert found == [{"no": "no", "ye": "yes"}[word] for word in told]
    assert len(found) == 111
    assert {"yes", "no"} == set(found)


def item(number: int, answer: str, *references: str) -> Answered:
    """An answer to a question of one task."""
    return Answered(
        id=str(number),
        task="t",
        prompt=str(number),
        references=references,
        answer=answer,
    )


def test_validity_and_accuracy_are_shares_of_all_items() -> None:
    """A perfect model has 100 of both; an invalid answer is wrong; a reference is a
    word or an object."""
    no, yes = (
        json.dumps({"thought": "t", "hallucination": word}) for word in ("no", "yes")
    )
    perfect = [item(1, no, "no"), item(2, yes, yes)]
    mixed = [
        item(1, no, "no"),
        item(2, no, "yes"),
        item(3, "no", "no"),
        item(4, yes, "YES"),
        item(5, yes, "unsure"),
    ]
    keys = ["json_valid", "json_accuracy"]

    assert metrics.score_answers(keys, perfect).values == {
        "json_valid": 100.0,
        "json_accuracy": 100.0,
    }
    scores = metrics.score_answers(keys, mixed)
    assert scores.values == {"json_valid": 80.0, "json_accuracy": 50.0}
    assert scores.flags == ["json_accuracy: 1 of 5 items have no score"]
