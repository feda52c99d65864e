"""Says how many examples of every task a mixture takes: published sampling rates, made
into exact counts.

A task's rate is its weight by the sum of all weights. Of a task with n examples the weight is
capped   min(n, max): examples-proportional with a maximum (FLAN 2021, mixtures.py:
         3000; Flan-PaLM, Table 23). Where
         several tasks are templates of one data set, n is all their examples, and they
         share its weight by theirs
t0       n; but max // (templates of its data set) where n > max (T0, seqio_tasks/tasks.py: 500 000)
Sources with shares of their own (Flan-PaLM, Table 23) divide the whole by these,
    and each its part by weight.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from zsg_core.errors import UserError

RATES = ("capped", "t0")
T0_MAX = 500_000

Task = tuple[str, str]  # source, task
SetOf = Callable[[Task], str]
Recipe = dict[str, Any]


def compute_rates(
    rule: str,
    sizes: Mapping[Task, int],
    maxima: Mapping[str, int | None],
    shares: Mapping[str, Fraction],
    set_of: SetOf,
) -> dict[Task, Fraction]:
    """The rates of all tasks, which sum to 1, in their order.

    `sizes`: examples of each task. `maxima`: the maximum of each source, None for none.
    `shares`: of each source, or empty. `set_of`: the data set that a task is a template
    of; a task that is a set of its own may be it itself.
    """
    weigh = _weigh_capped if rule == "capped" else _weigh_as_t0
    weighed = weigh(sizes, maxima, set_of)
    of_source: dict[str, Fraction] = {}
    for (source, _), weight in weighed.items():
        of_source[source] = of_source.get(source, Fraction(0)) + weight
    source_weights = {
        source: shares.get(source, whole) for source, whole in of_source.items()
    }
    total = sum(source_weights.values())
    return {
        key: source_weights[key[0]] / total * weight / of_source[key[0]]
        for key, weight in weighed.items()
    }


def _weigh_capped(
    sizes: Mapping[Task, int], maxima: Mapping[str, int | None], set_of: SetOf
) -> dict[Task, Fraction]:
    """Each data set weighs as many examples as it has, at most the maximum of its
    source; its templates share that by their sizes."""
    size_of_set: Counter[Task] = Counter()
    for task, size in sizes.items():
        size_of_set[task[0], set_of(task)] += size
    weighed: dict[Task, Fraction] = {}
    for task, size in sizes.items():
        whole = size_of_set[task[0], set_of(task)]
        maximum = maxima.get(task[0])
        counted = whole if maximum is None else min(whole, maximum)
        weighed[task] = Fraction(counted * size, whole)
    return weighed


def _weigh_as_t0(
    sizes: Mapping[Task, int], maxima: Mapping[str, int | None], set_of: SetOf
) -> dict[Task, Fraction]:
    """Each template weighs its examples; of a data set above the maximum all templates
    weigh the same, the maximum together."""
    templates = Counter((task[0], set_of(task)) for task in sizes)
    weighed: dict[Task, Fraction] = {}
    for task, size in sizes.items():
        maximum = maxima.get(task[0]) or T0_MAX
        count = templates[task[0], set_of(task)]
        weight = size if size <= maximum else max(1, maximum // count)
        weighed[task] = Fraction(weight)
    return weighed


def count_by_rates(
    rates: Mapping[Task, Fraction],
    sizes: Mapping[Task, int],
    total: int | None,
    repeat: bool,
) -> dict[Task, int]:
    """How many examples of each task make up `total` by their rates; None: as many as
    need no example twice.

    What is left over after rounding down goes to the largest remainders, the first of
    equal ones first. UserError where a task is too small for its part, unless it may
    `repeat`.
    """
    if total is None:
        total = _most_without_repeat(rates, sizes)
    exact = {task: rate * total for task, rate in rates.items()}
    counts = {task: math.floor(share) for task, share in exact.items()}
    by_remainder = sorted(exact, key=lambda task: counts[task] - exact[task])
    for task in by_remainder[: total - sum(counts.values())]:
        counts[task] += 1
    small = {task: count for task, count in counts.items() if count > sizes[task]}
    if small and not repeat:
        smallest = max(small, key=lambda task: small[task] / sizes[task])
        raise UserError(
            f"data.mix.total {total}: {len(small)} tasks are too small for their part, most of all"
            f" {'/'.join(filter(None, smallest))} with {sizes[smallest]} examples for"
            f" {small[smallest]}; ask for at most {_most_without_repeat(rates, sizes)}, or set"
            " data.mix.repeat: true to train on examples more than once"
        )
    return counts


def _most_without_repeat(
    rates: Mapping[Task, Fraction], sizes: Mapping[Task, int]
) -> int:
    return min(math.floor(sizes[task] / rate) for task, rate in rates.items())


def count_kept(rule: Recipe, size: int, of_ratio: int = 0) -> int:
    """How many of a source's `size` examples its rule keeps: ⌊fraction·size⌋, a count,
    or a ratio of others.

    With `ratio` it is ⌊ratio·of_ratio⌋, or all there are (DELIA). A fraction is exact:
    1/256 of 110 142 is 430, with no rounding of 1/256 in between. UserError for a count
    beyond what there is.
    """
    if "ratio" in rule:
        return min(size, math.floor(Fraction(rule["ratio"]) * of_ratio))
    if rule.get("count", 0) > size:
        raise UserError(
            f"data.count {rule['count']}: there are {size} training examples; ask for at most as"
            " many"
        )
    return (
        rule["count"]
        if "count" in rule
        else math.floor(Fraction(rule["fraction"]) * size)
    )
