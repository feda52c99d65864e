"""Names the metrics of a checkpoint, says of which items each is taken, and finds its scorer.

A metric's key may carry the name of the way of answering, `rouge1/NAME`,
`gsm8k/strict/NAME`: see zsg_core.settings.checkpoints. Metrics of answers alone are
scored here; the others need a reward model, a sandbox or a judge, and are scored where
there is one.
"""

from collections.abc import Mapping, Sequence

from zsg_core.metrics.human_eval import PASS_AT
from zsg_core.metrics.means import LOSS
from zsg_core.metrics.rank_classification import RANK_ACCURACY
from zsg_core.metrics.registry import (
    GSM8K,
    HUMANEVAL,
    METRICS,
    MT_BENCH,
    SUITE_NAMES,
    TEST_SET,
    Definition,
    Scorer,
)
from zsg_core.metrics.reward import REWARD
from zsg_core.metrics.scoring import Answered, ByItem, Scores, aggregate_scores

__all__ = [
    "GSM8K",
    "HUMANEVAL",
    "LOSS",
    "METRICS",
    "MT_BENCH",
    "NAMES",
    "PASS_AT",
    "RANK_ACCURACY",
    "REWARD",
    "SUITES",
    "TEST_SET",
]

NAMES = tuple(METRICS)
# the sets of items that are answered, and the metrics of each
SUITES: dict[str, tuple[str, ...]] = {
    suite: tuple(name for name, one in METRICS.items() if one.suite == suite)
    for suite in SUITE_NAMES
}


def find_metric(key: str) -> str:
    """The metric that a key is of, without the name of the way of answering; that
    of a plugin's by its own name. ValueError for a key of none."""
    if (own := key.partition("/")[0]) in METRICS.names_of_plugins:
        return own
    metric = next(
        (name for name in NAMES if key == name or key.startswith(f"{name}/")), None
    )
    if metric is None:
        raise ValueError(
            f"{key!r} is the key of no metric; there are: {', '.join(NAMES)}"
        )
    return metric


def score_items(
    keys: Sequence[str],
    answers: Sequence[Answered],
    definitions: Mapping[str, Definition] | None = None,
) -> dict[str, ByItem]:
    """Each item's score by each of the keys. `definitions`: by key, what decides its
    score beside the answers. UserError where a scorer's library is not installed."""
    scores: dict[str, ByItem] = {}
    taken: set[Scorer] = set()
    for key in keys:
        definition = (definitions or {}).get(key, {})
        scorer = METRICS[find_metric(key)].find_score(definition)
        if scorer is None:
            raise ValueError(f"{', '.join(keys)}: not all are metrics of answers alone")
        if scorer not in taken:
            taken.add(scorer)
            scores |= scorer(answers)
    return {key: scores[find_metric(key)] for key in keys}


def list_doubts(
    keys: Sequence[str],
    answers: Sequence[Answered],
    definitions: Mapping[str, Definition],
) -> list[str]:
    """Sentences on what metrics cannot compare well in these answers, each once."""
    doubts: list[str] = []
    for key in keys:
        doubt = METRICS[find_metric(key)].doubt
        if doubt is not None:
            doubts += doubt(definitions.get(key, {}), answers)
    return list(dict.fromkeys(doubts))


def score_answers(
    keys: Sequence[str],
    answers: Sequence[Answered],
    definitions: Mapping[str, Definition] | None = None,
) -> Scores:
    """What the answers are worth by each of the keys. See `score_items`."""
    return aggregate_scores(score_items(keys, answers, definitions), answers)
