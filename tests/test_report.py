"""Does the report say what the journals hold, and what it does not?"""

import math
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.report import listed_run, record_run, write_grid
from jobs.contract import attempt as attempts
from jobs.contract.folder import Workspace, read_json, write_json
from jobs.contract.journal import Journal
from jobs.deciding import recorded_runs
from launcher.reporting import frames, report
from launcher.reporting.data.grid_comparison import ReportOptions
from launcher.reporting.html.page import estimate_cell, interval_cell
from tests.lib.job_records import write_job_file
from tests.lib.journal_rows import NO_ROWS, break_journal
from tests.lib.reported_grid import STEPS, TASKS, losses, make, rows, written
from zsg_core.errors import UserError

HOSTILE = "</script><script>alert(1)</script>\"' $x_1$ <b>\u202e雪"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with one grid: rt with three seeds that take effect, nft with one run."""
    place = Workspace(tmp_path_factory.mktemp("report"))
    runs = [
        ({"arrangement.order": "rt", "seed": seed}, seed, 1.0 + 0.1 * seed)
        for seed in range(3)
    ]
    make(place, "seeds", [*runs, ({"arrangement.order": "nft", "seed": 0}, None, 0.5)])
    return place


def test_bands_come_from_real_replicates_only(place: Workspace) -> None:
    """Three seeds make one curve from lowest to highest; a single run has no band, its
    bootstrap stands apart."""
    page = written(place, "seeds")
    ends = [row for row in rows(place, "seeds", "curves.csv") if row["step"] == "50"]
    finals = {
        row["arrangement.order"]: row for row in rows(place, "seeds", "finals.csv")
    }

    level = 3 * np.exp(-5)
    found = {
        row["arrangement.order"]: [
            float(row[key]) for key in ("lowest", "mean", "highest", "runs")
        ]
        for row in ends
    }
    assert found["rt"] == pytest.approx(
        [1 + level, 1.1 + level, 1.2 + level, 3], rel=1e-6
    )
    assert found["nft"] == pytest.approx([0.5 + level] * 3 + [1], rel=1e-6)
    assert "mean of 3 replicates" in page
    assert (finals["nft"]["final_seeds_low"], finals["nft"]["runs"]) == ("", "1")
    assert (
        float(finals["rt"]["final_seeds_low"])
        < 1.1 + level
        < float(finals["rt"]["final_seeds_high"])
    )
    # all its items are alike
    assert float(finals["nft"]["final_tasks_low"]) == pytest.approx(0.5 + level)


def test_the_last_value_of_each_task_stands_side_by_side(place: Workspace) -> None:
    """A line for each test task, a column for each point: the mean of its replicates,
    with the lowest and the highest of them."""
    page = written(place, "seeds")
    section = page.partition("loss by test task")[2].partition("</table>")[0]
    level = 3 * np.exp(-5)
    assert re.findall(r">(t\d)<", section) == ["t1", "t2", "t3"]
    replicates = f"{1.1 + level:.4g} ({1 + level:.4g} to {1.2 + level:.4g})"
    assert section.count(replicates) == 3
    assert section.count(f">{0.5 + level:.4g}<") == 3


def test_drops_are_told_with_task_step_and_size(place: Workspace) -> None:
    """The task that was made to fall late is the first, from the checkpoint before to
    the one after."""
    written(place, "seeds")
    late = [row for row in rows(place, "seeds", "drops.csv") if row["task"] == "t2"]

    assert len(late) == 4
    assert {(row["from"], row["to"]) for row in late} == {("30", "40")}
    assert all(float(row["size"]) > 0.8 for row in late)


def test_runs_of_other_data_have_other_tasks(tmp_path: Path) -> None:
    """A task that falls is drawn with the curves of the runs that have it; the others
    are no error."""
    place = Workspace(tmp_path)
    listed = [
        listed_run(f"set{number}", {"data.path": f"/d{number}"}, None)
        for number in range(2)
    ]
    for row, prefix in zip(listed, ("a", "b"), strict=True):
        record_run(
            place, row, STEPS, [f"{prefix}/{task}" for task in TASKS], losses(1.0)
        )
    write_grid(place, "sets", listed)

    assert "Test tasks and their sudden drops" in written(place, "sets")
    assert {
        row["task"]
        for row in rows(place, "sets", "drops.csv")
        if float(row["size"]) > 0.8
    } == {"a/t2", "b/t2"}


def test_the_page_needs_nothing_else(place: Workspace) -> None:
    """No address of anything to load, every script but its own forbidden; figures are
    drawn in the page's colours."""
    page = written(place, "seeds")

    assert re.findall(r"""(?:src|href)\s*=\s*["'](?!#|data:,)[^"']+""", page) == []
    assert set(re.findall(r"https?://[^\s\"'<)]+", page)) <= {
        "http://www.w3.org/1999/xlink"
    }
    assert "default-src 'none'" in page and page.count("<script") == 1
    assert page.count("<figure") >= 3 and "var(--z2)" in page
    assert {path.name for path in (place.grid("seeds") / "report").iterdir()} == {
        "report.html",
        ".zsg-report.json",
        *report.BESIDE,
    }


