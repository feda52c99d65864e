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

from jobs.contract import attempt as attempts
from jobs.contract.folder import Damaged, Unreadable, Workspace, write_json
from jobs.contract.journal import Journal
from jobs.contract.states import Outcome
from jobs.tracking import mlflow_sync
from jobs.tracking.tracker import Unreachable
from launcher.submission.workflow import start_delivery
from tests.lib.grown_journals import (
    START,
    write_grid,
    write_guest,
    write_job,
    write_run,
)
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

    found = mlflow_sync.find_grids_of_runs(Workspace(tmp_path), ["first"])
    assert [(run, record.name) for run, record in found] == [("first", "old")]


def test_live_delivery_reads_a_grid_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An evaluate job serves many runs of a grid, whose record may be of thousands."""
    write_grid(tmp_path, "both", ["first", "second"])
    write_grid(tmp_path, "one", ["second"])
    read = list[str]()
    read_record = mlflow_sync.grid_record.read_grid_record

    def note(workspace: Workspace, name: str) -> object:
        read.append(name)
        return read_record(workspace, name)

    monkeypatch.setattr(mlflow_sync.grid_record, "read_grid_record", note)
    found = mlflow_sync.find_grids_of_runs(
        Workspace(tmp_path), ["second", "absent", "first"]
    )

    assert [(run, record.name) for run, record in found] == [
        ("second", "both"),
        ("second", "one"),
        ("first", "both"),
    ]
    assert sorted(read) == ["both", "one"]


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


@pytest.mark.parametrize("is_folder", [True, False])
def test_a_journal_that_the_system_refuses_keeps_no_other_run_from_mlflow(
    work: Path, is_folder: bool
) -> None:
    """The file or the folder of the journals, whatever the errno: it is that run's
    trouble, and told with its path."""
    grid = f"refused-{is_folder}"
    runs = [f"{grid}-a", f"{grid}-b"]
    for run in runs:
        write_run(work, run, [[{"loss": 3.0}]])
    write_grid(work, grid, runs)
    path = work / "runs" / runs[0] / "journal"
    if is_folder:
        shutil.rmtree(path)
        path.symlink_to(path)
    else:
        path = path / "1-train-0.jsonl"
        path.unlink()
        path.mkdir()
    with pytest.raises(Unreadable, match=re.escape(f"{path}: ")):
        sync(work, grid)

    assert child_runs(work, grid).keys() == {runs[1]}


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


def test_late_rows_of_an_early_stage_shift_nothing(work: Path) -> None:
    """With more keys than MLflow is told of, those that it has stay, and each of their
    points comes once, whoever writes later and in whatever stage.

    An evaluator of the first stage brings new keys after those of the second have taken
    what room there was.
    """
    first, second, late = (
        {f"{name}-{number}": float(number) for number in range(60)}
        for name in ("first", "second", "late")
    )
    write_run(work, "cap-1", [[first]])
    write_run(work, "cap-2", [[second]], outcome=None)
    set_before(work, "cap-2", "cap-1")
    write_grid(work, "capped", ["cap-2"])
    assert sync(work, "capped") == {"runs": 1, "points": 60 + 40}
    write_guest(work, "cap-1", 1, [late])
    write_run(work, "cap-2", [[second, second]])
    set_before(work, "cap-2", "cap-1")
    assert sync(work, "capped") == {"runs": 1, "points": 40}

    held = child_runs(work, "capped")["cap-2"]
    steps = [(key, step) for key, step, _, _ in held["points"]]
    of_second = [f"second-{number}" for number in range(40)]
    expected = [(key, 0) for key in [*first, *of_second]]
    expected += [(key, 1) for key in of_second]
    assert sorted(steps) == sorted(expected)
    assert held["tags"]["zsg.keys_left_out"].startswith("80, which zsg export has: ")
    assert sync(work, "capped") == {"runs": 0, "points": 0}


def set_before(work: Path, run: str, before: str) -> None:
    """Makes a run the second stage after another."""
    path = work / "runs" / run / "job.json"
    write_json(path, json.loads(path.read_text()) | {"before": [before]})


def test_keys_that_an_older_zsg_left_out_are_chosen_anew_and_all_is_sent(
    work: Path,
) -> None:
    """Its cursor counts points of keys that it chose otherwise: MLflow gets what lacks,
    and nothing twice."""
    many = {f"key-{number}": float(number) for number in range(130)}
    write_run(work, "older", [[many]], outcome=None)
    write_grid(work, "older", ["older"])
    sync(work, "older")
    path = work / "runs/older/delivery/older.json"
    cursor = json.loads(path.read_text())
    del cursor["keys"], cursor["last"]
    write_json(path, cursor | {"seen": None})
    write_run(work, "older", [[many, many]])

    assert sync(work, "older") == {"runs": 1, "points": 200}
    assert len(child_runs(work, "older")["older"]["points"]) == 200


def test_a_row_that_is_lost_after_it_was_sent_is_not_sent_again(work: Path) -> None:
    """A journal that lost its last row to its disk goes on with other points than were
    sent: each of them arrives, and none of what MLflow has twice."""
    write_run(work, "cut", [[{"loss": 4.0, "extra": 1.0}]], outcome=None)
    write_grid(work, "cut", ["cut"])
    assert sync(work, "cut") == {"runs": 1, "points": 2}
    sent = journal_points(work, "cut")
    path = work / "runs/cut/journal/1-train-0.jsonl"
    path.write_bytes(path.read_bytes().rpartition(b'{"seq"')[0])
    assert journal_points(work, "cut") == []
    write_run(work, "cut", [[{"loss": 4.0}, {"loss": 3.0}, {"loss": 2.0}]])
    assert sync(work, "cut") == {"runs": 1, "points": 3}

    run = child_runs(work, "cut")["cut"]
    assert sorted(run["points"]) == sorted([*sent, *journal_points(work, "cut")[1:]])
    told = "MLflow has 2 points of rows that the journal has lost since, first extra at"
    assert run["tags"]["zsg.rows_lost"] == f"{told} step 0"
    assert sync(work, "cut") == {"runs": 0, "points": 0}
    shutil.rmtree(work / "runs/cut/delivery")
    sync(work, "cut")
    assert sorted(child_runs(work, "cut")["cut"]["points"]) == sorted(run["points"])


def test_a_tag_of_what_holds_no_more_is_removed(work: Path) -> None:
    """A journal file is listed again; a run that had ended goes on."""
    write_run(work, "back", [[{"loss": 4.0}], [{"loss": 4.0}, {"loss": 3.0}]], "failed")
    write_grid(work, "back", ["back"])
    sync(work, "back")
    path = work / "runs/back/journal/2-train-0.jsonl"
    hidden = path.rename(path.with_suffix(".hidden"))
    sync(work, "back")
    tags = child_runs(work, "back")["back"]["tags"]
    assert {"zsg.rows_lost", "zsg.ended"} <= set(tags)
    hidden.rename(path)
    write_run(work, "back", [[{"loss": 4.0}]], outcome=None)
    sync(work, "back")

    run = child_runs(work, "back")["back"]
    assert not {"zsg.rows_lost", "zsg.ended"} & set(run["tags"])
    assert sorted(run["points"]) == sorted(journal_points(work, "back"))


def test_values_that_mlflow_changes_are_told(work: Path, logged: list[str]) -> None:
    """By a tag of the run and one line of the sync, told once; what MLflow has no room
    for keeps nothing beside it back."""
    write_run(
        work,
        "odd",
        [[{"loss": math.inf}, {"loss": -math.inf}, {"loss": math.nan}, {"loss": 1.0}]],
        outcome=None,
    )
    path = work / "runs/odd/journal/1-train-0.jsonl"
    last = (
        path.read_bytes().splitlines()[-1].replace(b'"step": 3', b'"step": %d' % 2**70)
    )
    path.write_bytes(path.read_bytes() + last + b"\n")
    write_grid(work, "odd", ["odd"])
    assert sync(work, "odd") == {"runs": 1, "points": 4}

    run = child_runs(work, "odd")["odd"]
    told = run["tags"]["zsg.values_changed"]
    assert [text.strip() for text in told.split(";")] == [
        "1 × inf, kept as the largest number there is (1.8e308), first loss at step 0",
        "1 × -inf, kept as the smallest number there is (-1.8e308), first loss at step 1",
        "1 × nan, which its charts leave out, first loss at step 2",
        f"1 × not sent, as step or time is beyond 64 bits, first loss at step {2**70}",
    ]
    values = [value for _, _, value, _ in sorted(run["points"], key=lambda row: row[1])]
    assert values[:2] == [sys.float_info.max, -sys.float_info.max]
    assert math.isnan(values[2]) and values[3] == 1.0
    [line] = logged
    assert line.startswith(f"odd: MLflow has not all values as they are: odd, {told}")
    sync(work, "odd")
    assert logged == [line]


def test_a_name_that_mlflow_does_not_take_keeps_no_other_metric_back(
    work: Path, logged: list[str]
) -> None:
    """All others arrive, once; the tag and one line of the sync tell of those that
    cannot be sent, of whatever kind they are."""
    names = ["what?", "../up", "/root", "a//b", "k" * 251, "", ".", "a\n"]
    accepted = ["loss", "loss/flan 2022", "a:b", "ä.b-c_d", "k" * 250]
    row = dict.fromkeys([*names, *accepted], 1.0)
    write_run(work, "named", [[row, {"loss": 0.5}]])
    write_grid(work, "named", ["named"])
    assert sync(work, "named") == {"runs": 1, "points": len(accepted) + 1}

    run = child_runs(work, "named")["named"]
    assert {key for key, *_ in run["points"]} == set(accepted)
    assert run["status"] == "FINISHED"
    assert run["tags"]["zsg.values_changed"] == (
        "8 × not sent, as MLflow takes no metric of that name, first what? at step 0"
    )
    [line] = logged
    assert "not sent, as MLflow takes no metric of that name" in line
    assert sync(work, "named") == {"runs": 0, "points": 0}


def test_a_grids_run_that_was_deleted_gets_its_children_back(work: Path) -> None:
    """A new run of the grid is made, and all its runs stand below it again, also where
    nothing of them is to be sent."""
    for run in ("child", "sibling"):
        write_run(work, run, [[{"loss": 3.0}]])
    write_grid(work, "family", ["child", "sibling"])
    sync(work, "family")
    client = MlflowClient(f"sqlite:///{work}/mlflow.db")
    old = parent_of(work, "family")
    client.delete_run(old)
    assert sync(work, "family") == {"runs": 0, "points": 0}

    new = parent_of(work, "family")
    children = child_runs(work, "family").values()
    assert new != old
    assert [child["tags"]["mlflow.parentRunId"] for child in children] == [new, new]
    assert_exactly_once(work, "family", ["child", "sibling"])


def parent_of(work: Path, grid: str) -> str:
    """The MLflow run of a grid itself."""
    [parent] = [
        row for row in mlflow_runs(work, grid) if row["tags"]["zsg.kind"] == "grid"
    ]
    return parent["id"]


def test_trouble_of_one_served_run_keeps_no_other_from_mlflow(
    logged: list[str],
) -> None:
    """Of a job that serves several runs; a server that is down is asked once a round."""
    asked: list[tuple[str, str]] = []

    def send_run(run: str, grid: str) -> None:
        asked.append((run, grid))
        if run == "broken":
            raise Damaged("its job.json")
        if grid == "down":
            raise Unreachable("no answer")

    served = [("broken", "up"), ("sound", "up")]
    mlflow_sync.send_each(served, send_run)
    assert asked == served and logged == ["broken is not sent: its job.json"]
    with pytest.raises(Damaged, match=r"its job\.json"):
        mlflow_sync.send_each([("broken", "up")], send_run)
    asked.clear()
    served = [("a", "down"), ("b", "down"), ("sound", "up")]
    with pytest.raises(Unreachable):
        mlflow_sync.send_each(served, send_run)
    assert asked == [served[0], served[2]]


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


def write_attempt(work: Path, run: str, losses: list[float], outcome: Outcome) -> Path:
    """A further attempt of a run, from its beginning; the path of its journal."""
    folder = work / "runs" / run
    attempt = attempts.begin_attempt(folder, "submission")
    journal = Journal(folder, attempt, "train", "s")
    journal.rewind(step=0, examples=0)
    journal.add_row("event", step=0, examples=0, data=START)
    for step, loss in enumerate(losses):
        journal.add_metrics({"loss": loss}, step=step, examples=step)
    journal.close()
    attempts.end_attempt(folder, attempt, outcome)
    return folder / "journal" / journal.name


def put_zeros(path: Path, number: int) -> None:
    """Puts zeros in the place of a line, counted from 1; the file's size stays."""
    lines = path.read_bytes().splitlines(keepends=True)
    lines[number - 1] = b"\0" * (len(lines[number - 1]) - 1) + b"\n"
    path.write_bytes(b"".join(lines))


