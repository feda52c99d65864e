"""Syncs MLflow with the journals, each point exactly once: for `zsg sync`, beside local
jobs, or live from a node.

One idempotent function. MLflow's metric key is (key, timestamp, step, run, value): a
point keeps the timestamp of its journal row, so sending it again changes nothing. The
cursor beside the run only saves work; losing it costs a replay, not a duplicate. Who
delivers a run holds its lock, so that live delivery and `zsg sync` never double. An
MLflow run is filled from one journal: the same run trained in another workspace, at
other times, is another one.

A workspace is known by what it holds, wherever it lies by now, and a grid's experiment
by the runs in it, whatever people have called it since.

`python -m jobs.tracking.mlflow_sync <workspace> [<grid>] [--run RUN] [--follow PID]`
"""

import argparse
import contextlib
import fcntl
import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from itertools import chain, islice
from pathlib import Path
from typing import Any

from jobs.contract import attempt as attempts
from jobs.contract import exit_record, journal, journal_rows, snapshots
from jobs.contract.folder import Damaged, Workspace, read_json, write_json
from jobs.contract.job_file import stage_folders
from jobs.contract.journal_rows import (
    EventRow,
    ItemsRow,
    SnapshotWritten,
    Start,
    find_events,
    find_starts,
)
from jobs.contract.states import Outcome, State
from jobs.files import ownership
from jobs.runtime.telling import tell, tell_uncaught
from jobs.tracking import follow, item_table, mlflow_metadata
from jobs.tracking.tracker import Data, Refused, Tracker
from zsg_core.errors import UserError
from zsg_core.retry import ExponentialBackoff, RetryPolicy

SIDE_BY_SIDE = 8  # runs that are sent at once to a server; a sqlite file has one writer
# of one request, from a node: the next try is not far
LIVE = ExponentialBackoff(limit_s=10.0)
LAST_S = 20.0  # for what is left when the job has ended
NICE = 19
# MLflow's word for how a run ended
STATUS: dict[str, str] = {
    Outcome.DONE: "FINISHED",
    Outcome.FAILED: "FAILED",
    Outcome.CANCELLED: "KILLED",
}
# tags: the run, and by its first row's time, which journal of it
RUN, BEGAN = "zsg.run", "zsg.began"
# in cursors: the store that lies in the workspace, and moves with it
OWN = "mlflow.db of the workspace"
SQLITE = "sqlite:///"

Row = dict[str, Any]
Tell = Callable[[int, int], None]  # how many of how many runs have been looked at
Say = Callable[[str], None]


def sync_grid(
    workspace: Workspace,
    grid: str,
    *,
    refill: bool = False,
    tell: Tell | None = None,
    say: Say | None = None,
) -> dict[str, int]:
    """Sends what MLflow lacks of every run of a grid; returns how many points and runs were sent.

    With `refill`, a run that is flagged is made anew in MLflow, and the old one deleted
    there. Raises UserError for an unknown grid, ClusterError (Unreachable, Refused) for
    what MLflow did not take; both may be tried again.
    """
    return Delivery(workspace, grid, say=say).send(refill=refill, tell=tell)


def tracking_uri(workspace: Workspace, wanted: Row) -> str:
    """The profile's MLflow, or the sqlite file of the workspace."""
    return wanted["tracking"] or f"{SQLITE}{workspace.mlflow_db}"


def find_grid_page(workspace: Workspace, grid: str) -> str:
    """The path, below MLflow's address, of the page of a grid's runs; empty where
    MLflow has none of them."""
    return Delivery(workspace, grid).page()


