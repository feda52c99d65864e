"""Are BLEU and chrF those of sacreBLEU for the whole corpus, and can what follows a
metric take them as means over items?"""

import math

import numpy as np
import pytest

from zsg_core.metrics import metrics
from zsg_core.metrics.corpus_scores import share_score
from zsg_core.metrics.scoring import Answered
from zsg_core.metrics.translation import define_bleu, define_chrf, doubt_tokens

SAID = (
    "The boat left the harbour at noon.",
    "Snow fell on the old bridge all night",
    "He did not answer",
)
RIGHT = (
    "The boat left the harbour at midday.",
    "All night snow fell on the old bridge.",
    "He gave no answer at all.",
)
ALSO_RIGHT = (
    "The ship sailed from the port at noon.",
    "It snowed on the old bridge all night.",
    "He did not reply.",
)
ICELANDIC = ("Hann sagði: „Ég kem á morgun.“", "Veðrið er gott – í dag.")
ICELANDIC_RIGHT = ("Hann sagði: „Ég kem á morgun“.", "Veðrið er gott í dag.")


def translate(
    said: tuple[str, ...], *streams: tuple[str, ...], task: str = "en-is"
) -> list[Answered]:
    """Answers with a reference of each stream."""
    return [
        Answered(
            id=f"{task}:{number}",
            task=task,
            prompt=str(number),
            references=tuple(stream[number] for stream in streams),
            answer=text,
        )
        for number, text in enumerate(said)
    ]


DEFINITIONS = {
    "bleu": define_bleu("13a", lowercase=False),
    "bleu/intl": define_bleu("intl", lowercase=False),
    "bleu/char": define_bleu("char", lowercase=False),
    "chrf": define_chrf(0),
    "chrf_pp": define_chrf(2),
}


@pytest.mark.parametrize(
    ("key", "one", "two", "icelandic"),
    [
        ("bleu", 44.873676, 72.803882, 52.906286),
        ("bleu/intl", 44.873676, 72.803882, 66.286351),
        ("bleu/char", 69.132293, 92.208685, 89.576326),
        ("chrf", 67.121456, 73.559781, 87.619679),
        ("chrf_pp", 63.999101, 71.828124, 85.805821),
    ],
)
def test_the_value_is_that_of_the_corpus(
    key: str, one: float, two: float, icelandic: float
) -> None:
    """With one and two references, and by tokenizer, as sacreBLEU 2.6.0 prints them."""
    expected = {
        one: translate(SAID, RIGHT),
        two: translate(SAID, RIGHT, ALSO_RIGHT),
        icelandic: translate(ICELANDIC, ICELANDIC_RIGHT),
    }
    for value, answers in expected.items():
        scores = metrics.score_answers([key], answers, DEFINITIONS)

        assert scores.values[key] == pytest.approx(value, abs=1e-6)


def test_answers_may_have_different_numbers_of_references() -> None:
    """What sacreBLEU gives for a file of references with gaps."""
    from sacrebleu.metrics.bleu import BLEU

    answers = translate(SAID, RIGHT, ALSO_RIGHT)
    answers[1] = translate(SAID, RIGHT)[1]
    gaps = [list(RIGHT), [ALSO_RIGHT[0], None, ALSO_RIGHT[2]]]
    expected = BLEU(force=True).corpus_score(list(SAID), gaps).score
    scores = metrics.score_answers(["bleu"], answers, DEFINITIONS)

    assert scores.values["bleu"] == pytest.approx(expected, abs=1e-9)


def test_each_task_is_a_corpus() -> None:
    """The value is the mean of the corpora's, as of every metric over tasks."""
    answers = [
        *translate(SAID, RIGHT),
        *translate(ICELANDIC, ICELANDIC_RIGHT, task="is-en"),
    ]
    scores = metrics.score_answers(["chrf_pp"], answers, DEFINITIONS)

    assert scores.by_task["chrf_pp"] == {
        "en-is": pytest.approx(63.999101, abs=1e-6),
        "is-en": pytest.approx(85.805821, abs=1e-6),
    }
    assert scores.values["chrf_pp"] == pytest.approx((63.999101 + 85.805821) / 2)


def test_the_error_of_a_corpus_is_that_of_the_jackknife() -> None:
    """√((N − 1)/N · Σ (θ₋ᵢ − mean)²), of the library's scores without each answer."""
    from sacrebleu.metrics.chrf import CHRF

    metric = CHRF(word_order=2)
    without = []
    for left_out in range(3):
        kept = [number for number in range(3) if number != left_out]
        said = [SAID[number] for number in kept]
        right = [RIGHT[number] for number in kept]
        without.append(metric.corpus_score(said, [right]).score)
    spread = np.sum((np.array(without) - np.mean(without)) ** 2)
    scores = metrics.score_answers(["chrf_pp"], translate(SAID, RIGHT), DEFINITIONS)

    assert scores.error["chrf_pp"] == pytest.approx(math.sqrt(2 / 3 * spread))


def test_the_mean_of_the_shares_is_the_score() -> None:
    """Of a ratio of sums, which is no mean of ratios; a single answer has it all."""
    statistics = np.array([[1.0, 2.0], [3.0, 3.0], [0.0, 5.0]])

    def ratio(sums: np.ndarray) -> float:
        return float(sums[0] / sums[1])

    assert np.mean(share_score(statistics, ratio)) == pytest.approx(0.4)
    assert share_score(statistics[:1], ratio) == [0.5]


def test_an_answer_without_a_reference_has_no_score() -> None:
    """It is left out of the corpus, and counted."""
    answers = translate(SAID, RIGHT)
    answers.append(Answered(id="en-is:9", task="en-is", prompt="9", answer="Yes."))
    scores = metrics.score_answers(["bleu"], answers, DEFINITIONS)

    assert "bleu: 1 of 4 items have no score" in scores.flags
    assert scores.values["bleu"] == pytest.approx(44.873676, abs=1e-6)


@pytest.mark.parametrize("said", ["", " ", "\x00", "\ud800"])
def test_any_answer_has_a_score(said: str) -> None:
    """An empty one, one that is no word, one that is no UTF-8: with nothing in common."""
    answers = translate((said, said), ("A word.", ""))
    scores = metrics.score_answers(["bleu", "chrf_pp"], answers, DEFINITIONS)

    assert scores.values == {"bleu": 0.0, "chrf_pp": 0.0}


def test_a_script_without_blanks_is_told_where_it_is_not_parted() -> None:
    """By the usual tokenizer a Chinese sentence is one word."""
    answers = translate(("你好。",), ("您好。",))
    told = doubt_tokens(DEFINITIONS["bleu"], answers)

    assert "1 of 1 references are in a script without blanks" in told[0]
    assert doubt_tokens(DEFINITIONS["bleu/char"], answers) == []
    assert doubt_tokens(DEFINITIONS["bleu"], translate(SAID, RIGHT)) == []
