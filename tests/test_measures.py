"""Are the distances of the measures the ones that their formulas give?"""

import math

import numpy as np
import pytest

from tests.lib import plain_orders as plain
from tests.lib.crowded_vectors import SIMILARITY, TEST
from zsg_core.errors import UserError
from zsg_core.orders import distance, measures, nearest
from zsg_core.orders.distance import fold_sum

BLAS = nearest.Blas()


def measured(name: str, train: np.ndarray, test: np.ndarray) -> list[float]:
    """A measure with the paper's weights."""
    return measures.measure_vectors(name, train, test, (1.0, None), BLAS).tolist()


def units(seed: int, count: int) -> np.ndarray:
    """Unit vectors of 33 dimensions, on average similar to each other."""
    made = np.random.RandomState(seed).randn(count, 33) + 0.3
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def plain_measures(train: np.ndarray, test: np.ndarray) -> dict[str, np.ndarray]:
    """The measures in float64, as one would write them down."""
    x, t = train.astype(float), test.astype(float)
    cosine = -x @ t.T
    far = np.linalg.norm(x[:, None] - t[None], axis=2)
    middle = t.mean(axis=0)
    made = {f"cosine_{how}": getattr(cosine, how)(axis=1) for how in ("min", "max")}
    made |= {f"euclidean_{how}": getattr(far, how)(axis=1) for how in ("min", "max")}
    made |= {"cosine_avg": cosine.mean(axis=1), "euclidean_avg": far.mean(axis=1)}
    made |= {"cosine_centroid": -x @ middle / np.linalg.norm(middle)}
    made |= {"euclidean_centroid": np.linalg.norm(x - middle, axis=1)}
    return made | {
        "wsd": cosine.min(1)
        + cosine.min(1).mean() / cosine.mean(1).mean() * cosine.mean(1)
    }


@pytest.mark.parametrize("name", [measures.WSD, *measures.COSINE, *measures.EUCLIDEAN])
def test_a_measure_is_its_formula(name):
    """Each agrees with plain float64 to twelve digits."""
    train, test = units(0, 300), units(1, 17)

    assert measured(name, train, test) == pytest.approx(
        plain_measures(train, test)[name].tolist(), abs=1e-12
    )


@pytest.mark.parametrize(
    "name", ["cosine_min", "cosine_max", "cosine_avg", "euclidean_min", "euclidean_avg"]
)
def test_equal_items_tie_exactly(name):
    """An item's distance does not depend on where it stands, so equal items tie and the
    lowest index wins."""
    train = np.tile(units(2, 5), (60, 1))

    assert len(set(measured(name, train, units(3, 9)))) == 5


def test_the_farthest_of_the_golden_items():
    """science 1.6: cosine_max is −cosine to the least similar test item."""
    assert (
        measured("cosine_max", SIMILARITY, TEST)
        == (-SIMILARITY.min(axis=1).astype(float)).tolist()
    )


def test_sums_over_test_items_have_one_order():
    """euclidean_avg is folded over the test items as similarities are over dimensions."""
    train, test = units(4, 3), units(5, 5)
    found = measures.euclidean_distances(train, test)

    assert (
        measured("euclidean_avg", train, test)
        == (fold_sum(np.ascontiguousarray(found.T)) / 5).tolist()
    )


def test_a_task_is_the_mean_of_its_items():
    """Task vectors stand in the order in which tasks first come; for cosines they are
    unit vectors."""
    train = np.array([[1, 0], [0, 1], [0, 1], [3, 4]], np.float32)

    assert measures.task_vectors(train, ["b", "a", "b", "c"], unit=False).tolist() == [
        [0.5, 0.5],
        [0, 1],
        [3, 4],
    ]
    assert np.allclose(
        measures.task_vectors(train, ["b", "a", "b", "c"], unit=True)[2], [0.6, 0.8]
    )


def test_coarse_weights_are_those_of_the_tasks():
    """The published w_avg is taken over the task vectors."""
    train, test, tasks = units(6, 12), units(7, 4), ["a", "b", "c"] * 4
    spec = {"measure": "wsd", "w_min": "1", "w_avg": "mean", "granularity": "coarse"}
    vectors = measures.task_vectors(train, tasks, unit=True)

    found = measures.compute_distances(
        spec, tasks, lambda: (train, test), lambda: ([], []), BLAS
    )
    assert found.tolist() == measured("wsd", vectors, test)