def test_hostile_names_stay_texts(tmp_path: Path) -> None:
    """Markup, quotes, dollars and odd characters in a grid's values are shown, and make
    no element."""
    place = Workspace(tmp_path)
    make(
        place,
        "odd",
        [({"arrangement.order": value}, None, 1.0) for value in (HOSTILE, "_x", "b")],
    )
    page = written(place, "odd")

    assert (
        page.count("<script") == 1
        and "alert(1)</script>" not in page
        and "<b>" not in page
    )
    assert (
        "&lt;/script&gt;" in page
        and "雪" in page
        and "\u202e" not in page.partition("<svg")[0]
    )


def test_stages_are_one_curve_that_shows_where_each_begins(tmp_path: Path) -> None:
    """Of two runs with a first stage in common each has its points too; what stages end
    at and drops name the stage."""
    place = Workspace(tmp_path)
    start, *listed = (
        listed_run(run, {"strategy.k": run}) for run in ("start", "a", "b")
    )
    for number, row in enumerate(listed):  # in what only later stages have
        row["recipe"]["stages"] = [
            *row["recipe"]["stages"],
            {**row["recipe"]["stages"][0], "part": number},
        ]
    table = losses(1.0)
    record_run(place, start, STEPS[:3], TASKS, table[:3])
    for row in listed:
        record_run(place, row, STEPS[3:], TASKS, table[3:], before=["start"], first=20)
    write_grid(place, "staged", listed)
    page = written(place, "staged")

    for key in ("a", "b"):
        of = [
            row
            for row in rows(place, "staged", "curves.csv")
            if row["strategy.k"] == key
        ]
        assert [int(row["step"]) for row in of] == STEPS
    for row in rows(place, "staged", "finals.csv"):
        assert (row["stage_1_step"], float(row["stage_1_final"])) == (
            "20",
            pytest.approx(table[2].mean()),
        )
        assert float(row["final"]) == pytest.approx(table[5].mean())
    late = {
        (row["from"], row["stage"])
        for row in rows(place, "staged", "drops.csv")
        if row["task"] == "t2"
    }
    assert late == {("30", "2")}
    assert "after stage 1" in page and "is where the next stage begins" in page


def test_one_stage_is_shown_by_itself_over_splits(tmp_path: Path) -> None:
    """Counted from its beginning, examples too; runs of other held-out splits are
    replicates then."""
    place = Workspace(tmp_path)
    start, *listed = (
        listed_run(run, {"data.held_out": run}) for run in ("start", "a", "b")
    )
    for number, row in enumerate(listed):
        row["recipe"]["stages"] = [
            *row["recipe"]["stages"],
            {**row["recipe"]["stages"][0], "part": number},
        ]
    table = losses(1.0)
    record_run(place, start, STEPS[:3], TASKS, table[:3])
    for row in listed:
        record_run(place, row, STEPS[3:], TASKS, table[3:], before=["start"], first=20)
    write_grid(place, "staged", listed)
    written(place, "staged", stage=2, over_splits=True, x="examples")
    shown = rows(place, "staged", "curves.csv")

    assert [int(row["step"]) for row in shown] == [step - 20 for step in STEPS[2:]]
    assert [float(row["examples"]) for row in shown] == [
        16 * (step - 20) for step in STEPS[2:]
    ]
    assert {row["runs"] for row in shown} == {"2"}
    with pytest.raises(
        UserError, match="--stage 3: the runs of grid staged have 2 stages at most"
    ):
        written(place, "staged", stage=3)


