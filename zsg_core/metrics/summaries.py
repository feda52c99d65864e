"""Names the values that papers give beside a metric's own mean, and computes them: over
the prompts of a data set, of one source or task, and the normalised average of suites.

None of them is measured: each follows from values of items that are kept already. So
it may be asked for afterwards, of runs that are done. The key of one begins with what
is done, and ends in the key that it is done to:

- `prompts/median/KEY`, also q1, q3, iqr, mean: over the prompts of each data set
- `source/NAME/KEY`: of the test items of one of several sources
- `task/NAME/KEY`: of the test items of one task
- `average/NAME`: the normalised average that the grid file names so
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from zsg_core.data import data_sets
from zsg_core.data.data_sets import Rule
from zsg_core.errors import UserError
from zsg_core.metrics.keys import is_harness

PROMPTS, SOURCE, TASK, AVERAGE = "prompts", "source", "task", "average"
KINDS = (PROMPTS, SOURCE, TASK, AVERAGE)
MEDIAN, Q1, Q3, IQR, MEAN = "median", "q1", "q3", "iqr", "mean"
# what is taken over prompts, in the order in which it is shown
OVER_PROMPTS = (MEDIAN, Q1, Q3, IQR, MEAN)
_SHARES = {Q1: 0.25, MEDIAN: 0.5, Q3: 0.75}
MOST_SLASHES = 16  # of a key; names of tasks and metrics have a few
BEST = 100.0  # the most that a score in per cent can be
# metrics of other units, by the first word of their keys: none is a part of an average
_NOT_PER_CENT = ("loss", "silhouette", "token_distance", "gradient_ratio", "train")
_OTHER_SCALES = ("mt_bench", "reward")

Floats = NDArray[np.float64]


def is_summary(key: str) -> bool:
    """Whether a key is of a summary, not of what was measured."""
    kind, _, remainder = key.partition("/")
    return kind in KINDS and bool(remainder)


def split_key(key: str) -> tuple[str, str, str]:
    """A summary's kind, the word after it, and the key that it is of; "" for a key that
    is missing. Of a task the word and the key are not told apart: names of tasks have
    slashes, see `list_task_splits`.

    UserError for a summary over prompts that there is not, and for a key of more words
    than any has.
    """
    if key.count("/") > MOST_SLASHES:
        raise UserError(f"{key[:60]!r}…: a key has at most {MOST_SLASHES} slashes")
    kind, _, remainder = key.partition("/")
    if kind == AVERAGE:
        return kind, remainder, ""
    word, _, inner = remainder.partition("/")
    if kind == PROMPTS and word not in OVER_PROMPTS:
        raise UserError(
            f"{key!r}: over prompts there are {', '.join(OVER_PROMPTS)}, as in"
            " prompts/median/rank_accuracy"
        )
    return kind, word, inner


def list_task_splits(key: str) -> list[tuple[str, str]]:
    """The ways in which a key `task/NAME/KEY` may be a name and a key, the shortest name
    first: both may have slashes. The key is of no task itself."""
    words = key.split("/")[1:]
    splits: list[tuple[str, str]] = []
    for count in range(1, len(words)):
        if words[count] != TASK:
            splits.append(("/".join(words[:count]), "/".join(words[count:])))
    return splits


def check_key(key: str, averages: Sequence[str]) -> None:
    """UserError for the key of a summary that there cannot be; `averages`: the names
    that the grid file gives. Any other key passes."""
    if not is_summary(key):
        return
    kind, word, inner = split_key(key)
    if kind == AVERAGE:
        if word not in averages:
            named = ", ".join(averages) or "none"
            raise UserError(
                f"{key!r}: the grid file names no average {word!r} under"
                f" summaries.averages; there are: {named}"
            )
        return
    if not inner:
        raise UserError(
            f"{key!r} lacks the metric that it is of, such as {kind}/{word}/rank_accuracy"
        )
    if kind != TASK:
        check_key(inner, averages)


def list_measured(key: str) -> list[str]:
    """The keys that a key may be of in the end: itself, of a metric and of an average;
    of a summary those that it is made of, several where names of tasks have slashes.
    UserError as for `split_key`."""
    if not is_summary(key):
        return [key]
    kind, _, inner = split_key(key)
    if kind == AVERAGE:
        return [key]
    if kind != TASK:
        return list_measured(inner)
    return [
        measured
        for _, metric in list_task_splits(key)
        for measured in list_measured(metric)
    ]


def check_suite(key: str) -> None:
    """UserError for a key that cannot be a suite of an average: of another average,
    which would hide what it is of, and of a metric that is no score in per cent."""
    check_key(key, ())
    for measured in list_measured(key):
        word = measured.partition("/")[0]
        if word == AVERAGE:
            raise UserError(f"{key!r}: an average is of metrics, not of other averages")
        if word in (*_NOT_PER_CENT, *_OTHER_SCALES):
            raise UserError(
                f"{key!r}: an average is of scores in per cent, and {word} is none"
            )


def to_per_cent(key: str, score: float) -> float:
    """A suite's score in per cent, where its metric is recorded as a share of 1.
    UserError for one beyond 1, which is no share."""
    if not any(map(is_harness, list_measured(key))):
        return score
    if score > 1:
        raise UserError(
            f"{key!r} is {score:g}; an average takes values of lm-evaluation-harness that are"
            " from 0 to 1, such as an accuracy"
        )
    return BEST * score


def group_prompts(tasks: Sequence[str], rule: Rule = None) -> dict[str, list[int]]:
    """The data sets of some tasks, each a prompt of one: set → the places of its tasks.

    `rule`: set → names and patterns of tasks; None: by T0's names. Of several sources a
    task's name begins with that of its source, and so does its set's. A task of no set
    that is known is a set of its own. UserError for a task that two sets name.
    """
    sets = data_sets.find_data_sets(tasks, rule or None, dict)
    bare = [task.partition("/")[2] for task in tasks]
    known_bare = data_sets.find_data_sets(bare, rule or None, dict)
    groups: dict[str, list[int]] = {}
    for number, task in enumerate(tasks):
        name = sets[task]
        if name is None:
            source, _, remainder = task.partition("/")
            of_rest = known_bare[remainder]
            name = f"{source}/{of_rest}" if of_rest is not None else task
        groups.setdefault(name, []).append(number)
    return groups


def summarize_prompts(values: Floats, kind: str) -> Floats:
    """What is taken over the prompts of one data set at each step: (S, P) → (S,).

    Quartiles are those of linear interpolation between the two values beside: of P
    values in order, that at place (P − 1)·share, counted from 0 (method 7 of Hyndman
    and Fan 1996, the default of NumPy and R). So T0 is evaluated: the median and the
    interquartile range over a data set's prompts (Sanh et al. 2022, section 6.1). A
    prompt without a value at a step is left out there; NaN where none has one.
    """
    summarized = np.full(len(values), np.nan)
    has_value = np.isfinite(values)
    for step, of_step in enumerate(values):
        finite = of_step[has_value[step]]
        if len(finite):
            summarized[step] = _summarize_values(finite, kind)
    return summarized


def _summarize_values(values: Floats, kind: str) -> float:
    """The mean, a quartile, or the distance of the outer two, of finite values."""
    if kind == MEAN:
        return float(values.mean())
    if kind == IQR:
        low, high = np.quantile(values, [_SHARES[Q1], _SHARES[Q3]])
        return float(high - low)
    return float(np.quantile(values, _SHARES[kind]))


def normalise_score(score: float, chance: float) -> float:
    """A score in per cent as the way from chance to the best: 0 at chance, 100 at 100.

    The normalised preferred metric of BIG-bench, as Flan-PaLM has it (Chung et al.
    2022, section 2.3). It is not clipped: below chance it is negative.
    """
    return BEST * (score - chance) / (BEST - chance)


def average_scores(
    scores: Mapping[str, float], chances: Mapping[str, float]
) -> float | None:
    """The unweighted mean of the normalised scores of all suites of `chances`, which are
    what a guess would have, in per cent; None where a suite has no score. UserError as
    for `to_per_cent`."""
    if any(suite not in scores for suite in chances):
        return None
    normalised = [
        normalise_score(to_per_cent(suite, scores[suite]), chance)
        for suite, chance in chances.items()
    ]
    return float(np.mean(normalised))
