"""Are the rounds of TMA those of the plain rule, to the last tie?"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lib import plain_orders as plain
from tests.lib.crowded_vectors import SIMILARITY, TEST, crowded
from zsg_core.errors import UserError
from zsg_core.orders import candidates, nearest, tma

CROWDS = st.tuples(
    st.integers(0, 2**32 - 1),
    st.integers(1, 60),
    st.integers(1, 9),
    st.sampled_from([1, 2, 3, 7, 8, 33]),
    st.integers(1, 20),
).map(lambda sizes: crowded(*sizes))


@pytest.mark.parametrize(
    ("farthest", "cap", "wanted"),
    [
        (False, None, [[0, 1, 2], [3, 4], [5]]),
        (False, 4, [[0, 1, 2], [3, 4]]),
        (False, 3, [[0, 1, 2]]),
        (True, None, [[0, 1, 5], [3, 4], [2]]),
    ],
)
def test_golden_rounds(farthest, cap, wanted):
    """The rounds of science 1.6; a cap ends them after the round that reaches it, untrimmed."""
    assert list(tma.pick_rounds(SIMILARITY, TEST, farthest=farthest, cap=cap)) == wanted


@settings(deadline=None, max_examples=150)
@given(CROWDS, st.booleans(), st.none() | st.integers(0, 70))
def test_rounds_are_those_of_the_plain_rule(crowd, farthest, cap):
    """With exact ties, near-ties, equal training items and equal test items, near and
    far, capped and not."""
    train, test = crowd

    assert list(
        tma.pick_rounds(train, test, farthest=farthest, cap=cap)
    ) == plain.rounds(train, test, farthest, cap)


@settings(deadline=None, max_examples=100)
@given(CROWDS, st.none() | st.integers(0, 70))
def test_both_ends_at_once_are_those_of_the_plain_rule(crowd, cap):
    """One product for the nearest and the farthest rounds changes neither, whatever
    ties: from one training item on, with sizes that no chunk divides."""
    train, test = crowd

    assert tma.pick_rounds_of_both_ends(train, test, cap=cap) == (
        plain.rounds(train, test, False, cap),
        plain.rounds(train, test, True, cap),
    )


def test_nothing_has_no_ends():
    """Of no training items there are no rounds."""
    assert tma.pick_rounds_of_both_ends(SIMILARITY[:0], TEST) == ([], [])


@pytest.fixture
def short_lists(monkeypatch):
    """Lists so short that they run out, are filled again and shortened, as only large
    data make them."""
    for module, name, value in [
        (tma, "SHORTEST", 1),
        (tma, "PER_ROUND", 0),
        (tma, "WINDOW", 2),
        (tma, "LONGEST", 64),
        (candidates, "WHOLE", 1),
        (candidates, "LEAST_SAMPLE", 2),
        (candidates, "MOST_SAMPLE", 4),
        (candidates, "CHUNK", 7),
    ]:
        monkeypatch.setattr(module, name, value)


@pytest.mark.parametrize("farthest", [False, True])
@pytest.mark.parametrize("seed", range(25))
def test_lists_that_run_out_are_filled_again(short_lists, seed, farthest):
    """However short the lists and however bad the guess of their floors, the rounds are
    the same."""
    train, test = crowded(seed, 200, 1 + seed % 7, 5, 5 + 8 * seed)

    assert list(tma.pick_rounds(train, test, farthest=farthest)) == plain.rounds(
        train, test, farthest
    )


@pytest.mark.parametrize("seed", range(12))
def test_lists_of_both_ends_that_run_out_are_filled_again(short_lists, seed):
    """Each end is then searched for itself, and the rounds are the same."""
    train, test = crowded(seed, 200, 1 + seed % 7, 5, 5 + 8 * seed)

    assert tma.pick_rounds_of_both_ends(train, test) == (
        plain.rounds(train, test, False),
        plain.rounds(train, test, True),
    )


def test_uncapped_rounds_take_every_item_once():
    """The union of the rounds is all that there was, none of it twice."""
    train, test = crowded(3, 5000, 40, 33, 700)
    taken = [item for one in tma.pick_rounds(train, test) for item in one]

    assert sorted(taken) == list(range(5000))


def test_every_engine_and_any_number_of_rows_at_once_give_the_same_rounds(monkeypatch):
    """A product that is wrong by nearly its error bound changes nothing."""
    train, test = crowded(4, 400, 12, 33, 90)
    wanted = list(tma.pick_rounds(train, test))

    class Wrong(nearest.Blas):
        """Adds noise as large as float32 arithmetic may make."""

        def _product(self, rows, test):
            bound = 0.95 * tma.error_bound(rows, test)
            made = super()._product(rows, test)
            return made + np.random.RandomState(len(rows)).uniform(
                -bound / 2, bound / 2, made.shape
            ).astype(np.float32)

    farthest = list(tma.pick_rounds(train, test, farthest=True))
    for chunk in (candidates.CHUNK, 13):
        monkeypatch.setattr(candidates, "CHUNK", chunk)
        assert list(tma.pick_rounds(train, test, engine=Wrong())) == wanted
        both = tma.pick_rounds_of_both_ends(train, test, engine=Wrong())
        assert both == (wanted, farthest)


def test_vectors_that_are_not_finite_are_refused():
    """NaN is near to nothing: it is an error and no order."""
    train = SIMILARITY.copy()
    train[2, 1] = np.nan

    with pytest.raises(UserError, match="not finite"):
        list(tma.pick_rounds(train, TEST))
    with pytest.raises(UserError, match="not finite"):
        tma.pick_rounds_of_both_ends(train, TEST)