class Delivery:
    """The delivery of one grid's runs; made once, it may be asked to send again and again."""

    def __init__(
        self,
        workspace: Workspace,
        grid: str,
        retry_policy: RetryPolicy | None = None,
        say: Say | None = None,
    ) -> None:
        wanted = read_json(workspace.grid(grid) / "grid.json")
        if wanted is None:
            raise UserError(
                f"no grid {grid!r} in {workspace.root}; zsg status lists the grids"
            )
        self._workspace, self._wanted, self._grid = workspace, wanted, grid
        uri = tracking_uri(workspace, wanted)
        # Beside the file: MLflow would put them below the folder that zsg is called in.
        path = Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None
        artifacts = (path.parent / "mlartifacts").as_uri() if path else None
        self._tracker = Tracker(
            uri, artifacts, retry_policy, moves=not wanted["tracking"]
        )
        self._store = uri if wanted["tracking"] else OWN
        self._say = say or tell
        self._there: tuple[str, str] | None = None  # experiment and the grid's own run
        # run → its MLflow runs, and which journal each is filled from
        self._held: dict[str, dict[str, str]] = {}
        # run → the other experiment in which its MLflow run stands
        self._elsewhere: dict[str, str] = {}

    def send(
        self, *, only: str | None = None, refill: bool = False, tell: Tell | None = None
    ) -> dict[str, int]:
        """Sends what MLflow lacks of every run, or of one; see `sync_grid`."""
        rows = [row for row in self._rows(only) if self._has_begun(row)]
        sent = {"runs": 0, "points": 0}
        refused: list[Refused | Damaged] = []
        if rows:
            self._look_up(only)
        for number, points in enumerate(self._each(rows, refill, refused), start=1):
            sent["runs"] += points > 0
            sent["points"] += points
            if tell:
                tell(number, len(rows))
        self._tell_elsewhere()
        if refused:  # one run's trouble has not kept the others from MLflow
            raise refused[0]
        return sent

    def _has_begun(self, row: Row) -> bool:
        """Whether there is a journal to send; also where that cannot be told, so that
        sending tells why."""
        try:
            return any(
                map(
                    journal.list_journal_files,
                    stage_folders(self._workspace, row["run"]),
                )
            )
        except Damaged:
            return True

    def page(self) -> str:
        """The path, below MLflow's address, of the page of this grid's runs; empty
        where MLflow has none of them."""
        experiment = self._home() or self._tracker.named(self._grid)
        return self._tracker.page(experiment) if experiment else ""

    def _rows(self, only: str | None) -> list[Row]:
        former = [
            row for row in self._wanted.get("former", []) if not row.get("is_stage")
        ]
        return [
            row
            for row in [*self._wanted["runs"], *former]
            if only in (None, row["run"])
        ]

    def _each(
        self, rows: list[Row], refill: bool, refused: list[Refused | Damaged]
    ) -> Iterator[int]:
        """How many points were sent of each run, as they end. Of a server that does not
        answer nobody asks more."""
        stop = threading.Event()

        def one(row: Row) -> int:
            if stop.is_set():
                return 0
            try:
                return self._send_run(row, refill)
            except (Refused, Damaged) as error:
                refused.append(error)
                if isinstance(error, Refused):
                    # it may have been deleted meanwhile: looked at anew when asked to send again
                    self._held = {}
                return 0
            except BaseException:
                stop.set()
                raise

        width = SIDE_BY_SIDE if self._tracker.uri.startswith("http") else 1
        if width == 1 or len(rows) == 1:
            yield from map(one, rows)
            return
        with ThreadPoolExecutor(min(width, len(rows))) as pool:
            left = {pool.submit(one, row) for row in rows}
            try:
                while left:
                    ended, left = wait(left, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in ended)
            finally:
                # also when interrupted: what is under way ends, nothing else begins
                stop.set()

    def _look_up(self, only: str | None) -> None:
        """Asks once which runs MLflow has; what is deleted or restored there later, the
        next delivery sees."""
        self._there = self._there or self._find_grid()
        if not self._held:
            of = {} if only is None else {RUN: only}
            found = self._tracker.find(
                self._there[0],
                {"zsg.kind": "run", "zsg.grid": self._grid, **of},
                (RUN, BEGAN),
            )
            for mlflow_run, (run, began) in found.items():
                self._held.setdefault(run, {})[mlflow_run] = began

    def _find_grid(self) -> tuple[str, str]:
        with _lock(self._workspace.grid(self._grid) / "delivery.lock"):
            self._tracker.refuse_too_old()
            experiment = (
                self._home()
                or self._home_by_tags()
                or self._tracker.experiment(self._grid)
            )
            self._tell_name(experiment)
            known_by = {"zsg.kind": "grid", "zsg.grid": self._grid}
            parent, _ = self._tracker.find_or_create(
                experiment, known_by, {}, self._grid, None
            )
            self._tracker.set_status(parent, "FINISHED")
            return experiment, parent

    def _home(self) -> str | None:
        """The experiment in which MLflow has a run of this grid that was filled from
        here; None where it has none."""
        for row in self._rows(None):
            cursor = self._cursor(row)
            if cursor.is_of(self._store) and (
                found := self._tracker.experiment_of(cursor["run"])
            ):
                return found
        return None

    def _home_by_tags(self) -> str | None:
        """The same for cursors that are lost: an experiment of another name that has
        this grid's own run, and ours."""
        others = self._tracker.experiments_with(
            {"zsg.kind": "grid", "zsg.grid": self._grid}
        )
        others.pop(self._tracker.named(self._grid) or "", None)
        if not others:
            return None
        ours = {
            (row["run"], began)
            for row in self._rows(None)
            if (began := self._began_if_sound(row))
        }
        known_by = {"zsg.kind": "run", "zsg.grid": self._grid}
        held = {
            one: self._tracker.find(one, known_by, (RUN, BEGAN)).values()
            for one in others
        }
        homes = [
            one for one, runs in held.items() if any(tuple(run) in ours for run in runs)
        ]
        if len(homes) > 1:
            names = " and ".join(repr(others[one]) for one in homes)
            raise Refused(
                f"{self._grid}: MLflow has runs of this grid and this workspace in {names}, and it"
                " is not known which of them to fill; delete the runs in all but one there, and"
                " run zsg sync again"
            )
        return homes[0] if homes else None

    def _tell_name(self, experiment: str) -> None:
        name = self._tracker.name_of(experiment)
        if name != self._grid:
            self._say(
                f"{self._grid}: its experiment is called {name!r} in MLflow by now, which is filled"
            )

    def _tell_elsewhere(self) -> None:
        assert self._there or not self._elsewhere
        for experiment in sorted(set(self._elsewhere.values())):
            runs = [run for run, one in self._elsewhere.items() if one == experiment]
            name = self._tracker.name_of(experiment)
            self._say(
                f"{self._grid}: {len(runs)} of its runs stand in MLflow's experiment {name!r}, and"
                " are filled there"
            )

    def _began(self, row: Row) -> str | None:
        """The time of a run's first row, by which its journal is known; None before
        there is one."""
        files = [
            path
            for one in stage_folders(self._workspace, row["run"])
            for path in journal.list_journal_files(one)
        ]
        firsts = (
            str(first.ts)
            for path in files
            for first in islice(journal.read_file(path), 1)
        )
        return next(firsts, None)

    def _began_if_sound(self, row: Row) -> str | None:
        """The same; None, too, where it cannot be read: sending the run tells why."""
        try:
            return self._began(row)
        except Damaged:
            return None

    def _cursor(self, row: Row) -> "_Cursor":
        return _Cursor(
            self._workspace.run(row["run"]) / "delivery" / f"{self._grid}.json"
        )

    def _send_run(self, row: Row, refill: bool) -> int:
        folder = self._workspace.run(row["run"])
        ownership.make_folder(folder / "delivery")
        with _lock(folder / "delivery" / f"{self._grid}.lock"):
            return self._send_locked(row, folder, self._cursor(row), refill)

    def _send_locked(
        self, row: Row, folder: Path, cursor: "_Cursor", refill: bool
    ) -> int:
        seen = self._looks(row)
        is_held = cursor.is_of(self._store) and self._holds(row, cursor["run"])
        is_whole = (
            cursor["seen"] == seen
            and not cursor["refilling"]
            and not self._twins(row, cursor)
        )
        if is_held and is_whole and not (refill and cursor.is_flagged):
            return 0
        stages = stage_folders(self._workspace, row["run"])
        rows = {name: list(of) for one in stages for name, of in _by_writer(one)}
        began = next(
            (str(rows[one.name][0].ts) for one in stages if rows[one.name]), None
        )
        if began is None:
            return 0  # its first row is being written
        found = {
            stage: journal.first_points(of_stage) for stage, of_stage in rows.items()
        }
        keys = mlflow_metadata.Keys()
        points = {
            stage: [p for p in of_stage if keys.keeps(p.key)]
            for stage, (of_stage, _) in found.items()
        }
        disagree = [flag for _, flags in found.values() for flag in flags]
        if is_held and refill and disagree and cursor["refilled"] != disagree[0]:
            # killed from now on, the next delivery goes on with it
            cursor.keep(refilling=disagree[0])
        if not is_held or cursor["refilling"]:
            self._begin(
                row, began, cursor, points, cursor["refilling"] if is_held else None
            )
        # Counted by stage and writer: a stage that is shared may gain points after a
        # later one was sent, and an evaluator's points come while its run trains, and
        # after.
        sent = sum(
            self._send_points(row, cursor, stage, of_stage)
            for stage, of_stage in points.items()
        )
        self._delete_twins(row, cursor)
        starts = list(find_starts(rows[folder.name]))
        state = (
            mlflow_metadata.read_run_state(stages, disagree)
            | keys.left_out()
            | mlflow_metadata.collect_doubts(chain.from_iterable(rows.values()))
        )
        state |= {"workspace": str(self._workspace.root)}
        self._tell_state(row, folder, cursor, starts, state)
        if cursor["state"]["state"] == State.DONE:
            measured = {
                one: [p for name in points if _is_of(name, one) for p in points[name]]
                for one in stages
            }
            self._tell_results(
                row, cursor, {one: (rows[one.name], measured[one]) for one in stages}
            )
        if cursor["old"]:
            self._retire(row, cursor["old"], cursor["run"])
        cursor.keep(seen=seen, old=None)
        return sent

    def _looks(self, row: Row) -> list[Any]:
        """What shows, without reading it, whether anything of a run has changed."""
        stages = stage_folders(self._workspace, row["run"])
        files = [path for one in stages for path in journal.list_journal_files(one)]
        ends = [
            path
            for one in stages
            for path in (
                attempts.locate_attempt(one),
                exit_record.locate_exit_record(one),
            )
        ]
        sizes = [[path.name, path.stat().st_size] for path in files]
        times = [path.stat().st_mtime_ns if path.exists() else 0 for path in ends]
        return [*sizes, *times, self._is_listed(row), str(self._workspace.root)]

    def _is_listed(self, row: Row) -> str:
        return "no" if row in self._wanted.get("former", []) else "yes"

    def _holds(self, row: Row, run: str) -> bool:
        if run in self._held.get(row["run"], {}):
            return True
        assert self._there
        found = self._tracker.experiment_of(run)
        if found not in (None, self._there[0]):
            self._elsewhere[row["run"]] = found
        return found is not None

    def _experiment_of(self, row: Row) -> str:
        """The experiment in which a run stands."""
        assert self._there
        return self._elsewhere.get(row["run"], self._there[0])

    def _known_by(self, row: Row, began: str) -> dict[str, str]:
        return {
            "zsg.kind": "run",
            RUN: row["run"],
            "zsg.grid": self._grid,
            BEGAN: began,
        }

    def _begin(
        self,
        row: Row,
        began: str,
        cursor: "_Cursor",
        points: dict[str, list[journal.Point]],
        refilling: str | None,
    ) -> None:
        """Finds or makes the MLflow run, to be filled from the first point on."""
        assert self._there
        experiment, parent = self._there
        started = min(
            (of_stage[0].ts for of_stage in points.values() if of_stage), default=None
        )
        known_by, tags = self._known_by(row, began), {"mlflow.parentRunId": parent}
        old = cursor["run"] if refilling else None
        if old:
            known_by |= {"zsg.replaces": old}
        run, is_doubtful = self._tracker.find_or_create(
            experiment, known_by, tags, mlflow_metadata.name_of(row), started
        )
        self._held.setdefault(row["run"], {})[run] = began
        self._elsewhere.pop(row["run"], None)
        self._tell_data(row, run)
        cursor.begin(
            uri=self._store,
            run=run,
            began=began,
            doubtful=is_doubtful,
            refilled=refilling,
            old=old,
        )

    def _tell_data(self, row: Row, run: str) -> None:
        data = [
            Data(*one)
            for one in mlflow_metadata.data_sets(
                stage_folders(self._workspace, row["run"])
            )
        ]
        if data:
            self._tracker.read(self._experiment_of(row), run, data)

    def _send_points(
        self, row: Row, cursor: "_Cursor", stage: str, points: list[journal.Point]
    ) -> int:
        """Sends what MLflow lacks of one stage, and first the parameters; the cursor is
        kept after every request."""
        news = points[cursor["sent"].get(stage, 0) :]
        params = None if cursor["params"] else mlflow_metadata.flatten_params(row)
        for count in self._tracker.log(cursor["run"], news, params):
            cursor["sent"][stage] = cursor["sent"].get(stage, 0) + count
            cursor.keep()
        if params is not None:
            cursor.keep(params=True)
        return len(news)

    def _tell_state(
        self,
        row: Row,
        folder: Path,
        cursor: "_Cursor",
        starts: list[tuple[EventRow, Start]],
        state: dict[str, str],
    ) -> None:
        state |= {"listed": self._is_listed(row)}
        if state == cursor["state"]:
            return
        told = mlflow_metadata.collect_facts(folder, row, starts) | state
        self._tracker.tag(
            cursor["run"], {f"zsg.{key}": value for key, value in told.items()}
        )
        status = STATUS.get(state["state"], "RUNNING")
        if status != "RUNNING" or cursor["state"] is not None:
            self._tracker.set_status(
                cursor["run"], status, int(state.get("ended", 0)) or None
            )
        cursor.keep(state=state)

    def _tell_results(
        self,
        row: Row,
        cursor: "_Cursor",
        stages: dict[Path, tuple[list[journal_rows.Row], list[journal.Point]]],
    ) -> None:
        """The losses of items and tasks, and a model for every snapshot that was kept.

        Once per end of the run, and again when evaluators have come to more, or the
        workspace to another place.
        """
        points = sum(len(points) for _, points in stages.values())
        results = [cursor["state"]["ended"], points, str(self._workspace.root)]
        if cursor["results"] == results:
            return
        # that of a later stage was not there when the run began
        self._tell_data(row, cursor["run"])
        with tempfile.TemporaryDirectory() as place:
            for path in item_table.write_item_tables(
                stage_folders(self._workspace, row["run"]), Path(place)
            ):
                self._tracker.upload(cursor["run"], path, "losses")
        for stage, (rows, points) in stages.items():
            self._tell_snapshots(row, cursor, stage, rows, points)
        cursor.keep(results=results)

    def _tell_snapshots(
        self,
        row: Row,
        cursor: "_Cursor",
        folder: Path,
        rows: list[journal_rows.Row],
        points: list[journal.Point],
    ) -> None:
        written = find_events(rows, SnapshotWritten)
        digests = {row.step: event.digest for row, event in written}
        for step in mlflow_metadata.kept_snapshots(folder):
            measured = [
                p
                for p in points
                if p.step == step and not p.key.startswith(("train/", journal.SPEED))
            ]
            if measured:
                tags = {
                    **self._known_by(row, cursor["began"]),
                    "zsg.kind": "snapshot",
                    "zsg.step": str(step),
                }
                tags |= {"zsg.path": str(snapshots.folder_of(folder, step))}
                tags |= {"zsg.digest": digests[step]} if digests.get(step) else {}
                name = f"{row['run']}-step-{step}"
                self._tracker.model(
                    self._experiment_of(row), cursor["run"], name, tags, measured
                )

    def _retire(self, row: Row, old: str, new: str) -> None:
        """Takes an MLflow run out of sight that another one stands for now."""
        self._replace(row, old, new)
        self._say(
            f"{row['run']}: MLflow run {old} was flagged; {new} is filled anew, the old one deleted"
            " in MLflow"
        )

    def _replace(self, row: Row, old: str, new: str) -> None:
        self._tracker.tag(old, {"zsg.replaced_by": new, "zsg.kind": "replaced"})
        self._tracker.delete(old)
        self._held.get(row["run"], {}).pop(old, None)

    def _twins(self, row: Row, cursor: "_Cursor") -> list[str]:
        """Other MLflow runs that are filled from the same journal: deleted there once,
        and restored."""
        held = self._held.get(row["run"], {})
        ours = (cursor["run"], cursor["old"])
        return [
            run
            for run, began in held.items()
            if began == cursor["began"] and run not in ours
        ]

    def _delete_twins(self, row: Row, cursor: "_Cursor") -> None:
        """Deletes them, and what a server made after all when an earlier request to
        create the run got no answer."""
        assert self._there
        late = (
            self._tracker.find(self._there[0], self._known_by(row, cursor["began"]))
            if cursor["doubtful"]
            else {}
        )
        for other in {*self._twins(row, cursor), *late} - {
            cursor["run"],
            cursor["old"],
        }:
            self._replace(row, other, cursor["run"])
            self._say(
                f"{row['run']}: MLflow had its run twice; {other} was deleted there,"
                f" {cursor['run']} is filled"
            )


