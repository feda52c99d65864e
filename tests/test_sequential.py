"""Are claims that are looked at while splits come in decided at the right look, and no more
often in error than one look would be?"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from jobs.contract.folder import Workspace
from jobs.deciding import run_axes
from launcher.grids import grid as grids
from launcher.planning import outlook
from launcher.views import plan_view
from tests.lib.planned_runs import a_run, planned
from zsg_core.errors import UserError
from zsg_core.settings.claims import OF_A_GRID
from zsg_core.settings.looks import Looks
from zsg_core.stats import boundaries, curves, power, sequential, student
from zsg_core.stats.power import Spread
from zsg_core.stats.questions import Curve
from zsg_core.stats.verdict import (
    NOT_SUPPORTED,
    SUPPORTED,
    ClaimVerdict,
    judge_claim,
)

LATE, EVENLY = "obrien_fleming", "pocock"
[PAIR] = OF_A_GRID.validate_python(
    [{"claim": "rises", "along": "x", "values": ["a", "b"]}]
)
[CHAIN] = OF_A_GRID.validate_python(
    [{"claim": "rises", "along": "x", "values": ["a", "b", "c"]}]
)
GRID = """
name: g
defaults: {data: {path: tasks, held_out: {by: seed, tasks: 2}}}
grid:
  arrangement.order: [nft, fft]
  data.held_out.seed: [0, 1, 2, 3, 4, 5]
claims:
  looks: %s
  list:
    - {claim: rises, along: arrangement.order, values: [nft, fft]}
"""


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """As good on average as 2,000."""
    monkeypatch.setattr(curves, "REPEATS", 200)


def bounds(at: Sequence[int], spending: str, tail: float = 0.025) -> list[float]:
    """The bounds of z at looks after so many splits."""
    shares = [count / at[-1] for count in at]
    spent = [boundaries.spend(share, tail, spending) for share in shares]
    return [round(z, 3) for z in boundaries.compute_z_bounds(shares, spent)]


@pytest.mark.parametrize(
    ("at", "spending", "expected"),
    [
        ([1, 2, 3, 4, 5], LATE, [4.877, 3.357, 2.680, 2.290, 2.031]),
        ([4, 5, 6, 7, 8], LATE, [2.963, 2.643, 2.401, 2.214, 2.066]),
        ([4, 6, 8], EVENLY, [2.157, 2.312, 2.327]),
    ],
)
def test_bounds_are_the_published_ones(
    at: list[int], spending: str, expected: list[float]
) -> None:
    """Those of Lan and DeMets's spending, with 2.5 % on one side."""
    assert bounds(at, spending) == pytest.approx(expected, abs=0.0011)


def test_bounds_of_few_splits_are_those_of_t() -> None:
    """A look at four splits needs a t of 8.84, where z would be 2.96."""
    looks = boundaries.plan_looks((4, 5, 6, 7, 8), 0.025, LATE)

    assert looks[0].t_bound == pytest.approx(8.84, abs=0.01)
    expected = [5.05, 3.69, 3.03, 2.64]
    assert [look.t_bound for look in looks[1:]] == pytest.approx(expected, rel=0.02)


def test_one_look_is_the_rule_of_a_study_without_looks() -> None:
    """What is spent at the end is all of it."""
    [look] = boundaries.plan_looks((8,), 0.025, LATE)

    assert look.tail == pytest.approx(0.025)
    assert look.t_bound == pytest.approx(curves.T975[6], abs=1e-3)


@pytest.mark.parametrize(
    ("number", "z", "value", "low", "high", "p"),
    [
        (0, 3.2, 4.5255, 1.7537, 7.2973, 0.00069),
        (1, 2.6, 2.9772, 0.6938, 5.2487, 0.00538),
        (2, 2.2, 2.1417, 0.1394, 4.1205, 0.0181),
    ],
)
def test_an_estimate_after_a_stop_leans_to_neither_side(
    number: int, z: float, value: float, low: float, high: float, p: float
) -> None:
    """By the order of looks at 4, 6 and 8 of 8, in units of the last z."""
    looks = boundaries.plan_looks((4, 6, 8), 0.025, LATE)
    found = boundaries.estimate_after_stop(looks, number, z)

    assert (found.value, *found.interval) == pytest.approx((value, low, high), abs=2e-3)
    assert found.p == pytest.approx(p, abs=1e-5)