@pytest.mark.parametrize("key", ["data.held_out.seed", "data.sources.a.held_out.seed"])
def test_curves_of_other_held_out_splits_are_told_apart(
    tmp_path: Path, key: str
) -> None:
    """By the seed of the split, which is none of a replicate's."""
    place = Workspace(tmp_path)
    listed = [listed_run(f"r{split}", {key: split, "seed": 0}) for split in (7, 8)]
    for row in listed:
        row["recipe"]["stages"][0]["data"]["held_out"] = {"seed": row["axes"][key]}
        record_run(place, row, STEPS, TASKS, losses(1.0))
    write_grid(place, "splits", listed)
    written(place, "splits")

    assert [row[key] for row in rows(place, "splits", "finals.csv")] == ["7", "8"]


def test_spared_runs_are_counted_and_are_no_trouble(tmp_path: Path) -> None:
    """A look ended the study before they began: nothing is missing or in doubt."""
    place = Workspace(tmp_path)
    done = listed_run("trained", {"data.held_out.seed": 1})
    spared = listed_run("not-trained", {"data.held_out.seed": 2})
    spared["recipe"]["stages"][0]["part"] = 2
    record_run(place, done, STEPS, TASKS, losses(1.0))
    record_run(place, spared, STEPS[:1], TASKS, losses(1.0)[:1], outcome="cancelled")
    path = place.run("not-trained") / "exit.json"
    write_json(path, {**(read_json(path) or {}), "cause": "spared"})
    write_grid(place, "looked", [done, spared])
    page = written(place, "looked")

    assert "1 run is spared" in page
    assert "No curve: 2: spared." in page
    assert "What is missing" not in page


def test_a_run_whose_first_stage_is_under_way_or_broken_is_told(tmp_path: Path) -> None:
    """What an earlier stage has recorded counts: the run is not finished; where that
    stage failed, so has the run."""
    place = Workspace(tmp_path)
    listed = [
        listed_run(run, {"train.lr": lr})
        for run, lr in (("open", 0.1), ("broken", 0.2))
    ]
    for row, outcome in zip(listed, (None, "failed"), strict=True):
        before = listed_run(f"before-{row['run']}", {})
        record_run(
            place,
            before,
            STEPS[:3],
            TASKS,
            losses(1.0)[:3],
            outcome=outcome,
            **({"cause": "killed"} if outcome else {}),
        )
        write_job_file(place.run(row["run"]), before=[before["run"]])
    write_grid(place, "begun", listed)
    top = written(place, "begun").partition("<figure")[0]

    assert "not finished: open" in top and "broken failed at step 20: killed" in top


def test_what_is_missing_is_said_at_the_top(tmp_path: Path) -> None:
    """Failed, unfinished, unbegun, flagged and former runs are named before any figure;
    means hold done runs only."""
    place = Workspace(tmp_path)
    listed = [listed_run(f"run{n}", {"seed": n}, n) for n in range(6)]
    for row, end in zip(listed, ("done", "failed", None, "done", "done"), strict=False):
        steps = STEPS if end == "done" else STEPS[:3]
        cause = (
            {"cause": "out of memory", "evidence": "line 7"} if end == "failed" else {}
        )
        record_run(
            place, row, steps, TASKS, losses(1.0)[: len(steps)], outcome=end, **cause
        )
    attempt = attempts.begin_attempt(place.run("run4"), "s")
    again = Journal(place.run("run4"), attempt, "train", "1")
    again.add_row("metric", step=50, examples=800, data={"loss": 99.0})
    again.close()
    attempts.end_attempt(place.run("run4"), attempt, "done", step=50)
    write_grid(place, "gaps", listed, former=[listed_run("old", {"seed": 9}, 9)])
    page = written(place, "gaps")
    top = page.partition("<figure")[0]

    assert "run1 failed at step 20: out of memory: line 7" in top
    assert "not finished: run2" in top and "not begun: run5" in top
    assert "run4 is flagged" in top and "99.0" in top
    assert "no longer lists them: old" in top and "3 of 6 runs done" in top
    assert {row["runs"] for row in rows(place, "gaps", "curves.csv")} == {"3"}


