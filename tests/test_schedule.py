"""Does every example come once per epoch, in order, whoever computes it?"""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsg_core.training import schedule
from zsg_core.training.schedule import (
    compute_learning_rate,
    count_steps,
    divide_batch,
    list_batch_positions,
    list_checkpoint_steps,
    make_micro_batches,
    parse_spans,
)

COUNT = st.integers(1, 60)
BATCH = st.integers(1, 20)
LENGTHS = st.lists(st.integers(1, 100), max_size=20)


@settings(deadline=None)
@given(COUNT, BATCH, st.integers(1, 3))
def test_every_example_comes_once_per_epoch_in_order(examples, batch, epochs):
    """The batches of all steps, one after the other, are the arrangement once per epoch."""
    total = count_steps(examples, batch, epochs)
    consumed = [
        place
        for step in range(1, total + 1)
        for place in list_batch_positions(step, batch, examples, epochs)
    ]

    assert consumed == list(range(examples)) * epochs


@settings(deadline=None)
@given(COUNT, BATCH, st.integers(1, 3))
def test_every_batch_but_the_last_is_full(examples, batch, epochs):
    """A step is B whole examples."""
    total = count_steps(examples, batch, epochs)
    sizes = [
        len(list_batch_positions(step, batch, examples, epochs))
        for step in range(1, total + 1)
    ]

    assert set(sizes[:-1]) <= {batch}
    assert 1 <= sizes[-1] <= batch


@pytest.mark.parametrize(
    ("examples", "batch", "epochs", "limit", "expected"),
    [
        pytest.param(28_751, 16, 1, None, 1797, id="Flan-mini at batch 16"),
        pytest.param(32, 16, 1, None, 2, id="no remainder, no empty step"),
        pytest.param(33, 16, 1, None, 3, id="a last small step"),
        pytest.param(33, 16, 2, None, 5, id="two epochs share a batch"),
        pytest.param(33, 16, 1, 2, 2, id="stopped early"),
        pytest.param(33, 16, 1, 100, 3, id="a limit beyond the data"),
    ],
)
def test_the_number_of_steps(examples, batch, epochs, limit, expected):
    """⌈N·epochs / batch⌉, and never more than asked for."""
    assert count_steps(examples, batch, epochs, limit) == expected


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 16))
def test_ranks_share_a_batch_exactly(lengths, world):
    """Every item has one rank, for 1, 2 or 16 ranks."""
    shares = divide_batch(lengths, world)

    assert (world, list(range(len(lengths)))) == (
        len(shares),
        sorted(item for rank in shares for item in rank),
    )


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 16))
def test_no_rank_is_overloaded(lengths, world):
    """The loads of two ranks differ by no more than the longest item."""
    loads = [
        sum(lengths[item] for item in rank) for rank in divide_batch(lengths, world)
    ]

    assert max(loads) - min(loads) <= max(lengths, default=0)


def test_ties_between_ranks_go_to_the_lowest():
    """Equal items are dealt out in order."""
    assert divide_batch([5, 5, 5, 5], 2) == [[0, 2], [1, 3]]


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 200))
def test_micro_batches_stay_within_their_budget(lengths, budget):
    """The tokens of a group are within the budget, unless it is one item; every item is
    in one group."""
    groups = make_micro_batches(range(len(lengths)), lengths, budget)

    assert sorted(item for group in groups for item in group) == list(
        range(len(lengths))
    )
    assert all(len(g) == 1 or sum(lengths[i] for i in g) <= budget for g in groups)


@pytest.mark.parametrize("step", [1, 2, 100, 900, 1700, 1797])
def test_the_rate_is_the_published_cosine(step):
    """lr·max(0.1, 0.1 + 0.45·(1 + cos πx)), x the share of steps done."""
    published = 1e-6 * max(
        0.1, 0.1 + 0.45 * (1 + math.cos(math.pi * (step - 1) / 1797))
    )

    assert math.isclose(
        compute_learning_rate(step, 1797, 1e-6, 0.1), published, rel_tol=1e-12
    )


