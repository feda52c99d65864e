"""Are claims of rising metrics, between metrics, along ordered axes and of one number a run
decided as they should be?"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from zsg_core.settings.claims import OF_A_GRID, Claim
from zsg_core.stats import curves, metric_questions, verdict, wobble
from zsg_core.stats.questions import Curve
from zsg_core.stats.verdict import (
    HERE,
    NOT_SUPPORTED,
    OPPOSITE,
    OVER_SEEDS,
    SUPPORTED,
    TOO_FEW,
    ClaimVerdict,
)

STEPS = list(range(0, 410, 10))
EARLY = 2  # of the first twentieth
SUPPORTED_HERE, OPPOSITE_HERE = f"{SUPPORTED} {HERE}", f"{OPPOSITE} {HERE}"


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """As good on average as 2,000."""
    monkeypatch.setattr(curves, "REPEATS", 300)


def claim(**said) -> Claim:
    """A claim as a grid file says it."""
    return OF_A_GRID.validate_python([said])[0]


def plateau(share: float) -> np.ndarray:
    """A way from 0 to 1 of which `share` is done in the first twentieth, and all after."""
    rise = [share * step / EARLY for step in range(EARLY + 1)]
    return np.array(rise + [1.0] * (len(STEPS) - EARLY - 1))


def metric(
    name: str,
    way: np.ndarray,
    unit: float = 1.0,
    swing: float = 0.0,
    split: str = "A",
    tasks: int = 12,
) -> Curve:
    """A metric that goes this way in every task, by about `unit`, and swings."""
    rng = np.random.default_rng(sum(map(ord, name + split)))
    sizes = unit * rng.uniform(0.8, 1.2, tasks)
    values = 3 + sizes * (way + rng.normal(0, swing, len(STEPS)))[:, None]
    units = [f"{split}{number}" for number in range(tasks)]
    return Curve(name, split, "0", STEPS, units, [5] * tasks, values)


def judge(asked: Claim, runs: Sequence[Curve], **options) -> ClaimVerdict:
    """The verdict on metrics of the same runs, or on one metric."""
    levels = asked.metrics if len(asked.metrics) > 1 else [runs[0].level]
    return verdict.judge_claim(asked, runs, levels, **options)


@pytest.mark.parametrize(
    ("share", "word"), [(0.95, SUPPORTED_HERE), (0.4, OPPOSITE_HERE)]
)
def test_an_early_rise_is_to_a_score_what_an_early_fall_is_to_a_loss(
    share: float, word: str
) -> None:
    """The same word and the same size, upside down."""
    way = plateau(share)
    fall = judge(claim(claim="falls_early"), [metric("loss", way, -1.0)])
    rise = judge(
        claim(claim="rises_early", metric="rouge1"), [metric("loss", way, 1.0)]
    )

    assert (fall.word, rise.word) == (word, word)
    assert rise.effects[0].found.value == pytest.approx(share)
    assert fall.effects[0].found.value == pytest.approx(share)
    assert rise.effects[0].name == "share of the rise by step 20"


def test_a_rise_is_empty_for_what_falls() -> None:
    """A loss does not rise early, and there is no number to decide by."""
    found = judge(claim(claim="rises_early"), [metric("loss", plateau(0.9), -1.0)])

    assert found.word == TOO_FEW


def test_swings_alone_do_not_speak_against_an_early_rise() -> None:
    """The highest of many checkpoints lies above the curve, so the share of the rise to
    it is small, and that to the mean of the later ones is not."""
    way = plateau(0.82)
    way[20] = 1.3
    found = judge(
        claim(claim="rises_early", metric="rouge1"), [metric("rouge1", way, 30)]
    )
    [effect] = found.effects

    assert found.word == NOT_SUPPORTED
    assert effect.found.interval[1] < 0.8
    assert effect.opposite is not None
    assert effect.opposite.value > 0.8


def test_a_metric_that_swings_is_averaged() -> None:
    """As a claim may say: each value is the mean of so many checkpoints."""
    values = np.array([[0.0, 2.0, 4.0, 9.0, 1.0]])

    assert wobble.average_back(values, 2).tolist() == [[0, 2, 3, 6.5, 5]]
    assert wobble.average_back(values, 1).tolist() == values.tolist()
    assert wobble.average_back(values, 9).tolist() == [[0, 2, 3, 5, 4]]


def test_a_turn_and_sudden_changes_are_claimed_of_rising_metrics() -> None:
    """What begins to rise half-way, and tasks that rise at once under one order."""
    begins = np.maximum(0, np.arange(len(STEPS)) - 20) / 20
    turn = judge(
        claim(claim="rises_at", metric="rouge1"), [metric("rouge1", begins, 10)]
    )
    moves = np.random.default_rng(0).uniform(-0.02, 0.02, (len(STEPS), 12))
    calm = metric("b", plateau(1.0))
    calm = replace(calm, losses=np.cumsum(moves, axis=0))
    jumps = np.zeros((len(STEPS), 12))
    jumps[np.arange(12) + 5, np.arange(12)] = 0.5
    shaken = replace(calm, level="a", losses=np.cumsum(moves + jumps, axis=0))
    asked = {"metric": "rouge1", "along": "x", "value": "a", "against": "b"}
    sudden, falling = (
        verdict.judge_claim(claim(claim=kind, **asked), [shaken, calm], ["a", "b"])
        for kind in ("rises_suddenly", "falls_suddenly")
    )

    assert turn.word == SUPPORTED_HERE
    assert turn.effects[0].name.startswith("rise over steps 200–220")
    assert (sudden.word, falling.word) == (SUPPORTED_HERE, NOT_SUPPORTED)
    assert sudden.effects[0].name == "share of tasks that rise suddenly, a − b"


def test_a_metric_is_earlier_than_others_of_the_same_runs() -> None:
    """In whatever unit and direction; each of the others must be later."""
    loss = metric("loss", plateau(0.95), -2.0)
    late, same = metric("rouge1", plateau(0.5), 40), metric("em", plateau(0.95), 90)
    asked = {"claim": "is_earlier", "metric": "loss"}
    one = judge(claim(**asked, than=["rouge1"]), [loss, late])
    both = judge(claim(**asked, than=["rouge1", "em"]), [loss, late, same])
    turned = judge(
        claim(claim="is_earlier", metric="rouge1", than=["loss"]), [loss, late]
    )

    assert (one.word, both.word, turned.word) == (
        SUPPORTED_HERE,
        NOT_SUPPORTED,
        OPPOSITE_HERE,
    )
    assert one.effects[0].name == "share of the way by step 20, loss − rouge1"
    # the means of 0.475 and 0.95, of 0.25 and 0.5
    assert one.levels == pytest.approx({"loss": 0.7125, "rouge1": 0.375})
    assert (one.runs, one.tasks) == (1, 12)


def test_a_metric_is_steadier_than_others_of_the_same_runs() -> None:
    """By the size of its swings as a share of its way; by so many times, where claimed."""
    loss = metric("loss", plateau(0.9), -2.0, swing=0.01)
    rouge = metric("rouge1", plateau(0.9), 40, swing=0.1)
    asked = {"claim": "is_steadier", "metric": "loss", "than": ["rouge1"]}
    words = [
        judge(claim(**asked, times=times), [loss, rouge]).word for times in (1, 3, 30)
    ]
    found = judge(claim(**asked), [loss, rouge])

    assert words == [SUPPORTED_HERE, SUPPORTED_HERE, NOT_SUPPORTED]
    assert found.levels["rouge1"] == pytest.approx(0.1, rel=0.3)
    assert found.effects[0].found.value == pytest.approx(np.log(10), abs=0.5)
    assert found.effects[0].name == "ln of the swing of rouge1 / loss"


def test_what_rises_evenly_does_not_swing() -> None:
    """Also over steps that are not evenly far apart; errors of one size are measured as
    that."""
    steps = [0, 10, 20, 25, 70]
    line = np.array([[float(step) for step in steps]])
    noise = np.random.default_rng(0).normal(0, 2, (1, 4000))

    assert wobble.compute_swing_size(steps, line) == pytest.approx(0)
    assert wobble.compute_swing_size(range(4000), noise) == pytest.approx(2, rel=0.05)
    assert wobble.compute_typical_swing(range(4000), noise) == pytest.approx(
        2, rel=0.05
    )


def test_swings_that_a_run_has_in_all_tasks_widen_its_interval() -> None:
    """Tasks do not tell of them; runs of other splits do, and then they are not added."""
    asked = claim(claim="is_earlier", metric="loss", than=["rouge1"])
    widths = []
    for swing in (0.0, 0.05):
        runs = [
            metric("loss", plateau(0.9), -1.0, swing=swing),
            metric("rouge1", plateau(0.8), 1.0, swing=swing),
        ]
        low, high = judge(asked, runs).effects[0].found.interval
        widths.append(high - low)

    assert widths[1] > widths[0] + 0.1


def test_few_checkpoints_cannot_say_how_much_a_metric_swings() -> None:
    """Of a curve of ten, or of one without a first twentieth."""
    few = [
        replace(one, steps=STEPS[:10], losses=one.losses[:10])
        for one in (metric("loss", plateau(0.9)), metric("em", plateau(0.9)))
    ]
    asked = {"metric": "loss", "than": ["em"]}
    steady = judge(claim(claim="is_steadier", within="1/4", **asked), few)
    early = judge(claim(claim="is_earlier", **asked), few)

    assert (steady.word, early.word) == (TOO_FEW, TOO_FEW)
    assert "7 checkpoints after the first steps" in steady.notes[0]
    assert early.notes[0] == "no checkpoint lies within the first 5% of the steps"


def test_a_metric_is_higher_than_others() -> None:
    """As the silhouette of one source is above those of the others."""
    runs = [
        metric(name, np.full(len(STEPS), at))
        for name, at in (("math", 0.6), ("code", 0.1), ("chat", 0.2))
    ]
    asked = {"claim": "is_higher", "metric": "math", "than": ["code", "chat"]}

    assert judge(claim(**asked), runs).word == SUPPORTED_HERE
    assert judge(claim(**asked, by=0.45), runs).word == NOT_SUPPORTED
    assert judge(
        claim(claim="is_higher", metric="code", than=["chat", "math"]), runs
    ).levels == pytest.approx({"code": 3.1, "chat": 3.2, "math": 3.6}, abs=0.1)


def at_places(values: Sequence[float]) -> list[Curve]:
    """A run at each place of an axis, each with tasks of its own small differences."""
    return [
        metric(place, np.full(len(STEPS), value), swing=0.0)
        for place, value in zip("abcdef", values, strict=False)
    ]


def test_a_trend_is_a_slope_over_the_places() -> None:
    """By least squares, from place to place or over given positions; one step may fall."""
    values = [1.0, 3.0, 2.5]
    runs = [
        replace(run, losses=np.full((len(STEPS), 12), value))
        for run, value in zip(at_places(values), values, strict=True)
    ]
    asked = {"claim": "trends", "along": "model.name", "values": ["a", "b", "c"]}
    levels = ["a", "b", "c"]
    even = verdict.judge_claim(claim(**asked), runs, levels)
    spaced = verdict.judge_claim(claim(**asked, positions=[7, 13, 33]), runs, levels)
    steep = verdict.judge_claim(claim(**asked, by=0.8), runs, levels)

    assert even.effects[0].found.value == pytest.approx(0.75)
    assert spaced.effects[0].found.value == pytest.approx(
        np.polyfit([7, 13, 33], values, 1)[0]
    )
    assert (even.word, steep.word) == (SUPPORTED_HERE, NOT_SUPPORTED)


def numbers(values: Sequence[Sequence[float]], splits: int = 1) -> list[Curve]:
    """Runs of one number each: places, and of each seeds, or splits of one seed."""
    return [
        Curve(
            place,
            f"s{number}" if splits > 1 else "s",
            "0" if splits > 1 else str(number),
            [0, 10],
            ["run"],
            [1],
            np.array([[9.0], [value]]),
        )
        for place, of_place in zip("ab", values, strict=True)
        for number, value in enumerate(of_place)
    ]


PAIR = claim(claim="rises", metric="token_distance/x", along="x", values=["a", "b"])


def test_one_number_a_run_is_decided_over_seeds() -> None:
    """By Student's t of the seeds' differences; the word and a note say what it is over."""
    lower = [4.8, 4.9, 5.0, 4.7, 5.1]
    upper = [6.9, 6.8, 7.1, 7.0, 6.7]
    found = verdict.judge_claim(
        PAIR, numbers([lower, upper]), ["a", "b"], units_are_runs=True
    )
    differences = [high - low for high, low in zip(upper, lower, strict=True)]
    wanted = curves.compute_t_interval(differences)
    assert wanted is not None
    [effect] = found.effects

    assert found.word == f"{SUPPORTED} {OVER_SEEDS}"
    assert effect.found.value == pytest.approx(np.mean(differences))
    assert effect.found.interval == pytest.approx(wanted, rel=0.05)
    assert (found.tasks, found.counted, found.runs) == (0, 0.0, 10)
    assert "over seeds, and says nothing of other test items" in found.notes[0]


def test_one_number_a_run_of_four_splits_is_decided_over_splits() -> None:
    """And then the word has nothing added to it; a note says what is not known of them."""
    found = verdict.judge_claim(
        PAIR,
        numbers([[4.8, 4.9, 5.0, 4.7], [6.9, 6.8, 7.1, 7.0]], splits=4),
        ["a", "b"],
        units_are_runs=True,
    )

    assert (found.word, found.splits) == (SUPPORTED, 4)
    assert [note.partition(":")[0] for note in found.notes] == ["one number a run"]
    assert "splits that share tasks are alike" in found.notes[0]


def test_three_runs_of_one_number_decide_nothing() -> None:
    """However far apart they are."""
    found = verdict.judge_claim(
        PAIR, numbers([[1, 1.1, 1], [9, 9.1, 9]]), ["a", "b"], units_are_runs=True
    )

    assert found.word == TOO_FEW
    assert "one number a run, and 3 runs at a place: fewer than the 4" in found.notes[0]


@pytest.mark.parametrize(
    "said",
    [
        {"claim": "is_earlier"},
        {"claim": "is_earlier", "than": []},
        {"claim": "is_steadier", "than": ["loss"]},
        {"claim": "is_higher", "metric": "a", "than": ["b", "b"]},
        {"claim": "is_steadier", "than": ["em"], "times": 0.5},
        {"claim": "trends", "along": "x", "values": [1, 2], "positions": [1]},
        {"claim": "trends", "along": "x", "values": [1, 2], "positions": [2, 2]},
        {"claim": "rises_early", "average": 0},
    ],
)
def test_a_claim_that_compares_nothing_is_refused(said: dict) -> None:
    """A metric with itself or with none, positions that are not those of the values."""
    with pytest.raises(ValidationError):
        OF_A_GRID.validate_python([said])


def test_curves_of_other_units_are_drawn_as_shares_of_their_ways() -> None:
    """From 0 to 1, whichever falls."""
    ways = metric_questions.express_as_ways(
        {
            "loss": (STEPS, 3 - 2 * plateau(0.9)),
            "rouge1": (STEPS, 40 * plateau(0.5)),
            "em": ([0], np.array([1.0])),
        },
        0.05,
    )

    assert list(ways) == ["loss", "rouge1"]
    assert ways["loss"][1] == pytest.approx(plateau(0.9))
    assert ways["rouge1"][1] == pytest.approx(plateau(0.5))


@pytest.mark.parametrize("kind", ["falls_at", "rises_at"])
@pytest.mark.parametrize("steps", [[0], [5], [60, 100], [0, 100]])
def test_a_turn_without_checkpoints_around_it_is_not_decided(
    kind: str, steps: list[int]
) -> None:
    """Whichever checkpoints there are."""
    units = [f"t{number}" for number in range(8)]
    values = np.random.default_rng(0).normal(size=(len(steps), 8))
    found = judge(
        claim(claim=kind), [Curve("", "A", "0", steps, units, [1] * 8, values)]
    )

    assert found.word == TOO_FEW
    assert found.notes == ["too few checkpoints around the turn"]


def test_a_turn_of_runs_that_share_no_checkpoint_is_not_decided() -> None:
    """Nor is it a fault."""
    units = [f"t{number}" for number in range(8)]
    values = np.zeros((2, 8))
    runs = [
        Curve("", "A", "0", [0, 10], units, [1] * 8, values),
        Curve("", "A", "1", [5, 15], units, [1] * 8, values),
    ]

    assert judge(claim(claim="falls_at"), runs).notes == [
        "the runs share no checkpoint"
    ]
