"""Scores answers by ROUGE-1 and ROUGE-L, as Google's rouge-score computes them."""

from collections.abc import Iterable
from functools import cache
from typing import Any

from zsg_core.errors import UserError
from zsg_core.metrics.registry import metric
from zsg_core.metrics.scoring import Answered, ByItem, mean_by_item

TYPES = ("rouge1", "rougeL")


@metric(*TYPES)
def score_answers(answers: Iterable[Answered]) -> dict[str, ByItem]:
    """F-measures × 100 with Porter's stemmer, each the greatest over the references;
    items without any are left out.

    These are the figures of the ZSG paper and of Natural Instructions (Lin 2004;
    rouge-score 0.1.2). The tokenizer knows letters and digits of English only: an
    answer in another script scores 0. UserError without rouge-score.
    """
    scorer = _scorer()
    item_scores = [
        (answered.id, scorer.score_multi(answered.references, answered.answer))
        for answered in answers
        if answered.references
    ]
    return {
        kind: mean_by_item(
            (item, 100 * scores[kind].fmeasure) for item, scores in item_scores
        )
        for kind in TYPES
    }


def compute_rouge_l(reference: str, text: str) -> float:
    """The F-measure of ROUGE-L of two texts, from 0 to 1, without a stemmer: how
    Self-Instruct compares instructions. UserError without rouge-score."""
    return _load_scorer(("rougeL",), False).score(reference, text)["rougeL"].fmeasure


def _scorer() -> Any:
    return _load_scorer(TYPES, True)


@cache
def _load_scorer(types: tuple[str, ...], use_stemmer: bool) -> Any:
    try:
        # here, as it takes seconds to import
        from rouge_score.rouge_scorer import RougeScorer
    except ModuleNotFoundError:
        raise UserError(
            "ROUGE needs the package rouge-score: pip install 'zsg[evaluate]'"
        ) from None
    return RougeScorer(types, use_stemmer=use_stemmer)
