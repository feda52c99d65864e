"""Are claims decided by tasks and splits, and are the intervals as wide as they must be?"""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from zsg_core.settings.claims import OF_A_GRID, Claim, FallsAt, FallsEarly
from zsg_core.stats import curves, verdict
from zsg_core.stats.verdict import (
    HERE,
    HERE_OF_ONE,
    NOT_SUPPORTED,
    OPPOSITE,
    SUPPORTED,
    TOO_FEW,
    ClaimVerdict,
    Curve,
)

ORDER = ("nft", "rt", "fft")
# of one held-out split
SUPPORTED_HERE, OPPOSITE_HERE = f"{SUPPORTED} {HERE}", f"{OPPOSITE} {HERE}"


def claim(**said) -> Claim:
    """A claim as a grid file says it."""
    return OF_A_GRID.validate_python([said])[0]


RISES = claim(claim="rises", along="arrangement.order", values=list(ORDER))
PAIR = claim(claim="rises", along="arrangement.order", values=["a", "b"])


def curve(
    level: str, ends: Sequence[float], split: str = "A", seed: str = "0", of: str = "t"
) -> Curve:
    """A run whose tasks end at `ends`, coming down from 3 within two checkpoints."""
    losses = np.array([np.full(len(ends), 3.0), np.asarray(ends) + 0.1, ends])
    return Curve(
        level,
        split,
        seed,
        (0, 10, 20),
        [f"{of}{n}" for n in range(len(ends))],
        [5] * len(ends),
        losses,
    )


def ends(at: float, noise: float = 0.02, tasks: int = 24, seed: int = 0) -> np.ndarray:
    """What tasks end at: a level, tasks of their own height, and what a run adds to each."""
    height = np.random.default_rng(99).normal(0, 1, tasks)
    return at + height + np.random.default_rng(seed).normal(0, noise, tasks)


def three(*at: float, **options) -> list[Curve]:
    """A run for each order."""
    return [
        curve(level, ends(value, seed=n, **options))
        for n, (level, value) in enumerate(zip(ORDER, at, strict=True))
    ]


@pytest.mark.parametrize(
    ("at", "noise", "word"),
    [
        ((1.0, 1.1, 1.2), 0.02, SUPPORTED_HERE),
        ((1.2, 1.1, 1.0), 0.02, OPPOSITE_HERE),
        ((1.0, 1.1, 1.1), 0.02, NOT_SUPPORTED),  # one pair does not rise
        ((1.1, 1.0, 1.2), 0.02, NOT_SUPPORTED),  # the ends do, the middle does not
        ((1.1, 1.2, 1.0), 0.02, NOT_SUPPORTED),  # the ends fall, the first step rises
        ((1.0, 1.1, 1.2), 1.0, NOT_SUPPORTED),  # tasks differ by far more
    ],
)
def test_a_rise_holds_if_every_step_does(
    at: tuple[float, ...], noise: float, word: str
) -> None:
    """Opposite only if every step falls: a last place below the first says little of a
    chain that rises in between."""
    assert verdict.judge_claim(RISES, three(*at, noise=noise), ORDER).word == word


def test_five_tasks_decide_nothing() -> None:
    """However many seeds repeat them."""
    runs = [
        replace(one, seed=str(seed))
        for seed in range(20)
        for one in three(1.0, 2.0, 3.0, tasks=5)
    ]
    found = verdict.judge_claim(RISES, runs, ORDER)

    assert found.word == TOO_FEW
    assert "fewer than the 6" in found.notes[0]


def test_places_without_runs_decide_nothing() -> None:
    """And the verdict says which."""
    found = verdict.judge_claim(RISES, three(1.0, 1.1, 1.2)[:2], ORDER)

    assert (found.word, found.notes) == (TOO_FEW, ["no run has values at fft"])


