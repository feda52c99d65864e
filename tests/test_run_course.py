"""Is it in the interval of a single run's end that it lies now above, now below its course?"""

from dataclasses import replace

import numpy as np
import pytest

from zsg_core.settings.claims import OF_A_GRID, Claim
from zsg_core.stats import curves, verdict
from zsg_core.stats.curves import Interval
from zsg_core.stats.questions import Curve
from zsg_core.stats.verdict import ClaimVerdict

STEPS = list(range(0, 410, 10))
TASKS = 30
ERROR = 0.1
# what a note says where the checkpoints tell how a run swings, and where not
KNOWN = "how far a run swings from checkpoint to checkpoint is in the interval"
UNKNOWN = "what a seed changes is not in the interval"


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """As good on average as 2,000."""
    monkeypatch.setattr(curves, "REPEATS", 300)


def make_claim(kind: str, of: str = "end") -> Claim:
    """That b is above a: two places of an axis, or two metrics."""
    said = {"claim": kind, "of": of}
    if kind == "is_higher":
        said |= {"metric": "b", "than": ["a"]}
    else:
        said |= {"along": "x", "values": ["a", "b"]}
    return OF_A_GRID.validate_python([said])[0]


def make_runs(
    swing: float, bend: float = 0.0, split: str = "A", seed: str = "0"
) -> list[Curve]:
    """A run at each of two levels whose tasks err at each checkpoint, the second 0.5
    higher; all tasks of a run swing at once, and both fall as steeply in the beginning."""
    rng = np.random.default_rng(int(seed) + ord(split))
    fall = bend * np.exp(-np.arange(len(STEPS)) / 3)[:, None]
    runs = []
    for level, height in (("a", 1.0), ("b", 1.5)):
        errors = rng.normal(0, ERROR, (len(STEPS), TASKS))
        swings = swing * rng.normal(0, 1, (len(STEPS), 1))
        values = height + fall + errors + swings
        units = [f"{split}{number}" for number in range(TASKS)]
        runs.append(Curve(level, split, seed, STEPS, units, [5] * TASKS, values))
    return runs


def judge(claim: Claim, runs: list[Curve]) -> ClaimVerdict:
    """The verdict on runs of these two levels."""
    levels = claim.metrics if len(claim.metrics) > 1 else ["a", "b"]
    return verdict.judge_claim(claim, runs, levels)


def get_interval(claim: Claim, runs: list[Curve]) -> Interval:
    """The interval of the one effect."""
    [effect] = judge(claim, runs).effects
    return effect.found.interval


def measure_reach(claim: Claim, runs: list[Curve]) -> float:
    """How far the interval reaches to either side."""
    low, high = get_interval(claim, runs)
    return (high - low) / 2


@pytest.mark.parametrize("kind", ["rises", "trends", "is_higher"])
def test_what_a_single_run_swings_is_in_its_interval(kind: str) -> None:
    """At its end whole; under a curve of 41 checkpoints as much as its mean swings."""
    swing = 0.1
    end = measure_reach(make_claim(kind), make_runs(swing))
    area = measure_reach(make_claim(kind, "area"), make_runs(swing))
    # t of five degrees of freedom, of two runs
    of_end = 2.571 * swing * 2**0.5

    assert end == pytest.approx(of_end, rel=0.4)
    assert area < end / 3


def test_what_tasks_swing_each_for_itself_counts_once() -> None:
    """The interval over tasks has it."""
    runs = make_runs(0.0)
    over_tasks = 2.045 * ERROR * (2 / TASKS) ** 0.5

    assert measure_reach(make_claim("rises"), runs) == pytest.approx(
        over_tasks, rel=0.35
    )


def test_what_the_curves_have_in_common_is_no_swing() -> None:
    """Nor is a bend of both."""
    claim = make_claim("rises")
    straight = measure_reach(claim, make_runs(0.02))
    bent = measure_reach(claim, make_runs(0.02, bend=3.0))

    assert bent == pytest.approx(straight)


