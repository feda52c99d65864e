"""Is every order a permutation, the same for the same seed, and the published one?"""

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsg_core.errors import UserError
from zsg_core.orders.arrange import arrange_items
from zsg_core.orders.blocks import BLOCKS, shuffle_blocks
from zsg_core.orders.by_scores import SCORES
from zsg_core.orders.from_file import FILE
from zsg_core.orders.order_list import PLACES, OrderList
from zsg_core.orders.registry import ORDERS, Rounds
from zsg_core.orders.score_list import ScoreList
from zsg_core.orders.similarity import BY_SIMILARITY
from zsg_core.orders.tma_lists import LISTS, TMA, list_rounds, parse_span

BY_TASK = ("random", "round_robin", "cluster")
SEEDED = ("random", "rt", BLOCKS)
ORDER = st.sampled_from([*ORDERS])
SEED = st.integers(0, 2**32 - 1)
TASKS = st.lists(st.integers(0, 5), max_size=5).map(
    lambda sizes: [
        f"t{number}" for number, size in enumerate(sizes) for _ in range(size)
    ]
)
GOLDEN_WSD = [
    -1.5857142857142859,
    -1.9285714285714286,
    -1.8285714285714287,
    -1.33,
    -1.23,
    -0.9,
]


def ordered(
    order: str, tasks: list[str], seed: int = 0, wsd: list[float] | None = None
) -> list[int]:
    """An order; without distances each item is as far as its index hashed."""
    values = [(i * 7919 % 13) / 13 for i in range(len(tasks))] if wsd is None else wsd
    spec = {
        "order": order,
        "seed": seed,
        "block": 2,
        **({"list": "min"} if order == "tma" else {}),
    }
    listed = OrderList(Path("order.npy"), PLACES, list(range(len(tasks)))[::-1])
    scores = ScoreList(Path("scores.npy"), values)
    if order == SCORES:
        spec |= {"shape": "zigzag", "layers": 3}
    return arrange_items(
        spec,
        tasks,
        lambda: values,
        rounds_of(len(tasks)),
        ids=[f"{task}:{item}" for item, task in enumerate(tasks)],
        read_input=lambda: scores if order == SCORES else listed,
    ).places


def rounds_of(count: int) -> Rounds:
    """Rounds of three, from the first item on, or from the last."""

    def rounds(farthest: bool, cap: int | None) -> Iterator[list[int]]:
        items = list(range(count))[:: -1 if farthest else 1]
        for start in range(0, count if cap is None else min(cap, count), 3):
            yield sorted(items[start : start + 3])

    return rounds


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
    assert ordered("nft", ["t"] * 6, wsd=[0.0, -1.0, 0.0, -1.0, 0.0, -1.0]) == [
        1,
        3,
        5,
        0,
        2,
        4,
    ]


@settings(deadline=None)
@given(TASKS, SEED)
def test_rt_is_the_sample_of_pandas(tasks, seed):
    """`frame.sample(frac=1, random_state=seed)` draws RandomState(seed).choice without
    replacement."""
    nearest_first = ordered("nft", tasks)
    drawn = (
        np.random.RandomState(seed).choice(len(tasks), size=len(tasks), replace=False)
        if tasks
        else []
    )

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
    assert all(
        set(later) <= set(earlier) for earlier, later in itertools.pairwise(turns)
    )


def test_random_is_pythons_shuffle_of_the_cluster_list():
    """The authors' `random.seed(0); random.shuffle(list)`."""
    assert ordered("random", ["t"] * 10) == [7, 8, 1, 5, 3, 4, 2, 0, 9, 6]


