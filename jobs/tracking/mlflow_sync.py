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
import errno
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path

from jobs.contract import grid_record, journal
from jobs.contract.delivery_cursor import OWN_STORE, SQLITE, locate_cursor, read_cursor
from jobs.contract.folder import Damaged, Workspace, make_unreadable
from jobs.contract.grid_record import GridRecord, ListedRun
from jobs.contract.job_file import stage_folders
from jobs.files import locks, ownership
from jobs.runtime import job_log
from jobs.tracking import follow, summary_points
from jobs.tracking.run_sync import BEGAN, PARENT, RUN, MlflowGrid, RunSync
from jobs.tracking.tracker import NotKept, Refused, Tracker, Unreachable
from zsg_core.errors import UserError, ZsgError
from zsg_core.retry import ExponentialBackoff, RetryPolicy
from zsg_core.side_by_side import do_nothing, map_side_by_side

# by its name, as it is run as a program, which Python calls __main__
logger = logging.getLogger("jobs.tracking.mlflow_sync")

SIDE_BY_SIDE = 8  # runs that are sent at once to a server; a sqlite file has one writer
# of one request, from a node: the next try is not far
LIVE = ExponentialBackoff(limit_s=10.0)
LAST_S = 20.0  # for what is left when the job has ended
NICE = 19

# of the files of a run: others' may be sound
OF_ONE_RUN = (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)

# told how many of how many runs have been looked at
ReportProgress = Callable[[int, int], None]


def sync_grid(
    workspace: Workspace,
    grid: str,
    *,
    refill: bool = False,
    report_progress: ReportProgress | None = None,
) -> dict[str, int]:
    """Sends what MLflow lacks of every run of a grid; returns how many points and runs were sent.

    With `refill`, a run that is flagged is made anew in MLflow, and the old one deleted
    there. Raises UserError for an unknown grid, ClusterError (Unreachable, Refused) for
    what MLflow did not take; both may be tried again.
    """
    return Delivery(workspace, grid).send(
        refill=refill, report_progress=report_progress
    )


def tracking_uri(workspace: Workspace, record: GridRecord) -> str:
    """The profile's MLflow, or the sqlite file of the workspace."""
    return record.tracking or f"{SQLITE}{workspace.mlflow_db}"


def find_grid_page(workspace: Workspace, grid: str) -> str:
    """The path, below MLflow's address, of the page of a grid's runs; empty where
    MLflow has none of them."""
    return Delivery(workspace, grid).page()


