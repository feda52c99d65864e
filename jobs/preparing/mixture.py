"""Repeats and thins the training examples of a corpus' tasks, as the recipe of a mix
draws them."""

from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction

from jobs.preparing.source_dataset import SourceDataset
from zsg_core.data import data_sets, mixing, splits
from zsg_core.data.mixing import Task
from zsg_core.recipe import Recipe

Pools = Mapping[str, SourceDataset]
# source → the places of its training examples in its records
PlacesBySource = dict[str, list[int]]


def mix_places(
    mix: Recipe, pools: Pools, taken: PlacesBySource, warn: Callable[[str], None]
) -> PlacesBySource:
    """The places of each source, every task as often as the recipe of a mix draws it.

    `taken` are those that caps, tags and amounts leave; where these are none, nothing is
    mixed, which is told as it is without a mix. UserError where the weight of a task
    hangs on a data set that is not known, or a task is too small for its part.
    """
    by_task = _divide_by_task(pools, taken)
    sizes = {task: len(places) for task, places in by_task.items()}
    if not sizes:
        return taken
    rates = _compute_rates(mix["rates"], pools, sizes)
    counts = mixing.count_by_rates(rates, sizes, mix.get("total"), mix["repeat"])
    _tell_repeats(counts, sizes, warn)
    mixed: PlacesBySource = {name: [] for name in taken}
    for task, count in counts.items():
        name, _ = task
        seed = pools[name].rule["train"].get("seed", 0)
        mixed[name] += _repeat_task(task, by_task[task], count, seed)
    return mixed


def _divide_by_task(
    pools: Pools, taken: Mapping[str, list[int]]
) -> dict[Task, list[int]]:
    """The places of each task of each source, in the order in which tasks come first;
    a task without places is not there."""
    by_task: dict[Task, list[int]] = {}
    for name, places in taken.items():
        for task, of_task in pools[name].by_task(places).items():
            by_task[name, task] = of_task
    return by_task


def _compute_rates(
    rule: str, pools: Pools, sizes: Mapping[Task, int]
) -> dict[Task, Fraction]:
    """The rate of each task, exact; all together are 1.

    `rule` is one of mixing.RATES; sizes count the examples of each task. What the
    sources say of themselves, their maximum and their share, is in their recipes.
    UserError where a weight hangs on a data set that is not known.
    """
    maxima = {name: pool.rule["train"].get("rate_max") for name, pool in pools.items()}
    shares: dict[str, Fraction] = {}
    for name, pool in pools.items():
        share = pool.rule["train"].get("share")
        if share:
            shares[name] = Fraction(share)
    set_of = _choose_data_sets(rule, pools, sizes)
    return mixing.compute_rates(rule, sizes, maxima, shares, set_of)


def _choose_data_sets(
    rates: str, pools: Pools, sizes: Mapping[Task, int]
) -> mixing.SetOf:
    """The data set by which a task is weighed: that of which it is a template, or the
    task alone, where its source does not say which tasks are one set.

    What this means for the weights is told of each source. UserError where a rule needs
    to know the data set of a task and does not.
    """
    counting_alone: set[str] = set()
    for name, pool in pools.items():
        of_source = {
            task: size for (source, task), size in sizes.items() if source == name
        }
        if rates == "t0":
            _check_sets_of_t0(pool, of_source)
        elif pool.rule["train"].get("data_sets") is not None:
            _refuse_unknown(pool, of_source, "data.rate_max")
        else:
            counting_alone.add(name)
            _tell_templates(pool, of_source)

    def set_of(task: Task) -> str:
        name, task_name = task
        if name in counting_alone:
            return task_name
        return pools[name].set_of(task_name)

    return set_of


def _check_sets_of_t0(pool: SourceDataset, sizes: Mapping[str, int]) -> None:
    """UserError where T0's rule divides a task's weight by the templates of a data set
    that is not known.

    It does so only of a task above the maximum: smaller ones weigh their own examples,
    whatever set they are of. `sizes`: the examples of each of the source's tasks.
    """
    maximum = pool.rule["train"].get("rate_max") or mixing.T0_MAX
    if any(size > maximum for size in sizes.values()):
        _refuse_unknown(pool, sizes, "T0's rule (data.mix.rates: t0)")


def _refuse_unknown(pool: SourceDataset, tasks: Iterable[str], key: str) -> None:
    """UserError where the data set of one of these tasks is not known, which `key`
    needs; or a warning, where the source's rule was not given and knows some of them:
    see data_sets.refuse_unknown."""
    sets = {task: pool.sets.get(task) for task in tasks}
    data_sets.refuse_unknown(sets, pool.rule["train"].get("data_sets"), key, pool.warn)


def _tell_templates(pool: SourceDataset, tasks: Mapping[str, int]) -> None:
    """Tells that a maximum holds for each template, where some are of one data set.

    Flan-PaLM counts so, FLAN does not: whoever means the latter has to say so. Nothing is
    told of a source without a maximum.
    """
    maximum = pool.rule["train"].get("rate_max")
    named = [name for task in tasks if (name := pool.sets.get(task))]
    if maximum is None or len(set(named)) == len(named):
        return
    pool.warn(
        f"{pool.name or pool.files.data.name}: rate_max {maximum} is that of each template;"
        " data.data_sets: t0 makes it that of each data set, as FLAN's is"
    )


def _tell_repeats(
    counts: Mapping[Task, int], sizes: Mapping[Task, int], warn: Callable[[str], None]
) -> None:
    """Tells how many examples come more than once, which they do where a task is drawn
    more often than it has examples. `warn` keeps what it is told with the corpus."""
    again = sum(max(0, count - sizes[task]) for task, count in counts.items())
    if again:
        warn(
            f"{again} of {sum(counts.values())} examples come again, for their tasks are too"
            " small"
        )


def _repeat_task(task: Task, places: list[int], count: int, seed: int) -> list[int]:
    """So many places of a task: all of them as often as they go in whole, and a sample
    for what remains, drawn by `seed` and the task's name.

    A smaller count is part of a larger one, as everywhere: see splits.sample_nested.
    """
    rounds, remaining = divmod(count, len(places))
    sampled = splits.sample_nested(places, remaining, seed, "/".join(task))
    return places * rounds + sampled
