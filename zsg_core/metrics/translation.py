"""Scores translations by BLEU and chrF, as sacreBLEU computes them for a corpus.

The corpus is all answers to a task, so a direction of translation is to be a task of
its own. The value of a key is the mean over tasks, as of every metric. An item's value
is its share in the corpus's score: see zsg_core.metrics.corpus_scores.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zsg_core.errors import UserError
from zsg_core.metrics.corpus_scores import share_by_task
from zsg_core.metrics.registry import Definition, Scorer, configured_metric
from zsg_core.metrics.scoring import Answered, ByItem

BLEU, CHRF, CHRF_PP = "bleu", "chrf", "chrf_pp"
PACKAGE = "sacrebleu"
TOKENIZE, LOWERCASE, WORDS = "tokenize", "lowercase", "word_order"
# of Thai, Lao, Burmese, Khmer, Japanese and Chinese
_WITHOUT_BLANKS = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]"
)
# how many words together count beside characters
WORD_ORDERS = {CHRF: 0, CHRF_PP: 2}


def define_bleu(tokenize: str, *, lowercase: bool) -> dict[str, Any]:
    """What decides BLEU beside the answers; with sacreBLEU's signature of it, but for
    the number of references and the version."""
    case = "lc" if lowercase else "mixed"
    return {
        TOKENIZE: tokenize,
        LOWERCASE: lowercase,
        "signature": f"case:{case}|eff:no|tok:{tokenize}|smooth:exp",
    }


def define_chrf(word_order: int) -> dict[str, Any]:
    """What decides chrF: see WORD_ORDERS."""
    return {
        WORDS: word_order,
        "signature": f"case:mixed|eff:yes|nc:6|nw:{word_order}|space:no",
    }


def doubt_tokens(definition: Definition, answers: Sequence[Answered]) -> list[str]:
    """Tells of references in scripts without blanks, where a whole sentence is one word
    to a tokenizer that parts at blanks."""
    if definition[TOKENIZE] in ("zh", "char"):
        return []
    joined = sum(
        any(_WITHOUT_BLANKS.search(text) for text in answered.references)
        for answered in answers
    )
    if not joined:
        return []
    return [
        f"bleu: {joined} of {len(answers)} references are in a script without blanks, which"
        f" tokenize: {definition[TOKENIZE]} does not part; set checkpoints.bleu.tokenize: zh or"
        " char, or take chrf"
    ]


@configured_metric(BLEU, doubt=doubt_tokens, package=PACKAGE)
def make_bleu(definition: Definition) -> Scorer:
    """BLEU of up to four words (Papineni et al. 2002; Post 2018), 0 to 100."""
    metrics = _import_metrics()
    metric = metrics.BLEU(
        tokenize=definition[TOKENIZE], lowercase=definition[LOWERCASE], force=True
    )
    return lambda answers: {BLEU: _score_corpora(metric, answers)}


@configured_metric(CHRF, package=PACKAGE)
def make_chrf(definition: Definition) -> Scorer:
    """chrF of up to six characters (Popović 2015), 0 to 100."""
    metric = _import_metrics().CHRF(word_order=definition[WORDS])
    return lambda answers: {CHRF: _score_corpora(metric, answers)}


@configured_metric(CHRF_PP, package=PACKAGE)
def make_chrf_pp(definition: Definition) -> Scorer:
    """chrF++: with up to two words beside the characters (Popović 2017), 0 to 100."""
    metric = _import_metrics().CHRF(word_order=definition[WORDS])
    return lambda answers: {CHRF_PP: _score_corpora(metric, answers)}


def _import_metrics() -> Any:
    """sacreBLEU's classes. UserError where it is not installed."""
    try:
        from sacrebleu import metrics
    except ModuleNotFoundError:
        raise UserError(
            "BLEU and chrF need the package sacrebleu: pip install 'zsg[evaluate]'"
        ) from None
    return metrics


def _score_corpora(metric: Any, answers: Iterable[Answered]) -> ByItem:
    """The share of each item in the score of its task, by a metric of sacreBLEU."""

    def measure(of_task: Sequence[Answered]) -> list[list[float]]:
        texts = [answered.answer for answered in of_task]
        return metric._extract_corpus_statistics(texts, _align_references(of_task))

    def score(sums: NDArray[np.float64]) -> float:
        return float(metric._aggregate_and_compute([sums.tolist()]).score)

    return share_by_task(list(answers), measure, score)


def _align_references(answers: Sequence[Answered]) -> list[list[str | None]]:
    """The references as sacreBLEU takes them: the first of every answer, then the
    second, None where an answer has fewer."""
    most = max(len(answered.references) for answered in answers)
    streams: list[list[str | None]] = []
    for number in range(most):
        stream = [
            answered.references[number] if number < len(answered.references) else None
            for answered in answers
        ]
        streams.append(stream)
    return streams