def test_what_a_hole_has_taken_is_sent_once_it_was_computed_again(
    work: Path, logged: list[str]
) -> None:
    """Nothing is sent of a run with a hole, and each such run is named with the line.
    Once the next attempt has closed the hole all is sent, and once."""
    for run in ("hole a", "hole b"):
        write_job(work, run)
        put_zeros(write_attempt(work, run, [3.0, 2.0, 1.0], Outcome.FAILED), 3)
    write_grid(work, "holes", ["hole a", "hole b"])
    with pytest.raises(Damaged, match=r"hole a/journal/.*line 3: \d+ zero bytes"):
        sync(work, "holes")
    assert any("hole b/journal/" in text and "line 3" in text for text in logged)

    for run in ("hole a", "hole b"):
        write_attempt(work, run, [3.0, 2.0, 1.0, 0.5], Outcome.DONE)
    assert sync(work, "holes") == {"runs": 2, "points": 8}
    assert_exactly_once(work, "holes", ["hole a", "hole b"])


def test_what_mlflow_has_of_a_hole_stays_and_the_rest_comes_once(
    work: Path, logged: list[str]
) -> None:
    """Nothing is sent of a run with a hole. Once it is closed what MLflow has is not
    sent again, which is told; where it was computed otherwise the run is flagged, and
    --refill makes it anew."""
    write_job(work, "sent")
    path = write_attempt(work, "sent", [3.0, 2.0, 1.0], Outcome.FAILED)
    write_grid(work, "sent grid", ["sent"])
    assert sync(work, "sent grid") == {"runs": 1, "points": 3}
    before = child_runs(work, "sent grid")["sent"]["points"]
    put_zeros(path, 4)
    with pytest.raises(Damaged, match="line 4"):
        sync(work, "sent grid")
    write_attempt(work, "sent", [3.0, 2.0, 1.5, 0.5], Outcome.DONE)
    sync(work, "sent grid")

    run = child_runs(work, "sent grid")["sent"]
    [*_, last] = journal_points(work, "sent")
    assert sorted(run["points"]) == sorted([*before, last])
    told = "MLflow has 1 point of rows that the journal has lost since, first loss at"
    assert logged == [
        f"sent: {told} step 2. They stay, and what is computed again is not sent a second time"
    ]
    assert run["tags"]["zsg.flag"].endswith(": loss at step 2: 1.0, then 1.5")
    refilled = mlflow_sync.sync_grid(Workspace(work), "sent grid", refill=True)
    assert refilled == {"runs": 1, "points": 4}
    assert_exactly_once(work, "sent grid", ["sent"])
    assert "zsg.flag" not in child_runs(work, "sent grid")["sent"]["tags"]
    assert sync(work, "sent grid") == {"runs": 0, "points": 0}