@settings(deadline=None)
@given(TASKS, st.integers(2, 4), SEED)
def test_a_block_is_of_one_task_until_no_task_fills_one(tasks, block, seed):
    """Every task gives all the blocks it can fill; they come first, so that a step of
    that many items has one task."""
    places = shuffle_blocks(tasks, block, seed)
    whole = sum(tasks.count(task) // block for task in set(tasks))

    assert sorted(places) == list(range(len(tasks)))
    assert all(
        len({tasks[i] for i in places[n * block : (n + 1) * block]}) == 1
        for n in range(whole)
    )


def test_blocks_are_shuffled_and_so_is_what_stands_in_them():
    """Neither tasks nor their examples come in the order in which they stand."""
    places = shuffle_blocks(["a"] * 20 + ["b"] * 20, 4, seed=0)

    assert [places[start] >= 20 for start in range(0, 40, 4)] not in (
        [False] * 5 + [True] * 5,
        [True] * 5 + [False] * 5,
    )
    assert any(
        sorted(places[start : start + 4]) != places[start : start + 4]
        for start in range(0, 40, 4)
    )


@pytest.mark.parametrize("order", BY_TASK)
def test_orders_by_task_ask_for_no_similarity(order):
    """No embedding is made for an order that needs none."""

    def refuse(*asked):
        raise AssertionError("asked for distances")

    assert len(arrange_items({"order": order}, ["a", "b"], refuse, refuse).places) == 2


def test_every_order_is_of_one_kind():
    """Orders are by task, of blocks, of a file, by scores, by similarity or by rounds."""
    assert set(ORDERS) == {*BY_TASK, BLOCKS, FILE, SCORES, *BY_SIMILARITY, TMA}


def test_an_unknown_order_is_told_what_is_known():
    """The message lists all orders."""
    with pytest.raises(
        UserError,
        match=(
            "unknown order 'near'; known: blocks, cluster, fft, file, nft, random, round_robin, rt, scores, tma"
        ),
    ):
        ordered("near", ["a"])


@settings(deadline=None)
@given(st.sampled_from(["nft", "rt", "fft"]), TASKS, SEED)
def test_coarse_keeps_tasks_together(order, tasks, seed):
    """A coarse order sorts tasks and leaves each task's items in their order; fft is
    all of it reversed."""
    names = list(dict.fromkeys(tasks))
    far = {name: place * 5 % 3 for place, name in enumerate(names)}
    spec = {"order": order, "seed": seed, "granularity": "coarse"}
    places = arrange_items(
        spec, tasks, lambda: [far[name] for name in names], rounds_of(0)
    ).places
    nearest_first = sorted(
        range(len(tasks)), key=lambda i: (far[tasks[i]], names.index(tasks[i]), i)
    )

    assert places == {"nft": nearest_first, "fft": nearest_first[::-1]}.get(
        order, places
    )
    assert sorted(places) == sorted(nearest_first)


@pytest.mark.parametrize(
    ("choose", "count", "wanted"),
    [
        ("polar", 25, [*range(10), *range(15, 25)]),
        ("polar", 20, [*range(20)]),
        ("polar", 15, [*range(15)]),
        ("uniform", 65, [*range(0, 65, 3)]),
        ("uniform", 39, [*range(39)]),
        ("uniform", 5, [*range(5)]),
    ],
)
def test_of_each_task_some_are_chosen(choose, count, wanted):
    """Polar takes ten from both ends, uniform every (n // 20)-th, which may be more
    than 20; none comes twice."""
    spec = {"order": "nft", "choose": choose}
    tasks = ["a"] * count + ["b"] * count
    distances = [float(i) for i in range(count)] + [i + 0.5 for i in range(count)]
    places = arrange_items(spec, tasks, lambda: distances, rounds_of(0)).places

    assert places == sorted(
        [*wanted, *(count + i for i in wanted)], key=lambda i: distances[i]
    )


LISTED = {  # 12 items in rounds of three, cap 6: halves of 3 from both ends
    "min": [0, 1, 2, 3, 4, 5],
    "max": [9, 10, 11, 6, 7, 8],
    "min-max": [0, 1, 2, 11, 10, 9],
    "max-min": [9, 10, 11, 2, 1, 0],
}


@pytest.mark.parametrize("name", LISTED)
def test_the_lists_of_tma(name):
    """Nearest, farthest, and the two that go from half the cap of one to half of the
    other, backwards."""
    assert list_rounds(name, rounds_of(12), 6, 0).places == LISTED[name]


def test_the_random_list_is_min_max_shuffled_by_python():
    """`random.seed(0); random.shuffle` of the ids of min-max without repeats."""
    wanted = LISTED["min-max"][:]
    random.Random(0).shuffle(wanted)

    assert list_rounds("random", rounds_of(12), 6, 0).places == wanted


def test_an_item_in_both_halves_counts_where_it_comes_first():
    """Halves that overlap leave no repeat, and the facts say how many there were."""
    made = list_rounds(
        "min-max", rounds_of(7), 8, 0
    )  # nearest 0-5, farthest 6 5 4 3 2 1

    assert made.places == [0, 1, 2, 3, 4, 5, 6]
    assert made.facts == {
        "rounds": {"nearest": [3, 3], "farthest": [3, 3]},
        "in_both_halves": 5,
    }


@pytest.mark.parametrize("name", ["min-max", "max-min", "random"])
def test_lists_of_two_halves_ask_for_both_ends_at_once(name):
    """Where both ends come from one search, the list is that of two."""
    asked = []

    def rounds_of_both_ends(cap):
        asked.append(cap)
        return tuple(list(rounds_of(12)(far, cap)) for far in (False, True))

    made = arrange_items(
        {"order": TMA, "list": name, "cap": 5},
        ["t"] * 12,
        list,
        rounds_of(12),
        rounds_of_both_ends=rounds_of_both_ends,
    )

    assert made == list_rounds(name, rounds_of(12), 5, 0)
    assert asked == [3]


def test_half_an_odd_cap_is_rounded_up():
    """A cap of 7 asks each half for 4, and a round is never trimmed."""
    assert len(list_rounds("min-max", rounds_of(100), 7, 0).places) == 12


@pytest.mark.parametrize(
    ("asked", "wanted"), [("0:1", [0, 1, 2]), ("1:3", [3, 4, 5, 6, 7, 8]), ("3:4", [9])]
)
def test_some_rounds(asked, wanted):
    """Rounds are counted from 0, the last is not included."""
    made = list_rounds("min", rounds_of(10), None, 0, parse_span(asked))

    assert (made.places, sum(made.facts["rounds"])) == (wanted, len(wanted))


def test_rounds_that_are_not_there_are_an_error():
    """A subset that would be short or empty is not made in silence."""
    with pytest.raises(
        UserError, match="2:5 was asked, but all is taken after 4 rounds"
    ):
        list_rounds("min", rounds_of(10), None, 0, (2, 5))


@pytest.mark.parametrize(
    "text", ["", "5", "5:", ":5", "5:5", "6:5", "-1:5", "0:5:1", "a:b", "0:٣"]
)
def test_rounds_are_two_rising_numbers(text):
    """What names no rounds is refused."""
    with pytest.raises(ValueError, match="rounds are given as"):
        parse_span(text)


@pytest.mark.parametrize("name", LISTS)
@settings(deadline=None)
@given(st.integers(0, 40), st.integers(1, 50))
def test_no_list_has_an_item_twice(name, count, cap):
    """Lists are duplicate-free and reach the cap where there is enough."""
    places = list_rounds(name, rounds_of(count), cap, 0).places

    assert len(set(places)) == len(places) >= min(cap, count)
