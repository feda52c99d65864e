"""Names the metrics of a checkpoint, and finds the scorer of those that are taken of generated answers.

A metric's key may carry the name of the way of answering, `rouge1/NAME`: see zsg_core.settings.checkpoints.
"""

import importlib
from collections.abc import Sequence

from zsg_core.scores.scoring import Answered, Scores, aggregate

LOSS = "loss"
SCORERS = {  # metric → the module that scores it
    "rouge1": "rouge",
    "rougeL": "rouge",
    "exact_match": "exact_match",
    "json_valid": "json_answers",
    "json_accuracy": "json_answers",
}
NAMES = (LOSS, *SCORERS)


def of_key(key: str) -> str:
    """The metric that a key is of, without the name of the way of answering."""
    return key.partition("/")[0]


def score(keys: Sequence[str], answers: Sequence[Answered]) -> Scores:
    """What the answers are worth by each of the keys. UserError where a scorer's library is not installed."""
    found = {}
    for name in dict.fromkeys(SCORERS[of_key(key)] for key in keys):
        found |= importlib.import_module(f"zsg_core.scores.{name}").score(answers)  # some take seconds to import
    return aggregate({key: found[of_key(key)] for key in keys}, answers)
