"""How often is a claim decided of studies without an effect, and of such with one?"""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from zsg_core.settings.claims import OF_A_GRID
from zsg_core.stats import curves
from zsg_core.stats.verdict import (
    HERE,
    NOT_SUPPORTED,
    OPPOSITE,
    SUPPORTED,
    TOO_FEW,
    ClaimVerdict,
    Curve,
    judge_claim,
)

pytestmark = pytest.mark.soak(part="trials")
STUDIES = 600
# decided where 5 % are nominal: two standard errors of 600 studies above, and rounded up
MOST = 0.07
[PAIR] = OF_A_GRID.validate_python(
    [{"claim": "rises", "along": "x", "values": ["a", "b"]}]
)


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """As good on average as 2,000."""
    monkeypatch.setattr(curves, "REPEATS", 300)


def study(
    rng: np.random.Generator, splits: int, of_splits: float, effect: float
) -> list[Curve]:
    """Splits of 24 of 142 tasks, two seeds: a difference of each split, each task, a
    task in a split, a run."""
    of_tasks, made = rng.normal(0, 0.47, 142), []
    for split in range(splits):
        own = sorted(rng.choice(142, 24, replace=False).tolist())
        difference = (
            effect + of_tasks[own] + rng.normal(0, 0.2, 24) + rng.normal(0, of_splits)
        )
        for seed in range(2):
            for place, level in enumerate("ab"):
                ends = 5 + place * difference + rng.normal(0, 0.1 / 2**0.5, 24)
                units = [f"t{task}" for task in own]
                losses = np.array([ends + 1, ends])
                made.append(
                    Curve(
                        level, f"s{split}", str(seed), [0, 10], units, [5] * 24, losses
                    )
                )
    return made


def judged(
    splits: int, of_splits: float, effect: float, studies: int = STUDIES
) -> list[ClaimVerdict]:
    """The verdicts of so many studies."""
    rng = np.random.default_rng(100 * splits + round(1000 * of_splits))
    return [
        judge_claim(PAIR, study(rng, splits, of_splits, effect), ["a", "b"])
        for _ in range(studies)
    ]


def rates(found: Sequence[ClaimVerdict]) -> Iterator[tuple[str, float]]:
    """Each word's share."""
    yield from (
        (word, count / len(found))
        for word, count in Counter(one.word for one in found).items()
    )


@pytest.mark.parametrize("of_splits", [0.05, 0.2])
@pytest.mark.parametrize("splits", [1, 2, 3, 4, 6, 8])
def test_a_study_without_an_effect_is_decided_in_five_of_a_hundred(
    splits: int, of_splits: float
) -> None:
    """Whatever splits do; a single split decides of its tasks alone."""
    found = judged(splits, of_splits, 0)
    shares = dict(rates(found))
    print(splits, of_splits, shares)

    assert shares.get(SUPPORTED, 0) + shares.get(OPPOSITE, 0) <= MOST
    if splits == 1:
        assert shares.keys() <= {
            NOT_SUPPORTED,
            f"{SUPPORTED} {HERE}",
            f"{OPPOSITE} {HERE}",
        }
    else:
        intervals = [one.effects[0].found.interval for one in found]
        assert np.mean([low <= 0 <= high for low, high in intervals]) >= 1 - MOST


@pytest.mark.parametrize("splits", [1, 2, 3])
def test_without_split_effects_few_splits_decide_of_these_tasks_in_five_of_a_hundred(
    splits: int,
) -> None:
    """Both ways of deciding together."""
    shares = dict(rates(judged(splits, 0.0, 0)))
    print(splits, shares)

    assert 1 - shares.get(NOT_SUPPORTED, 0) <= MOST + 0.02


@pytest.mark.parametrize(
    ("splits", "of_splits", "effect", "least"),
    [(3, 0.05, 0.3, 0.5), (4, 0.05, 0.3, 0.8), (8, 0.2, 0.4, 0.9)],
)
def test_an_effect_is_found(
    splits: int, of_splits: float, effect: float, least: float
) -> None:
    """Honest intervals leave power where there is something."""
    shares = dict(rates(judged(splits, of_splits, effect, 200)))
    print(splits, of_splits, effect, shares)

    assert shares.get(SUPPORTED, 0) >= least


@pytest.mark.parametrize(
    ("sizes", "can_decide"),
    [
        ([10] * 24, True),
        ([100] * 3 + [1] * 21, False),
        ([100] * 2 + [1] * 10, False),
        ([100] * 8 + [1] * 24, True),
        (np.exp(np.random.default_rng(5).normal(2, 1, 24)).astype(int) + 1, True),
    ],
    ids=["equal", "3 large", "2 large", "8 large", "log-normal"],
)
def test_large_tasks_decide_no_more_than_others(
    sizes: Sequence[int], can_decide: bool
) -> None:
    """Those that count for fewer than six decide nothing."""
    rng, words, units = (
        np.random.default_rng(0),
        [],
        [f"t{n}" for n in range(len(sizes))],
    )
    for _ in range(STUDIES):
        base, found = rng.normal(5, 1, len(sizes)), []
        for level in "ab":
            own = rng.normal(0, 0.3, len(sizes))
            for seed in range(2):
                ends = base + own + rng.normal(0, 0.05, len(sizes))
                found.append(
                    Curve(
                        level,
                        "s",
                        str(seed),
                        [0, 10],
                        units,
                        list(sizes),
                        np.array([ends + 1, ends]),
                    )
                )
        words.append(judge_claim(PAIR, found, ["a", "b"]).word)
    decided = 1 - np.mean([word in (NOT_SUPPORTED, TOO_FEW) for word in words])
    print(len(sizes), decided)

    assert decided <= MOST
    assert (TOO_FEW not in words) == can_decide


@pytest.mark.parametrize("places", [4, 5, 6, 8])
def test_an_order_of_places_is_decided_in_five_of_a_hundred(places: int) -> None:
    """Where places differ by task and seed alone; of four none is."""
    at, units = [f"l{n}" for n in range(places)], [f"t{n}" for n in range(24)]
    [claim] = OF_A_GRID.validate_python(
        [{"claim": "correlates", "along": "x", "values": at}]
    )
    rng, words = np.random.default_rng(places), []
    for _ in range(STUDIES):
        base, found = rng.normal(5, 1, 24), []
        for level in at:
            own = rng.normal(0, 0.3, 24)
            for seed in range(2):
                ends = base + own + rng.normal(0, 0.05, 24)
                found.append(
                    Curve(
                        level,
                        "s",
                        str(seed),
                        [0, 10],
                        units,
                        [10] * 24,
                        np.array([ends + 1, ends]),
                    )
                )
        words.append(judge_claim(claim, found, at).word)
    decided = 1 - np.mean([word in (NOT_SUPPORTED, TOO_FEW) for word in words])
    print(places, decided)

    assert decided <= MOST
    assert set(words) == {TOO_FEW} if places == 4 else TOO_FEW not in words
