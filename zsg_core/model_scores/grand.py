"""Scores examples by GraNd (Paul et al. 2021, arXiv 2107.07075): ‖∇ℓ‖₂, the norm of the
gradient of an example's loss by all parameters of the model.

The loss is the mean over the answer's tokens that a run learns, as of `answer_loss`. The
paper takes the expectation over trainings of a few epochs; here it is of the one model
that is named, such as a kept snapshot. At initialisation the norm says little but how
long the input is (arXiv 2303.14753).
"""

from zsg_core.model_scores.registry import (
    Score,
    ScoreInputs,
    list_answer_texts,
    score,
)


@score(
    "grand",
    about="norm of the gradient of the answer's mean loss, by all parameters",
    passes=1,
    takes_gradients=True,
)
def score_grand(inputs: ScoreInputs) -> list[Score]:
    """The gradient's norm of each example; None where no token of its answer is left."""
    texts = [list_answer_texts(example) for example in inputs.examples]
    answered = [
        number
        for number, of_example in enumerate(texts)
        if any(text.count for text in of_example)
    ]
    norms = inputs.model().take_gradient_norms([texts[number] for number in answered])
    scores: list[Score] = [None] * len(texts)
    for number, norm in zip(answered, norms, strict=True):
        scores[number] = norm
    return scores