def test_t_is_student_s() -> None:
    """Quantiles of the table, and the tail back from them."""
    found = [student.compute_quantile(0.025, free) for free in range(1, 31)]

    assert found == pytest.approx(curves.T975, abs=6e-4)
    assert student.compute_tail(-found[3], 4) == pytest.approx(0.975)


@pytest.mark.parametrize("tail", [0.1, 0.025, 0.0005])
def test_the_earliest_look_that_a_file_may_ask_for_has_a_bound(tail: float) -> None:
    """At 4 of 64 splits hardly anything is spent, and it is not nothing."""
    first, last = boundaries.plan_looks((4, 64), tail, LATE)

    assert 0 < first.tail < 1e-6
    assert first.t_bound > 100
    assert last.tail == pytest.approx(tail, rel=0.05)


def test_an_effect_of_any_number_of_deviations_is_foreseen() -> None:
    """Where splits hardly differ it is always found."""
    looks = boundaries.plan_looks((4, 6), 0.025, LATE)

    assert power.foresee(looks, 1e300, Spread(1e-300)).power == 1.0
    assert power.foresee(looks, 1e9, Spread(1.0)).power == 1.0


def make_wave(
    rng: np.random.Generator, split: int, step: float, levels: str = "ab"
) -> list[Curve]:
    """The runs of a split with tasks of its own: each level is higher by a step."""
    units = [f"s{split}t{task}" for task in range(12)]
    base = rng.normal(5, 1, 12)
    wave: list[Curve] = []
    for place, level in enumerate(levels):
        ends = base + step * place + rng.normal(0, 0.1, 12)
        losses = np.array([ends + 1, ends])
        wave.append(Curve(level, f"s{split}", "0", [0, 10], units, [5] * 12, losses))
    return wave


def judge(found: Sequence[Curve], tail: float) -> ClaimVerdict:
    """The verdict of the pair."""
    return judge_claim(PAIR, found, ["a", "b"], tail=tail)


def look_at(
    steps: Sequence[float], at: Sequence[int], futility: float = 0.0, done: int = 99
) -> ClaimVerdict:
    """The verdict of splits with these steps, of which so many are done."""
    rng = np.random.default_rng(1)
    splits = [make_wave(rng, number, step) for number, step in enumerate(steps)]
    waves: list[list[Curve] | None] = []
    begin = 0
    for end in at:
        wave = [curve for split in splits[begin:end] for curve in split]
        waves.append(wave if end <= done else None)
        begin = end
    looks = boundaries.plan_looks(tuple(at), 0.025, LATE)
    return sequential.judge_in_looks(waves, looks, judge, futility)


def test_a_plain_effect_is_decided_at_the_first_look() -> None:
    """What comes of later splits does not change it, whatever they say."""
    early = look_at([1.0] * 4 + [0.0] * 4, [4, 6, 8], done=4)
    late = look_at([1.0] * 4 + [-9.0] * 4, [4, 6, 8])

    assert early == late
    assert early.word == SUPPORTED
    assert early.looked is not None
    assert (early.looked.number, early.looked.is_over) == (1, True)


def test_an_estimate_at_the_first_look_is_that_of_one_look() -> None:
    """Its 95 % interval lies within that of the look, which leaves out less."""
    found = look_at([1.0] * 8, [4, 6, 8])
    [effect] = found.effects
    assert found.looked is not None
    [(value, (low, high))] = found.looked.unbiased

    assert value == pytest.approx(effect.found.value)
    assert effect.found.interval[0] < low < value < high < effect.found.interval[1]
    widest = max(
        size * student.compute_quantile(0.025, of_free)
        for size, of_free in effect.found.errors
    )
    assert high - value == pytest.approx(widest, rel=1e-3)


def test_an_estimate_at_a_later_look_lies_nearer_to_nothing() -> None:
    """Of a study that might have stopped before."""
    found = look_at([0.4, 0.9, 0.5, 1.3, 0.8, 0.9, 1.0, 0.7], [4, 6, 8])
    [effect] = found.effects
    assert found.looked is not None
    assert (found.word, found.looked.number) == (SUPPORTED, 2)
    [(value, (low, high))] = found.looked.unbiased

    assert 0 < low < value < effect.found.value < high