class _Cursor:
    """How far one run of one grid has been delivered; written after every request that
    was answered."""

    def __init__(self, path: Path) -> None:
        self._path, self._value = path, read_json(path) or {}

    def __getitem__(self, key: str) -> Any:
        return self._value.get(key)

    def is_of(self, store: str) -> bool:
        """Whether it was written by this zsg, of this MLflow. The workspace's own may
        be named by where it lay once."""
        uri = self._value.get("uri", "")
        is_ours = uri == store or (store == OWN and uri.startswith(SQLITE))
        return is_ours and type(self._value["sent"]) is dict and "params" in self._value

    @property
    def is_flagged(self) -> bool:
        """Whether the run is flagged, and not refilled since."""
        flag = (self["state"] or {}).get("flag")
        return bool(flag) and not (self["refilled"] and flag.endswith(self["refilled"]))

    def begin(self, **facts: Any) -> None:
        """Nothing of the run has been sent: `uri`, `run`, and how it came to be."""
        self._value = {
            "sent": {},
            "params": False,
            "state": None,
            "seen": None,
            "results": None,
            **facts,
        }
        self.keep()

    def keep(self, **news: Any) -> None:
        """Writes what is known, with the news."""
        self._value |= news
        write_json(self._path, self._value)


def _by_writer(stage: Path) -> Iterator[tuple[str, Iterator[journal_rows.Row]]]:
    """The rows of a stage that MLflow is told of: of its own attempts by its name, of
    an evaluator by its file's."""
    for name, rows in journal.by_writer(stage).items():
        yield (
            f"{stage.name}/{name}" if name else stage.name,
            (row for row in rows if not isinstance(row, ItemsRow)),
        )


