"""Scores examples by learning progress: how far the loss of their answers has fallen
from one model to a later one.

A difference of numbers that are nearly equal: in half precision it is mostly rounding.
"""

from zsg_core.model_scores.answer_loss import score_answer_loss
from zsg_core.model_scores.registry import Score, ScoreInputs, score


@score(
    "progress",
    about="how far the mean loss of the answer fell from the model `since` to `scorer`",
    passes=1,
    compares=True,
)
def score_progress(inputs: ScoreInputs) -> list[Score]:
    """The mean loss of each answer, by each of both models."""
    return score_answer_loss(inputs)