def test_a_point_without_a_curve_is_told_with_its_reason(tmp_path: Path) -> None:
    """Beside the figure; the legend names only what is drawn, and runs that are missing
    have their point beside their id."""
    place = Workspace(tmp_path)
    listed = [
        listed_run(f"run{n}", {"arrangement.order": order}, None)
        for n, order in enumerate(("rt", "nft", "fft"))
    ]
    record_run(place, listed[0], STEPS, TASKS, losses(1.0))
    write_grid(place, "gaps", listed)
    page = written(place, "gaps")

    assert "No curve: nft: no value yet (1 not begun); fft: no value yet" in page
    assert "not begun: run1 (nft), run2 (fft)" in page
    legend = re.findall(r'<ul class="legend">(.*?)</ul>', page, re.S)[0]
    assert "rt</li>" in legend and "fft" not in legend


def test_every_test_task_has_a_curve_or_is_named(tmp_path: Path) -> None:
    """Those that fall most have one; of the others it is said that they have none, and why."""
    place = Workspace(tmp_path)
    tasks = [f"task{n:02}" for n in range(14)]
    run = listed_run("run0", {"seed": 0}, None)
    falling = np.linspace(3.0, 1.0, len(STEPS))[:, None] - np.linspace(0, 1, 14)
    record_run(place, run, STEPS, tasks, falling)
    write_grid(place, "tasks", [run])
    page = written(place, "tasks")

    drawn = set(re.findall(r"<figure><h3>(task\d\d)</h3>", page))
    [unnamed] = re.findall(r"Without one, as others fall more: ([^<]*)\.", page)
    assert "Of 14 test tasks the 12 that fall most suddenly have a panel." in page
    assert len(drawn) == 12 and drawn | set(unnamed.split(", ")) == set(tasks)


@pytest.mark.parametrize(
    ("value", "bounds", "shown"),
    [
        (2.4, (1.92339, 2.87753), ("2.40", "1.92 to 2.88")),
        (3.232009, (3.22, 3.244), ("3.232", "3.220 to 3.244")),
        (0.5, (0.5, 0.5), ("0.5", "0.5 to 0.5")),
        (1234.5678, (1100.0, 1400.0), ("1235", "1100 to 1400")),
        (2e9, (1e9, 3e9), ("2e+09", "1e+09 to 3e+09")),
        (math.inf, (1.0, math.inf), ("inf", "1 to inf")),
    ],
)
def test_a_value_has_the_digits_that_its_interval_bears_out(
    value: float, bounds: tuple[float, float], shown: tuple[str, str]
) -> None:
    """Two of half the interval's width; a value without a width as it is."""
    cells = (estimate_cell(value, [bounds, None]), interval_cell(bounds))

    assert tuple(cell.text for cell in cells) == shown


def test_a_page_goes_by_itself(one_run: Workspace, tmp_path: Path) -> None:
    """One file, readable as the umask says, that names no other; written again it is
    replaced, and what zsg did not write is not."""
    page = tmp_path / "for" / "page.html"
    former = os.umask(0o022)
    try:
        for _ in range(2):
            assert report.write_report(one_run, "g", ReportOptions(), page) == page
    finally:
        os.umask(former)
    text = page.read_text(encoding="utf-8")

    assert page.stat().st_mode & 0o777 == 0o644
    assert page.parent.stat().st_mode & 0o777 == 0o755
    assert list(page.parent.iterdir()) == [page]
    assert "curves.png" not in text and "drops.csv" not in text
    page.write_text("mine")
    with pytest.raises(UserError, match="no page that zsg wrote; name another"):
        report.write_report(one_run, "g", ReportOptions(), page)
    assert page.read_text() == "mine"