def test_what_is_not_clear_goes_on_to_the_last_look() -> None:
    """And is the word of all splits then."""
    steps = [1.0, -1.0, 0.9, -1.2, 1.1, -0.8]
    soon, end = look_at(steps, [4, 6], done=4), look_at(steps, [4, 6])

    assert soon.word == sequential.UNDECIDED
    assert end.word == NOT_SUPPORTED
    assert end.looked is not None
    assert (end.looked.number, end.looked.is_over) == (2, True)


def test_no_look_is_taken_of_a_wave_that_is_not_whole() -> None:
    """The one before it stands."""
    found = look_at([0.1, -0.1, 0.2, -0.2, 5, 5], [4, 6], done=5)

    assert found.looked is not None
    assert (found.word, found.looked.number) == (sequential.UNDECIDED, 1)


def test_a_hopeless_study_is_given_up_only_where_that_is_asked_for() -> None:
    """Nothing is seen at six of eight: neither word would come."""
    steps = [1.0, -1.0, 0.9, -0.9, 1.1, -1.1, 1.0, -1.0]
    kept = look_at(steps, [6, 8], done=6)
    ended = look_at(steps, [6, 8], futility=0.1, done=6)

    assert kept.word == sequential.UNDECIDED
    assert ended.word == NOT_SUPPORTED
    assert "given up at 6 of 8 splits" in ended.notes[0]


def test_all_effects_of_a_chain_cross_at_one_look() -> None:
    """A step that was clear before and is so no more has to be clear again."""
    rng = np.random.default_rng(3)
    first = [curve for n in range(4) for curve in make_wave(rng, n, 1.0, "abc")]
    looks = boundaries.plan_looks((4, 6), 0.025, LATE)

    def judge_chain(found: Sequence[Curve], tail: float) -> ClaimVerdict:
        return judge_claim(CHAIN, found, ["a", "b", "c"], tail=tail)

    plain = sequential.judge_look(first, looks, 0, judge_chain)
    for curve in first:
        if curve.level == "c":
            curve.losses[:] -= 1.0 + rng.normal(0, 1.0)
    mixed = sequential.judge_look(first, looks, 0, judge_chain)

    assert plain.word == SUPPORTED
    assert mixed.effects[0].holds
    assert not mixed.effects[1].holds
    assert mixed.word == sequential.UNDECIDED


def test_power_is_that_of_a_noncentral_t() -> None:
    """Of eight splits by effects of 0.75, 1 and 1.25 of their deviation."""
    found = [
        power.compute_fixed_power(8, d, Spread(1.0), 0.025) for d in (0.75, 1, 1.25)
    ]

    assert found == pytest.approx([0.45, 0.68, 0.86], abs=0.012)


def test_splits_that_share_tasks_bring_little() -> None:
    """Twice as many splits of few tasks do not halve the error."""
    apart, alike = Spread(1.0), Spread(1.0, 0.5)
    gain = [
        power.compute_fixed_power(16, 0.8, spread, 0.025)
        - power.compute_fixed_power(8, 0.8, spread, 0.025)
        for spread in (apart, alike)
    ]

    assert gain[0] > 3 * gain[1] > 0
    assert alike.compute_error(1000) == pytest.approx(math.sqrt(0.5), rel=1e-3)


def test_four_splits_know_little_of_how_far_others_lie_apart() -> None:
    """Within a factor of 0.57 to 3.7."""
    assert power.bound_deviation(1.0, 4) == pytest.approx((0.567, 3.73), abs=0.01)


def test_looks_save_splits_and_little_power() -> None:
    """As simulated elsewhere: 80 % power, 6.2 of 8 splits on normal splits of many."""
    looks = boundaries.plan_looks((4, 6, 8), 0.025, LATE)
    found = power.foresee(looks, 1.2, Spread(1.0))
    fixed = power.compute_fixed_power(8, 1.2, Spread(1.0), 0.025)

    assert fixed - 0.04 < found.power < fixed
    assert 6.0 < found.splits < 8.0
    assert sum(found.ends) == pytest.approx(1.0)


def load(folder: Path, looks: str) -> grids.Grid:
    """The grid with these looks."""
    path = folder / "grid.yaml"
    path.write_text(GRID % looks)
    return grids.load_grid(path)