def test_an_effect_is_that_of_the_plain_mean_with_a_paired_t_interval() -> None:
    """One split, one seed: the interval over tasks is Student's on the tasks' differences."""
    a, b = ends(1.0, 0.1, seed=1), ends(1.1, 0.1, seed=2)
    [effect] = verdict.judge_claim(
        PAIR, [curve("a", a), curve("b", b)], ("a", "b")
    ).effects
    wanted = curves.compute_t_interval(list(b - a))

    assert effect.found.value == pytest.approx(np.mean(b - a))
    assert effect.found.interval == pytest.approx(
        wanted, abs=0.05 * (wanted[1] - wanted[0])
    )
    assert effect.found.over_replicates == 0


def test_the_value_weighs_tasks_by_their_items() -> None:
    """As the curve does, which is the mean over test items."""
    runs = [
        replace(curve(level, [1.0 + n, 3.0, *[2.0] * 6]), counts=[15, 5, *[5] * 6])
        for n, level in enumerate("ab")
    ]
    found = verdict.judge_claim(PAIR, runs, ("a", "b"))

    assert found.levels == pytest.approx(
        {"a": (15 + 15 + 60) / 50, "b": (30 + 15 + 60) / 50}
    )


def test_seeds_do_not_make_up_for_tasks() -> None:
    """A difference on a quarter of the tasks that many seeds repeat to the third digit
    is told from a finding."""
    effect = np.where(np.arange(24) % 4 == 0, 1.0, -0.15)
    runs = [
        curve(
            level,
            ends(1.0, 0.01, seed=10 * seed + place) + place * effect,
            seed=str(seed),
        )
        for seed in range(5)
        for place, level in enumerate("ab")
    ]
    found = verdict.judge_claim(PAIR, runs, ("a", "b"))

    assert found.word == NOT_SUPPORTED
    assert (
        found.effects[0].found.over_tasks > 5 * found.effects[0].found.over_replicates
    )
    assert "b − a: clear over seeds alone, but not over held-out tasks" in found.notes


def test_one_split_and_one_seed_are_warned_of() -> None:
    """And four splits are not: what a split or a seed changes is then in the interval."""
    one = verdict.judge_claim(RISES, three(1.0, 1.1, 1.2), ORDER)
    runs = [
        replace(run, split=split, units=[f"{split}{u}" for u in run.units])
        for split in "ABCD"
        for run in three(1.0, 1.1, 1.2)
    ]
    four = verdict.judge_claim(RISES, runs, ORDER)

    assert [
        "rests on one held-out split" in one.notes[0],
        "one seed each" in one.notes[1],
    ] == [
        True,
        True,
    ]
    assert (one.word, four.word) == (SUPPORTED_HERE, SUPPORTED)
    assert (four.notes, four.splits, four.tasks) == ([], 4, 96)


def test_items_of_one_task_are_told_from_tasks() -> None:
    """GSM8K's items are an interval of items."""
    found = verdict.judge_claim(
        PAIR,
        [curve("a", ends(1.0)), curve("b", ends(1.1))],
        ("a", "b"),
        units_are_tasks=False,
    )

    assert found.word == f"{SUPPORTED} {HERE_OF_ONE}"
    assert "over items" in found.notes[0]


def same(one: ClaimVerdict, other: ClaimVerdict) -> bool:
    """Whether two verdicts have the same word and numbers, but for rounding."""
    pairs = zip(one.effects, other.effects, strict=True)
    # copies may stand for splits
    stems = [found.word.removesuffix(f" {HERE}") for found in (one, other)]
    return stems[0] == stems[1] and all(
        a.found.value == pytest.approx(b.found.value)
        and a.found.interval == pytest.approx(b.found.interval)
        for a, b in pairs
    )


@settings(max_examples=10, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 3), st.sampled_from("split seed".split())
)
def test_copies_add_no_evidence(number: int, copies: int, of: str) -> None:
    """Runs that are repeated as other seeds, or as other splits of the same tasks,
    leave every interval as it is."""
    rng = np.random.default_rng(number)
    runs = [
        curve(level, rng.normal(1 + place / 10, 0.3, 12))
        for place, level in enumerate(ORDER)
    ]
    copied = [replace(run, **{of: f"copy {n}"}) for n in range(copies) for run in runs]

    assert same(
        verdict.judge_claim(RISES, runs, ORDER),
        verdict.judge_claim(RISES, [*runs, *copied], ORDER),
    )


