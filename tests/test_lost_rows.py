"""Is each value once in MLflow, and none lost, whatever a journal loses between its
attempts and deliveries?"""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET
from msgspec.structs import replace

from jobs.contract import attempt as attempts
from jobs.contract import journal as journals
from jobs.contract.delivery_cursor import (
    DeliveryCursor,
    LostRow,
    locate_cursor,
    read_cursor,
    write_cursor,
)
from jobs.contract.folder import Workspace
from jobs.contract.grid_record import ListedRun
from jobs.contract.journal import Journal, Point
from jobs.contract.saved_state import SavedState
from jobs.tracking import lost_rows
from jobs.tracking.run_sync import MlflowGrid, RunSync
from jobs.tracking.tracker import FoundRun
from jobs.training.state import Job, choose_state
from tests.lib.grown_journals import RECIPE, START, write_guest, write_job

STEPS, SAVED_EVERY = 24, 4
JOB = Job(what={}, way={}, digests={n: "d" for n in range(99)}, cells=frozenset())
ROW = ListedRun(run="r", axes={}, recipe=RECIPE, model="tiny")


class Killed(Exception):
    """Ends a delivery after MLflow has answered, before that is noted."""


class StandIn:
    """An MLflow that keeps points as the real one does: one that it has changes nothing."""

    def __init__(self) -> None:
        self.points: dict[tuple[str, int, int, float], None] = {}
        self.asked = 0
        self.tags: dict[str, str] = {}
        self.is_killed: Callable[[], bool] = lambda: False
        self._has_run = False

    def list_points(self, run: str) -> list[LostRow]:
        self.asked += 1
        return [LostRow(*point) for point in self.points]

    def log(
        self, run: str, points: Sequence[Point], params: Mapping[str, str] | None
    ) -> Iterator[int]:
        for point in points:
            self.points[point.key, point.step, point.ts, point.value] = None
        if self.is_killed():
            raise Killed
        yield len(points)

    def find_or_create(self, *args: Any) -> FoundRun:
        is_created, self._has_run = not self._has_run, True
        return FoundRun("mlflow run", is_created, is_doubtful=False)

    def experiment_of(self, run: str) -> str:
        return "experiment"

    def tag(self, run: str, tags: Mapping[str, str]) -> None:
        self.tags |= tags

    def untag(self, run: str, keys: Sequence[str]) -> None:
        for key in keys:
            self.tags.pop(key, None)

    def do_nothing(self, *args: Any) -> None:
        pass

    set_status = read = delete = do_nothing

    def count_cells(self) -> Counter[tuple[str, int]]:
        """How often each key has a value of each step."""
        return Counter((key, step) for key, step, _, _ in self.points)


class DamagedRun:
    """A run whose attempts are killed, whose journal is delivered while it is written,
    and whose files lose rows in between."""

    def __init__(self, work: Path, chance: random.Random) -> None:
        self.folder, self._chance = write_job(work, "r"), chance
        self.mlflow = StandIn()
        self._grid = MlflowGrid(
            workspace=Workspace(work),
            name="grid",
            tracker=self.mlflow,  # pyright: ignore[reportArgumentType]
            store="store",
            experiment="experiment",
            parent="parent",
        )
        self._states: dict[int, SavedState] = {}
        self.chance_of_delivery = 0.1

    def deliver(self) -> None:
        """Sends what MLflow lacks; nothing, where the journal has a hole."""
        try:
            RunSync(self._grid, ROW, True).send(refill=False)
        except (journals.HoleError, Killed):
            pass

    def lose_cursor(self) -> None:
        """Removes the delivery cursor; MLflow was asked for another run since."""
        locate_cursor(self.folder, "grid").unlink(missing_ok=True)
        self._grid.mlflow_runs = {"other run": {"other": "1"}}

    def change_cursor(self, change: Callable[[DeliveryCursor], DeliveryCursor]) -> None:
        """Writes the delivery cursor as it is after a change."""
        cursor = read_cursor(self.folder, "grid")
        write_cursor(self.folder, "grid", change(cursor))

    def lose_rows(self, count: int) -> None:
        """Takes the last rows of the newest journal file."""
        path = journals.list_owned_files(self.folder)[-1]
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:-count]))

    def attempt(self, last: int) -> None:
        """An attempt that resumes where it may and goes to a step."""
        time.sleep(0.002)  # what is computed again has another time
        attempt = attempts.begin_attempt(self.folder, "submission")
        journal = Journal(self.folder, attempt, "train", "s")
        states = list(self._states.values())
        saved = choose_state(states, JOB, journal.before, frozenset()).saved
        first = saved.step if saved else 0
        journal.rewind(step=first, examples=first)
        journal.add_row("event", step=first, examples=first, data=START)
        for step in range(first + 1, last + 1):
            values = {"loss": 1 / step, "train/lr": 0.5}
            journal.add_metrics(values, step=step, examples=step)
            self._save_or_deliver(journal, step)
        journal.close()

    def _save_or_deliver(self, journal: Journal, step: int) -> None:
        if step % SAVED_EVERY == 0 and self._chance.random() < 0.7:
            journal.commit()
            self._states = {n: state for n, state in self._states.items() if n > step}
            self._states[step] = describe_state(journal, step)
        if self._chance.random() < self.chance_of_delivery:
            journal.commit()
            self.deliver()

    def damage(self) -> None:
        """Takes something of one journal file."""
        path = self._chance.choice(journals.list_owned_files(self.folder))
        lines = path.read_bytes().splitlines(keepends=True)
        number = self._chance.randrange(len(lines)) if lines else 0
        kind = self._chance.choice(["end", "cut", "zeros", "first", "gone", "row", ""])
        if kind == "gone":
            path.unlink()
        elif kind and lines:
            path.write_bytes(b"".join(take(lines, number, kind)))


