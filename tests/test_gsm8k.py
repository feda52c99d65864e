"""Does the scorer of GSM8K agree with the data's own answers and labels?"""

import json
from pathlib import Path

import pytest

from zsg_core.errors import BadData
from zsg_core.metrics import gsm8k
from zsg_core.metrics.scoring import Answered


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def scored(answer: str, gold: str = "#### 18") -> tuple[float, float]:
    """(strict, flexible) of one answer."""
    found = gsm8k.score_answers(
        [Answered(id="i", task="gsm8k", prompt="p", references=(gold,), answer=answer)]
    )
    return found["gsm8k/strict"]["i"], found["gsm8k/flexible"]["i"]


@pytest.mark.data
def test_gold_answers_are_right(real_data: Path) -> None:
    """All 1,319 of the test set, by either reading."""
    answers = [
        Answered(
            id=str(number),
            task="gsm8k",
            prompt="p",
            references=(row["answer"],),
            answer=row["answer"],
        )
        for number, row in enumerate(rows(real_data / "gsm8k" / "test.jsonl"))
    ]

    found = gsm8k.score_answers(answers)

    assert [
        sum(found[f"gsm8k/{name}"].values()) for name in ("strict", "flexible")
    ] == [
        131_900,
        131_900,
    ]


@pytest.mark.data
def test_recorded_model_solutions_score_as_they_are_labelled(real_data: Path) -> None:
    """800 solutions of four models that end in `A: 18`: read flexibly, none differs
    from its published label."""
    different, labelled = [], []
    for row in rows(real_data / "gsm8k" / "example_model_solutions.first200.jsonl"):
        for model, said in row.items():
            if isinstance(said, dict):
                labelled.append(said["is_correct"])
                if scored(said["solution"], row["ground_truth"]) != (
                    0,
                    100 * said["is_correct"],
                ):
                    different.append((row["question"], model))

    assert different == []
    assert (len(labelled), sum(labelled)) == (800, 295)


@pytest.mark.parametrize(
    ("answer", "strict", "flexible"),
    [
        pytest.param("He has 9.\n#### 18", 100, 100, id="as trained"),
        pytest.param(
            "#### 18 eggs, not 17",
            100,
            0,
            id="strict reads the mark, flexible the last number",
        ),
        pytest.param("#### 18\n#### 5", 100, 0, id="strict reads the first mark"),
        pytest.param("So it is $18.00.", 0, 100, id="dollars and a full stop"),
        pytest.param("####18", 0, 100, id="the mark needs its blank"),
        pytest.param("#### -18", 0, 0, id="sign"),
        pytest.param("#### 1,8", 100, 100, id="commas do not count"),
        pytest.param("#### .", 0, 0, id="no number"),
        pytest.param("eighteen", 0, 0, id="words are no number"),
        pytest.param("", 0, 0, id="nothing"),
        pytest.param("#### 1.8.0", 0, 0, id="two points"),
    ],
)
def test_a_final_number_is_read(answer: str, strict: float, flexible: float) -> None:
    """After `#### `, or the last in the text."""
    assert scored(answer) == (strict, flexible)


@pytest.mark.parametrize(
    ("answer", "last"),
    [
        ("The answer is $\\boxed{72}$.", 72),
        ("She has 72 clips, i.e., six dozen.", 72),
        ("So she has 72 ...", 72),
        ("The total is 72 (see above)...", 72),
        ("He pays 72 $.", 72),
        ("from 10-72", 72),
        ("72.,", 72),
        ("**72**.", 72),
        ("It costs $72.00.", 72),
        ("-$72", -72),
        ("x=-72", -72),
        ("10 - 72", 72),
        ("$.50 each", 0.5),
        ("a half, .5", 0.5),
        ("$1,234,567.89.", 1234567.89),
        ("1{,}000", 1000),
        ("1\\,000 or 2,\\!000", 2000),
        ("v1.2.3", 3),
        ("$., ...", None),
    ],
)
def test_flexibly_the_last_number_is_read(answer: str, last: float | None) -> None:
    """A number holds a digit, whatever marks stand before and after it, and a range is no minus."""
    assert gsm8k.read_flexible(answer) == last


@pytest.mark.data
@pytest.mark.parametrize(
    "written",
    ["So it is $\\boxed{{{}}}$.", "{} ...", "He pays {} $.", "from 10-{}", "${}.00."],
)
def test_gold_numbers_are_read_however_they_are_written(
    real_data: Path, written: str
) -> None:
    """All 1,319, flexibly."""
    gold = [
        row["answer"].split("#### ")[1]
        for row in rows(real_data / "gsm8k" / "test.jsonl")
    ]

    assert [gsm8k.read_flexible(written.format(number)) for number in gold] == [
        gsm8k.read_flexible(one) for one in gold
    ]


def test_strictly_dollars_are_no_answer() -> None:
    """As for the published pattern; flexibly they are."""
    assert scored("#### $18") == (0, 100)


def test_a_reference_without_a_number_is_refused() -> None:
    """Else every answer to it would be wrong."""
    with pytest.raises(BadData, match="no final number"):
        scored("#### 18", gold="eighteen")