@settings(max_examples=5, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_runs_changes_nothing(shuffler) -> None:
    """Not a bit."""
    runs = [
        replace(run, seed=str(seed))
        for seed in range(3)
        for run in three(1.0, 1.05, 1.1, noise=0.1)
    ]
    shuffled = list(runs)
    shuffler.shuffle(shuffled)

    assert verdict.judge_claim(RISES, shuffled, ORDER) == verdict.judge_claim(
        RISES, runs, ORDER
    )


@settings(max_examples=30, deadline=None)
@given(st.floats(-5, 5), st.floats(0.1, 10))
def test_units_of_the_loss_do_not_matter(shift: float, scale: float) -> None:
    """Moved and scaled curves have the same verdict, and effects scaled alike."""
    runs = three(1.0, 1.05, 1.1, noise=0.1)
    moved = [replace(run, losses=run.losses * scale + shift) for run in runs]
    one, other = (
        verdict.judge_claim(RISES, runs, ORDER),
        verdict.judge_claim(RISES, moved, ORDER),
    )

    assert one.word == other.word
    assert [e.found.value * scale for e in one.effects] == pytest.approx(
        [e.found.value for e in other.effects]
    )


def covered(make, truth: float, times: int = 250) -> float:
    """How often the interval of b − a holds the truth; its standard error is about 1.4
    % at 95 %."""
    hits = 0
    for number in range(times):
        [effect] = verdict.judge_claim(
            PAIR, make(np.random.default_rng(number)), ("a", "b")
        ).effects
        hits += effect.found.interval[0] <= truth <= effect.found.interval[1]
    return hits / times


def on_tasks(rng: np.random.Generator) -> list[Curve]:
    """One split of 12 tasks, each with an effect of its own, and a run's noise that all
    its tasks share."""
    base, own = rng.normal(0, 1, 12), rng.normal(0.1, 0.3, 12)
    return [curve("a", base), curve("b", base + own)]


def on_seeds(rng: np.random.Generator) -> list[Curve]:
    """12 tasks and 5 seeds, of which either may decide."""
    base, own = rng.normal(0, 1, 12), rng.normal(0.1, 0.2, 12)
    return [
        curve(
            level,
            base + place * own + rng.normal(0, 0.1) + rng.normal(0, 0.05, 12),
            seed=str(seed),
        )
        for seed in range(5)
        for place, level in enumerate("ab")
    ]


def on_splits(rng: np.random.Generator) -> list[Curve]:
    """Six splits of 10 tasks apiece, with an effect of the split beside that of the task."""
    made = []
    for split in "ABCDEF":
        base, own = rng.normal(0, 1, 10), rng.normal(0.1, 0.2, 10) + rng.normal(0, 0.1)
        made += [
            curve(level, base + place * own, split=split, of=split)
            for place, level in enumerate("ab")
        ]
    return made


def on_shared_tasks(rng: np.random.Generator) -> list[Curve]:
    """Six splits of 10 of the same 30 tasks, so that splits are alike where they share tasks."""
    own, made = rng.normal(0.1, 0.3, 30), []
    for split in "ABCDEF":
        drawn, of_split = (
            sorted(rng.choice(30, 10, replace=False).tolist()),
            rng.normal(0, 0.02),
        )
        for place, level in enumerate("ab"):
            one = curve(level, place * (own[drawn] + of_split), split=split)
            made.append(replace(one, units=[f"t{n}" for n in drawn]))
    return made


@pytest.mark.parametrize("make", [on_tasks, on_seeds, on_splits, on_shared_tasks])
def test_intervals_cover_what_they_say(make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The truth lies within 95 % intervals about 95 times of 100, wherever the
    differences come from."""
    monkeypatch.setattr(curves, "REPEATS", 300)  # as good on average
    assert 0.91 <= covered(make, 0.1) <= 0.99


def falling(
    steps: Sequence[int], at: Sequence[float], level: str = "x", tasks: int = 12
) -> Curve:
    """A run whose tasks all follow one curve, each a little off."""
    off = np.random.default_rng(1).normal(0, 0.01, (len(steps), tasks))
    return Curve(
        level,
        "A",
        "0",
        steps,
        [f"t{n}" for n in range(tasks)],
        [5] * tasks,
        np.asarray(at)[:, None] + off,
    )


STEPS = list(range(0, 210, 10))


def test_an_early_fall_is_told_from_a_late_one() -> None:
    """80 % of the fall within 5 % of the steps, and not."""
    early = [3.0] + [1.0 - step / 1000 for step in STEPS[1:]]
    late = [3.0 - step / 100 for step in STEPS]
    words = [
        verdict.judge_claim(
            FallsEarly(claim="falls_early"), [falling(STEPS, at)], ["x"]
        ).word
        for at in (early, late)
    ]

    assert words == [SUPPORTED_HERE, OPPOSITE_HERE]


def test_a_turn_is_told_from_a_steady_fall() -> None:
    """A fall that begins half-way, none, and one that ends there."""
    flat, half = [2.0] * 21, STEPS.index(100)
    begins = [2.0 - max(0, step - 100) / 100 for step in STEPS]
    steady = [2.0 - step / 100 for step in STEPS]
    ends_there = [2.0 - min(step, 100) / 100 for step in STEPS]
    judged = [
        verdict.judge_claim(FallsAt(claim="falls_at"), [falling(STEPS, at)], ["x"])
        for at in (begins, flat, steady, ends_there)
    ]

    assert [one.word for one in judged] == [
        SUPPORTED_HERE,
        NOT_SUPPORTED,
        NOT_SUPPORTED,
        OPPOSITE_HERE,
    ]
    assert (
        judged[0].effects[0].name
        == f"fall over steps {STEPS[half]}–110 less that over 90–100"
    )


def test_checkpoints_that_are_too_few_decide_nothing() -> None:
    """And the verdict says so, in place of an answer from none."""
    few = falling([0, 100, 200], [3.0, 2.0, 1.0])

    assert (
        verdict.judge_claim(FallsEarly(claim="falls_early"), [few], ["x"]).word
        == TOO_FEW
    )
    assert (
        verdict.judge_claim(
            FallsAt(claim="falls_at", at=Fraction(1, 4)), [few], ["x"]
        ).word
        == TOO_FEW
    )


@pytest.mark.parametrize(
    ("end", "word"),
    [
        ([0.609, 0.616, 0.648, 0.676, 0.691, 0.684], SUPPORTED_HERE),  # as published
        ([0.684, 0.691, 0.676, 0.648, 0.616, 0.609], OPPOSITE_HERE),
        ([0.64, 0.61, 0.68, 0.62, 0.69, 0.61], NOT_SUPPORTED),
    ],
)
def test_rounds_are_ranked(end: list[float], word: str) -> None:
    """Spearman's correlation of at least 0.8, with an interval above 0."""
    places = [f"{n}:{n + 5}" for n in range(0, 30, 5)]
    rounds = claim(claim="correlates", along="arrangement.rounds", values=places)
    runs = [
        curve(place, ends(at, 0.003, seed=n))
        for n, (place, at) in enumerate(zip(places, end, strict=True))
    ]

    assert verdict.judge_claim(rounds, runs, places).word == word


def test_a_rank_correlation_is_spearmans() -> None:
    """1 − 6 Σd² / n(n² − 1) where no ranks are tied; the mean rank where they are."""
    places = ["a", "b", "c", "d", "e", "f"]
    rounds = claim(claim="correlates", along="x", values=places)

    def rho(values: list[float]) -> float:
        runs = [
            curve(place, [value] * 6)
            for place, value in zip(places, values, strict=True)
        ]
        return verdict.judge_claim(rounds, runs, places).effects[0].found.value

    assert rho([0.609, 0.616, 0.648, 0.676, 0.691, 0.684]) == pytest.approx(
        1 - 6 * 2 / (6 * 35)
    )
    assert rho([1, 2, 2, 3, 4, 5]) == pytest.approx(
        np.corrcoef([1, 2, 3, 4, 5, 6], [1, 2.5, 2.5, 4, 5, 6])[0, 1]
    )


def shocks(level: str, jumps: bool, seed: int = 0, tasks: int = 24) -> Curve:
    """Tasks that wander a little; with jumps each falls once, at a step of its own."""
    rng = np.random.default_rng(seed)
    moves = rng.uniform(-0.02, 0.02, (40, tasks))
    if jumps:
        moves[rng.integers(5, 35, tasks), np.arange(tasks)] -= 0.5
    losses = np.concatenate([np.full((1, tasks), 3.0), 3 + np.cumsum(moves, axis=0)])
    return Curve(
        level,
        "A",
        "0",
        range(0, 410, 10),
        [f"t{n}" for n in range(tasks)],
        [5] * tasks,
        losses,
    )


@pytest.mark.parametrize(
    ("jumps", "word"),
    [
        ((True, False), SUPPORTED_HERE),
        ((False, False), NOT_SUPPORTED),
        ((False, True), OPPOSITE_HERE),
    ],
)
def test_sudden_falls_count_against_another_order(
    jumps: tuple[bool, bool], word: str
) -> None:
    """What noise does in any order is no sudden fall."""
    sudden = claim(
        claim="falls_suddenly",
        along="arrangement.order",
        value="cluster",
        against="random",
    )
    runs = [shocks("cluster", jumps[0]), shocks("random", jumps[1], seed=1)]

    assert verdict.judge_claim(sudden, runs, ("cluster", "random")).word == word


def test_splits_that_lack_a_run_are_left_out_and_told() -> None:
    """A level with the easier splits would look better."""
    runs = [
        replace(run, split=split) for split in "ABCDE" for run in three(1.0, 1.1, 1.2)
    ]
    found = verdict.judge_claim(
        RISES, [run for run in runs if (run.split, run.level) != ("E", "rt")], ORDER
    )

    assert (found.splits, found.runs) == (4, 12)
    assert found.notes == ["1 of 5 splits lack runs and are left out"]


def test_runs_on_different_tasks_are_not_compared() -> None:
    """Though they say they are of one split."""
    with pytest.raises(ValueError, match="different tasks"):
        verdict.judge_claim(
            PAIR, [curve("a", ends(1.0)), curve("b", ends(1.0), of="u")], ("a", "b")
        )


def test_levels_may_have_seeds_of_their_own() -> None:
    """A single nearest-first run beside three random ones: runs are then drawn at each
    level apart."""
    runs = [
        curve("a", ends(1.0)),
        *(curve("b", ends(1.1, seed=n), seed=str(n)) for n in range(1, 4)),
    ]
    found = verdict.judge_claim(PAIR, runs, ("a", "b"))

    assert found.word == SUPPORTED_HERE
    assert found.effects[0].found.by_seeds is not None


@pytest.mark.parametrize(
    "said",
    [
        {"claim": "rises", "along": "x", "values": ["one"]},
        {"claim": "correlates", "along": "x", "values": [1, 2, 3]},
        {"claim": "falls_early", "share": "2"},
        {"claim": "wins"},
        {"claim": "rises", "along": "x", "values": [1, 2], "extra": 1},
    ],
)
def test_a_claim_that_says_nothing_is_refused(said: dict) -> None:
    """Too few places, shares beyond all, unknown words."""
    with pytest.raises(ValidationError):
        OF_A_GRID.validate_python([said])


def test_draws_come_in_parts_of_the_same_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Many clusters are drawn a few draws at a time."""
    runs = three(1.0, 1.1, 1.2)
    whole = verdict.judge_claim(RISES, runs, ORDER)
    monkeypatch.setattr(curves, "AT_ONCE", 24 * 100)

    assert same(whole, verdict.judge_claim(RISES, runs, ORDER))


def test_a_score_of_answers_is_compared_as_it_is_recorded() -> None:
    """As the mean over tasks: one large task that falls from 100 to 0 does not outweigh
    eleven small ones that rise."""
    exact = claim(claim="rises", metric="exact_match", along="x", values=["a", "b"])
    sizes = [90, *[1] * 11]
    runs = [
        replace(curve(level, [large, *[small] * 11]), counts=sizes)
        for level, large, small in (("a", 100.0, 0.0), ("b", 0.0, 100.0))
    ]
    by_tasks, by_items = (
        verdict.judge_claim(one, runs, ("a", "b")) for one in (exact, PAIR)
    )

    assert by_tasks.levels == pytest.approx({"a": 100 / 12, "b": 1100 / 12})
    assert by_tasks.word == SUPPORTED_HERE
    assert by_items.levels == pytest.approx({"a": 9000 / 101, "b": 1100 / 101})


@pytest.mark.parametrize("of", ["end", "area"])
def test_what_has_no_value_in_a_run_is_left_out_of_its_mean(of: str) -> None:
    """As it is of the value that was recorded there: a task without, or some items of
    it at a step."""
    rising = claim(claim="rises", of=of, along="x", values=["a", "b"])
    runs = [curve("a", ends(1.0)), curve("b", ends(1.1))]
    losses, counts = runs[1].losses.copy(), np.full((3, 24), 5.0)
    losses[1, :3], counts[1, :3], counts[2, 3] = np.nan, 0, 1
    found = verdict.judge_claim(
        rising, [runs[0], replace(runs[1], losses=losses, counts=counts)], ("a", "b")
    )
    recorded = [
        losses[0].mean(),
        np.nanmean(losses[1]),
        np.average(losses[2], weights=counts[2]),
    ]

    wanted = recorded[-1] if of == "end" else curves.compute_area([0, 10, 20], recorded)
    assert found.levels["b"] == pytest.approx(float(wanted))
    assert found.word == SUPPORTED_HERE


def test_what_is_no_number_decides_nothing() -> None:
    """A level without a finite value, and ranks that are all tied: too few, and not
    `not supported`."""
    runs = three(1.0, 1.1, 1.2)
    broken = [runs[0], replace(runs[1], losses=np.full((3, 24), np.nan)), runs[2]]
    found = verdict.judge_claim(RISES, broken, ORDER)
    tied = verdict.judge_claim(
        ordered(5), [curve(place, [1.0] * 6) for place in "abcde"], list("abcde")
    )

    assert (found.word, tied.word) == (TOO_FEW, TOO_FEW)
    assert "rt − nft: no number" in found.notes[0]
    assert "rank correlation: no number" in tied.notes[0]


def test_values_near_the_largest_number_are_no_error() -> None:
    """What is too large for an interval is no number, without a warning."""
    large = np.repeat([-1e308, 1e308], 6)
    found = verdict.judge_claim(
        PAIR, [curve("a", large), curve("b", large[::-1])], ("a", "b")
    )

    assert found.word == TOO_FEW


def ordered(places: int, at_least: float = 0.8) -> Claim:
    """A claim that values rise over so many places."""
    return claim(
        claim="correlates",
        along="x",
        values=list("abcdefghij"[:places]),
        at_least=at_least,
    )


def in_order(values: Sequence[float]) -> ClaimVerdict:
    """The verdict on places whose tasks differ by next to nothing but these values."""
    at = list("abcdefghij"[: len(values)])
    runs = [
        curve(place, ends(value, 0.0001, seed=n))
        for n, (place, value) in enumerate(zip(at, values, strict=True))
    ]
    return verdict.judge_claim(ordered(len(values)), runs, at)


def test_four_places_are_too_few_for_a_correlation() -> None:
    """Of their 24 orders one is perfect by chance, more than the 2.5 % that may be; of
    five 1 in 120."""
    four, five = in_order([1, 2, 3, 4]), in_order([1, 2, 3, 4, 5])

    assert (four.word, five.word) == (TOO_FEW, SUPPORTED_HERE)
    assert "too few places: of the 24 orders of 4 places" in four.notes[0]
    assert four.effects[0].found.value == pytest.approx(1)
    assert five.effects[0].chance == pytest.approx((1 / 120, 1))


def test_an_order_that_comes_by_chance_is_not_supported() -> None:
    """Of five places 5 orders in 120 have a correlation of 0.9, of six 6 in 720 one of 0.943."""
    five, six = in_order([1, 2, 3, 5, 4]), in_order([1, 2, 3, 4, 6, 5])

    assert (five.word, six.word) == (NOT_SUPPORTED, SUPPORTED_HERE)
    assert five.effects[0].found.value == pytest.approx(0.9)
    assert five.effects[0].chance == pytest.approx((5 / 120, 119 / 120))
    assert "rank correlation: of orders by chance 4.2% rise as much" in five.notes
    assert six.effects[0].chance is not None and six.effects[0].chance[
        0
    ] == pytest.approx(6 / 720)


def test_many_places_are_held_against_drawn_orders() -> None:
    """Nine in order are supported, nine in reverse opposite: 1 in 362,880 by chance."""
    words = [in_order(values).word for values in (range(9), range(9, 0, -1))]

    assert words == [SUPPORTED_HERE, OPPOSITE_HERE]


def test_large_tasks_of_many_small_ones_count_as_few() -> None:
    """Of 3 tasks of 100 items and 21 of one 3.4 count, (Σw)² / Σw²; of a score of
    answers all do."""
    counts = [100] * 3 + [1] * 21
    runs = [
        replace(curve(level, ends(1.0 + n)), counts=counts)
        for n, level in enumerate("ab")
    ]
    exact = claim(claim="rises", metric="exact_match", along="x", values=["a", "b"])
    loss, score = (verdict.judge_claim(one, runs, ("a", "b")) for one in (PAIR, exact))

    assert loss.counted == pytest.approx(321**2 / (3 * 100**2 + 21))
    assert loss.word == TOO_FEW
    assert loss.notes[0].startswith(
        "24 held-out tasks of unequal size, which count as 3.4: fewer than the 6"
    )
    assert (score.counted, score.word) == (pytest.approx(24), SUPPORTED_HERE)


def splits_of(at: Sequence[float], tasks: int = 12) -> list[Curve]:
    """Splits of tasks of their own, in each of which b is so much above a."""
    made = []
    for name, effect in zip("ABCDEFGH", at, strict=False):
        made += [
            curve(
                level,
                ends(1.0 + place * effect, 0.05, tasks, seed=ord(name)),
                split=name,
                of=name,
            )
            for place, level in enumerate("ab")
        ]
        made[-1] = replace(
            made[-1],
            losses=made[-1].losses
            + np.random.default_rng(ord(name)).normal(0, 0.01, tasks),
        )
    return made


@pytest.mark.parametrize(
    ("at", "word"),
    [
        ([0.5], SUPPORTED_HERE),
        ([0.5, 0.2], SUPPORTED_HERE),  # another split may turn it
        ([0.5, 0.2, 0.1], SUPPORTED_HERE),
        ([-0.5, -0.2, -0.1], OPPOSITE_HERE),
        ([0.5, 0.49, 0.51], SUPPORTED),  # none of such splits does
        ([0.5, -0.5, 0.1], NOT_SUPPORTED),
        ([0.5, 0.2, 0.4, 0.3], SUPPORTED),
        ([0.5, 0.2, 0.1, -0.1], NOT_SUPPORTED),
    ],
)
def test_fewer_than_four_splits_say_what_they_are_of(
    at: list[float], word: str
) -> None:
    """Where splits like these could turn it, the verdict is on these tasks alone."""
    assert verdict.judge_claim(PAIR, splits_of(at), ("a", "b")).word == word


def test_one_more_split_does_not_widen_the_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From two splits on, on average over studies that go on: there is no step where
    splits begin to stand for all."""
    monkeypatch.setattr(curves, "REPEATS", 300)
    widths = dict.fromkeys((2, 3, 4, 5, 6), 0.0)
    for study in np.random.default_rng(0).normal(0.2, 0.2, (40, 6)):
        for count in widths:
            found = (
                verdict.judge_claim(PAIR, splits_of(study[:count], 8), ("a", "b"))
                .effects[0]
                .found
            )
            widths[count] += found.interval[1] - found.interval[0]

    assert widths[2] > widths[3] > widths[4] > widths[5] > widths[6]
