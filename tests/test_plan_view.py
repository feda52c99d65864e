"""Does a plan fit an 80-column screen, and does it say what was asked?

tests/golden/plan_*.txt hold what `zsg plan` prints, whole.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher import cli
from launcher.planning import costs
from launcher.submission.workflow import name_submit
from launcher.views import plan_view
from launcher.views.columns import fit_columns
from tests.lib.builders import write_niv2

GOLDEN = Path(__file__).parent / "golden"
HEAD = """name: {name}
defaults:
  data: {{path: data, train_per_task: 8, test_per_task: 2}}
  train: {{batch: 4, max_length: 128, precision: fp32}}
grid: {axes}
"""
GRIDS = {
    "one_run": "{seed: [0]}",
    "three_blocks": (
        "[{arrangement.order: [random, cluster], seed: [0, 1]},"
        " {train.lr: [1e-3, 2e-3]}, {train.max_length: [64], seed: [0, 1, 2]}]"
    ),
    "many_runs": (
        "{train.lr: [1e-3, 2e-3, 3e-3, 4e-3], train.init_seed: ["
        + ", ".join(map(str, range(100)))
        + "]}"
    ),
}


@pytest.fixture
def plan_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], str]:
    """What `zsg plan` prints of one of these grids in 80 columns."""
    write_niv2(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def plan(name: str) -> str:
        Path("grid.yaml").write_text(HEAD.format(name=name, axes=GRIDS[name]))
        monkeypatch.setattr(sys, "argv", ["zsg", "plan", "grid.yaml"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code in (None, 0)
        return capsys.readouterr().out

    return plan


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.engine  # needs the extras
def test_a_plan_is_shown_as_it_was(
    name: str, plan_printed: Callable[[str], str]
) -> None:
    """On one screen, with no line broken by the terminal."""
    printed = plan_printed(name)
    lines = printed.splitlines()

    assert printed == (GOLDEN / f"plan_{name}.txt").read_text()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80


def test_a_table_is_cut_and_not_broken() -> None:
    """Ends of values stay, by which they differ; of the last column its beginning; ids
    are whole."""
    paths = [f"models/{'x' * 40}/{size}" for size in ("7b", "13b")]
    rows = [["0123456789ab", path, "failed: " + "y" * 90] for path in paths]

    head, first, second = fit_columns(["run", "path", "why"], rows, 60)
    assert max(map(len, (head, first, second))) <= 60
    assert first.startswith("0123456789ab  models/")
    assert "/7b" in first and "/13b" in second
    assert first.endswith("…") and "failed: y" in first


def test_scores_of_several_splits_have_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where they are of as many examples by the same model; it says how often."""
    plan_view.print_scores(["length of 8", "ifd of 8", "length of 8"])

    assert capsys.readouterr().out.splitlines() == [
        "scores  2 × length of 8",
        "scores  ifd of 8",
    ]


def test_submit_is_named_with_the_options_of_the_plan() -> None:
    """But for those that only plan has; what a shell would read is quoted."""
    words = ["-q", "plan", "my grid.yaml", "--memory", "--set", "train.lr=1e-3"]

    assert name_submit(words) == "submit 'my grid.yaml' --set train.lr=1e-3"
    assert name_submit(["status"]) == ""


@pytest.mark.parametrize(
    ("hours", "is_bound", "expected"),
    [
        (None, False, "GPU-hours not known"),
        (0.0, True, "under 0.01 GPU-hours"),
        (1e-5, True, "under 0.01 GPU-hours"),
        (0.036, False, "≈ 0.04 GPU-hours"),
        (17.63, False, "≈ 17.6 GPU-hours"),
        (1698.2, True, "≤ 1,698 GPU-hours"),
    ],
)
def test_gpu_hours_are_told_as_people_say_them(
    hours: float | None, is_bound: bool, expected: str
) -> None:
    """With no more digits than they bear, and none of what rounds to nothing."""
    assert costs.Hours(hours, is_bound).words == expected
