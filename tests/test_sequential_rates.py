"""How often are claims decided in error that are looked at while splits come in, and what do
looks save? Made grids through the verdict itself."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from zsg_core.settings.claims import OF_A_GRID, Claim
from zsg_core.settings.looks import POCOCK
from zsg_core.stats import boundaries, curves, power, sequential
from zsg_core.stats.questions import Curve
from zsg_core.stats.verdict import OPPOSITE, SUPPORTED, ClaimVerdict, judge_claim

pytestmark = pytest.mark.soak(part="trials")
STUDIES = 1000
# of 2.5 % nominal on one side, two standard errors of 1,000 studies more
MOST = 0.025 + 2 * (0.025 * 0.975 / STUDIES) ** 0.5
AT = (4, 5, 6, 7, 8)
POOL, TASKS = 142, 24
# before, at and behind the turn of a claim that falls at a step
STEPS = [0, 10, 20, 30, 40]
CLAIMS = {
    "rises": {"claim": "rises", "along": "x", "values": ["a", "b"]},
    "chain": {"claim": "rises", "along": "x", "values": ["a", "b", "c"]},
    "correlates": {"claim": "correlates", "along": "x", "values": list("abcdef")},
    "falls_early": {"claim": "falls_early", "share": 0.5, "within": 0.5},
    "falls_at": {"claim": "falls_at", "at": 0.5, "window": 0.25},
    "falls_suddenly": {
        "claim": "falls_suddenly",
        "along": "x",
        "value": "a",
        "against": "b",
    },
    "trends": {"claim": "trends", "along": "x", "values": ["a", "b", "c"]},
    "rises_early": {"claim": "rises_early", "share": 0.5, "within": 0.5},
    "rises_at": {"claim": "rises_at", "at": 0.5, "window": 0.25},
    "rises_suddenly": {
        "claim": "rises_suddenly",
        "along": "x",
        "value": "a",
        "against": "b",
    },
    "is_higher": {"claim": "is_higher", "metric": "a", "than": ["b"]},
    "is_earlier": {
        "claim": "is_earlier",
        "metric": "a",
        "than": ["b"],
        "within": 0.2,
    },
    "is_steadier": {
        "claim": "is_steadier",
        "metric": "a",
        "than": ["b"],
        "within": 0.2,
    },
}
# of claims that need many checkpoints; and how far one lies off, alike in all tasks
MANY_STEPS = list(range(0, 210, 10))
SWING = 0.05
OF_MANY_STEPS = ("is_earlier", "is_steadier")
Grid = list[list[Curve]]


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """As good on average as 2,000."""
    monkeypatch.setattr(curves, "REPEATS", 200)


def make_claim(kind: str) -> Claim:
    """A claim of a kind."""
    [claim] = OF_A_GRID.validate_python([CLAIMS[kind]])
    return claim


def draw_grid(
    rng: np.random.Generator,
    levels: Sequence[str],
    effect: float,
    of_splits: float,
    kind: str = "rises",
) -> Grid:
    """Eight splits of 24 of 142 tasks: each level differs from that before by the effect,
    and by what splits, tasks, tasks in splits and runs do. Curves fall on a straight line."""
    steps = MANY_STEPS if kind in OF_MANY_STEPS else STEPS
    of_tasks = rng.normal(0, 0.47, (len(levels), POOL))
    splits: Grid = []
    for number in range(AT[-1]):
        own = sorted(rng.choice(POOL, TASKS, replace=False).tolist())
        units = [f"t{task}" for task in own]
        wave: list[Curve] = []
        for place, level in enumerate(levels):
            height = effect * place + of_tasks[place, own] / 2**0.5
            height = height + rng.normal(0, of_splits / 2**0.5)
            slope = -1 + rng.normal(0, 0.1, TASKS) + rng.normal(0, of_splits / 4)
            if kind == "rises_early":
                slope = -slope
            noise = rng.normal(0, 0.1, (len(steps), TASKS))
            if kind in OF_MANY_STEPS:
                noise = noise + rng.normal(0, SWING, (len(steps), 1))
            line = np.linspace(0, 1, len(steps))[:, None] * slope
            losses = 5 + height + line + noise
            wave.append(
                Curve(level, f"s{number}", "0", steps, units, [5] * TASKS, losses)
            )
        splits.append(wave)
    return splits


def look(claim: Claim, grid: Grid, at: Sequence[int]) -> ClaimVerdict:
    """The verdict of a grid at these looks."""
    levels = list(dict.fromkeys(curve.level for curve in grid[0]))
    looks = boundaries.plan_looks(tuple(at), 0.025, boundaries.OBRIEN_FLEMING)

    def judge(found: Sequence[Curve], tail: float) -> ClaimVerdict:
        return judge_claim(claim, found, levels, tail=tail)

    waves: list[list[Curve]] = []
    begin = 0
    for end in at:
        waves.append([curve for split in grid[begin:end] for curve in split])
        begin = end
    return sequential.judge_in_looks(waves, looks, judge)


def list_levels(claim: Claim) -> list[str]:
    """The places of a claim; one where it has no axis."""
    if len(claim.metrics) > 1:
        return claim.metrics
    return claim.axis[1] if claim.axis else ["a"]


def count_words(
    kind: str, effect: float, of_splits: float, at: Sequence[int], studies: int
) -> tuple[float, float, float]:
    """The shares of supported and of opposite, and the splits used on average."""
    claim = make_claim(kind)
    levels = list_levels(claim)
    rng = np.random.default_rng(20)
    supported = 0
    opposite = 0
    splits = 0
    for _ in range(studies):
        found = look(claim, draw_grid(rng, levels, effect, of_splits, kind), at)
        supported += found.word == SUPPORTED
        opposite += found.word == OPPOSITE
        assert found.looked is not None
        splits += at[found.looked.number - 1]
    return supported / studies, opposite / studies, splits / studies


@pytest.mark.parametrize("kind", list(CLAIMS))
def test_a_study_without_an_effect_is_decided_no_more_often_than_it_says(
    kind: str,
) -> None:
    """With five looks, of each kind of claim, on either side."""
    supported, opposite, splits = count_words(kind, 0.0, 0.1, AT, STUDIES)
    print(
        kind, f"supported {supported:.3f}, opposite {opposite:.3f}, {splits:.2f} splits"
    )

    assert supported <= MOST
    assert opposite <= MOST


@pytest.mark.parametrize("effect", [0.15, 0.25, 0.35])
def test_looks_cost_little_power_and_save_splits(effect: float) -> None:
    """Beside one look at the end."""
    table: list[str] = []
    powers: list[float] = []
    for at in ((8,), (4, 6, 8), AT):
        supported, _, splits = count_words("rises", effect, 0.1, at, 300)
        table.append(f"looks {at}: found {supported:.3f}, {splits:.2f} splits")
        powers.append(supported)
    print("\n".join([f"effect {effect}", *table]))

    assert min(powers) >= powers[0] - 0.08


def read_rows() -> list[list[float]]:
    """The numbers of the table of looks in templates/README.md, of each effect."""
    text = (Path(__file__).parents[1] / "templates/README.md").read_text()
    table = text.partition("### Looks while splits come in")[2]
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    rows: list[list[float]] = []
    for line in lines[1:8]:
        words = line.replace("none", "0").replace("%", "").replace(",", " ")
        rows.append([float(word) for word in words.replace("|", " ").split()])
    return rows


def test_the_table_of_looks_says_what_plan_does() -> None:
    """Effect by effect: how often it is found, with how many splits."""
    late, evenly = boundaries.OBRIEN_FLEMING, POCOCK
    designs = [((8,), late, 0.0), ((4, 6, 8), late, 0.0), ((4, 6, 8), late, 0.1)]
    designs += [(AT, late, 0.0), ((4, 6, 8), evenly, 0.0)]
    for effect, *shown in read_rows():
        numbers: list[float] = []
        for at, spending, futility in designs:
            looks = boundaries.plan_looks(at, 0.025, spending)
            size = max(effect, 1e-9)
            outlook = power.foresee(looks, size, power.Spread(1.0), futility)
            numbers.append(100 * outlook.power)
            if len(at) > 1:
                numbers.append(outlook.splits)
        assert shown == pytest.approx(numbers, abs=0.6)