@pytest.mark.parametrize("of", ["split", "seed"])
def test_a_copied_run_tells_nothing_of_swings(of: str) -> None:
    """A copy under another seed, or of the same tasks as another split, leaves the
    interval as it is."""
    claim = make_claim("is_higher")
    runs = make_runs(0.1)
    copied = [replace(run, **{of: "9"}) for run in runs]
    once = judge(claim, runs).effects[0].found.on_these
    twice = judge(claim, [*runs, *copied]).effects[0].found.on_these

    assert once is not None
    assert twice == pytest.approx(once)


def test_seeds_tell_of_swings_and_are_not_added_to_them() -> None:
    """Of eight seeds the interval is about that over seeds; added to it, it would be half
    as wide again."""
    runs = [run for seed in "01234567" for run in make_runs(0.1, seed=seed)]
    [effect] = judge(make_claim("rises"), runs).effects
    by_seeds = effect.found.by_seeds
    assert by_seeds is not None
    low, high = effect.found.interval
    times = (high - low) / (by_seeds[1] - by_seeds[0])

    assert 1.0 <= times < 1.3


def test_four_splits_tell_of_swings_themselves() -> None:
    """Their interval is that over splits, whatever the checkpoints say."""
    runs = [run for split in "ABCD" for run in make_runs(0.1, split=split)]
    ends = [replace(run, steps=[400], losses=run.losses[-1:]) for run in runs]
    claim = make_claim("rises")

    assert get_interval(claim, runs) == get_interval(claim, ends)


def test_what_one_seed_does_not_tell_is_said() -> None:
    """And where a run has too few checkpoints to say how it swings."""
    claim = make_claim("is_higher")
    runs = make_runs(0.1)
    few = [replace(run, steps=STEPS[-5:], losses=run.losses[-5:]) for run in runs]

    assert any(KNOWN in note for note in judge(claim, runs).notes)
    assert any(UNKNOWN in note for note in judge(claim, few).notes)
    assert measure_reach(claim, few) < measure_reach(claim, runs) / 2


@pytest.mark.parametrize("splits", ["A", "AB"])
def test_a_checkpoint_without_a_value_tells_nothing_of_swings(splits: str) -> None:
    """And takes nothing from what is known of the end, as if it were not there."""
    claim = make_claim("rises")
    runs = [run for split in splits for run in make_runs(0.1, split=split)]
    lacking = [replace(run, losses=run.losses.copy()) for run in runs]
    lacking[0].losses[3] = np.inf
    without = [
        replace(
            run,
            steps=[*STEPS[:3], *STEPS[4:]],
            losses=np.delete(run.losses, 3, axis=0),
        )
        for run in runs
    ]
    [effect] = judge(claim, lacking).effects
    [expected] = judge(claim, without).effects

    assert effect.is_known
    assert effect.found == expected.found


def test_values_too_large_for_their_variance_are_told() -> None:
    """A metric of a user's may be any number."""
    runs = make_runs(0.1)
    runs[0].losses[3] = 1e300
    judged = judge(make_claim("rises", "area"), runs)

    assert any("no number" in note for note in judged.notes)


def test_an_order_of_places_is_held_against_chance_alone() -> None:
    """Orders by chance have what runs swing in them: the correlation's interval stays."""
    levels = list("abcdef")
    said = {"claim": "correlates", "along": "x", "values": levels}
    [claim] = OF_A_GRID.validate_python([said])
    [run, _] = make_runs(0.3)
    runs = [
        replace(run, level=level, losses=run.losses + place)
        for place, level in enumerate(levels)
    ]
    [effect] = verdict.judge_claim(claim, runs, levels).effects

    assert effect.found.interval == pytest.approx((1.0, 1.0))


def test_it_is_said_that_sudden_falls_of_one_run_may_be_one_event() -> None:
    """Tasks that fall at once as the run swings are taken for so many falls."""
    said = {"claim": "falls_suddenly", "along": "x", "value": "a", "against": "b"}
    [claim] = OF_A_GRID.validate_python([said])
    notes = judge(claim, make_runs(0.1)).notes
    seeds = [run for seed in "01" for run in make_runs(0.1, seed=seed)]
    told = "tasks that fall together, as a run swings, count as each for itself"

    assert any(told in note for note in notes)
    assert not any(told in note for note in judge(claim, seeds).notes)