def test_looks_stand_beside_the_claims(tmp_path: Path) -> None:
    """And the waves are those of whole splits in the order of the grid."""
    grid = load(tmp_path, "{at: [4, 6]}")

    assert grid.looks is not None
    assert (grid.looks.at, len(grid.claims)) == ([4, 6], 1)
    waves = run_axes.assign_waves([point.axes for point in grid.points], grid.looks.at)
    assert sorted(waves) == [0] * 8 + [1] * 4


@pytest.mark.parametrize(
    ("looks", "said"),
    [
        (
            "{at: [4, 8]}",
            "the last look is after 8 held-out splits, and the grid has 6",
        ),
        ("{at: [6, 4]}", "must rise"),
        ("{at: [3, 6]}", "at.0: must be at least 4"),
        ("{looks_at: [4, 6]}", "unknown key 'looks_at' in `claims.looks`. Known: at,"),
        ("{at: [6], futility: 0.7}", "futility: must be less than 0.5"),
        ("{at: [6], expect: {effect: 1}}", "give either split_sd or pilot"),
        ("[4, 6]", "looks: must be a mapping, found [4, 6]"),
    ],
)
def test_looks_that_cannot_be_are_refused(
    tmp_path: Path, looks: str, said: str
) -> None:
    """With the line, before anything runs."""
    with pytest.raises(UserError) as refused:
        load(tmp_path, looks)

    assert said in str(refused.value)
    assert "grid.yaml:8" in str(refused.value)


def foresee(folder: Path, grid: grids.Grid) -> outlook.Design | None:
    """The design of a grid, of which no runs are given."""
    return outlook.foresee_design(Workspace(folder), grid, [], lambda run: run)  # type: ignore[arg-type,return-value]


def test_plan_tells_what_a_design_finds(tmp_path: Path) -> None:
    """Its bounds, its power, and what one more split brings."""
    expect = "{effect: 0.2, split_sd: 0.15, shared: 0.2}"
    grid = load(tmp_path, f"{{at: [4, 6], futility: 0.1, expect: {expect}}}")
    lines = dict(outlook.describe_design(foresee(tmp_path, grid)))

    assert "after 4, 6 of 6 held-out splits, decided beyond t = " in lines["looks"]
    assert "given up where fewer than 10%" in lines["looks"]
    assert "one more split: " in lines["power"]
    assert "the error stays above 0.0671" in lines["power"]


def test_a_design_without_an_expectation_says_so(tmp_path: Path) -> None:
    """Nothing is made up."""
    grid = load(tmp_path, "{at: [4, 6]}")
    lines = dict(outlook.describe_design(foresee(tmp_path, grid)))

    assert lines["power"].startswith("not known")


def test_scripts_have_the_numbers_of_a_design(tmp_path: Path) -> None:
    """Those of the lines, in every row of the plan; none of a grid without looks."""
    expect = "{effect: 0.2, split_sd: 0.15, shared: 0.2}"
    looks = f"{{at: [4, 6], gpu_hours: 9, expect: {expect}}}"
    design = foresee(tmp_path, load(tmp_path, looks))
    row = outlook.make_design_row(design)
    unknown = outlook.make_design_row(foresee(tmp_path, load(tmp_path, "{at: [4, 6]}")))
    shown = plan_view.plan_rows(planned([a_run()]), {}, design=row)
    lines = dict(outlook.describe_design(design))

    assert row is not None and unknown is not None
    assert json.loads(json.dumps(shown))[0]["design"] == row
    assert row["at"] == [4, 6]
    assert f"t = {row['t'][0]:.2f}, {row['t'][1]:.2f}" in lines["looks"]
    assert f"found in {row['power']['found']:.0%} of" in lines["power"]
    assert f"split: {row['power']['found_with_one_more_split']:.0%}" in lines["power"]
    assert sum(row["power"]["ends"]) == pytest.approx(1)
    assert row["gpu_hours_at_most"] == 9
    assert unknown["power"] is None
    assert outlook.make_design_row(None) is None


def test_looks_are_part_of_no_run(tmp_path: Path) -> None:
    """The points are those without them."""
    grid = load(tmp_path, "{at: [4, 6], spending: pocock}")
    plain = (GRID % "null").replace("  looks: null\n", "")
    (tmp_path / "plain.yaml").write_text(plain)

    assert grid.points == grids.load_grid(tmp_path / "plain.yaml").points
    assert Looks(at=[4, 6]).tail == 0.025
