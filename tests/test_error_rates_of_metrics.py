"""How often is a claim of rising metrics, between metrics, of a trend or of one number a run
decided of studies in which it is not so?"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from zsg_core.settings.claims import OF_A_GRID, Claim
from zsg_core.stats import curves
from zsg_core.stats.questions import Curve
from zsg_core.stats.verdict import NOT_SUPPORTED, OPPOSITE, SUPPORTED, judge_claim

pytestmark = pytest.mark.soak(part="trials")
STUDIES = 400
# on either side, where 2.5 % are nominal: two and a half standard errors of 400 studies above
MOST = 0.045
# the same of 1,000 studies
MOST_OF_1000 = 0.0375
# three standard errors of 1,600 studies
MOST_OF_1600 = 0.0367
DRAWS = curves.REPEATS  # of the product
TASKS = 40
STEPS = list(range(0, 600, 10))
EARLY = 2
SHARE = 0.8


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """As good on average as 2,000."""
    monkeypatch.setattr(curves, "REPEATS", 200)


def claim(**said) -> Claim:
    """A claim as a grid file says it."""
    return OF_A_GRID.validate_python([said])[0]


@dataclass(frozen=True)
class Noise:
    """What a metric's values have beside its way, as a share of it: errors of each task
    at each checkpoint, and swings that a run has in all its tasks."""

    of_tasks: float
    of_runs: float


def make_metric(
    rng: np.random.Generator,
    name: str,
    noise: Noise,
    splits: int,
    share: float = SHARE,
    unit: float = 1.0,
) -> list[Curve]:
    """Runs of a metric, one of each split, that do `share` of their way early and the
    rest before the next checkpoint."""
    way = np.array(
        [share * step / EARLY for step in range(EARLY + 1)]
        + [1.0] * (len(STEPS) - EARLY - 1)
    )
    runs = []
    for split in range(splits):
        sizes = rng.normal(1, 0.3, TASKS)
        errors = rng.normal(0, noise.of_tasks, (len(STEPS), TASKS))
        swings = rng.normal(0, noise.of_runs, (len(STEPS), 1))
        values = 3 + unit * (sizes * way[:, None] + errors + swings)
        units = [f"t{split}_{task}" for task in range(TASKS)]
        runs.append(Curve(name, f"s{split}", "0", STEPS, units, [5] * TASKS, values))
    return runs


def find_rates(
    asked: Claim,
    make_study: Callable[[], list[Curve]],
    levels: list[str],
    studies: int = STUDIES,
    **options,
) -> tuple[float, float]:
    """How often studies support the claim, here or of all splits, and its contrary."""
    words = Counter(
        judge_claim(asked, make_study(), levels, **options).word for _ in range(studies)
    )
    print(asked.claim, dict(words))
    shares = [
        sum(
            count
            for word, count in words.items()
            if word.startswith(stem) and word != NOT_SUPPORTED
        )
        / studies
        for stem in (SUPPORTED, OPPOSITE)
    ]
    return shares[0], shares[1]


SIZES = [
    (Noise(0.1, 0.0), 1),
    (Noise(1.0, 0.1), 1),
    (Noise(0.5, 0.05), 2),
    (Noise(1.0, 0.1), 4),
]


@pytest.mark.parametrize(("noise", "splits"), SIZES)
@pytest.mark.parametrize("average", [1, 2])
def test_a_rise_of_just_the_share_claimed_is_decided_in_few_studies(
    noise: Noise, splits: int, average: int
) -> None:
    """Neither word is too frequent, however much the metric swings, averaged or not."""
    asked = claim(claim="rises_early", metric="rouge1", average=average)
    rng = np.random.default_rng(splits)
    supported, opposite = find_rates(
        asked, lambda: make_metric(rng, "rouge1", noise, splits), ["rouge1"]
    )

    assert max(supported, opposite) <= MOST


@pytest.mark.parametrize(
    ("loss", "score", "splits"),
    [
        (Noise(0.1, 0.0), Noise(1.0, 0.0), 1),
        (Noise(0.1, 0.01), Noise(1.0, 0.1), 1),
        (Noise(0.5, 0.05), Noise(0.5, 0.05), 2),
        (Noise(0.1, 0.01), Noise(1.0, 0.1), 4),
    ],
)
def test_metrics_of_one_way_are_not_told_apart_by_their_swings(
    loss: Noise, score: Noise, splits: int
) -> None:
    """The one that swings is no later for it."""
    asked = claim(claim="is_earlier", than=["rouge1"])
    rng = np.random.default_rng(splits)

    def make_study() -> list[Curve]:
        return [
            *make_metric(rng, "loss", loss, splits, unit=-1.0),
            *make_metric(rng, "rouge1", score, splits, unit=50.0),
        ]

    rates = find_rates(asked, make_study, ["loss", "rouge1"])

    assert max(rates) <= MOST


@pytest.mark.parametrize(
    ("loss", "score", "splits"),
    [
        (Noise(0.5, 0.0), Noise(0.5, 0.0), 1),
        (Noise(0.1, 0.1), Noise(0.1, 0.1), 1),
        (Noise(0.5, 0.1), Noise(0.5, 0.1), 2),
        (Noise(0.1 * TASKS**0.5, 0.0), Noise(0.0, 0.1), 4),
    ],
)
def test_metrics_that_swing_alike_are_not_told_apart(
    loss: Noise, score: Noise, splits: int
) -> None:
    """In whatever unit they are, and whether tasks swing together or apart."""
    asked = claim(claim="is_steadier", than=["rouge1"])
    rng = np.random.default_rng(splits)

    def make_study() -> list[Curve]:
        return [
            *make_metric(rng, "loss", loss, splits, unit=-1.0),
            *make_metric(rng, "rouge1", score, splits, unit=50.0),
        ]

    rates = find_rates(asked, make_study, ["loss", "rouge1"])

    assert max(rates) <= MOST


@pytest.mark.parametrize("splits", [1, 4])
def test_metrics_that_differ_are_told_apart(splits: int) -> None:
    """Honest intervals leave power: a loss at 95 % of its way where ROUGE is at 60 %,
    and that swings a fifth as much."""
    rng = np.random.default_rng(splits)

    def make_study() -> list[Curve]:
        return [
            *make_metric(rng, "loss", Noise(0.1, 0.01), splits, 0.95, -1.0),
            *make_metric(rng, "rouge1", Noise(0.5, 0.05), splits, 0.6, 50.0),
        ]

    levels = ["loss", "rouge1"]
    earlier, steadier = (
        find_rates(claim(claim=kind, than=["rouge1"]), make_study, levels, 100)
        for kind in ("is_earlier", "is_steadier")
    )

    assert earlier[0] >= 0.6
    assert steadier[0] >= 0.95


@pytest.mark.parametrize(("places", "splits"), [(3, 1), (3, 4), (5, 6)])
def test_places_that_are_alike_have_no_trend(places: int, splits: int) -> None:
    """Of three places on, over tasks and splits."""
    levels = [f"l{place}" for place in range(places)]
    asked = claim(claim="trends", along="x", values=levels)
    rng = np.random.default_rng(places)

    def make_study() -> list[Curve]:
        runs = []
        for split in range(splits):
            for level in levels:
                ends = rng.normal(5, 0.3, TASKS)
                units = [f"t{split}_{task}" for task in range(TASKS)]
                values = np.array([ends + 1, ends])
                runs.append(
                    Curve(level, f"s{split}", "0", [0, 10], units, [5] * TASKS, values)
                )
        return runs

    assert max(find_rates(asked, make_study, levels)) <= MOST


@pytest.mark.parametrize("tails", ["normal", "t3", "log-normal"])
@pytest.mark.parametrize(("seeds", "splits"), [(4, 1), (8, 1), (1, 4), (2, 6)])
def test_runs_of_one_number_that_are_alike_are_not_told_apart(
    monkeypatch: pytest.MonkeyPatch, seeds: int, splits: int, tails: str
) -> None:
    """Over seeds as over splits, whatever the numbers' distribution."""
    asked = claim(claim="rises", metric="silhouette/x", along="x", values=["a", "b"])
    rng = np.random.default_rng(10 * seeds + splits)
    draw = {
        "normal": lambda: rng.normal(),
        "t3": lambda: rng.standard_t(3),
        "log-normal": lambda: rng.lognormal(),
    }[tails]

    def make_study() -> list[Curve]:
        runs = []
        for split in range(splits):
            for seed in range(seeds):
                for level in ("a", "b"):
                    value = np.array([[draw()]])
                    runs.append(
                        Curve(level, f"s{split}", str(seed), [10], ["run"], [1], value)
                    )
        return runs

    monkeypatch.setattr(curves, "REPEATS", 1000)
    # Of 24 sides with 400 studies each one was above the bound by chance.
    rates = find_rates(asked, make_study, ["a", "b"], studies=1600, units_are_runs=True)

    assert max(rates) <= MOST_OF_1600


