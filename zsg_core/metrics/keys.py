"""Names what evaluators take beside scores, for those who only read what was taken and
need no scorer."""

# in place of the metrics of a suite that is scored elsewhere: that its answers are kept
ANSWERS = "answers"
INSIDE = "representations"  # the suite of all that is taken inside the model


def is_answers(key: str) -> bool:
    """Whether a key stands for answers that are kept, and for no score."""
    return key.startswith(f"{ANSWERS}/")


STANDARD_ERROR = "_stderr"  # what is added to a metric's name


def is_standard_error(key: str) -> bool:
    """Whether a key is of the standard error of a metric, not of a metric."""
    return key.endswith(STANDARD_ERROR)


# metrics that are tasks of lm-evaluation-harness, `lm_eval/NAME`, and the suite of them
HARNESS = "lm_eval"
# in their keys: the mean over items that a group of the harness is, where its own rule
# weighs tasks by their sizes
WEIGHTED = "weighted"


def is_harness(key: str) -> bool:
    """Whether a key is of a task of lm-evaluation-harness."""
    return key.partition("/")[0] == HARNESS
