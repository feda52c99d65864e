"""Do answers go out whole, and do scores come back to the items that they are of?"""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsg_core.errors import BadData
from zsg_core.metrics import external_scores
from zsg_core.metrics.scoring import Answered

SCORE: dict[str, Any] = {
    "run": "ab12",
    "step": 40,
    "id": "t:0",
    "metric": "mt_bench",
    "score": 7,
}


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@given(st.text(), st.text())
def test_an_answer_is_one_line_with_all_that_a_scorer_needs(
    prompt: str, answer: str
) -> None:
    """Whatever stands in it."""
    one = Answered(
        id="t:0", task="t", prompt=prompt, references=("a", "b"), answer=answer
    )
    (line,) = external_scores.format_answers("ab12", 40, "test_set", [one])

    assert line.count("\n") == 1
    assert json.loads(line) == {
        "schema": 1,
        "run": "ab12",
        "step": 40,
        "suite": "test_set",
        "id": "t:0",
        "task": "t",
        "prompt": prompt,
        "references": ["a", "b"],
        "answer": answer,
    }


def test_scores_are_read_by_checkpoint_metric_and_item(tmp_path: Path) -> None:
    """A score may stand in the line that was exported; saying it twice is no matter."""
    one = Answered(id="t:1", task="t", prompt="p", answer="a")
    (line,) = external_scores.format_answers("ab12", 50, "test_set", [one])
    rows = [SCORE, SCORE, SCORE | {"metric": "humaneval/pass_at_1", "score": 0.5}]

    found = external_scores.read_scores(
        written(
            tmp_path / "s.jsonl",
            *rows,
            json.loads(line) | {"metric": "judge:a", "score": 1},
        )
    )

    assert found == {
        ("ab12", 40, None): {
            "mt_bench": {"t:0": 7},
            "humaneval/pass_at_1": {"t:0": 0.5},
        },
        ("ab12", 50, "test_set"): {"judge:a": {"t:1": 1}},
    }


@pytest.mark.parametrize(
    ("row", "said"),
    [
        pytest.param(
            SCORE | {"score": 8},
            "mt_bench of t:0 was 7 before, and is 8 here",
            id="another score",
        ),
        pytest.param(SCORE | {"score": "7"}, "score", id="a text"),
        pytest.param(SCORE | {"score": None}, "score", id="no score"),
        pytest.param(
            {"run": "ab12", "step": 40, "id": "t:1", "metric": "m"},
            "score",
            id="a key is missing",
        ),
        pytest.param(
            SCORE | {"metric": "loss"}, "'loss' is no name", id="the trainer's loss"
        ),
        pytest.param(
            SCORE | {"metric": "loss/x"}, "'loss/x' is no name", id="a part of it"
        ),
        pytest.param(
            SCORE | {"metric": "m_stderr"},
            "'m_stderr' is no name",
            id="what zsg computes",
        ),
        pytest.param(
            SCORE | {"metric": "pass@1"},
            "'pass@1' is no name",
            id="what MLflow does not take",
        ),
        pytest.param(SCORE | {"metric": "../m"}, "is no name", id="a path"),
    ],
)
def test_what_is_no_score_is_refused_with_its_line(
    tmp_path: Path, row: dict[str, Any], said: str
) -> None:
    """The second line of the file."""
    with pytest.raises(BadData, match=rf"s\.jsonl:2: .*{said}"):
        external_scores.read_scores(written(tmp_path / "s.jsonl", SCORE, row))


def test_a_number_that_is_none_is_refused(tmp_path: Path) -> None:
    """An item without a score is left out, and counted as missing; it does not become one."""
    (tmp_path / "s.jsonl").write_text(json.dumps(SCORE).replace("7", "1e999") + "\n")

    with pytest.raises(BadData, match=r"s\.jsonl:1: "):
        external_scores.read_scores(tmp_path / "s.jsonl")


def test_a_score_of_an_item_that_was_not_answered_is_refused() -> None:
    """With the nearest one that was."""
    with pytest.raises(
        BadData, match=r"ab12 step 40: m of 'task1:00', .*Did you mean 'task1:0'"
    ):
        external_scores.refuse_unanswered(
            "ab12 step 40", {"m": {"task1:0": 1, "task1:00": 2}}, ["task1:0"]
        )