@pytest.mark.parametrize("name", ["job.json", "attempt.json", "exit.json"])
def test_a_run_that_cannot_be_read_is_left_out(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The page and the table have the others; both name its file."""
    place = Workspace(tmp_path)
    [broken, sound] = make(place, "halves", [({}, 0, 1.0), ({}, 1, 2.0)])
    path = place.run(broken) / name
    path.write_text("{")

    assert_left_out(place, broken, sound, path, caplog)


@pytest.mark.parametrize("line", NO_ROWS.values(), ids=NO_ROWS)
def test_a_run_whose_journal_is_broken_is_left_out(
    tmp_path: Path, line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """The same, where a line of its journal is no row."""
    place = Workspace(tmp_path)
    [broken, sound] = make(place, "halves", [({}, 0, 1.0), ({}, 1, 2.0)])
    path = break_journal(place.run(broken), line)

    assert_left_out(place, broken, sound, path, caplog)


def assert_left_out(
    place: Workspace,
    broken: str,
    sound: str,
    path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The report and the export of the grid `halves` have the sound run alone; both
    name the broken file."""
    assert f"{broken} is left out: {path}" in written(place, "halves")
    assert {row["runs"] for row in rows(place, "halves", "curves.csv")} == {"1"}
    caplog.clear()
    table = place.root / "all.csv"
    assert frames.export_table(place, "halves", table, "csv", items=False)
    assert str(path) in caplog.text
    assert broken not in table.read_text()
    assert sound in table.read_text()


def test_a_run_whose_test_items_cannot_be_read_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the page and of the table of items; its metrics are exported all the same."""
    place = Workspace(tmp_path)
    [broken, sound] = make(place, "halves", [({}, 0, 1.0), ({}, 1, 2.0)])
    path = place.run(broken) / "test_set.json"
    path.write_text("{")
    metrics, items = tmp_path / "metrics.csv", tmp_path / "items.csv"

    assert f"{broken} is left out: {path}" in written(place, "halves")
    frames.export_table(place, "halves", metrics, "csv", items=False)
    assert broken in metrics.read_text()
    caplog.clear()
    frames.export_table(place, "halves", items, "csv", items=True)
    assert broken not in items.read_text() and sound in items.read_text()
    assert str(path) in caplog.text


def test_what_is_told_of_a_broken_run_moves_no_terminal(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A run's name comes from a file that others may have written."""
    recorded_runs.warn_of_left_out("\x1b[31mred", "x.json: is no JSON any more")

    assert "\x1b" not in caplog.text and "[31mred is left out: x.json" in caplog.text


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            {"metric": "rouge"},
            "--metric rouge: no run has it; there are loss, speed/tokens_per_s, train/loss",
        ),
        (
            {"panel": "lr"},
            "--panel lr: not one of the axes in which the runs differ: arrangement.order, none",
        ),
    ],
)
def test_what_cannot_be_shown_is_refused(
    place: Workspace, asked: dict[str, str], said: str
) -> None:
    """An unknown metric or axis is a user's error that names what there is."""
    with pytest.raises(UserError, match=re.escape(said)):
        written(place, "seeds", **asked)


def test_an_axis_gets_panels_and_the_others_colours(tmp_path: Path) -> None:
    """Of two axes that with fewest values has the panels, or the one asked for; colours
    are the other's."""
    place = Workspace(tmp_path)
    points = [
        ({"arrangement.order": order, "train.lr": lr}, None, 1.0)
        for order in "abc"
        for lr in (0.1, 0.2)
    ]
    make(place, "two", points)

    titles = {
        panel: re.findall(r"<h3>([^<,]*)</h3>", written(place, "two", panel=panel))
        for panel in (None, "order")
    }
    assert titles[None][:2] == ["lr 0.1", "lr 0.2"]
    assert titles["order"][:3] == ["order a", "order b", "order c"]


def test_curves_run_over_tokens_and_examples(place: Workspace) -> None:
    """At step 10 there were 160 examples, and the tokens of ten steps."""
    found = {}
    for x in ("examples", "tokens"):
        written(place, "seeds", x=x)
        found[x] = float(rows(place, "seeds", "curves.csv")[1][x])

    assert found == {
        "examples": 160,
        "tokens": sum(1000 + step for step in range(1, 11)),
    }


def test_a_grid_under_way_is_reported(tmp_path: Path) -> None:
    """While no replicate is done, the curve is over the steps that all of them have reached."""
    place = Workspace(tmp_path)
    listed = [listed_run(f"run{n}", {"seed": n}, n) for n in range(2)]
    for row, count in zip(listed, (3, 5), strict=True):
        record_run(place, row, STEPS[:count], TASKS, losses(1.0)[:count], outcome=None)
    write_grid(place, "live", listed)
    page = written(place, "live")

    assert "0 of 2 runs done" in page
    assert [row["step"] for row in rows(place, "live", "curves.csv")] == [
        "0",
        "10",
        "20",
    ]