def take(lines: list[bytes], number: int, kind: str) -> list[bytes]:
    """The lines of a file that has lost something."""
    if kind == "end":
        return lines[:number]
    if kind == "first":
        return lines[1:]
    if kind == "row":
        return [*lines[:number], *lines[number + 1 :]]
    if kind == "cut":
        return [*lines[:number], lines[number][:9]]
    zeros = b"\0" * (len(lines[number]) - 1) + b"\n"
    return [*lines[:number], zeros, *lines[number + 1 :]]


def describe_state(journal: Journal, step: int) -> SavedState:
    """The record of a state that is saved now."""
    return SavedState(
        step=step,
        ids="d",
        what={},
        way={},
        journal=journal.measure(),
        seconds=0.0,
        loss=None,
        attempt=1,
        saved=0,
        versions={},
    )


@pytest.mark.parametrize("seed", [*range(20), 34, 37])
def test_each_value_is_in_mlflow_once_whatever_the_journal_loses(
    tmp_path: Path, seed: int
) -> None:
    """Over damages of any kind, deliveries at any time, some killed, and several attempts:
    the journal ends whole, and MLflow has each key of each step once."""
    chance, cursor_chance = random.Random(seed), random.Random(seed + 1000)
    run = DamagedRun(tmp_path, chance)
    run.mlflow.is_killed = lambda: chance.random() < 0.15
    for _ in range(chance.randint(1, 5)):
        run.attempt(chance.randint(1, STEPS))
        if chance.random() < 0.5:
            run.deliver()
        if chance.random() < 0.7:
            run.damage()
        if cursor_chance.random() < 0.2:
            run.lose_cursor()
        if chance.random() < 0.3:
            run.deliver()
    run.attempt(chance.randint(1, STEPS))
    run.attempt(STEPS)
    run.mlflow.is_killed = lambda: False
    run.deliver()

    assert journals.find_holes(run.folder) == []
    points, disagreements = journals.first_points(journals.read_journal(run.folder))
    assert not disagreements
    in_journal = Counter((point.key, point.step) for point in points)
    wanted = [(key, n) for key in ("loss", "train/lr") for n in range(1, STEPS + 1)]
    assert in_journal == Counter(wanted)
    assert run.mlflow.count_cells() == in_journal
    assert all(
        value == 1 / step for key, step, _, value in run.mlflow.points if key == "loss"
    )
    asked = run.mlflow.asked
    run.deliver()
    assert run.mlflow.asked == asked, "what is known is not asked again"


def make_run(work: Path) -> DamagedRun:
    """A run that is delivered only where a test says so."""
    run = DamagedRun(work, random.Random(1))
    run.chance_of_delivery = 0.0
    return run


def make_run_with_a_lost_tail(work: Path) -> DamagedRun:
    """A run of which MLflow has ten steps, and whose journal has lost the last three."""
    run = make_run(work)
    run.attempt(10)
    run.deliver()
    run.lose_rows(3)
    return run


@pytest.mark.parametrize("is_of_other_address", [True, False])
def test_an_mlflow_run_that_is_found_is_asked_what_it_has(
    tmp_path: Path, is_of_other_address: bool
) -> None:
    """Also where the cursor is lost, or its server has another address by now, and the
    look-up of the delivery was of another run."""
    run = make_run_with_a_lost_tail(tmp_path)
    run.attempt(12)
    run.deliver()
    if is_of_other_address:
        run.change_cursor(lambda cursor: replace(cursor, uri="other address"))
    else:
        run.lose_cursor()
    run.deliver()

    assert set(run.mlflow.count_cells().values()) == {1}
    assert run.mlflow.asked == 2


def test_a_run_that_an_older_zsg_delivered_is_asked_once(tmp_path: Path) -> None:
    """Its cursor tells nothing of attempts, nor of lost rows: what goes with a snapshot
    of a step that was computed again is what MLflow has."""
    run = make_run_with_a_lost_tail(tmp_path)
    run.change_cursor(
        lambda cursor: replace(cursor, last=UNSET, attempts=UNSET, lost=UNSET)
    )
    run.attempt(12)
    run.deliver()
    run.deliver()

    assert run.mlflow.asked == 1
    assert set(run.mlflow.count_cells().values()) == {1}
    lost = read_cursor(run.folder, "grid").lost_rows
    assert ("loss", 10) in [(row.key, row.step) for row in lost]