def draw_runs(
    rng: np.random.Generator, level: str, splits: int, noise: Noise, slope: float = -1.0
) -> list[Curve]:
    """Runs of a curve that falls, or rises, evenly from its first checkpoint to its last,
    by another height and slope in each task."""
    steps = list(range(0, 210, 10))
    runs = []
    for split in range(splits):
        heights = rng.normal(5, 0.5, TASKS)
        slopes = slope * (1 + rng.normal(0, 0.2, TASKS))
        line = np.linspace(0, 1, len(steps))[:, None] * slopes
        errors = rng.normal(0, noise.of_tasks, (len(steps), TASKS))
        swings = rng.normal(0, noise.of_runs, (len(steps), 1))
        units = [f"t{split}_{task}" for task in range(TASKS)]
        values = heights + line + errors + swings
        runs.append(Curve(level, f"s{split}", "0", steps, units, [5] * TASKS, values))
    return runs


EVEN = [(Noise(0.1, 0.0), 1), (Noise(0.2, 0.05), 1), (Noise(0.2, 0.05), 4)]


@pytest.mark.parametrize(("noise", "splits"), EVEN)
@pytest.mark.parametrize(("kind", "slope"), [("falls_at", -1.0), ("rises_at", 1.0)])
def test_a_curve_that_changes_evenly_turns_nowhere(
    kind: str, slope: float, noise: Noise, splits: int
) -> None:
    """Neither a fall nor a rise is faster after the middle than before it."""
    asked = claim(claim=kind, window=0.2)
    rng = np.random.default_rng(splits)
    rates = find_rates(asked, lambda: draw_runs(rng, "a", splits, noise, slope), ["a"])

    assert max(rates) <= MOST


