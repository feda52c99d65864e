"""Is what docs/models.md says of each family true?"""

import warnings

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from tests.lib.family_runs import FamilyRuns
    from tests.lib.family_table import BEGIN, END, PAGE, list_families, make_row
    from tests.lib.train_bench import Bench

# a window; capped scores and what follows the head; a mask of its own
QUICK = ("mistral", "gemma2", "bloom")


@pytest.fixture(scope="module")
def runs(bench: Bench) -> FamilyRuns:
    """What trains tiny models of families."""
    return FamilyRuns(bench)


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(
            family, marks=[] if family in QUICK else pytest.mark.soak(part="families")
        )
        for family in list_families()
    ],
)
def test_a_familys_row_is_what_is_found(runs: FamilyRuns, family: str) -> None:
    """How its examples meet, whether its item losses are Hugging Face's eager ones,
    whether plan counts it from its config alone, exactly; that a run which was killed
    and resumed is the undisturbed one to the bit; and that transformers reads the
    snapshot under the base's class and names, with the losses that the run had."""
    table = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]

    assert make_row(family, runs) in table


def test_the_table_has_the_families_and_no_others() -> None:
    """A family that is no longer tried is no longer told of."""
    table = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    told = [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")]

    assert told == ["model_type", *list_families()]
