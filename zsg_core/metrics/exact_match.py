"""Scores answers by whether they are a reference, but for case, punctuation and blanks."""

import string
from collections.abc import Iterable

from zsg_core.metrics.registry import metric
from zsg_core.metrics.scoring import Answered, ByItem, mean_by_item

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise_text(text: str) -> str:
    """A text as Natural Instructions compares it: lower case, no ASCII punctuation,
    single blanks; articles stay."""
    return " ".join(text.lower().translate(_NO_PUNCTUATION).split())


@metric("exact_match")
def score_answers(answers: Iterable[Answered]) -> dict[str, ByItem]:
    """100 where the normalised answer equals any normalised reference, else 0; items
    without any are left out.

    As in the evaluation of Tk-Instruct (`compute_metrics.py`) and in the ZSG paper.
    """
    return {
        "exact_match": mean_by_item(
            (
                answered.id,
                100.0
                * (
                    normalise_text(answered.answer)
                    in {normalise_text(right) for right in answered.references}
                ),
            )
            for answered in answers
            if answered.references
        )
    }