def test_nothing_recorded_is_a_users_error(tmp_path: Path) -> None:
    """A grid whose runs have not begun has no report."""
    place = Workspace(tmp_path)
    write_grid(place, "empty", [listed_run("a", {}, None)])

    with pytest.raises(UserError, match="no run has recorded a value yet"):
        written(place, "empty")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ((1e308, -1e308, 1.0), "1e+308 at step 0, and at 1 more steps: too large"),
        ((-1.7e308, 0.0, 0.0), "-1.7e+308 at step 0: too large"),
        ((1.7e308,) * 3, "1.7e+308 at step 0, and at 2 more steps: too large"),
    ],
    ids=str,
)
def test_values_too_large_to_draw_are_told_and_refuse_nothing(
    tmp_path: Path, logged: list[str], values: tuple[float, ...], told: str
) -> None:
    """They count as infinite, which the page and one line say with run and step; the
    other runs, and other metrics, are drawn as ever."""
    place = Workspace(tmp_path)
    journalled(place, "odd", "odd/x", values)
    page = written(place, "odd", metric="odd/x")

    assert f"odd0 has odd/x {told}" in page
    assert [line for line in logged if told in line]
    assert "metric odd/x" in page
    assert "1 of 1 runs done" in written(place, "odd")


@pytest.mark.parametrize(
    "values",
    [
        (1e299, -1e299, 1.0),
        (math.inf, 1.0, 2.0),
        (-math.inf, math.inf, math.nan),
        (math.nan,) * 3,
        (5e-324, 0.0, 1.0),
    ],
    ids=str,
)
def test_odd_values_are_drawn(tmp_path: Path, values: tuple[float, ...]) -> None:
    """What is no number leaves a gap."""
    place = Workspace(tmp_path)
    journalled(place, "odd", "odd/x", values)

    assert "metric odd/x" in written(place, "odd", metric="odd/x")


def test_positions_that_no_axis_has_are_refused(tmp_path: Path) -> None:
    """Tokens that are no number, with the run and the step; over steps all is drawn."""
    place = Workspace(tmp_path)
    listed = listed_run("odd0", {"arrangement.order": "rt"}, None)
    record_run(place, listed, STEPS, TASKS, losses(1.0), trained=False)
    write_grid(place, "odd", [listed])
    journal_values(place, "odd0", "train/tokens", (1.0, *[math.inf] * len(STEPS)))

    with pytest.raises(
        UserError, match="--x tokens: run odd0 has inf tokens at step 10"
    ):
        written(place, "odd", x="tokens")
    assert "1 of 1 runs done" in written(place, "odd")


@pytest.mark.parametrize("name", ["step", "examples"])
def test_a_run_with_a_number_beyond_64_bits_is_left_out(
    tmp_path: Path, name: str
) -> None:
    """The page names it, and shows the others; so does an export."""
    place = Workspace(tmp_path)
    orders = [({"arrangement.order": order}, None, 1.0) for order in ("rt", "nft")]
    odd, _ = make(place, "odd", orders)
    attempt = attempts.begin_attempt(place.run(odd), "s")
    journal = Journal(place.run(odd), attempt, "train", "1")
    counts = {"step": 50, "examples": 800, name: 2**70}
    journal.add_row("metric", data={"odd/x": 1.0}, **counts)
    journal.close()
    attempts.end_attempt(place.run(odd), attempt, "done", step=STEPS[-1])

    page = written(place, "odd")
    assert "beyond 64 bits" in page and "1 of 1 runs done" in page
    out = tmp_path / "table.csv"
    frames.export_table(place, "odd", out, "csv", items=False)
    lines = out.read_text().splitlines()[1:]
    assert {line.split(",")[0] for line in lines} == {'"odd1"'}


def journalled(
    place: Workspace, name: str, key: str, values: tuple[float, ...]
) -> None:
    """A grid of one run that has these values of a metric, at its first steps, beside
    its losses."""
    [run] = make(place, name, [({"arrangement.order": "rt"}, None, 1.0)])
    journal_values(place, run, key, values)


def journal_values(
    place: Workspace, run: str, key: str, values: tuple[float, ...]
) -> None:
    """A further attempt of a run, which is done with these values at its first steps."""
    attempt = attempts.begin_attempt(place.run(run), "s")
    journal = Journal(place.run(run), attempt, "train", "1")
    for step, value in zip(STEPS, values, strict=False):
        journal.add_row("metric", step=step, examples=16 * step, data={key: value})
    journal.close()
    attempts.end_attempt(place.run(run), attempt, "done", step=STEPS[-1])


@pytest.fixture
def one_run(tmp_path: Path) -> Workspace:
    """A workspace with a grid of one run, which claims nothing and keeps no states."""
    place = Workspace(tmp_path / "work")
    make(place, "g", [({"seed": 0}, 0, 1.0)])
    return place


