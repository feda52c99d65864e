"""Are the numbers of lm-evaluation-harness kept as it makes them, and by item?"""

import math

import pytest

from jobs.evaluating.harness_values import (
    GroupFound,
    ItemFound,
    Metric,
    TaskFound,
    collect_values,
)
from zsg_core.errors import UserError

ACC: Metric = ("acc", "none")
PERPLEXITY: Metric = ("word_perplexity", "none")


def make_task(
    name: str, values: list[object], metric: Metric = ACC, aggregation: str = "mean"
) -> TaskFound:
    """A task whose items have these values."""
    items = [
        ItemFound(name, number, f"prompt {number}", str(number), {metric: value})
        for number, value in enumerate(values)
    ]
    numbers = {}
    if aggregation == "mean":
        floats = [float(value) for value in values]  # type: ignore[arg-type]
        numbers[metric] = sum(floats) / len(floats)
    return TaskFound(name, items, {metric: aggregation}, numbers)


def test_a_group_is_the_mean_over_tasks_and_beside_it_the_harness_own() -> None:
    """Whose tasks weigh by their sizes; its error takes tasks as drawn whole."""
    tasks = [make_task("a", [1, 0]), make_task("b", [1, 1, 1, 0])]
    group = GroupFound({ACC: 4 / 6}, frozenset([ACC]))
    found = collect_values("lm_eval/g", tasks, group)

    assert found.values == {
        "lm_eval/g": pytest.approx((0.5 + 0.75) / 2),
        "lm_eval/g/weighted": pytest.approx(4 / 6),
    }
    # Σ over tasks of (their sum − their size · mean)² is (−1/3)² + (1/3)²
    spread = math.sqrt(2 * (1 / 9 + 1 / 9)) / 6
    assert found.errors["lm_eval/g/weighted"] == pytest.approx(spread)
    assert found.by_item["lm_eval/g"]["b/3"] == 0.0
    assert len(found.by_item["lm_eval/g/weighted"]) == 6


def test_a_task_alone_has_the_error_of_its_items() -> None:
    """The standard deviation over the root of their number, as the harness says."""
    found = collect_values("lm_eval/t", [make_task("t", [1, 0, 0, 1])], None)

    assert found.values == {"lm_eval/t": 0.5}
    assert found.errors["lm_eval/t"] == pytest.approx(math.sqrt(1 / 3) / 2)


def test_a_perplexity_is_shared_out_among_its_items() -> None:
    """The mean of the shares is the perplexity of all texts together."""
    pairs: list[object] = [(-10.0, 4), (-30.0, 10), (-5.0, 3)]
    task = make_task("t", pairs, PERPLEXITY, "weighted_perplexity")
    found = collect_values("lm_eval/t", [task], None)

    assert found.values["lm_eval/t"] == pytest.approx(math.exp(45 / 17))
    assert len(found.by_item["lm_eval/t"]) == 3


def test_what_is_made_of_all_items_at_once_has_no_items() -> None:
    """It has the harness' value, and says that it has no interval."""
    metric: Metric = ("f1", "none")
    task = make_task("t", [(0, 1), (1, 1)], metric, "f1")
    told = TaskFound(task.name, task.items, task.aggregations, {metric: 0.6})
    found = collect_values("lm_eval/t", [told], None)

    assert found.values == {"lm_eval/t": 0.6} and not found.by_item
    assert any("no interval" in flag for flag in found.flags)


def test_filters_of_one_metric_have_keys_of_their_own() -> None:
    """The first of a task is the key itself; what both name is told."""
    items = [
        ItemFound("t", n, f"p{n}", "", {("em", "strict"): n, ("em", "loose"): 1})
        for n in (0, 1)
    ]
    aggregations = {("em", "strict"): "mean", ("em", "loose"): "mean"}
    task = TaskFound("t", items, aggregations, {})
    found = collect_values("lm_eval/t", [task], None)

    assert found.values == {"lm_eval/t": 0.5, "lm_eval/t/em/loose": 1.0}
    assert found.metrics["lm_eval/t"] == "em,strict"


def make_filtered(*filters: str) -> TaskFound:
    """A task with one item and one metric, by several filters."""
    values = {("exact_match", name): 1.0 for name in filters}
    aggregations = dict.fromkeys(values, "mean")
    return TaskFound("t", [ItemFound("t", 0, "p", "a", values)], aggregations, values)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("maj@8", "maj_8"),
        ("flexible-extract", "flexible-extract"),
        ("\x1b[2J/a b", "__2J_a_b"),
        ("..", "_"),
        ("of_stderr", "of_stderr_"),
    ],
)
def test_filters_are_named_as_trackers_take_names(name: str, written: str) -> None:
    """Whatever a task calls them; a key is never a standard error's."""
    found = collect_values("lm_eval/t", [make_filtered("first", name)], None)

    assert list(found.values) == ["lm_eval/t", f"lm_eval/t/exact_match/{written}"]


def test_two_filters_of_one_key_are_refused() -> None:
    """Where their names differ in what no key may have."""
    with pytest.raises(UserError, match="of two metrics of lm-evaluation-harness"):
        collect_values("lm_eval/t", [make_filtered("first", "a@b", "a b")], None)


def test_a_mean_that_is_not_the_harness_own_is_an_error() -> None:
    """Rather than a second truth."""
    task = make_task("t", [1, 0])
    wrong = TaskFound(task.name, task.items, task.aggregations, {ACC: 0.75})

    with pytest.raises(ValueError, match=r"lm-evaluation-harness says 0\.75"):
        collect_values("lm_eval/t", [wrong], None)
