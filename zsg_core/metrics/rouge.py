"""Scores answers by ROUGE-1 and ROUGE-L, as Google's rouge-score computes them."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from typing import Any

from zsg_core.errors import UserError
from zsg_core.metrics.registry import Definition, Scorer, configured_metric
from zsg_core.metrics.scoring import Answered, ByItem, mean_by_item

TYPES = ("rouge1", "rougeL")
TOKENIZER = "tokenizer"
ENGLISH, UNICODE, CHARACTERS = "english", "unicode", "characters"
# a letter or digit of any script
_LETTER = re.compile(r"[^\W_]")
_ENGLISH_WORD = re.compile(r"[A-Za-z0-9]")
# what joins and parts letters within a word of Persian or an Indian script
_JOINERS = "\u200c\u200d"


def doubt_scripts(definition: Definition, answers: Sequence[Answered]) -> list[str]:
    """Tells of references in which the tokenizer of English finds no word, though they
    have letters."""
    if definition.get(TOKENIZER, ENGLISH) != ENGLISH:
        return []
    unread = 0
    for answered in answers:
        texts = answered.references
        has_words = any(_ENGLISH_WORD.search(text) for text in texts)
        unread += not has_words and any(_LETTER.search(text) for text in texts)
    if not unread:
        return []
    return [
        f"rouge: {unread} of {len(answers)} references have no English letter or digit, and score"
        " 0; set checkpoints.rouge.tokenizer: unicode or characters"
    ]


@configured_metric(*TYPES, doubt=doubt_scripts, package="rouge-score")
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
    """Takes a text apart as rouge-score wants it: into letters and digits, each with
    the marks that stand on it, or into words of such. Any other sign parts words.

    A mark is a vowel of Hindi or Thai, a tone, a dot: it is no letter to Python's
    patterns, and a word must not end before it. A letter is the same whether its mark
    is written into it or after it.
    """

    def __init__(self, *, joins: bool) -> None:
        """`joins`: whether letters that follow one another are a word."""
        self._joins = joins

    def tokenize(self, text: str) -> list[str]:
        composed = unicodedata.normalize("NFC", text.casefold())
        tokens: list[str] = []
        is_open = False
        for sign in composed:
            if _is_part_of_word(sign):
                if is_open:
                    tokens[-1] += sign
            elif not _LETTER.match(sign):
                is_open = False
            elif is_open and self._joins:
                tokens[-1] += sign
            else:
                tokens.append(sign)
                is_open = True
        return tokens


def _is_part_of_word(sign: str) -> bool:
    """Whether a sign belongs to the letter before it."""
    if sign.isascii():
        return False
    return sign in _JOINERS or unicodedata.category(sign).startswith("M")


_TOKENIZERS: Mapping[str, Callable[[], _Tokenizer | None]] = {
    ENGLISH: lambda: None,  # rouge-score's own
    UNICODE: lambda: _Tokenizer(joins=True),
    CHARACTERS: lambda: _Tokenizer(joins=False),
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