def test_a_folder_of_the_users_keeps_what_is_hers(
    one_run: Workspace, tmp_path: Path
) -> None:
    """Files that this report does not have stay as they are; for one that it would
    replace nothing is written.

    Written again it replaces what it wrote, and says only of its own that it lies beside the page.
    """
    mine = tmp_path / "mine"
    mine.mkdir()
    for name in ("verdicts.csv", "maps.png", "notes.txt"):
        (mine / name).write_text("mine")
    (mine / "curves.csv").write_text("mine")
    with pytest.raises(
        UserError, match=r"mine holds curves\.csv, which zsg did not write"
    ):
        report.write_report(one_run, "g", ReportOptions(), mine)
    assert sorted(path.name for path in mine.iterdir()) == [
        "curves.csv",
        "maps.png",
        "notes.txt",
        "verdicts.csv",
    ]

    (mine / "curves.csv").unlink()
    report.write_report(one_run, "g", ReportOptions(), mine)
    page = report.write_report(one_run, "g", ReportOptions(), mine)
    assert [
        (mine / name).read_text() for name in ("verdicts.csv", "maps.png", "notes.txt")
    ] == ["mine"] * 3
    assert report.files_beside(page) == list(report.BESIDE)


def test_a_report_that_was_changed_is_not_replaced(one_run: Workspace) -> None:
    """By default, too; what was removed is written again."""
    page = report.write_report(one_run, "g", ReportOptions())
    (page.parent / "finals.csv").unlink()
    report.write_report(one_run, "g", ReportOptions())
    assert (page.parent / "finals.csv").exists()

    page.write_text(page.read_text() + "<!-- my note -->")
    with pytest.raises(
        UserError, match=r"holds report\.html, .* changed since; nothing was written"
    ):
        report.write_report(one_run, "g", ReportOptions())
    assert page.read_text().endswith("<!-- my note -->")


def test_an_older_reports_folder_is_taken_over(one_run: Workspace) -> None:
    """An older zsg kept no list of what it wrote: in the workspace its names are its own."""
    folder = one_run.grid("g") / "report"
    folder.mkdir()
    for name in ("report.html", "curves.csv", "maps.png", "notes.txt"):
        (folder / name).write_text("old")
    page = report.write_report(one_run, "g", ReportOptions())

    assert "old" not in (page.read_text()[:3], (folder / "curves.csv").read_text()[:3])
    assert (
        not (folder / "maps.png").exists()
        and (folder / "notes.txt").read_text() == "old"
    )


def test_a_report_is_not_written_through_a_link(
    one_run: Workspace, tmp_path: Path
) -> None:
    """Neither its folder in the workspace nor a file of it may be one; a folder that
    the user names may."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/report.html").write_text("mine")
    (one_run.grid("g") / "report").symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match="is a link"):
        report.write_report(one_run, "g", ReportOptions())
    (tmp_path / "named").mkdir()
    (tmp_path / "named/report.html").symlink_to(tmp_path / "outside/report.html")
    with pytest.raises(UserError, match=r"holds report\.html"):
        report.write_report(one_run, "g", ReportOptions(), tmp_path / "named")
    assert (tmp_path / "outside/report.html").read_text() == "mine"

    (tmp_path / "to").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "to")
    assert report.write_report(
        one_run, "g", ReportOptions(), tmp_path / "link"
    ).exists()


def test_a_list_that_somebody_made_takes_no_file_of_the_users(
    one_run: Workspace, tmp_path: Path
) -> None:
    """What a folder's list names besides the names of a report, or with no digest of
    the file, is not ours."""
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    (mine / "maps.csv").write_text("mine")
    write_json(
        mine / ".zsg-report.json",
        {"schema": 1, "files": {"notes.txt": ["x"], "../x": ["y"], "maps.csv": ["z"]}},
    )
    with pytest.raises(UserError, match=r"mine holds maps\.csv"):
        report.write_report(one_run, "g", ReportOptions(), mine)

    assert (mine / "notes.txt").read_text() == (mine / "maps.csv").read_text() == "mine"


def test_a_missing_library_is_told_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is read or written."""
    monkeypatch.setitem(sys.modules, "jinja2", None)

    with pytest.raises(
        UserError, match=r"a report needs jinja2, .* pip install 'zsg\[report\]'"
    ):
        report.write_report(Workspace(tmp_path), "g", ReportOptions())
