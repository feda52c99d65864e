"""Scores answers by ROUGE-1 and ROUGE-L, as Google's rouge-score computes them."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from typing import Any

from zsg_core.errors import UserError
from zsg_core.metrics.registry import Definition, Scorer, configured_metric
from zsg_core.metrics.scoring import Answered, ByItem, mean_by_item

TYPES = ("rouge1", "rougeL")
TOKENIZER = "tokenizer"
ENGLISH, UNICODE, CHARACTERS = "english", "unicode", "characters"
# letters with their marks and digits of any script; a sign of another kind parts words
_WORD = re.compile(r"[^\W_]+")
_ENGLISH_WORD = re.compile(r"[A-Za-z0-9]")
_CHARACTER = re.compile(r"[^\W_]")


def doubt_scripts(definition: Definition, answers: Sequence[Answered]) -> list[str]:
    """Tells of references in which the tokenizer of English finds no word, though they
    have letters."""
    if definition.get(TOKENIZER, ENGLISH) != ENGLISH:
        return []
    unread = 0
    for answered in answers:
        texts = answered.references
        has_words = any(_ENGLISH_WORD.search(text) for text in texts)
        unread += not has_words and any(_WORD.search(text) for text in texts)
    if not unread:
        return []
    return [
        f"rouge: {unread} of {len(answers)} references have no English letter or digit, and score"
        " 0; set checkpoints.rouge.tokenizer: unicode or characters"
    ]


@configured_metric(*TYPES, doubt=doubt_scripts)
def make_rouge(definition: Definition) -> Scorer:
    """ROUGE with the tokenizer of a key's definition; that of the papers where none is
    said."""
    return _make_scorer(definition.get(TOKENIZER, ENGLISH))


@cache
def _make_scorer(tokenizer: str) -> Scorer:
    """One for each tokenizer, which takes both types at once."""
    return partial(score_answers, tokenizer=tokenizer)


def score_answers(
    answers: Iterable[Answered], tokenizer: str = ENGLISH
) -> dict[str, ByItem]:
    """F-measures × 100, each the greatest over the references; items without any are
    left out.

    By tokenizer `english`, with Porter's stemmer, these are the figures of the ZSG
    paper and of Natural Instructions (Lin 2004; rouge-score 0.1.2). It knows letters and
    digits of English only: an answer in another script scores 0. UserError without
    rouge-score.
    """
    scorer = _scorer(tokenizer)
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
    """The F-measure of ROUGE-L of two texts, from 0 to 1, without a stemmer: how makers
    of data compare texts, as Self-Instruct does, but in every script whose words are
    parted. UserError without rouge-score."""
    return _scorer(UNICODE).score(reference, text)["rougeL"].fmeasure


class _Tokenizer:
    """Takes a text apart as rouge-score wants it."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern

    def tokenize(self, text: str) -> list[str]:
        return self._pattern.findall(text.casefold())


_TOKENIZERS: Mapping[str, Callable[[], _Tokenizer | None]] = {
    ENGLISH: lambda: None,  # rouge-score's own
    UNICODE: lambda: _Tokenizer(_WORD),
    CHARACTERS: lambda: _Tokenizer(_CHARACTER),
}


@cache
def _scorer(tokenizer: str) -> Any:
    try:
        # here, as it takes seconds to import
        from rouge_score.rouge_scorer import RougeScorer
    except ModuleNotFoundError:
        raise UserError(
            "ROUGE needs the package rouge-score: pip install 'zsg[evaluate]'"
        ) from None
    own = _TOKENIZERS[tokenizer]()
    return RougeScorer(TYPES, use_stemmer=own is None, tokenizer=own)
