"""Names the metric of a reward model's scores; jobs.evaluating.reward takes it, where there
is one."""

from zsg_core.metrics.registry import TEST_SET, add_metric

REWARD = "reward"
# an older zsg made control tokens of an answer's words, so that it could end its turn
DEFINITION = {"words": "text"}

add_metric(REWARD, suite=TEST_SET, definition=DEFINITION)
