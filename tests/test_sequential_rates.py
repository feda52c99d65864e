"""How often are claims decided in error that are looked at while splits come in, and what do
looks save? Made grids through the verdict itself."""

from pathlib import Path

import numpy as np
import pytest

from tests.lib import made_studies
from tests.lib.made_studies import AT, KINDS, Nature
from zsg_core.settings import claims
from zsg_core.settings.looks import POCOCK
from zsg_core.stats import boundaries, power

pytestmark = pytest.mark.soak(part="trials")
STUDIES = 1000
# of 2.5 % nominal on one side, three standard errors of 1,000 studies more: there are three
# dozen of such sides
MOST = 0.025 + 3 * (0.025 * 0.975 / STUDIES) ** 0.5
STUDIES_WITH_EFFECT = 300


def test_studies_are_made_for_each_kind_of_claim() -> None:
    """None is left out that a grid file can say."""
    assert {kind.said["claim"] for kind in KINDS.values()} == set(claims.KINDS)


@pytest.mark.parametrize("name", list(KINDS))
def test_a_study_without_an_effect_is_decided_no_more_often_than_it_says(
    name: str,
) -> None:
    """With five looks, of each kind of claim, on either side."""
    [rates] = made_studies.count_words(name, STUDIES)
    print(f"{name}: {rates}")

    assert rates.supported <= MOST
    assert rates.opposite <= MOST


@pytest.mark.parametrize("name", list(KINDS))
@pytest.mark.parametrize("effect", [0.0, 0.3])
def test_the_verdict_is_not_asked_only_where_it_does_not_decide(
    name: str, effect: float
) -> None:
    """Words and looks are the same if it always is."""
    kind = KINDS[name]
    rng = np.random.default_rng(5)
    with made_studies.deciding_alone(made_studies.DRAWS):
        for _ in range(10):
            grid = made_studies.draw_grid(rng, kind, effect, Nature())
            asked = made_studies.decide(kind, grid, AT, is_always_asked=True)
            found = made_studies.decide(kind, grid, AT)

            assert (found.word, found.looked) == (asked.word, asked.looked)


@pytest.mark.parametrize("effect", [0.15, 0.25, 0.35])
def test_looks_cost_little_power_and_save_splits(effect: float) -> None:
    """Beside one look at the end."""
    designs = [(8,), (4, 6, 8), AT]
    rows = made_studies.count_words("rises", STUDIES_WITH_EFFECT, effect, designs)
    print(
        "\n".join(
            f"effect {effect}, looks {at}: {row}"
            for at, row in zip(designs, rows, strict=True)
        )
    )
    powers = [row.supported for row in rows]

    assert min(powers) >= powers[0] - 0.08


@pytest.mark.parametrize("name", made_studies.WITH_EFFECTS)
def test_effects_are_found_as_often_as_plan_foresees(name: str) -> None:
    """And with as many splits, where each split has tasks of its own; at the end, and
    with looks."""
    nature = Nature(shares_tasks=False)
    spread = made_studies.measure_spread(name, nature)
    found = made_studies.find_effect(name, 1.0, STUDIES_WITH_EFFECT, nature, spread)
    print(name, spread, found, sep="\n")

    # two and a half standard errors of so many studies, of which two thirds find it, and
    # what is not known of the spread
    assert found.at_end.supported == pytest.approx(found.foreseen_at_end.power, abs=0.1)
    assert found.with_looks.supported == pytest.approx(found.foreseen.power, abs=0.1)
    assert found.with_looks.splits == pytest.approx(found.foreseen.splits, abs=0.3)


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
