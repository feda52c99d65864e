"""Scores examples by EL2N (Paul et al. 2021, arXiv 2107.07075), for a language model the
mean of ‖p − onehot(token)‖₂ over the answer's tokens."""

from zsg_core.model_scores.registry import (
    Score,
    ScoreInputs,
    average_over_examples,
    list_answer_texts,
    score,
)


@score(
    "el2n",
    about="mean norm of predicted minus true distribution at the answer's tokens",
    passes=1,
)
def score_el2n(inputs: ScoreInputs) -> list[Score]:
    """The mean error norm of each answer; None where no token of it is left."""
    texts = [list_answer_texts(example) for example in inputs.examples]
    return average_over_examples(texts, inputs.model().sum_errors)
