"""Are a checkpoint's scores the means of its items' scores, and is what looks broken said?"""

import math

import pytest

from zsg_core.metrics.scoring import Answered, aggregate_scores, mean_by_item


def answered(item: str, task: str = "t", answer: str | None = None) -> Answered:
    return Answered(
        id=item,
        task=task,
        prompt=f"prompt of {item}",
        answer=item if answer is None else answer,
    )


def test_a_score_is_the_mean_over_tasks_whatever_their_sizes() -> None:
    """Tasks of 3 items and of 1 count the same; the standard error is that of the task
    means, by hand."""
    answers = [
        answered("a0", "a"),
        answered("a1", "a"),
        answered("a2", "a"),
        answered("b0", "b"),
    ]
    scores = aggregate_scores({"m": {"a0": 10, "a1": 20, "a2": 30, "b0": 60}}, answers)

    assert scores.by_task == {"m": {"a": 20, "b": 60}}
    assert scores.values == {"m": 40}
    assert scores.error["m"] == pytest.approx(
        math.sqrt((20**2 + 20**2) / 1) / math.sqrt(2)
    )
    assert scores.by_item["m"]["a2"] == 30 and scores.flags == []


def test_the_standard_error_of_one_task_is_that_of_its_items() -> None:
    """Of right, right, wrong, wrong it is √(1/3) / √4; of a single item there is none."""
    answers = [answered(item) for item in "abcd"]

    assert aggregate_scores(
        {"m": dict(zip("abcd", (1, 1, 0, 0), strict=True))}, answers
    ).error["m"] == pytest.approx(12**-0.5)
    assert aggregate_scores({"m": {"a": 1}}, answers[:1]).error == {}


def test_an_items_samples_are_one_score() -> None:
    """Samples of an item are averaged before items are."""
    assert mean_by_item([("a", 1.0), ("b", 0.0), ("a", 0.0)]) == {"a": 0.5, "b": 0.0}


@pytest.mark.parametrize(
    "lost", [{}, {"c": math.nan}, {"c": math.inf}], ids=["absent", "nan", "infinite"]
)
def test_an_item_without_a_score_is_said_and_never_a_zero(
    lost: dict[str, float],
) -> None:
    """Missing scores leave the mean as it is, and are counted."""
    scores = aggregate_scores(
        {"m": {"a": 4, "b": 6, **lost}}, [answered(item) for item in "abc"]
    )

    assert scores.values == {"m": 5}
    assert scores.flags == ["m: 1 of 3 items have no score"]


def test_a_metric_without_any_score_has_no_value() -> None:
    """No value is better than a made-up one."""
    scores = aggregate_scores({"m": {}}, [answered("a")])

    assert (scores.values, scores.by_item, scores.flags) == (
        {},
        {},
        ["m: 1 of 1 items have no score"],
    )


def test_what_looks_broken_is_flagged() -> None:
    """All scores 0, or all answers equal: once each; a 0 among others is nothing strange."""
    same = [answered(item, answer="") for item in "ab"]

    assert aggregate_scores({"m": {"a": 0, "b": 0}}, same).flags == [
        "likely broken: all 2 answers are empty",
        "likely broken: m is exactly 0 for all 2 items",
    ]
    assert (
        aggregate_scores({"m": {"a": 0, "b": 1}}, [answered("a"), answered("b")]).flags
        == []
    )


def test_a_score_of_an_item_that_was_not_asked_is_refused() -> None:
    """Scores that belong to other answers are a bug, not a mean."""
    with pytest.raises(ValueError, match="'z'"):
        aggregate_scores({"m": {"z": 1}}, [answered("a")])