@pytest.mark.parametrize("has_cursor", [True, False])
def test_a_metric_of_the_users_own_is_no_lost_row(
    tmp_path: Path, has_cursor: bool, logged: list[str]
) -> None:
    """Whether its key is zsg's, too, or not: nothing is told or flagged, it takes no
    room among zsg's keys, and it does not have all sent again."""
    run = make_run(tmp_path)
    run.attempt(5)
    run.deliver()
    run.mlflow.points["my/score", 0, 1, 0.5] = None
    run.mlflow.points["loss", 5, 1, 77.0] = None
    if not has_cursor:
        run.lose_cursor()
    for last in (8, 12):
        run.attempt(last)
        run.deliver()
    keys = read_cursor(run.folder, "grid").keys

    assert run.mlflow.asked == 2
    assert logged == []
    assert not {"zsg.rows_lost", "zsg.flag"} & set(run.mlflow.tags)
    assert keys == ["loss", "train/lr"]
    cells = run.mlflow.count_cells()
    assert [cell for cell, count in cells.items() if count > 1] == [("loss", 5)]


def test_rows_of_a_key_that_neither_cursor_nor_journal_knows_are_not_sent_again(
    tmp_path: Path,
) -> None:
    """Both have lost all of an evaluator's; another one takes its scores again, after
    another attempt."""
    run = make_run(tmp_path)
    run.attempt(3)
    write_guest(tmp_path, "r", 0, [{"rouge": 0.25}, {"rouge": 0.5}], first_step=1)
    run.deliver()
    [path] = journals.guest_files(run.folder)
    path.unlink()
    run.lose_cursor()
    run.deliver()
    assert "zsg.rows_lost" not in run.mlflow.tags
    run.attempt(4)
    run.deliver()
    time.sleep(0.002)
    write_guest(tmp_path, "r", 1, [{"rouge": 0.25}, {"rouge": 0.5}], first_step=1)
    run.deliver()

    assert set(run.mlflow.count_cells().values()) == {1}
    assert "first rouge at step 1" in run.mlflow.tags["zsg.rows_lost"]


def test_rows_that_are_in_the_journal_again_are_told_no_more(tmp_path: Path) -> None:
    """A file that a network file system does not list for a moment, or that was moved
    away and back, is nothing that is lost."""
    run = make_run(tmp_path)
    run.attempt(5)
    run.attempt(12)
    run.deliver()
    path = journals.list_owned_files(run.folder)[-1]
    path.rename(path.with_suffix(".hidden"))
    run.deliver()
    assert "zsg.rows_lost" in run.mlflow.tags
    path.with_suffix(".hidden").rename(path)
    run.deliver()

    assert "zsg.rows_lost" not in run.mlflow.tags
    assert set(run.mlflow.count_cells().values()) == {1}


def test_what_a_dead_evaluator_had_sent_is_not_sent_by_the_next(tmp_path: Path) -> None:
    """Its file has lost the score that MLflow has; another evaluator takes it again, in
    a file of its own."""
    run = DamagedRun(tmp_path, random.Random(0))
    run.attempt(3)
    write_guest(tmp_path, "r", 0, [{"rouge": 0.25}, {"rouge": 0.5}], first_step=1)
    run.deliver()
    [path] = journals.guest_files(run.folder)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:1]))
    time.sleep(0.002)
    write_guest(tmp_path, "r", 1, [{"rouge": 0.5}, {"rouge": 0.75}], first_step=2)
    run.deliver()

    cells = run.mlflow.count_cells()
    assert [cells["rouge", step] for step in range(4)] == [0, 1, 1, 1]
    told = run.mlflow.tags["zsg.rows_lost"]
    assert told.startswith("MLflow has 1 point of rows that the journal has lost since")
    assert told.endswith("first rouge at step 2")
    assert "zsg.flag" not in run.mlflow.tags


def test_a_lost_row_that_was_computed_otherwise_is_flagged() -> None:
    """MLflow keeps its value, and the run's flag names both; speeds need not agree."""
    lost = [
        LostRow("loss", 2, 10, 1.5),
        LostRow("speed/s", 2, 10, 4.0),
        LostRow("loss", 3, 11, "nan"),
    ]
    again = [
        Point("loss", 2, 1.25, 90, "s", 2),
        Point("speed/s", 2, 5.0, 90, "s", 2),
        Point("loss", 3, float("nan"), 91, "s", 3),
        Point("loss", 4, 1.0, 92, "s", 4),
    ]
    agree = lost_rows.make_comparison([])
    points, flags = lost_rows.put_back({"s": again}, lost, agree)

    assert [point.ts for point in points["s"]] == [10, 10, 11, 92]
    assert [point.value for point in points["s"][:2]] == [1.5, 4.0]
    assert flags == ["loss at step 2: 1.5, then 1.25"]
