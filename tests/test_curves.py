"""Are the statistics of learning curves what their formulas say?"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsg_core.stats import curves

VALUES = st.lists(st.floats(-100, 100), min_size=2, max_size=12)


@given(VALUES)
def test_the_area_under_a_level_curve_is_its_level(gaps: list[float]) -> None:
    """Whatever the steps, the area under a constant is the constant, and a straight
    line's is its middle."""
    steps = np.cumsum(1 + np.abs(gaps))

    assert curves.compute_area(list(steps), np.full(len(steps), 3.5)) == pytest.approx(
        3.5
    )
    assert curves.compute_area(list(steps), 2 * steps) == pytest.approx(
        steps[0] + steps[-1]
    )


def test_the_area_follows_the_trapezoidal_rule() -> None:
    """By hand: (0→10: 3) · 10 + (10→40: 1.5) · 30, over 40; of one step the value itself."""
    assert curves.compute_area([0, 10, 40], [4, 2, 1]) == pytest.approx(
        (3 * 10 + 1.5 * 30) / 40
    )
    assert curves.compute_area([7], [4.0]) == 4
    with pytest.raises(ValueError, match="rise"):
        curves.compute_area([3, 3], [1, 2])


@given(VALUES, st.integers(1, 4))
def test_the_area_under_a_mean_is_the_mean_of_areas(
    values: list[float], columns: int
) -> None:
    """The area is linear, so item areas may be resampled in place of curves."""
    table = np.outer(values, np.arange(1, columns + 1)) + np.arange(columns)
    steps = list(range(len(values)))

    assert curves.compute_area(steps, table.mean(axis=1)) == pytest.approx(
        curves.compute_area(steps, table).mean(), abs=1e-9
    )


def test_the_interval_of_replicates_is_students() -> None:
    """Of 1, 2, 3 it is 2 ± 4.303 / √3; of one value there is none; of many it nears the
    normal's."""
    low, high = curves.compute_t_interval([1, 2, 3]) or (0, 0)

    assert (low, high) == (
        pytest.approx(2 - 4.303 / 3**0.5),
        pytest.approx(2 + 4.303 / 3**0.5),
    )
    assert curves.compute_t_interval([1.0]) is None
    many = list(np.random.default_rng(0).normal(size=61))
    low, high = curves.compute_t_interval(many) or (0, 0)
    assert (high - low) / 2 == pytest.approx(
        2.0003 * np.std(many, ddof=1) / 61**0.5, rel=1e-3
    )


def test_the_bootstrap_of_items_nears_the_normal_interval() -> None:
    """Of many items it is about ± 1.96 standard errors; the same seed draws the same."""
    values = np.random.default_rng(1).normal(5, 2, size=(400, 2))
    bounds = curves.bootstrap_intervals(values)

    error = 1.96 * values.std(axis=0) / 400**0.5
    assert bounds[1] - bounds[0] == pytest.approx(2 * error, rel=0.1)
    assert (bounds == curves.bootstrap_intervals(values)).all()
    # columns share their draws
    assert (bounds[:, :1] == curves.bootstrap_intervals(values[:, :1])).all()


def test_drawing_whole_tasks_widens_the_interval() -> None:
    """Where items of a task are alike, the cluster bootstrap's interval is wider by
    about the root of their number."""
    tasks = [f"t{number}" for number in range(30) for _ in range(9)]
    levels = np.repeat(np.random.default_rng(2).normal(size=30), 9)[:, None]
    items, of_tasks = (
        np.diff(curves.bootstrap_intervals(levels, names), axis=0)[0, 0]
        for names in (None, tasks)
    )

    assert of_tasks / items == pytest.approx(3, rel=0.15)


def test_what_is_no_number_is_left_out() -> None:
    """NaN items do not enter the means; with fewer than two clusters, or no numbers,
    there is no interval."""
    held = np.array([[1.0, np.nan], [1.0, np.nan], [np.nan, np.nan]])

    assert curves.bootstrap_intervals(held)[:, 0] == pytest.approx([1, 1])
    assert np.isnan(curves.bootstrap_intervals(held)[:, 1]).all()
    assert np.isnan(curves.bootstrap_intervals(held, ["one"] * 3)).all()


def test_a_drop_is_found_where_it_was_put() -> None:
    """One task falls by 1 from 30 to 40 while all drift: it is first, with its steps,
    its size and what is usual."""
    steps = list(range(0, 100, 10))
    losses = np.linspace(3, 2.1, 10)[:, None] + np.zeros((1, 5))
    losses[4:, 2] -= 1.0
    first, *others = curves.find_sudden_drops(steps, list("abcde"), losses)

    assert (first.task, first.start, first.end) == ("c", 30, 40)
    assert (first.size, first.shared, first.usual) == (
        pytest.approx(1.1),
        pytest.approx(0.3),
        pytest.approx(0.1),
    )
    assert first.is_sudden and first.times_usual == pytest.approx(11)
    assert not any(one.is_sudden for one in others)


@given(
    st.lists(
        st.lists(st.floats(-5, 5) | st.just(float("nan")), min_size=3, max_size=3),
        max_size=6,
    )
)
def test_drops_are_falls_in_order_of_size(rows: list[list[float]]) -> None:
    """Whatever the losses, NaN among them: each task at most once, only falls beyond
    the others, largest first."""
    found = curves.find_sudden_drops(
        list(range(len(rows))), list("abc"), np.array(rows).reshape(-1, 3)
    )

    assert len({one.task for one in found}) == len(found)
    assert all(one.size > 0 and one.own > 0 for one in found)
    assert [one.own for one in found] == sorted(
        (one.own for one in found), reverse=True
    )
