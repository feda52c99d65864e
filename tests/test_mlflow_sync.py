"""Does every metric reach a real MLflow exactly once, however often and from whatever
state it is sent?"""

import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.contract.folder import Damaged, Workspace, write_json
from jobs.tracking import mlflow_sync
from launcher.submission.workflow import start_delivery
from tests.lib.grown_journals import write_grid, write_run
from tests.lib.journal_rows import NO_ROWS, break_journal
from tests.lib.mlflow_contents import (
    MlflowClient,
    assert_exactly_once,
    child_runs,
    journal_points,
    mlflow_runs,
)


def sync(work: Path, name: str) -> dict[str, int]:
    """Delivers a grid."""
    return mlflow_sync.sync_grid(Workspace(work), name)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose MLflow has its tables."""
    work = tmp_path_factory.mktemp("deliver") / "work with 'quotes'"
    write_run(work, "first", [[{"loss": 3.0, "train/lr": 0.5}, {"loss": 2.0}]])
    write_grid(work, "grid", ["first", "never-started"])
    assert sync(work, "grid") == {"runs": 1, "points": 3}
    return work


def test_sending_again_sends_nothing(work: Path) -> None:
    """A second sync finds nothing to send; MLflow equals the journal, and a run that
    never began is not there."""
    assert sync(work, "grid") == {"runs": 0, "points": 0}
    assert_exactly_once(work, "grid", ["first"])


def test_a_delivery_told_to_end_while_it_starts_sends_everything_first(
    work: Path,
) -> None:
    """Jobs may be done before MLflow is imported; their metrics arrive all the same."""
    write_run(work, "short", [[{"loss": 3.0}, {"loss": 2.0}]])
    write_grid(work, "quick", ["short"])
    delivery = start_delivery(Workspace(work), "quick")
    delivery.terminate()

    assert delivery.wait(120) == 0
    assert_exactly_once(work, "quick", ["short"])


def test_a_lost_cursor_costs_a_replay_and_no_duplicate(work: Path) -> None:
    """Without its cursor the delivery finds the run by tag and sends all again: MLflow
    does not change."""
    shutil.rmtree(work / "runs/first/delivery")

    assert sync(work, "grid") == {"runs": 1, "points": 3}
    assert_exactly_once(work, "grid", ["first"])


def test_a_cursor_behind_what_was_sent_is_harmless(work: Path) -> None:
    """Killed between sending and noting it, the delivery sends some points twice:
    MLflow does not change."""
    path = work / "runs/first/delivery/grid.json"
    write_json(
        path, json.loads(path.read_text()) | {"sent": {"first": 1}, "seen": None}
    )

    assert sync(work, "grid") == {"runs": 1, "points": 2}
    assert_exactly_once(work, "grid", ["first"])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("exit.json", ""),
        ("attempt.json", '{"attempt": 1, "subm'),
        ("job.json", '{"schema": 99}'),
    ],
)
def test_a_broken_record_keeps_no_other_run_from_mlflow(
    work: Path, name: str, text: str
) -> None:
    """The others are sent, then its path is told."""
    runs = [f"broken-{name}", f"sound-{name}"]
    for run in runs:
        write_run(work, run, [[{"loss": 3.0}, {"loss": 2.0}]])
    write_grid(work, f"half-{name}", runs)
    (work / "runs" / runs[0] / name).write_text(text)
    with pytest.raises(Damaged, match=rf"{runs[0]}/{name}: "):
        sync(work, f"half-{name}")

    sent = child_runs(work, f"half-{name}")[runs[1]]["points"]
    assert sorted(map(repr, sent)) == sorted(map(repr, journal_points(work, runs[1])))


def test_a_broken_cursor_keeps_no_other_run_from_mlflow(work: Path) -> None:
    """The other run is sent, then the path is told, and what to do about it."""
    for run in ("cursor-broken", "cursor-sound"):
        write_run(work, run, [[{"loss": 3.0}]])
    write_grid(work, "cursors", ["cursor-broken", "cursor-sound"])
    cursor = work / "runs/cursor-broken/delivery/cursors.json"
    write_json(cursor, {"sent": {}, "params": "yes"})
    with pytest.raises(Damaged, match=f"{cursor}: .*params.*; remove it, and zsg sync"):
        sync(work, "cursors")
    assert child_runs(work, "cursors").keys() == {"cursor-sound"}

    cursor.unlink()
    assert sync(work, "cursors") == {"runs": 1, "points": 1}


def test_a_grid_record_of_a_newer_zsg_keeps_no_run_from_its_other_grids(
    tmp_path: Path,
) -> None:
    """A job delivers itself to all grids that list it and can be read."""
    write_run(tmp_path, "first", [[{"loss": 3.0}]])
    write_grid(tmp_path, "old", ["first"])
    write_grid(tmp_path, "new", ["first"])
    (tmp_path / "grids/new/grid.json").write_text('{"schema": 99}')

    found = mlflow_sync.find_grids_of_run(Workspace(tmp_path), "first")
    assert [record.name for record in found] == ["old"]


def test_a_server_is_asked_nothing_before_a_run_has_begun(tmp_path: Path) -> None:
    """No run has a journal: there is nothing to send, and nobody to send it."""
    write_grid(tmp_path, "early", ["not-begun"], "http://127.0.0.1:9")

    assert sync(tmp_path, "early") == {"runs": 0, "points": 0}


@pytest.mark.parametrize("line", NO_ROWS.values(), ids=NO_ROWS)
def test_a_broken_journal_keeps_no_other_run_from_mlflow(
    work: Path, line: bytes, request: pytest.FixtureRequest
) -> None:
    """The same, where a line of a journal is no row; nothing is sent of that run."""
    grid = f"lines {request.node.callspec.id}"
    runs = [f"broken {grid}", f"sound {grid}"]
    for run in runs:
        write_run(work, run, [[{"loss": 3.0}, {"loss": 2.0}]])
    write_grid(work, grid, runs)
    path = break_journal(work / "runs" / runs[0], line)
    with pytest.raises(Damaged, match=re.escape(f"{path}: holds a row that is no")):
        sync(work, grid)

    sent = child_runs(work, grid)
    assert sent.keys() == {runs[1]}
    points = sent[runs[1]]["points"]
    assert sorted(map(repr, points)) == sorted(map(repr, journal_points(work, runs[1])))


def test_what_a_restart_adds_is_sent_once(work: Path) -> None:
    """After a restart the recomputed steps are not sent again, the new ones are; the
    run is closed at its end."""
    write_run(work, "restarted", [[{"loss": 3.0}, {"loss": 2.0}]], outcome=None)
    write_grid(work, "restart", ["restarted"])
    assert sync(work, "restart") == {"runs": 1, "points": 2}
    assert child_runs(work, "restart")["restarted"]["status"] == "RUNNING"
    write_run(work, "restarted", [[{"loss": 3.0}, {"loss": 2.0}, {"loss": 1.0}]])

    assert sync(work, "restart") == {"runs": 1, "points": 1}
    assert_exactly_once(work, "restart", ["restarted"])
    assert child_runs(work, "restart")["restarted"]["status"] == "FINISHED"


def test_a_restart_that_disagrees_is_flagged(work: Path) -> None:
    """Another value for a step already journalled is not sent; the run carries a flag
    that names both."""
    write_run(work, "differs", [[{"loss": 3.0}], [{"loss": 3.5}]])
    write_grid(work, "differ", ["differs"])
    sync(work, "differ")

    run = child_runs(work, "differ")["differs"]
    assert [point[2] for point in run["points"]] == [3.0]
    assert "loss at step 0: 3.0, then 3.5" in run["tags"]["zsg.flag"]


def test_a_loss_that_is_no_number_arrives_as_such(work: Path) -> None:
    """NaN is delivered as NaN, once."""
    write_run(work, "nan", [[{"loss": float("nan")}]])
    write_grid(work, "nan", ["nan"])
    sync(work, "nan")
    sync(work, "nan")

    [point] = child_runs(work, "nan")["nan"]["points"]
    assert math.isnan(point[2])


def test_one_experiment_and_one_parent_for_a_grid(work: Path) -> None:
    """Runs are children of the grid's one parent run, however often it was synced; axes
    are params."""
    rows = mlflow_runs(work, "grid")
    [parent] = [row for row in rows if row["tags"]["zsg.kind"] == "grid"]
    children = [row for row in rows if row["tags"]["zsg.kind"] == "run"]

    assert [child["tags"]["mlflow.parentRunId"] for child in children] == [parent["id"]]
    assert children[0]["params"]["train.lr"] == "0"
    assert children[0]["params"]["arrangement.order"] == "nft"


def test_two_syncs_at_once_do_not_double(work: Path) -> None:
    """Two deliveries of one grid at the same time make one MLflow run and one of each point."""
    write_run(work, "raced", [[{"loss": float(step)} for step in range(1500)]])
    write_grid(work, "race", ["raced"])
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "jobs.tracking.mlflow_sync",
        str(work),
        "race",
    ]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    sent = [json.loads(process.communicate()[0])["points"] for process in both]

    assert sum(sent) == 1500 == len(journal_points(work, "raced"))
    assert_exactly_once(work, "race", ["raced"])


def test_a_run_deleted_in_mlflow_is_filled_again(work: Path) -> None:
    """A run that is gone from MLflow is made again from the journal, and the others are
    left alone."""
    write_run(work, "gone", [[{"loss": 3.0}, {"loss": 2.0}]])
    write_run(work, "stays", [[{"loss": 1.0}]])
    write_grid(work, "refill", ["gone", "stays"])
    sync(work, "refill")
    MlflowClient(f"sqlite:///{work}/mlflow.db").delete_run(
        child_runs(work, "refill")["gone"]["id"]
    )

    assert sync(work, "refill") == {"runs": 1, "points": 2}
    assert_exactly_once(work, "refill", ["gone", "stays"])


def test_a_lost_store_is_filled_again(work: Path) -> None:
    """With another store every run is sent whole."""
    write_run(work, "moved", [[{"loss": 3.0}, {"loss": 2.0}]])
    write_grid(work, "move", ["moved"])
    sync(work, "move")
    path = Workspace(work).grid("move") / "grid.json"
    write_json(
        path, json.loads(path.read_text()) | {"tracking": f"sqlite:///{work}/other.db"}
    )

    assert sync(work, "move") == {"runs": 1, "points": 2}
    assert sync(work, "move") == {"runs": 0, "points": 0}


def test_a_store_whose_making_was_killed_is_made_again(tmp_path: Path) -> None:
    """A delivery killed while MLflow sets up its tables leaves nothing that the next
    one trips over."""
    write_run(tmp_path, "first", [[{"loss": 3.0}]])
    write_grid(tmp_path, "grid", ["first"])
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "jobs.tracking.mlflow_sync",
        str(tmp_path),
        "grid",
    ]
    killed = subprocess.Popen(command)
    drafts = lambda: [  # noqa: E731
        path for path in tmp_path.glob(".mlflow.db.draft.*") if len(path.suffix) == 9
    ]
    # some tables are there, most are not
    while not any(draft.stat().st_size > 100_000 for draft in drafts()):
        assert killed.poll() is None
    killed.kill()
    killed.wait()
    assert not (tmp_path / "mlflow.db").exists()

    assert sync(tmp_path, "grid") == {"runs": 1, "points": 1}
    assert not drafts()
    assert_exactly_once(tmp_path, "grid", ["first"])


def test_two_first_deliveries_make_one_store(tmp_path: Path) -> None:
    """Two deliveries that both find no store end with one, and with every point once."""
    write_run(tmp_path, "first", [[{"loss": 3.0}]])
    write_grid(tmp_path, "grid", ["first"])
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "jobs.tracking.mlflow_sync",
        str(tmp_path),
        "grid",
    ]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]

    assert sum(json.loads(process.communicate()[0])["points"] for process in both) == 1
    assert [process.returncode for process in both] == [0, 0]
    assert_exactly_once(tmp_path, "grid", ["first"])
