"""Names the metrics of a checkpoint, says of which items each is taken, and finds its scorer.

A metric's key may carry the name of the way of answering, `rouge1/NAME`,
`gsm8k/strict/NAME`: see zsg_core.settings.checkpoints. Metrics of answers alone are
scored here; the others need a reward model, a sandbox or a judge, and are scored where
there is one.
"""

from collections.abc import Sequence

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
    """The metric that a key is of, without the name of the way of answering. ValueError
    for a key of none."""
    metric = next(
        (name for name in NAMES if key == name or key.startswith(f"{name}/")), None
    )
    if metric is None:
        raise ValueError(
            f"{key!r} is the key of no metric; there are: {', '.join(NAMES)}"
        )
    return metric


def score_items(keys: Sequence[str], answers: Sequence[Answered]) -> dict[str, ByItem]:
    """Each item's score by each of the keys. UserError where a scorer's library is not
    installed."""
    scores: dict[str, ByItem] = {}
    for scorer in dict.fromkeys(METRICS[find_metric(key)].score for key in keys):
        if scorer is None:
            raise ValueError(f"{', '.join(keys)}: not all are metrics of answers alone")
        scores |= scorer(answers)
    return {key: scores[find_metric(key)] for key in keys}


def score_answers(keys: Sequence[str], answers: Sequence[Answered]) -> Scores:
    """What the answers are worth by each of the keys. UserError as `score_items`."""
    return aggregate_scores(score_items(keys, answers), answers)