def test_the_rate_begins_at_its_peak_and_ends_near_its_floor():
    """Without warm-up the first step has the full rate; half-way it is the mean of peak
    and floor."""
    rates = [compute_learning_rate(step, 1000, 2.0, 0.1) for step in (1, 501, 1000)]

    assert rates == pytest.approx([2.0, 1.1, 0.2], abs=1e-4)


def test_warm_up_is_linear():
    """The rate rises in equal parts to the peak, then the cosine begins."""
    assert [
        compute_learning_rate(step, 100, 1.0, 0.1, warmup=4) for step in range(1, 6)
    ] == [
        0.25,
        0.5,
        0.75,
        1.0,
        1.0,
    ]


@settings(deadline=None)
@given(st.integers(1, 200), st.floats(0, 0.99), st.integers(0, 20))
def test_the_rate_never_rises_after_warm_up_nor_leaves_its_bounds(total, floor, warmup):
    """Between floor and peak, falling."""
    rates = [
        compute_learning_rate(step, total, 1.0, floor, warmup)
        for step in range(1, total + 1)
    ][warmup:]

    assert rates == sorted(rates, reverse=True)
    assert all(floor - 1e-12 <= rate <= 1 for rate in rates)


@pytest.mark.parametrize(
    ("total", "every", "expected"),
    [
        pytest.param(20, 10, [0, 10, 20], id="the last step is one of them"),
        pytest.param(25, 10, [0, 10, 20, 25], id="the last step is added"),
        pytest.param(5, 10, [0, 5], id="fewer steps than the stride"),
        pytest.param(0, 10, [0], id="no step at all"),
        pytest.param(
            60,
            "1-4:1, 4-20:8, 20-:30",
            [0, 1, 2, 3, 4, 12, 20, 50, 60],
            id="dense at first, then sparse",
        ),
        pytest.param(
            6,
            "1-4:2, 10-20:5",
            [0, 1, 3, 6],
            id="spans beyond the end count for nothing",
        ),
        pytest.param(20, [5, 7, 100], [0, 5, 7, 20], id="the steps themselves"),
    ],
)
def test_checkpoints_are_at_zero_at_every_stride_and_at_the_end(total, every, expected):
    """Step 0, the untrained model, and the last step always count."""
    assert list_checkpoint_steps(total, every) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("often", "not a span", id="no span"),
        pytest.param("1-50", "not a span", id="no stride"),
        pytest.param("1-50:0", "no stride", id="a stride of nothing"),
        pytest.param("50-1:1", "goes back", id="an end before its beginning"),
        pytest.param("1-50:1, 40-60:1", "overlaps", id="spans that overlap"),
        pytest.param(
            "1-:1, 50-60:1", "nothing can follow", id="a span after an open one"
        ),
        pytest.param("1-9999999999:1", "not a span", id="a number nobody means"),
    ],
)
def test_spans_that_cannot_be_are_refused(text, said):
    """The message names the part that is wrong."""
    with pytest.raises(ValueError, match=said):
        parse_spans(text)


@pytest.mark.parametrize(
    ("quick", "expected"),
    [
        (None, {"loss": [0, 10, 20, 25]}),
        (
            {"items": 9, "full_every": 100},
            {"loss": [0, 25], "loss_quick_9": [0, 10, 20, 25]},
        ),
        (
            {"items": 9, "full_every": [12]},
            {"loss": [0, 12, 25], "loss_quick_9": [0, 10, 12, 20, 25]},
        ),
        (
            {"items": 9, "full_every": "0-4:2"},
            {"loss": [0, 2, 4, 25], "loss_quick_9": [0, 2, 4, 10, 20, 25]},
        ),
    ],
)
def test_what_is_measured_when(quick, expected):
    """Without a quick set all items at every checkpoint; with one it is measured
    wherever anything is."""
    assert schedule.list_measured_steps(25, 10, quick) == expected
    assert [schedule.quick_items(key) for key in expected] == [0, 9][: len(expected)]