@pytest.mark.parametrize(("noise", "splits"), EVEN)
@pytest.mark.parametrize("kind", ["falls_suddenly", "rises_suddenly"])
def test_orders_that_are_alike_have_as_many_sudden_changes(
    kind: str, noise: Noise, splits: int
) -> None:
    """However many that is: the largest of noisy changes is often several times the usual."""
    asked = claim(claim=kind, along="x", value="a", against="b")
    rng = np.random.default_rng(splits)
    slope = -1.0 if kind == "falls_suddenly" else 1.0

    def make_study() -> list[Curve]:
        first = draw_runs(rng, "a", splits, noise, slope)
        return [*first, *draw_runs(rng, "b", splits, noise, slope)]

    assert max(find_rates(asked, make_study, ["a", "b"])) <= MOST


# what a single run swings: less than a task does for itself, as much, and more
SWINGS = [(Noise(0.2, size), 1) for size in (0.0, 0.05, 0.2, 0.5)]


@pytest.mark.parametrize(("noise", "splits"), [*SWINGS, (Noise(0.2, 0.05), 4)])
@pytest.mark.parametrize("of", ["end", "area"])
def test_metrics_that_are_alike_are_none_higher(
    of: str, noise: Noise, splits: int
) -> None:
    """Of the same runs, each with a height of its own in each task, however much a single
    run swings in all its tasks."""
    asked = claim(claim="is_higher", metric="a", than=["b"], of=of)
    rng = np.random.default_rng(splits)

    def make_study() -> list[Curve]:
        first = draw_runs(rng, "a", splits, noise)
        return [*first, *draw_runs(rng, "b", splits, noise)]

    assert max(find_rates(asked, make_study, ["a", "b"])) <= MOST


@pytest.mark.parametrize(("noise", "splits"), SWINGS)
@pytest.mark.parametrize("kind", ["rises", "trends"])
def test_single_runs_that_swing_are_not_told_apart(
    kind: str, noise: Noise, splits: int
) -> None:
    """At two places, each with one run."""
    asked = claim(claim=kind, along="x", values=["a", "b"])
    rng = np.random.default_rng(9)

    def make_study() -> list[Curve]:
        first = draw_runs(rng, "a", splits, noise)
        return [*first, *draw_runs(rng, "b", splits, noise)]

    assert max(find_rates(asked, make_study, ["a", "b"])) <= MOST


@pytest.mark.parametrize("splits", [1, 4])
def test_labelled_points_that_are_alike_are_in_no_order(splits: int) -> None:
    """Of three labels, in the order that is claimed, or the contrary; with two seeds."""
    levels = ["single", "mixed", "cleaned"]
    asked = claim(claim="rises", along="label", values=levels)
    rng = np.random.default_rng(splits)
    noise = Noise(0.2, 0.05 if splits > 1 else 0.0)

    def make_study() -> list[Curve]:
        runs = []
        for level in levels:
            for seed in ("0", "1"):
                drawn = draw_runs(rng, level, splits, noise)
                runs += [replace(curve, seed=seed) for curve in drawn]
        return runs

    assert max(find_rates(asked, make_study, levels)) <= MOST


def test_pairs_of_labelled_points_that_are_alike_are_not_told_apart() -> None:
    """Of two labels of four splits: a chain is rarer still."""
    asked = claim(claim="rises", along="label", values=["raw", "cleaned"])
    rng = np.random.default_rng(3)

    def make_study() -> list[Curve]:
        first = draw_runs(rng, "raw", 4, Noise(0.2, 0.05))
        return [*first, *draw_runs(rng, "cleaned", 4, Noise(0.2, 0.05))]

    assert max(find_rates(asked, make_study, ["raw", "cleaned"])) <= MOST


def test_one_number_a_run_over_four_splits_with_all_draws(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As the product draws them: what fewer draws say above holds of all."""
    monkeypatch.setattr(curves, "REPEATS", DRAWS)
    asked = claim(claim="rises", metric="silhouette/x", along="x", values=["a", "b"])
    rng = np.random.default_rng(8)

    def make_study() -> list[Curve]:
        return [
            Curve(level, f"s{split}", "0", [10], ["run"], [1], rng.normal(size=(1, 1)))
            for split in range(4)
            for level in ("a", "b")
        ]

    rates = find_rates(asked, make_study, ["a", "b"], 1000, units_are_runs=True)

    assert max(rates) <= MOST_OF_1000
