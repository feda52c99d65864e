"""Scores examples by instruction-following difficulty (IFD): how little the question
helps with the answer. Two published readings, each under its own name.

`ifd_loss` is that of Cherry_LLM (Li et al., arXiv 2308.12032): the mean loss of the
answer given the question, by that where nothing but `### Response:` stands before it.
`ifd_ppl` is that of Superfiltering (arXiv 2402.00530): the same of perplexities, and the
answer stands quite alone; without a beginning of sequence its first token has no loss
there, which the mean over all others passes by, as published.

Answers are measured without their end token, which the published texts do not have. Of
an example that was cut there is no IFD, as published. Cherry_LLM leaves out ratios above
1 before it selects; here they stay, as an order leaves out nobody.
"""

import math
from collections.abc import Sequence

from zsg_core.data.prompts import ANSWER, EncodedExample
from zsg_core.model_scores.registry import (
    Score,
    ScoreInputs,
    Text,
    average_over_examples,
    score,
)

RESPONSE = "### Response:"  # Cherry_LLM's text before an answer that stands alone


@score(
    "ifd_loss",
    about="loss of the answer given the question, by its loss after `### Response:`"
    " (Cherry_LLM)",
    passes=2,
)
def score_ifd_of_losses(inputs: ScoreInputs) -> list[Score]:
    """The ratio of the mean losses of each answer."""
    before = [*inputs.beginning, *inputs.tokenize(RESPONSE)]
    with_question, alone = _measure(inputs, before)
    ratios: list[Score] = []
    for conditioned, direct in zip(with_question, alone, strict=True):
        if conditioned is None or not direct:
            ratios.append(None)
        else:
            ratios.append(conditioned / direct)
    return ratios


@score(
    "ifd_ppl",
    about="perplexity of the answer given the question, by its perplexity alone"
    " (Superfiltering)",
    passes=2,
)
def score_ifd_of_perplexities(inputs: ScoreInputs) -> list[Score]:
    """The ratio of the perplexities of each answer."""
    with_question, alone = _measure(inputs, inputs.beginning)
    ratios: list[Score] = []
    for conditioned, direct in zip(with_question, alone, strict=True):
        if conditioned is None or direct is None:
            ratios.append(None)
        else:
            ratios.append(_exponentiate(conditioned - direct))
    return ratios


def _exponentiate(difference: float) -> Score:
    """e to the power of a difference; None where that is beyond every number."""
    try:
        return math.exp(difference)
    except OverflowError:
        return None


def _measure(
    inputs: ScoreInputs, before: Sequence[int]
) -> tuple[list[Score], list[Score]]:
    """The mean losses of the answers given what stands before them, and where nothing
    but the tokens `before` does."""
    with_question: list[list[Text]] = []
    alone: list[list[Text]] = []
    for example in inputs.examples:
        texts = _list_answers(example, inputs)
        with_question.append(texts)
        alone.append(
            [
                Text(
                    [*before, *text.ids[start:stop]], [_span_after(before, start, stop)]
                )
                for text in texts
                for start, stop in text.spans
            ]
        )
    model = inputs.model()
    return (
        average_over_examples(with_question, model.sum_losses),
        average_over_examples(alone, model.sum_losses),
    )


def _span_after(before: Sequence[int], start: int, stop: int) -> tuple[int, int]:
    """Where an answer of so many tokens stands after the tokens `before`."""
    return len(before), len(before) + stop - start


def _list_answers(example: EncodedExample, inputs: ScoreInputs) -> list[Text]:
    """The texts of an example with its answers measured but for their end tokens; none
    of one that was cut."""
    if example.cut:
        return []
    texts: list[Text] = []
    for text in example.texts:
        spans: list[tuple[int, int]] = []
        for start, stop in text.target_spans(ANSWER):
            has_end = text.ids[stop - 1] in inputs.ends
            last = stop - 1 if has_end else stop
            if start < last:
                spans.append((start, last))
        texts.append(Text(text.ids, spans))
    return texts
