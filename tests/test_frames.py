"""Do the exported tables hold what the journals hold?"""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.report import listed_run, record_run, write_grid
from jobs.contract import attempt as attempts
from jobs.contract import item_losses as item_scores
from jobs.contract import journal
from jobs.contract.folder import Workspace
from launcher.reporting import outputs
from launcher.reporting.frames import item_losses, metrics
from tests.lib.command_line import Zsg
from zsg_core.errors import UserError

AXES = {
    "arrangement.order": "nft",
    "strategy": {"name": "dmt", "k": "1/4"},
    "train.lr": 1e-6,
}
TASKS = ["t1", "t1", "t2"]


@pytest.fixture
def held(zsg: Zsg) -> Zsg:
    """A workspace with a grid of two runs, one of which has another kind of strategy,
    and one that never began."""
    place = Workspace(zsg.work)
    listed = [
        listed_run(f"run{n}", {**AXES, **more})
        for n, more in enumerate(({}, {"strategy": "mixed"}, {}))
    ]
    for row in listed[:2]:
        record_run(
            place,
            row,
            [0, 5],
            TASKS,
            np.array([[3.0, 2.0, 1.0], [2.0, float("nan"), 0.5]]),
        )
    write_grid(place, "grid", listed)
    return zsg


def test_the_frame_has_every_point_once(held: Zsg) -> None:
    """One row for each value that counts, with the grid's axes, in types one can compute with."""
    frame = metrics("grid", workspace=held.work)

    points = journal.first_points(journal.read_journal(held.work / "runs/run0"))[0]
    mine = frame[frame.run == "run0"]
    assert list(frame.columns) == [
        "run",
        *AXES,
        "stage",
        "step",
        "examples",
        "key",
        "value",
        "ts",
    ]
    assert [(row.key, row.step, row.examples) for row in mine.itertuples()] == [
        (p.key, p.step, p.examples) for p in points
    ]
    assert mine.value.to_numpy() == pytest.approx(
        [p.value for p in points], nan_ok=True
    )
    assert (frame["train.lr"] == 1e-6).all() and set(frame.run) == {"run0", "run1"}
    assert json.loads(mine.strategy.iloc[0]) == AXES["strategy"]
    assert int(mine.ts.iloc[0].timestamp() * 1000) == points[0].ts


def test_items_are_a_table_of_their_own(held: Zsg) -> None:
    """One row for each test item at each checkpoint, a loss that was none as NaN."""
    frame = item_losses("grid", workspace=held.work)

    assert len(frame) == 2 * 2 * len(TASKS)
    last = frame[(frame.run == "run1") & (frame.step == 5)]
    assert list(last.task) == TASKS
    assert last.loss.to_numpy() == pytest.approx([2.0, float("nan"), 0.5], nan_ok=True)


def test_items_of_another_metric_are_a_table_too(held: Zsg) -> None:
    """With its values; of a metric that no run has taken of items there is no row."""
    scores = np.array([100.0, 0.0, 100.0])
    folder = held.work / "runs/run1"
    attempt = attempts.read_attempt(folder)
    assert attempt is not None
    opened = journal.Journal(folder, attempt, "evaluate", "1")
    item_scores.journal_item_losses(
        opened, "exact_match", scores, step=5, examples=80, places=[0, 1, 2]
    )
    opened.close()
    frame = item_losses("grid", workspace=held.work, metric="exact_match")
    assert list(frame.value) == [100.0, 0.0, 100.0]
    assert list(frame.task) == TASKS
    assert item_losses("grid", workspace=held.work, metric="rouge1").empty


@pytest.mark.parametrize("options", [[], ["--items"]])
def test_both_formats_hold_the_same(held: Zsg, options: list[str]) -> None:
    """Parquet and CSV have the same rows, and those of the frame; the format follows
    the file's name."""
    for name in ("a.parquet", "a.csv"):
        assert "rows" in held("export", "grid", "--out", name, *options)
    frame = (item_losses if options else metrics)("grid", workspace=held.work)
    with (held.folder / "a.csv").open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))

    pd.testing.assert_frame_equal(pd.read_parquet(held.folder / "a.parquet"), frame)
    assert [row["run"] for row in rows] == list(frame.run)
    assert sorted(Path(held.folder).glob(".a*")) == []


def test_a_file_that_is_there_is_not_replaced_unasked(held: Zsg) -> None:
    """It may be anything of the user's; a link or a folder is never replaced."""
    (held.folder / "mine.csv").write_text("mine")
    held("export", "grid", "--out", "mine.csv", code=2)
    assert (
        "mine.csv: is there already; name another file, or replace it with --replace"
        in held.said
    )
    assert (held.folder / "mine.csv").read_text() == "mine"

    (held.folder / "link.csv").symlink_to("mine.csv")
    with pytest.raises(UserError, match="no ordinary file"):
        outputs.refuse_existing(held.folder / "link.csv", may_replace=True)
    outputs.refuse_existing(held.folder / "mine.csv", may_replace=True)


def test_an_unknown_grid_is_a_users_error(held: Zsg) -> None:
    """The grids that there are are named, and no file is left."""
    held("export", "other", "--out", "a.csv", code=2)

    assert "no grid 'other'" in held.said and "known: grid" in held.said
    assert not (held.folder / "a.csv").exists()
