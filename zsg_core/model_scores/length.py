"""Scores examples by how long they are in tokens, as they are trained, after the cut at
max_length: what nearly all other scores must be compared with."""

from zsg_core.model_scores.registry import Score, ScoreInputs, list_answer_texts, score


@score("length", about="tokens of question and answer", passes=0)
def score_length(inputs: ScoreInputs) -> list[Score]:
    """The tokens of each example."""
    return [float(len(example.ids)) for example in inputs.examples]


@score("answer_length", about="tokens of the answer", passes=0)
def score_answer_length(inputs: ScoreInputs) -> list[Score]:
    """The learnt tokens of each answer; None where none is left."""
    lengths: list[Score] = []
    for example in inputs.examples:
        count = sum(text.count for text in list_answer_texts(example))
        lengths.append(float(count) if count else None)
    return lengths
