"""Does a report show many metrics beside one another, reach every task, and say which are
likely to be broken?"""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.report import listed_run, record_run, write_grid
from jobs.contract.folder import Workspace
from jobs.contract.item_losses import ItemLosses
from launcher.cli import app
from launcher.reporting import report
from launcher.reporting.data import metric_flags, metric_overview
from launcher.reporting.data.grid_comparison import ReportOptions
from launcher.reporting.figures import small_charts
from launcher.reporting.figures.small_charts import SmallLine
from tests.lib.reported_grid import STEPS, written
from zsg_core.errors import UserError

OTHERS = ["loss/a", "rouge1", "rouge1_stderr"]
SOURCES = [f"{source}/task{number}" for source in ("a", "b") for number in range(30)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Two orders, two seeds each, 60 test tasks of two sources, two more metrics."""
    place = Workspace(tmp_path_factory.mktemp("many"))
    listed = []
    for number, (order, seed) in enumerate([("nft", 0), ("nft", 1), ("rt", 0)]):
        axes = {"arrangement.order": order, "seed": seed}
        row = listed_run(f"run{number}", axes, seed)
        fall = 1 + number + np.exp(-np.arange(len(STEPS)))
        losses = fall[:, None] + np.zeros((1, len(SOURCES)))
        record_run(place, row, STEPS, SOURCES, losses, others=OTHERS)
        listed.append(row)
    write_grid(place, "many", listed)
    return place


def test_all_metrics_have_a_chart_and_a_value_by_their_source(place: Workspace) -> None:
    """The loss in large, each metric small below the part of the test set that it is
    of; training's own speed is none of them, and no standard error is."""
    page = written(place, "many", metrics=("all",))
    section = page.partition("4 metrics</h2>")[2].partition("<h2>")[0]

    parts = re.findall(r'<h3 class="part">([^<]+)</h3>', section)
    values = "from the first checkpoint to the last"
    assert parts == ["whole test sets", "a", "b", values]
    assert re.findall(r"<h4>([^<]+)</h4>", section) == [
        "loss",
        "rouge1",
        "loss",
        "loss",
    ]
    assert section.count("<svg") == 4
    assert "2.5 → 1.507 (1.007 to 2.007)" in section
    assert "train/loss" not in section
    assert "loss by step" in page


def test_one_metric_is_as_it_was(place: Workspace) -> None:
    """No section of many, and no list of values."""
    page = written(place, "many")
    assert "1 metrics" not in page
    assert 'class="part"' not in page


def test_every_task_is_reached_with_its_curve(place: Workspace) -> None:
    """A line for each of 60 tasks, folded, each with a small chart of its curves."""
    page = written(place, "many")
    table = page.partition("All 60 test tasks")[2].partition("</table>")[0]
    assert len(re.findall(r">[ab]/task\d+<", table)) == 60
    assert table.count('<svg class="spark"') == 60
    assert table.count("<path") == 2 * 60


@pytest.mark.parametrize(
    ("key", "values", "reason"),
    [
        ("rouge1", [0, 0], "exactly 0 at all 2 checkpoints"),
        ("rouge1", [12.5, 12.5, 12.5], "the same, 12.5, at all 3 checkpoints"),
        ("rouge1", [12.5, 12.5], None),
        ("rouge1", [math.nan, math.inf], "no value of 2 is a number"),
        ("rouge1", [1, math.nan, 2], "1 of 3 values are no numbers"),
        ("loss/a", [1.0, 3.0], "ends higher, 3, than it began, 1"),
        ("rouge1", [1.0, 3.0], None),
        ("loss", [3.0, 1.0], None),
        ("loss", [], None),
    ],
)
def test_a_curve_is_flagged_by_its_values(
    key: str, values: list[float], reason: str | None
) -> None:
    """With the reason in words; a curve that moves is not."""
    assert metric_flags.explain_broken(key, dict(enumerate(values))) == reason


def test_a_score_at_chance_is_flagged_by_its_error() -> None:
    """Within two standard errors over tasks of what a guess has; of a single item
    nothing is known."""
    tasks = [f"t{number}" for number in range(4)]
    losses = np.array([[20, 30, 22, 30]], np.float32)
    items = ItemLosses([10], tasks, tasks, [0] * 4, losses)
    reason = metric_flags.explain_chance("rank_accuracy", items, 25)
    assert reason == "at chance: 25.5 where a guess has 25 (± 2.6)"
    assert metric_flags.explain_chance("rank_accuracy", items, 50) is None
    single = ItemLosses([10], ["t"], ["t"], [0], losses[:, :1])
    assert metric_flags.explain_chance("rank_accuracy", single, 20) is None


def test_curves_that_are_the_same_at_every_point_are_flagged() -> None:
    """After step 0, where all begin alike; two checkpoints at least."""
    same = [{0: 9.0, 10: 1.0, 20: 2.0}, {0: 8.0, 10: 1.0, 20: 2.0}]
    found = metric_flags.explain_all_same(same)
    assert found == "exactly the same in all 2 points of the grid"
    assert metric_flags.explain_all_same([same[0], {10: 1.0, 20: 3.0}]) is None
    assert metric_flags.explain_all_same([{0: 1.0}, {0: 1.0}]) is None
    assert metric_flags.explain_all_same(same[:1]) is None


def test_what_is_likely_broken_stands_at_the_head_of_the_page(tmp_path: Path) -> None:
    """With the metric, the reason and the runs, also where the metric is shown alone."""
    place = Workspace(tmp_path)
    orders = {"up": "rt", "down": "nft"}
    listed = [
        listed_run(run, {"arrangement.order": order}) for run, order in orders.items()
    ]
    for row, sign in zip(listed, (1, -1), strict=True):
        losses = 3 + sign * np.arange(len(STEPS))[:, None] / 10 + np.zeros((1, 2))
        record_run(place, row, STEPS, ["t", "u"], losses)
    write_grid(place, "up", listed)
    page = written(place, "up")
    assert "Likely broken" in page
    assert "loss: ends higher, 3.5, than it began, 3 (in 1 of 2 runs: up (rt))" in page


def test_values_are_shown_and_given_as_json_without_a_page(place: Workspace) -> None:
    """A row for each metric and point: its replicates, their mean, how far they go."""
    runner = CliRunner()
    asked = [
        "report",
        "many",
        "--workspace",
        str(place.root),
        "--metric",
        "rouge1,loss",
    ]
    told = runner.invoke(app, [*asked, "--json"])
    assert told.exit_code == 0, told.output
    first, *others = json.loads(told.stdout)
    assert first == {
        "metric": "rouge1",
        "axes": {"arrangement.order": "nft"},
        "runs": 2,
        "step": 50,
        "value": pytest.approx(1.5067379),
        "lowest": pytest.approx(1.0067379),
        "highest": pytest.approx(2.0067379),
        "broken": [],
    }
    assert [row["metric"] for row in others] == ["rouge1", "loss", "loss"]
    shown = runner.invoke(app, [*asked, "--show"])
    assert shown.exit_code == 0
    assert re.search(r"rouge1 +nft +2 +50 +1.507 +1.007 to 2.007", shown.stdout)


@pytest.mark.parametrize(
    ("named", "problem"),
    [(" , ", "names no metric"), ("all,loss", "leave the others out")],
)
def test_metrics_are_parted_by_commas(named: str, problem: str) -> None:
    """Each once; none, and all beside others, are refused."""
    split_metrics = metric_overview.split_metrics
    assert split_metrics("loss, rouge1,loss") == ("loss", "rouge1")
    assert split_metrics(["task/a,b/loss"]) == ("task/a,b/loss",)
    with pytest.raises(UserError, match=problem):
        split_metrics(named)


def test_a_metric_that_no_run_has_is_refused(place: Workspace) -> None:
    """Also as one of several, with those that there are."""
    with pytest.raises(UserError, match="no run has it"):
        report.write_report(place, "many", ReportOptions(metrics=("loss", "rouge9")))


def test_a_small_chart_has_gaps_and_shows_names_as_texts() -> None:
    """What is no number is a gap; markup in a name is text; one value is a dot."""
    line = SmallLine("<b>\u202ex", 1, [0, 1, 2, 3], [1.0, math.nan, 2.0, 3.0])
    drawn = small_charts.draw_chart([line], 'a"b')
    assert "&lt;b&gt;" in drawn
    assert "\u202e" not in drawn
    assert 'aria-label="a&quot;b"' in drawn
    [path] = re.findall(r'<path d="([^"]+)" stroke', drawn)
    assert (path.count("M"), path.count("L")) == (2, 1)
    assert "nan" not in drawn
    dot = small_charts.draw_spark([SmallLine("x", 0, [5], [7.0])])
    assert "h.1" in dot
    assert (
        small_charts.draw_spark([SmallLine("x", 0, [5], [math.nan])]).count("<path")
        == 0
    )


def test_a_long_curve_is_drawn_by_few_points() -> None:
    """At most sixty, the first and the last among them, so that pages stay light."""
    x = list(range(2000))
    drawn = small_charts.draw_spark([SmallLine("x", 0, x, [float(n) for n in x])])
    assert drawn.count("L") == small_charts.MOST_POINTS - 1
    assert len(drawn) < 1500
