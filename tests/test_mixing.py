"""Are published sampling rates made into exact counts?"""

from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from zsg_core.data.mixing import compute_rates, count_by_rates, count_kept
from zsg_core.data.readers.p3 import find_data_set
from zsg_core.errors import UserError

# science: Flan-PaLM, Table 23
FLAN_PALM = {"muffin": "46.0", "t0_sf": "27.9", "cot": "1.8", "niv2": "24.2"}


def rates(
    sizes: dict,
    rule: str = "capped",
    most: int | None = None,
    shares: dict | None = None,
) -> dict:
    """The rates of tasks given by (source, task), one maximum for all sources; T0's
    sets are known by their names."""
    own = (
        (lambda key: key[1])
        if rule == "capped"
        else (lambda key: find_data_set(key[1]))
    )
    return compute_rates(
        rule,
        sizes,
        dict.fromkeys((source for source, _ in sizes), most),
        shares or {},
        own,
    )


def test_flan_draws_by_examples_up_to_a_maximum():
    """p = min(n, 3000) / Σ min(n, 3000)."""
    made = rates({("", "a"): 30_000, ("", "b"): 3000, ("", "c"): 1500}, most=3000)

    assert list(made.values()) == [Fraction(2, 5), Fraction(2, 5), Fraction(1, 5)]


def test_t0_cuts_a_large_data_set_by_its_templates():
    """The code's quirk: ten templates of 400 000 weigh 4 million together, ten of 3.6
    million only 500 000."""
    small = {("", f"imdb_{i}"): 400_000 for i in range(10)}
    large = {("", f"amazon_polarity_{i}"): 3_600_000 for i in range(10)}
    made = rates(small | large, "t0")

    assert sum(made[key] for key in large) / sum(
        made[key] for key in small
    ) == Fraction(500_000, 4_000_000)
    assert (
        count_by_rates(made, small | large, None, False)["", "amazon_polarity_0"]
        == 50_000
    )


def test_sources_have_the_shares_they_are_given():
    """Flan-PaLM: each mixture has its published part of the whole, its tasks by their
    capped sizes."""
    sizes = {
        (source, task): n
        for source in FLAN_PALM
        for task, n in (("large", 60_000), ("small", 15_000))
    }
    made = rates(
        sizes,
        most=30_000,
        shares={source: Fraction(share) for source, share in FLAN_PALM.items()},
    )

    whole = sum(map(Fraction, FLAN_PALM.values()))
    assert {
        source: sum(r for key, r in made.items() if key[0] == source) * whole
        for source in FLAN_PALM
    } == {source: Fraction(share) for source, share in FLAN_PALM.items()}
    assert made["cot", "large"] == 2 * made["cot", "small"]


SIZES = st.dictionaries(
    st.tuples(st.sampled_from("ab"), st.sampled_from("stuvw")),
    st.integers(1, 500),
    min_size=1,
)


@settings(deadline=None)
@given(SIZES, st.none() | st.integers(1, 100), st.integers(1, 3000))
def test_counts_sum_to_what_is_asked(sizes, most, total):
    """The rates sum to one; counts sum to the total, each within one of its exact part;
    none need come twice."""
    made = rates(sizes, most=most)
    drawn, once = (
        count_by_rates(made, sizes, total, repeat=True),
        count_by_rates(made, sizes, None, repeat=False),
    )

    assert sum(made.values()) == 1
    assert sum(drawn.values()) == total
    assert all(abs(drawn[key] - total * rate) < 1 for key, rate in made.items())
    assert all(once[key] <= size for key, size in sizes.items())


@settings(deadline=None)
@given(SIZES, st.integers(1, 100))
def test_without_a_total_every_capped_task_gives_its_cap(sizes, most):
    """FLAN's natural epoch: where any task is below the cap, the others come as often
    as the cap says."""
    assume(min(sizes.values()) <= most)
    made = count_by_rates(rates(sizes, most=most), sizes, None, repeat=False)

    assert made == {key: min(size, most) for key, size in sizes.items()}


def test_a_task_too_small_for_its_part_is_refused():
    """Repeats only where the recipe says so; the message says how much there is, and
    what would do."""
    sizes = {("", "a"): 10, ("", "b"): 90}

    with pytest.raises(
        UserError,
        match=r"a with 10 examples for 20; ask for at most 100, or set data\.mix\.repeat",
    ):
        count_by_rates(rates(sizes), sizes, 200, repeat=False)


@pytest.mark.parametrize(
    ("rule", "size", "other", "kept"),
    [
        pytest.param(
            {"fraction": "1/256"}, 110_142, 0, 430, id="DMT's 1/256 of 110142"
        ),
        pytest.param({"fraction": "1/64"}, 86_060, 0, 1344, id="DMT's 1/64 of 86060"),
        pytest.param({"fraction": "1/3"}, 9, 0, 3, id="exactly a third"),
        pytest.param({"fraction": "1/4"}, 3, 0, 0, id="less than one"),
        pytest.param({"fraction": "1", "count": 7}, 9, 0, 7, id="a count"),
        pytest.param(
            {"fraction": "1", "ratio": "67"}, 10_000, 100, 6700, id="DELIA's 67 to one"
        ),
        pytest.param(
            {"fraction": "1", "ratio": "5/2"}, 100, 3, 7, id="a ratio is rounded down"
        ),
        pytest.param(
            {"fraction": "1", "ratio": "520"},
            1000,
            100,
            1000,
            id="all there are where the ratio asks more",
        ),
    ],
)
def test_an_amount_is_exact(rule, size, other, kept):
    """A fraction, a count or a ratio says how many examples are kept, to the last one."""
    assert count_kept(rule, size, other) == kept


def test_a_count_beyond_what_there_is_is_refused():
    """Nobody gets fewer examples than were asked for without being told."""
    with pytest.raises(UserError, match="there are 5 training examples"):
        count_kept({"fraction": "1", "count": 6}, 5)