class Delivery:
    """The delivery of one grid's runs; made once, it may be asked to send many times."""

    def __init__(
        self,
        workspace: Workspace,
        grid: str,
        retry_policy: RetryPolicy | None = None,
        record: GridRecord | None = None,
    ) -> None:
        """`record`: that of the grid, where it has been read."""
        record = record or grid_record.read_grid_record(workspace, grid)
        if record is None:
            raise UserError(
                f"no grid {grid!r} in {workspace.root}; zsg status lists the grids"
            )
        self._workspace, self._record, self._grid = workspace, record, grid
        uri = tracking_uri(workspace, record)
        # Beside the file: MLflow would put them below the folder that zsg is called in.
        path = Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None
        artifacts = (path.parent / "mlartifacts").as_uri() if path else None
        self._tracker = Tracker(uri, artifacts, retry_policy, moves=not record.tracking)
        self._store = uri if record.tracking else OWN_STORE
        self._mlflow_grid: MlflowGrid | None = None  # once it has been looked up

    def send(
        self,
        *,
        only: str | None = None,
        refill: bool = False,
        report_progress: ReportProgress | None = None,
        with_tables: bool = True,
    ) -> dict[str, int]:
        """Sends what MLflow lacks of every run, or of one; see `sync_grid`.

        `with_tables`: then also keeps the item tables as artifacts. That comes after all
        metrics, which no trouble with artifacts may stop or delay.
        """
        rows = [row for row in self._list_rows(only) if self._has_begun(row)]
        refusals: list[Refused | Damaged] = []
        if rows:
            self._look_up(only)
        looked_at: list[bool] = []

        def count_run() -> None:
            looked_at.append(True)
            if report_progress:
                report_progress(len(looked_at), len(rows))

        counts = self._do_each(
            rows, lambda row: self._sync_run(row).send(refill), refusals, count_run
        )
        sent = {"runs": sum(points > 0 for points in counts), "points": sum(counts)}
        self._tell_elsewhere()
        self._tell_changed()
        if with_tables:
            self._send_tables(refusals)
        if refusals:  # one run's trouble has not kept the others from MLflow
            for refusal in refusals[1:]:
                logger.warning(str(refusal))
            raise refusals[0]
        return sent

    def send_tables(self) -> None:
        """Keeps as artifacts the item tables that earlier calls of `send` have left."""
        refusals: list[Refused | Damaged] = []
        self._send_tables(refusals)
        if refusals:
            raise refusals[0]

    def _send_tables(self, refusals: list[Refused | Damaged]) -> None:
        """Where artifacts are out of reach, that is told once, and the next delivery
        tries again."""
        if not (self._mlflow_grid and self._mlflow_grid.unkept):
            return
        unkept = self._mlflow_grid.unkept
        rows = [row for row in self._list_rows() if row.run in unkept]
        self._mlflow_grid.unkept = set()
        try:
            self._do_each(rows, lambda row: self._sync_run(row).send_tables(), refusals)
        except NotKept as error:
            logger.warning(
                f"{self._grid}: {error}. The losses of items are therefore not in MLflow yet, all"
                " metrics are; zsg sync tries again"
            )

    def _has_begun(self, row: ListedRun) -> bool:
        """Whether there is a journal to send; also where that cannot be told, so that
        sending tells why."""
        try:
            stages = stage_folders(self._workspace, row.run)
            return any(map(journal.list_journal_files, stages))
        except Damaged:
            return True

    def delete_runs(self, only: Collection[str] | None = None) -> int:
        """Marks as deleted the MLflow runs that were filled from here, all or those of
        these runs; returns how many. Where none of the grid's is left, its own goes,
        too. MLflow can restore them.

        Done again it finds none. ClusterError where MLflow does not answer.
        """
        count = 0
        if not self._record.tracking and not self._workspace.mlflow_db.exists():
            return count
        experiment = self._find_home() or self._tracker.named(self._grid)
        if experiment is None:
            return count
        identity = self._identify("run")
        tags_by_run = self._tracker.find(experiment, identity, (RUN, BEGAN))
        filled_from_here = self._choose_filled_from_here(tags_by_run)
        for mlflow_run in filled_from_here:
            if only is None or tags_by_run[mlflow_run][0] in only:
                self._tracker.delete(mlflow_run)
                tags_by_run.pop(mlflow_run)
                count += 1
        if not tags_by_run:
            for parent in self._tracker.find(experiment, self._identify("grid")):
                self._tracker.delete(parent)
        return count

    def _choose_filled_from_here(
        self, tags_by_run: Mapping[str, Sequence[str]]
    ) -> list[str]:
        """The MLflow runs that were filled from this workspace, by its cursors or its
        journals; of another's of the same name nothing is touched."""
        journals = self._list_journals()
        cursors = {self._find_mlflow_run(row) for row in self._list_rows()}
        return [
            mlflow_run
            for mlflow_run, (run, began) in tags_by_run.items()
            if mlflow_run in cursors or (run, began) in journals
        ]

    def page(self) -> str:
        """The path, below MLflow's address, of the page of this grid's runs; empty
        where MLflow has none of them."""
        experiment = self._find_home() or self._tracker.named(self._grid)
        return self._tracker.page(experiment) if experiment else ""

    def _list_rows(self, only: str | None = None) -> list[ListedRun]:
        """The grid's runs, those that it lists no more too; or one of them."""
        former = [row for row in self._record.former if not row.is_stage]
        rows = [*self._record.runs, *former]
        return [row for row in rows if only in (None, row.run)]

    def _do_each(
        self,
        rows: list[ListedRun],
        do: Callable[[ListedRun], int],
        refusals: list[Refused | Damaged],
        count_run: Callable[[], None] = do_nothing,
    ) -> list[int]:
        """What `do` returns of each run; 0 of one that was refused, which is noted.
        `count_run` is called as each ends. After another trouble nothing more is begun:
        a server that does not answer is asked for no other run. So it is when
        interrupted; what is under way ends."""

        def do_and_count(row: ListedRun) -> int:
            points = self._do_or_note_refusal(row, do, refusals)
            count_run()
            return points

        if len(rows) == 1 or not self._tracker.uri.startswith("http"):
            return [do_and_count(row) for row in rows]
        return map_side_by_side(do_and_count, rows, SIDE_BY_SIDE)

    def _do_or_note_refusal(
        self,
        row: ListedRun,
        do: Callable[[ListedRun], int],
        refusals: list[Refused | Damaged],
    ) -> int:
        """Does it under the lock of the run's cursor. Trouble with the files of a run
        is that run's: a full disk, which is everybody's, ends the delivery."""
        cursor_path = locate_cursor(self._workspace.run(row.run), self._grid)
        try:
            ownership.make_folder(cursor_path.parent)
            with locks.hold_lock(cursor_path.with_suffix(".lock")):
                return do(row)
        except (Refused, Damaged) as error:
            refusals.append(error)
            if isinstance(error, Refused) and self._mlflow_grid:
                # it may have been deleted meanwhile: the next delivery looks it up
                self._mlflow_grid.mlflow_runs = {}
            return 0
        except OSError as error:
            if error.errno not in OF_ONE_RUN:
                raise
            path = error.filename or cursor_path
            refusals.append(make_unreadable(Path(os.fsdecode(path)), error))
            return 0

    def _sync_run(self, row: ListedRun) -> RunSync:
        assert self._mlflow_grid
        return RunSync(self._mlflow_grid, row, row not in self._record.former)

    def _look_up(self, only: str | None) -> None:
        """Asks once which runs MLflow has; what is deleted or restored there later, the
        next delivery sees."""
        if not self._mlflow_grid:
            self._mlflow_grid = self._find_grid()
        if self._mlflow_grid.mlflow_runs:
            return
        identity = self._identify("run")
        if only is not None:
            identity |= {RUN: only}
        tags_by_run = self._tracker.find(
            self._mlflow_grid.experiment, identity, (RUN, BEGAN, PARENT)
        )
        for mlflow_run, (run, began, parent) in tags_by_run.items():
            self._mlflow_grid.mlflow_runs.setdefault(run, {})[mlflow_run] = began
            if parent != self._mlflow_grid.parent:
                self._adopt(mlflow_run, run)

    def _adopt(self, mlflow_run: str, run: str) -> None:
        """Puts an MLflow run below the grid's own again, which was deleted and made anew."""
        assert self._mlflow_grid
        try:
            self._tracker.tag(mlflow_run, {PARENT: self._mlflow_grid.parent})
        except Refused as error:  # it may have been deleted a moment ago
            logger.warning(f"{run}: it stands below no run of its grid's: {error}")

    def _find_grid(self) -> MlflowGrid:
        """The grid in MLflow, whose experiment and own run are made if need be."""
        with locks.hold_lock(self._workspace.grid(self._grid) / "delivery.lock"):
            self._tracker.refuse_too_old()
            experiment = self._find_experiment()
            parent = self._tracker.find_or_create(
                experiment, self._identify("grid"), {}, self._grid, None
            ).run
            self._tracker.set_status(parent, "FINISHED")
        return MlflowGrid(
            workspace=self._workspace,
            name=self._grid,
            tracker=self._tracker,
            store=self._store,
            experiment=experiment,
            parent=parent,
            record=self._record,
            tracked=summary_points.list_tracked(self._record),
        )

    def _find_experiment(self) -> str:
        """The experiment that the grid is filled into, made if need be; told is where it
        has another name."""
        if home := self._find_home():
            self._tell_name(self._tracker.name_of(home))
            return home
        names = self._tracker.list_experiments()
        if home := self._find_home_by_tags(names):
            self._tell_name(names[home])
            return home
        for experiment, name in names.items():
            if name == self._grid:
                return experiment
        return self._tracker.experiment(self._grid)

    def _identify(self, kind: str) -> dict[str, str]:
        """The tags of this grid's MLflow runs of a kind."""
        return {"zsg.kind": kind, "zsg.grid": self._grid}

    def _find_home(self) -> str | None:
        """The experiment in which MLflow has a run of this grid that was filled from
        here; None where it has none."""
        for row in self._list_rows():
            mlflow_run = self._find_mlflow_run(row)
            experiment = mlflow_run and self._tracker.experiment_of(mlflow_run)
            if experiment:
                return experiment
        return None

    def _find_mlflow_run(self, row: ListedRun) -> str | None:
        """The MLflow run that a run was filled in from here, by its cursor. One that
        cannot be read is passed over: sending the run tells why."""
        try:
            cursor = read_cursor(self._workspace.run(row.run), self._grid)
        except Damaged:
            return None
        return cursor.run if cursor.is_of(self._store) else None

    def _find_home_by_tags(self, names: Mapping[str, str]) -> str | None:
        """The same for cursors that are lost: an experiment of another name that has
        this grid's own run, and runs of this workspace. `names`: of all experiments."""
        differently_named = [
            experiment for experiment, name in names.items() if name != self._grid
        ]
        candidates = self._tracker.choose_experiments_with(
            differently_named, self._identify("grid")
        )
        if not candidates:
            return None
        journals = self._list_journals()
        homes = [
            experiment
            for experiment in candidates
            if self._has_run_of(experiment, journals)
        ]
        if len(homes) > 1:
            quoted = " and ".join(repr(names[experiment]) for experiment in homes)
            raise Refused(
                f"{self._grid}: MLflow has runs of this grid and this workspace in {quoted}, and it"
                " is not known which of them to fill; delete the runs in all but one there, and"
                " run zsg sync again"
            )
        return homes[0] if homes else None

    def _has_run_of(self, experiment: str, journals: set[tuple[str, str]]) -> bool:
        """Whether an experiment has an MLflow run that was filled from one of these."""
        tags_by_run = self._tracker.find(
            experiment, self._identify("run"), (RUN, BEGAN)
        )
        return any((run, began) in journals for run, began in tags_by_run.values())

    def _list_journals(self) -> set[tuple[str, str]]:
        """What the journals of this grid are known by: run, and time of the first row.
        One that cannot be read is passed over: sending the run tells why."""
        journals: set[tuple[str, str]] = set()
        for row in self._list_rows():
            with contextlib.suppress(Damaged):
                if began := self._find_beginning(row):
                    journals.add((row.run, began))
        return journals

    def _find_beginning(self, row: ListedRun) -> str | None:
        """The time of a run's first row; None before there is one."""
        files = chain.from_iterable(
            map(journal.list_journal_files, stage_folders(self._workspace, row.run))
        )
        for path in files:
            for first in islice(journal.read_file(path), 1):
                return str(first.ts)
        return None

    def _tell_name(self, name: str) -> None:
        if name != self._grid:
            logger.warning(
                f"{self._grid}: its experiment is called {name!r} in MLflow by now, which is filled"
            )

    def _tell_changed(self) -> None:
        changed = self._mlflow_grid.changed if self._mlflow_grid else {}
        if not changed:
            return
        run, text = min(changed.items())
        more_runs = f", and {len(changed) - 1} more runs" if len(changed) > 1 else ""
        logger.warning(
            f"{self._grid}: MLflow has not all values as they are: {run}, {text}{more_runs}."
            " The tag zsg.values_changed says so; zsg report and zsg export have them as they are"
        )
        changed.clear()

    def _tell_elsewhere(self) -> None:
        elsewhere = self._mlflow_grid.elsewhere if self._mlflow_grid else {}
        for experiment, count in sorted(Counter(elsewhere.values()).items()):
            name = self._tracker.name_of(experiment)
            logger.warning(
                f"{self._grid}: {count} of its runs stand in MLflow's experiment {name!r}, and"
                " are filled there"
            )


