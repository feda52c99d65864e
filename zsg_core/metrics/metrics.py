"""Names the metrics of a checkpoint, says of which items each is taken, and finds its scorer.

A metric's key may carry the name of the way of answering, `rouge1/NAME`,
`gsm8k/strict/NAME`: see zsg_core.settings.checkpoints. Metrics of answers alone are
scored here; the others need a reward model, a sandbox or a judge, and are scored where
there is one.
"""

import importlib
from collections.abc import Sequence

from zsg_core.metrics.scoring import Answered, ByItem, Scores, aggregate

LOSS = "loss"
# of no answer, but of the losses of answers that are offered
RANK_ACCURACY = "rank_accuracy"
REWARD, MT_BENCH = "reward", "mt_bench"
TEST_SET, GSM8K, HUMANEVAL = "test_set", "gsm8k", "humaneval"
# the k that Chen et al. 2021 report
PASS_AT = {f"humaneval/pass_at_{k}": k for k in (1, 10, 100)}

# The sets of items that are answered, and the metrics of each.
SUITES: dict[str, tuple[str, ...]] = {
    TEST_SET: (
        "rouge1",
        "rougeL",
        "exact_match",
        "json_valid",
        "json_accuracy",
        REWARD,
    ),
    GSM8K: ("gsm8k/strict", "gsm8k/flexible"),
    HUMANEVAL: tuple(PASS_AT),
    MT_BENCH: (MT_BENCH,),
}
# Metrics of answers alone → the module that scores them.
SCORERS = {
    "rouge1": "rouge",
    "rougeL": "rouge",
    "exact_match": "exact_match",
    "json_valid": "json_answers",
    "json_accuracy": "json_answers",
    "gsm8k/strict": "gsm8k",
    "gsm8k/flexible": "gsm8k",
}
NAMES = (
    LOSS,
    RANK_ACCURACY,
    *(metric for metrics in SUITES.values() for metric in metrics),
)


def of_key(key: str) -> str:
    """The metric that a key is of, without the name of the way of answering. ValueError
    for a key of none."""
    found = next(
        (name for name in NAMES if key == name or key.startswith(f"{name}/")), None
    )
    if found is None:
        raise ValueError(
            f"{key!r} is the key of no metric; there are: {', '.join(NAMES)}"
        )
    return found


def by_item(keys: Sequence[str], answers: Sequence[Answered]) -> dict[str, ByItem]:
    """Each item's score by each of the keys. UserError where a scorer's library is not
    installed."""
    found = {}
    for name in dict.fromkeys(SCORERS[of_key(key)] for key in keys):
        # some take seconds to import
        found |= importlib.import_module(f"zsg_core.metrics.{name}").score(answers)
    return {key: found[of_key(key)] for key in keys}


def score(keys: Sequence[str], answers: Sequence[Answered]) -> Scores:
    """What the answers are worth by each of the keys. UserError as `by_item`."""
    return aggregate(by_item(keys, answers), answers)
