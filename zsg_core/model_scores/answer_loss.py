"""Scores examples by the loss of their answers: the mean of −ln p over the tokens that
a run learns, its end token among them.

Its exponential, perplexity, makes the same order; so does no sum, which is a length.
"""

from zsg_core.model_scores.registry import (
    Score,
    ScoreInputs,
    average_over_examples,
    list_answer_texts,
    score,
)


@score(
    "answer_loss",
    about="mean loss of the answer's tokens, given the question",
    passes=1,
)
def score_answer_loss(inputs: ScoreInputs) -> list[Score]:
    """The mean loss of each answer; None where no token of it is left."""
    texts = [list_answer_texts(example) for example in inputs.examples]
    return average_over_examples(texts, inputs.model().sum_losses)