def _follow_runs(workspace: Workspace, runs: list[str], parent: int) -> None:
    """Delivers runs to every grid that lists them and has a server, from the node that
    trains or evaluates them."""
    os.nice(NICE)
    served: list[tuple[str, str]] = []
    records: dict[str, GridRecord] = {}
    for run, record in find_grids_of_runs(workspace, runs):
        if str(record.tracking).startswith("http"):
            served.append((run, record.name))
            records[record.name] = record
    deliveries: dict[str, Delivery] = {}

    def send_run(run: str, grid: str) -> None:
        if grid not in deliveries:
            deliveries[grid] = Delivery(workspace, grid, LIVE, records[grid])
        # the tables come last: out of reach, they would hold up what is measured meanwhile
        deliveries[grid].send(only=run, with_tables=False)

    follow.until_left(parent, lambda: send_each(served, send_run), LAST_S)
    for delivery in deliveries.values():
        try:
            delivery.send_tables()
        except ZsgError as error:
            logger.error(str(error))


def send_each(
    served: list[tuple[str, str]], send_run: Callable[[str, str], None]
) -> None:
    """Sends every run to its grid; one run's trouble does not keep the others from MLflow.

    Raises the first trouble where none could be sent, and that of a server that does
    not answer, which is asked for no other run of the grid.
    """
    errors: dict[tuple[str, str], ZsgError | OSError] = {}
    silent: list[Unreachable] = []
    down: set[str] = set()
    for run, grid in served:
        if grid in down:
            continue
        try:
            send_run(run, grid)
        except Unreachable as error:
            silent.append(error)
            down.add(grid)
        except (ZsgError, OSError) as error:
            errors[run, grid] = error
    if silent:
        raise silent[0]
    if errors and len(errors) == len(served):
        raise next(iter(errors.values()))
    for (run, _), error in errors.items():
        logger.warning(f"{run} is not sent: {error}")