def _is_of(writer: str, stage: Path) -> bool:
    return writer.partition("/")[0] == stage.name


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    with os.fdopen(ownership.open_lock(path), "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _follow_runs(workspace: Workspace, runs: list[str], parent: int) -> None:
    """Delivers runs to every grid that lists them and has a server, from the node that
    trains or evaluates them."""
    os.nice(NICE)
    pairs = [(run, grid) for run in runs for grid in _grids_of(workspace, run)]
    found = [
        (run, grid["name"])
        for run, grid in pairs
        if str(grid["tracking"]).startswith("http")
    ]
    made: dict[str, Delivery] = {}

    def send() -> None:
        for run, grid in found:
            if grid not in made:
                made[grid] = Delivery(workspace, grid, LIVE)
            made[grid].send(only=run)

    follow.until_left(parent, send, LAST_S)


def _grids_of(workspace: Workspace, run: str) -> Iterator[Row]:
    for path in sorted((workspace.root / "grids").glob("*/grid.json")):
        wanted = read_json(path)
        if wanted and any(
            row["run"] == run for row in [*wanted["runs"], *wanted.get("former", [])]
        ):
            yield wanted


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("workspace", type=Path)
    parser.add_argument("grid", nargs="?")
    parser.add_argument(
        "--run",
        nargs="+",
        help="only these runs, of every grid that lists them and has a server",
    )
    parser.add_argument(
        "--follow",
        type=int,
        metavar="PID",
        help="go on until told to stop or that parent has ended",
    )
    given = parser.parse_args()
    workspace = Workspace(given.workspace.resolve())
    ownership.make_files_private(workspace.root)
    if given.run:
        _follow_runs(workspace, given.run, given.follow)
    elif given.follow:
        said: set[str] = set()

        def say_once(text: str) -> None:
            if text not in said:
                said.add(text)
                tell(text)

        follow.until_left(
            given.follow, lambda: sync_grid(workspace, given.grid, say=say_once)
        )
    else:
        sys.stdout.write(json.dumps(sync_grid(workspace, given.grid)) + "\n")


if __name__ == "__main__":
    sys.excepthook = tell_uncaught
    main()