def test_other_weights():
    """Any weights may be given; −1 and 0.5 are taken as they are."""
    train, test = units(8, 20), units(9, 4)
    near, average = (
        np.array(column) for column in plain.minimum_and_average(train, test)
    )
    spec = {"measure": "wsd", "w_min": "-1", "w_avg": "0.5"}

    found = measures.compute_distances(
        spec, ["t"] * 20, lambda: (train, test), lambda: ([], []), BLAS
    )
    assert found.tolist() == (-1.0 * near + 0.5 * average).tolist()


def test_bigram_divergence_and_its_published_variant():
    """kl sums over distinct bigrams; the authors' code over every occurrence."""
    p = {("a", "b"): 2 / 3, ("b", "a"): 1 / 3}
    q = {("a", "b"): 1 / 2, ("b", "c"): 1 / 2}
    terms = {
        pair: share * math.log(share / (q.get(pair, 0) + 1e-10))
        for pair, share in p.items()
    }

    assert measures.measure_texts(
        "kl", [["a b a  b"], ["a"]], ["a b\nc"]
    ).tolist() == pytest.approx([sum(terms.values()), 0.0], rel=1e-12)
    assert measures.measure_texts(
        "kl_repeated", [["a b a b"]], ["a b c"]
    ).tolist() == pytest.approx([2 * terms["a", "b"] + terms["b", "a"]], rel=1e-12)


def test_bigrams_do_not_reach_from_one_text_into_the_next():
    """A task's texts are counted together, each on its own."""
    together = measures.measure_texts("kl", [["a b", "c d"]], ["a b", "c d"])

    assert together.tolist() == pytest.approx([0.0], abs=1e-9)


@pytest.mark.engine  # needs POT
def test_transport_is_exact():
    """Where every item has a twin, an optimal plan moves each to its own: the costs are
    those distances."""
    test = units(10, 6)
    train = test[[3, 1, 0, 2, 5, 4]] + np.float32(0.001)

    assert measured("ot", train, test) == pytest.approx(
        [0.001 * math.sqrt(33) / 6] * 6, rel=1e-3
    )


def test_a_transport_problem_that_is_too_large_is_refused():
    """The message gives the number of costs and what is allowed."""
    train, test = np.zeros((40_001, 1), np.float32), np.zeros((1000, 1), np.float32)

    with pytest.raises(
        UserError, match="40001000 costs; exact transport takes at most 40000000"
    ):
        measured("ot", train, test)


@pytest.mark.parametrize("name", [*measures.MEASURES[:9], measures.OT])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("of_test", [False, True])
def test_what_is_not_finite_is_refused_by_every_measure(name, value, of_test):
    """One number of one vector: no order is made, of items or of tasks, where distances
    would be none."""
    if name == measures.OT:
        pytest.importorskip("ot")
    train, test = units(0, 5), units(1, 4)
    (test if of_test else train)[3, 7] = value

    with pytest.raises(UserError, match="not finite"):
        measured(name, train, test)
    spec = {"measure": name, "granularity": "coarse"}
    with pytest.raises(UserError, match="not finite"):
        measures.compute_distances(
            spec, ["a", "a", "b", "b", "b"], lambda: (train, test), tuple, BLAS
        )


@pytest.mark.parametrize("row", [1023, 1024, 2500])
@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_what_is_not_finite_is_refused_wherever_it_stands(row, value):
    """Vectors are looked at in blocks: also in a later one, and in the last."""
    vectors = units(0, 2501)
    assert distance.longest_norm(vectors) == pytest.approx(1, abs=1e-4)
    vectors[row, 7] = value

    with pytest.raises(UserError, match="not finite"):
        distance.refuse_not_finite(units(1, 4), vectors)


def test_a_mean_without_direction_is_refused():
    """Of test vectors, or of a task's: exactly, or but for what rounding leaves."""
    train, test = units(0, 4), units(1, 2)
    rest = np.float32(1e-7) * units(2, 1)[0]
    for off in (0, rest):
        cancelling = np.array([test[0], -test[0] + off], np.float32)

        with pytest.raises(UserError, match="the test set cancel one another"):
            measured("cosine_centroid", train, cancelling)
        with pytest.raises(UserError, match="the task b cancel one another"):
            measures.task_vectors(
                np.concatenate([train[:2], cancelling]), ["a", "a", "b", "b"], unit=True
            )
    made = measures.task_vectors(np.array([test[0], -test[0]]), ["b", "b"], unit=False)
    assert made.tolist() == [[0.0] * 33]  # a point has a distance all the same
