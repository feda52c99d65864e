"""Are ROUGE scores those that the published test data expect?"""

from pathlib import Path

import pytest

from zsg_core.metrics import metrics, rouge
from zsg_core.metrics.scoring import Answered, aggregate_scores


def mean_scores(pairs: list[tuple[str, str]]) -> dict[str, float]:
    """The corpus values of (reference, answer) pairs."""
    answers = [
        Answered(
            id=f"t:{number}",
            task="t",
            prompt=str(number),
            references=(right,),
            answer=said,
        )
        for number, (right, said) in enumerate(pairs)
    ]
    return aggregate_scores(rouge.score_answers(answers), answers).values


# The middle of the expected bootstrap intervals, which lies within its own noise of the
# mean: 0.05 points.
@pytest.mark.data
@pytest.mark.parametrize(
    ("of_lines", "count", "expected"),
    [
        pytest.param(
            True, 1000, {"rouge1": 40.524, "rougeL": 40.275}, id="texts of a line"
        ),
        pytest.param(False, 250, {"rouge1": 46.411}, id="texts of many lines"),
    ],
)
def test_scores_are_those_of_the_published_test_data(
    real_data: Path, of_lines: bool, count: int, expected: dict[str, float]
) -> None:
    """Stemmed F, as google-research's own tests expect it."""
    folder = real_data / "zsg" / "rouge_testdata"
    if of_lines:
        texts = [
            (folder / f"{side}_large.txt").read_text().splitlines()
            for side in ("target", "prediction")
        ]
    else:
        files = folder / "pyrouge_files"
        texts = [
            [
                (files / f"{side}_multi.{number}.txt").read_text()
                for number in range(count)
            ]
            for side in ("target", "prediction")
        ]
    pairs = list(zip(*texts, strict=True))

    found = mean_scores(pairs)

    assert len(pairs) == count
    assert {kind: found[kind] for kind in expected} == pytest.approx(expected, abs=0.05)


def test_the_best_reference_counts_for_each_kind_by_itself() -> None:
    """By hand: `a b c` has ROUGE-1 of 100 with its words turned round, and ROUGE-L of
    80 with two of them in order."""
    one = Answered(
        id="i", task="t", prompt="p", references=("c b a", "a b"), answer="a b c"
    )

    assert rouge.score_answers([one]) == {
        "rouge1": {"i": pytest.approx(100)},
        "rougeL": {"i": pytest.approx(80)},
    }


def test_words_are_stemmed_and_an_empty_answer_scores_0() -> None:
    """`running` is `run`; of nothing said nothing is right; an item without references
    has no score."""
    said = [("a", "running"), ("b", "")]
    answers = [
        Answered(id=item, task="t", prompt="p", references=("run",), answer=text)
        for item, text in said
    ]
    answers.append(Answered(id="c", task="t", prompt="p", answer="x"))

    assert rouge.score_answers(answers)["rougeL"] == {"a": 100, "b": 0}


@pytest.mark.parametrize(
    ("tokenizer", "said", "right", "score"),
    [
        pytest.param("english", "дом стоит", "дом стоит", 0, id="no word of it"),
        pytest.param("unicode", "дом стоит", "Дом стоял", 50, id="one word of two"),
        pytest.param("unicode", "Þetta, er „gott“", "þetta er gott", 100, id="marks"),
        pytest.param("unicode", "running", "run", 0, id="not stemmed"),
        pytest.param("unicode", "हिन्दी", "हिन्दू", 0, id="vowels are of the word"),
        pytest.param("unicode", "e\u0301te\u0301", "\u00e9t\u00e9", 100, id="one way"),
        pytest.param("characters", "ที่", "ทา", 0, id="marks are of the letter"),
        pytest.param(
            "characters", "今天好", "今天不好", 100 * 6 / 7, id="3 of 3 and 4"
        ),
    ],
)
def test_words_of_other_scripts_have_a_tokenizer(
    tokenizer: str, said: str, right: str, score: float
) -> None:
    """A word in any script, or each character by itself."""
    one = Answered(id="i", task="t", prompt="p", references=(right,), answer=said)
    found = rouge.score_answers([one], tokenizer)

    assert found["rouge1"] == {"i": pytest.approx(score)}


def test_references_that_english_cannot_read_are_told() -> None:
    """How many, and what to set; a reference of signs alone has no letters to read."""
    texts = ["дом", "a house", "42", "…"]
    answers = [
        Answered(id=text, task="t", prompt="p", references=(text,), answer="x")
        for text in texts
    ]
    [told] = metrics.list_doubts(["rouge1", "rougeL"], answers, {})

    assert "1 of 4 references have no English letter or digit" in told
    assert "checkpoints.rouge.tokenizer: unicode or characters" in told
    unicode = {"rouge1": {"tokenizer": "unicode"}}
    assert metrics.list_doubts(["rouge1"], answers, unicode) == []
