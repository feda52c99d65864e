"""Is every order a permutation, the same for the same seed, and the published one?"""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsg_core.arrange import BY_SIMILARITY, BY_TASK, ORDERS, SEEDED, arrange
from zsg_core.errors import UserError

ORDER = st.sampled_from(ORDERS)
SEED = st.integers(0, 2**32 - 1)
TASKS = st.lists(st.integers(0, 5), max_size=5).map(
    lambda sizes: [f"t{number}" for number, size in enumerate(sizes) for _ in range(size)]
)
GOLDEN_WSD = [-1.5857142857142859, -1.9285714285714286, -1.8285714285714287, -1.33, -1.23, -0.9]


def ordered(order: str, tasks: list[str], seed: int = 0, wsd: list[float] | None = None) -> list[int]:
    """An order; without distances each item is as far as its index hashed."""
    values = [(i * 7919 % 13) / 13 for i in range(len(tasks))] if wsd is None else wsd
    return arrange(order, tasks, seed, lambda: values)


@settings(deadline=None)
@given(ORDER, TASKS, SEED)
def test_every_order_is_a_permutation(order, tasks, seed):
    """No item is lost, none comes twice."""
    assert sorted(ordered(order, tasks, seed)) == list(range(len(tasks)))


@settings(deadline=None)
@given(ORDER, TASKS, SEED)
def test_the_same_seed_gives_the_same_order(order, tasks, seed):
    """An order is a function of its inputs."""
    assert ordered(order, tasks, seed) == ordered(order, tasks, seed)


@pytest.mark.parametrize("order", ORDERS)
def test_seeds_change_seeded_orders_only(order):
    """Orders that take no seed are the same for every seed."""
    tasks = ["a"] * 30

    assert (ordered(order, tasks, 0) != ordered(order, tasks, 1)) == (order in SEEDED)


@settings(deadline=None)
@given(TASKS)
def test_fft_is_nft_reversed(tasks):
    """Farthest first is exactly nearest first, backwards."""
    assert ordered("fft", tasks) == ordered("nft", tasks)[::-1]


def test_golden_nearest_first():
    """The order of science 1.6."""
    assert ordered("nft", ["t"] * 6, wsd=GOLDEN_WSD) == [1, 2, 0, 3, 4, 5]


def test_ties_go_to_the_lowest_index():
    """Items that are equally near keep their place."""
    assert ordered("nft", ["t"] * 6, wsd=[0.0, -1.0, 0.0, -1.0, 0.0, -1.0]) == [1, 3, 5, 0, 2, 4]


@settings(deadline=None)
@given(TASKS, SEED)
def test_rt_is_the_sample_of_pandas(tasks, seed):
    """`frame.sample(frac=1, random_state=seed)` draws RandomState(seed).choice without replacement."""
    nearest_first = ordered("nft", tasks)
    drawn = np.random.RandomState(seed).choice(len(tasks), size=len(tasks), replace=False) if tasks else []

    assert ordered("rt", tasks, seed) == [nearest_first[i] for i in drawn]


def test_rt_is_the_recorded_one():
    """NumPy's RandomState is frozen: this order is the same on every machine."""
    assert ordered("rt", ["t"] * 6, wsd=GOLDEN_WSD) == [5, 0, 2, 3, 1, 4]


def test_cluster_is_task_after_task():
    """The list as it was read."""
    assert ordered("cluster", ["a", "a", "b", "c", "c", "c"]) == [0, 1, 2, 3, 4, 5]


def test_round_robin_takes_turns_while_tasks_last():
    """The first item of every task, then the second; tasks that run out are passed over."""
    assert ordered("round_robin", ["a", "a", "b", "c", "c", "c"]) == [0, 2, 3, 1, 4, 5]


@settings(deadline=None)
@given(TASKS)
def test_a_turn_of_round_robin_has_no_task_twice(tasks):
    """Cutting the order where a task comes again gives turns that never grow."""
    turns: list[list[str]] = []
    for i in ordered("round_robin", tasks):
        if not turns or tasks[i] in turns[-1]:
            turns.append([])
        turns[-1].append(tasks[i])

    assert [sorted(turn) for turn in turns] == turns
    assert all(set(later) <= set(earlier) for earlier, later in itertools.pairwise(turns))


def test_random_is_pythons_shuffle_of_the_cluster_list():
    """The authors' `random.seed(0); random.shuffle(list)`."""
    assert ordered("random", ["t"] * 10) == [7, 8, 1, 5, 3, 4, 2, 0, 9, 6]


@pytest.mark.parametrize("order", BY_TASK)
def test_orders_by_task_ask_for_no_similarity(order):
    """No embedding is made for an order that needs none."""

    def refuse():
        raise AssertionError("asked for distances")

    assert len(arrange(order, ["a", "b"], 0, refuse)) == 2


def test_every_order_is_of_one_kind():
    """Orders are by task or by similarity."""
    assert set(ORDERS) == set(BY_TASK) | set(BY_SIMILARITY)


def test_an_unknown_order_is_told_what_is_known():
    """The message lists all orders."""
    with pytest.raises(UserError, match="unknown order 'near'; known: random, round_robin, cluster, nft, rt, fft"):
        ordered("near", ["a"])
