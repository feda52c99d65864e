"""Is an answer exact where Natural Instructions would call it so?"""

import pytest

from zsg_core.metrics import exact_match
from zsg_core.metrics.scoring import Answered


@pytest.mark.parametrize(
    ("answer", "references", "scored"),
    [
        pytest.param("Yes.", ("yes",), 100, id="case and punctuation do not count"),
        pytest.param("  on \n the\tmat ", ("on the mat",), 100, id="blanks are one"),
        pytest.param("the cat", ("cat",), 0, id="articles count"),
        pytest.param("don't", ("dont",), 100, id="an apostrophe is punctuation"),
        pytest.param("no", ("yes", "No!"), 100, id="any reference will do"),
        pytest.param("yes and no", ("yes",), 0, id="a part is not the whole"),
        pytest.param("“yes”", ("yes",), 0, id="only ASCII punctuation is dropped"),
    ],
)
def test_an_answer_matches_after_normalisation(
    answer: str, references: tuple[str, ...], scored: float
) -> None:
    """Lower case, no punctuation, single blanks, articles kept; equality with any reference."""
    one = Answered(id="i", task="t", prompt="p", references=references, answer=answer)

    assert exact_match.score_answers([one]) == {"exact_match": {"i": scored}}


def test_samples_of_an_item_are_averaged_and_items_without_references_left_out() -> (
    None
):
    """Half the samples right is 50."""
    said = [("a", "x"), ("a", "y")]
    answers = [
        Answered(id=item, task="t", prompt="p", references=("x",), answer=text)
        for item, text in said
    ]
    answers.append(Answered(id="b", task="t", prompt="p", answer="x"))

    assert exact_match.score_answers(answers)["exact_match"] == {"a": 50}
