"""Are distances to the test set the published ones, to the last bit?"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lib import plain_orders as plain
from zsg_core.errors import UserError
from zsg_core.orders.distance import exact_sums, weighted_distance
from zsg_core.orders.nearest import minimum_and_average

# science 1.6: cosines of six training items to three test items. With the unit vectors
# as test items, a training item's coordinates are its cosines.
SIMILARITY = np.array(
    [
        [0.9, 0.1, 0.2],
        [0.9, 0.8, 0.1],
        [0.3, 0.8, 0.7],
        [0.2, 0.2, 0.7],
        [0, 0.5, 0.6],
        [-0.2, 0.4, 0.5],
    ],
    np.float32,
)
COORDINATE = st.floats(-1, 1)


def test_golden_nearest_and_average_distance():
    """MD is the distance to the nearest test item, AD the mean distance; −cosine,
    smaller is nearer."""
    nearest, average = minimum_and_average(SIMILARITY, np.eye(3, dtype=np.float32))

    assert (
        nearest.tolist()
        == np.array([-0.9, -0.9, -0.8, -0.7, -0.6, -0.5], np.float32).tolist()
    )
    assert average == pytest.approx(
        [-0.4, -0.6, -0.6, -1.1 / 3, -1.1 / 3, -0.7 / 3], abs=1e-7
    )


def test_golden_weight_and_order():
    """w_avg is 1.714286 and the order by WSD is 1, 2, 0, 3, 4, 5."""
    nearest, average = minimum_and_average(SIMILARITY, np.eye(3, dtype=np.float32))
    wsd = weighted_distance(nearest, average)

    assert (wsd - nearest) / average == pytest.approx(np.full(6, 1.714286), abs=1e-6)
    assert np.argsort(wsd, kind="stable").tolist() == [1, 2, 0, 3, 4, 5]


@pytest.mark.parametrize(
    "average",
    [[0.1, 0.1], [0.0, 0.0], [-0.1, 0.1]],
    ids=["positive", "zero", "cancelling"],
)
def test_a_weight_that_would_turn_the_order_round_is_refused(average):
    """Where training data are on average unlike the test set, the published weight
    means nothing."""
    with pytest.raises(UserError, match=r"mean cosine ≤ 0.*another order"):
        weighted_distance(np.array([-0.1, -0.2]), np.array(average))


@settings(deadline=None)
@given(
    st.lists(st.lists(COORDINATE, min_size=5, max_size=5), min_size=1, max_size=6),
    st.integers(1, 4),
)
def test_a_product_is_summed_in_the_canonical_order(rows, count):
    """Every similarity is the float64 sum in one stated order: no BLAS decides a comparison."""
    train = np.array(rows, dtype=np.float32)
    test = np.array((rows * count)[:count], dtype=np.float32)
    nearest, average = minimum_and_average(train, test)

    assert plain.minimum_and_average(train, test) == (
        nearest.tolist(),
        average.tolist(),
    )


@pytest.mark.parametrize("seed", range(5))
def test_ties_and_near_ties_are_settled_canonically(seed):
    """Test items that are equal, or differ in the last bit, leave MD what the plain rule says."""
    draw = np.random.RandomState(seed)
    test = np.repeat(draw.randn(6, 33).astype(np.float32), 5, axis=0)
    test[::2] = np.nextafter(test[::2], np.float32(1))
    train = np.concatenate([test[:20], draw.randn(300, 33)]).astype(np.float32)

    assert plain.minimum_and_average(train, test) == tuple(
        column.tolist() for column in minimum_and_average(train, test)
    )


def test_items_are_measured_one_by_one():
    """An item's distances do not depend on which others are measured with it."""
    train = np.random.RandomState(0).randn(50, 384).astype(np.float32)
    test = np.random.RandomState(1).randn(7, 384).astype(np.float32)
    whole = minimum_and_average(train, test)
    parts = [minimum_and_average(train[i : i + 7], test) for i in range(0, 50, 7)]

    assert [np.concatenate(column).tolist() for column in zip(*parts, strict=True)] == [
        c.tolist() for c in whole
    ]


def test_the_weight_is_a_quotient_of_exact_means():
    """w_avg divides means that are summed exactly, so the order of the items cannot change it."""
    values = np.random.RandomState(0).rand(1000) - 2
    shuffled = np.random.RandomState(1).permutation(1000)

    assert (
        weighted_distance(values, values * 0.3)[shuffled].tolist()
        == weighted_distance(values[shuffled], values[shuffled] * 0.3).tolist()
    )
    assert math.isclose(
        weighted_distance(values, values * 0.3)[0], values[0] * 2, rel_tol=1e-12
    )


@settings(deadline=None)
@given(
    st.lists(st.lists(st.floats(-1e300, 1e300), min_size=2, max_size=2), max_size=9),
    st.integers(0, 1000),
)
def test_sums_are_exact_whatever_the_magnitudes(rows, power):
    """They are those of math.fsum: terms of any size, tiny ones beside huge ones, and
    what cancels."""
    terms = np.array(rows, np.float64).reshape(-1, 2) * 2.0**-power
    terms = np.concatenate(
        [terms, -terms[:1], terms[1:] * 2.0**-40, np.float32(0.1) * np.ones((3, 2))]
    )

    assert exact_sums(terms).tolist() == [
        math.fsum(column) for column in terms.T.tolist()
    ]


def test_a_vector_that_is_not_finite_is_no_test_item():
    """Infinities cannot be averaged: an error, not a warning of arithmetic."""
    with pytest.raises(UserError, match="not finite"):
        minimum_and_average(
            SIMILARITY, np.array([[np.inf, 0, 0], [-np.inf, 0, 0]], np.float32)
        )