def find_grids_of_runs(
    workspace: Workspace, runs: Sequence[str]
) -> list[tuple[str, GridRecord]]:
    """Each run with each grid that lists it, or once did, in the order of the runs.
    Every grid is read once: it may be of ten thousand runs."""
    grids_of: dict[str, list[GridRecord]] = {run: [] for run in runs}
    for record in _read_grids(workspace):
        listed = {row.run for row in record.runs}
        listed |= {row.run for row in record.former}
        for run in grids_of.keys() & listed:
            grids_of[run].append(record)
    return [(run, record) for run in runs for record in grids_of[run]]


def _read_grids(workspace: Workspace) -> Iterator[GridRecord]:
    """The grids that can be read; of another that is told."""
    for name in grid_record.list_grids(workspace):
        try:
            record = grid_record.read_grid_record(workspace, name)
        except Damaged as error:  # of this or another grid: the others are delivered
            logger.warning(str(error))
            continue
        if record:
            yield record


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
        help="continue until told to stop or that parent has ended",
    )
    options = parser.parse_args()
    handler = job_log.install_job_log()
    workspace = Workspace(options.workspace.resolve())
    ownership.make_files_private(workspace.root)
    if options.run:
        handler.addFilter(job_log.RepeatFilter())
        _follow_runs(workspace, options.run, options.follow)
    elif options.follow:
        handler.addFilter(job_log.RepeatFilter())
        follow.until_left(options.follow, lambda: sync_grid(workspace, options.grid))
    else:
        sys.stdout.write(json.dumps(sync_grid(workspace, options.grid)) + "\n")


if __name__ == "__main__":
    sys.excepthook = job_log.log_uncaught
    main()
