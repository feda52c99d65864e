"""Syncs one run with MLflow: its points, params, tags and datasets and, when it is done,
its item losses and snapshots.

The delivery cursor beside the run says what MLflow has; it is written, and synced to
disk, after every request of points that was answered: whether the journal has lost rows
is judged by it.
"""

import dataclasses
import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace

from jobs.contract import attempt as attempts
from jobs.contract import exit_record, journal, journal_rows, snapshots
from jobs.contract.delivery_cursor import (
    DeliveryCursor,
    LostRow,
    read_cursor,
    write_cursor,
)
from jobs.contract.folder import Workspace
from jobs.contract.grid_record import GridRecord, ListedRun
from jobs.contract.job_file import stage_folders
from jobs.contract.journal import Point
from jobs.contract.journal_rows import (
    ItemsRow,
    SnapshotWritten,
    find_events,
    find_starts,
)
from jobs.contract.states import Outcome, State
from jobs.tracking import item_table, lost_rows, mlflow_metadata, summary_points
from jobs.tracking.tracker import Data, Tracker

logger = logging.getLogger(__name__)

# MLflow's word for how a run ended
STATUS: dict[str, str] = {
    Outcome.DONE: "FINISHED",
    Outcome.FAILED: "FAILED",
    Outcome.CANCELLED: "KILLED",
}
# tags: the run, and by its first row's time, which journal of it
RUN, BEGAN = "zsg.run", "zsg.began"
PARENT = "mlflow.parentRunId"


@dataclass
class MlflowGrid:
    """A grid as MLflow has it: what the syncs of its runs share.

    `store`: what cursors call this MLflow. `parent`: the grid's own MLflow run.
    `mlflow_runs`: by run, its MLflow runs and which journal each is filled from.
    `elsewhere`: by run, the other experiment in which its MLflow run stands. `unkept`:
    the runs whose tables are yet to be kept as artifacts. `changed`: by run, which
    values MLflow has otherwise than the journals, where that is news. `record`: as it
    was submitted; `tracked`: the summaries that MLflow is told of.
    """

    workspace: Workspace
    name: str
    tracker: Tracker
    store: str
    experiment: str
    parent: str
    mlflow_runs: dict[str, dict[str, str]] = field(default_factory=dict)
    elsewhere: dict[str, str] = field(default_factory=dict)
    unkept: set[str] = field(default_factory=set)
    changed: dict[str, str] = field(default_factory=dict)
    record: GridRecord | None = None
    tracked: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Points:
    """What is to be sent of a run's journals: by stage and writer. A stage that is
    shared may gain points after a later one was sent, and an evaluator's points come
    while its run trains, and after.

    `disagreements`: where a restart computed other values. `keys`: what is told of.
    `tags` tell of keys that are left out, and of values that MLflow changes.
    """

    by_writer: dict[str, list[Point]]
    disagreements: list[str]
    keys: mlflow_metadata.Keys
    tags: dict[str, str]

    @property
    def first_ts(self) -> int | None:
        """The time of the first point (ms); None before there is one."""
        times = (points[0].ts for points in self.by_writer.values() if points)
        return min(times, default=None)

    def choose_sent(self, lost: Sequence[LostRow]) -> list[LostRow]:
        """Those of some lost rows that are still lost, of keys that MLflow is told."""
        still_lost = lost_rows.find_lost_rows(lost, self.by_writer)
        return [row for row in still_lost if self.keys.is_sent(row.key)]

    def of_stage(self, stage: Path) -> list[Point]:
        """The points of a stage, those of its evaluators too."""
        return [
            point
            for writer, points in self.by_writer.items()
            if writer.partition("/")[0] == stage.name
            for point in points
        ]


class RunSync:
    """The sync of one run of a grid. Who asks for it holds the lock of the run's cursor."""

    def __init__(self, grid: MlflowGrid, row: ListedRun, is_listed: bool) -> None:
        """Reads how far the run has been sent. `is_listed` says whether the grid still
        has the run, which a filter in MLflow's pages can ask for; runs that a later
        plan left out stay there."""
        self._grid, self._row, self._run_id = grid, row, row.run
        self._tracker = grid.tracker
        self._folder = grid.workspace.run(self._run_id)
        self._cursor = read_cursor(self._folder, grid.name)
        self._stages = stage_folders(grid.workspace, self._run_id)
        self._listed = "yes" if is_listed else "no"
        self._is_on_disk = False  # what is sent
        self._attempts = self._count_attempts()

    def send(self, refill: bool) -> int:
        """Sends what MLflow lacks; returns how many points. With `refill`, a flagged run
        is filled anew, and its former MLflow run deleted."""
        seen = self._list_file_changes()
        has_run = self._cursor.is_of(self._grid.store) and self._has_mlflow_run()
        is_refill_due = refill and self._cursor.is_flagged
        if has_run and self._is_complete(seen) and not is_refill_due:
            self._note_unkept()
            return 0
        rows = _read_rows_by_writer(self._stages)
        began = self._find_beginning(rows)
        if began is None:
            return 0  # its first row is being written
        points = self._prepare(began, rows, has_run, refill)
        self._cursor = replace(
            self._cursor, keys=points.keys.chosen(), attempts=self._attempts
        )
        sent = sum(
            self._send_points(writer, of_writer)
            for writer, of_writer in points.by_writer.items()
        )
        self._delete_duplicates()
        self._send_state(rows, points)
        self._send_results_if_done(rows, points)
        self._delete_replaced()
        self._keep(seen=seen, old=None)
        self._note_unkept()
        return sent

    def send_tables(self) -> int:
        """Keeps the run's item tables as artifacts; returns how many. Raises NotKept
        where MLflow's artifacts are out of reach."""
        if not self._cursor.is_unkept:
            return 0
        with tempfile.TemporaryDirectory() as folder:
            tables = item_table.write_item_tables(self._stages, Path(folder))
            for path in tables:
                self._tracker.upload(self._cursor.run, path, "losses")
        self._keep(unkept=False)
        return len(tables)

    def _note_unkept(self) -> None:
        if self._cursor.is_unkept:
            self._grid.unkept.add(self._run_id)

    def _keep(self, **news: Any) -> None:
        """Writes the cursor with what is new in it."""
        self._cursor = replace(self._cursor, **news)
        write_cursor(self._folder, self._grid.name, self._cursor)

    def _list_file_changes(self) -> list[Any]:
        """What shows, without reading it, whether anything of the run has changed."""
        sizes: list[Any] = []
        times: list[int] = []
        for stage in self._stages:
            files = journal.list_journal_files(stage)
            # a disk that fails may change a file whose size stays
            stats = [path.stat() for path in files]
            sizes += [
                [path.name, stat.st_size, stat.st_mtime_ns]
                for path, stat in zip(files, stats, strict=True)
            ]
            times += [
                _read_mtime(attempts.locate_attempt(stage)),
                _read_mtime(exit_record.locate_exit_record(stage)),
            ]
        summaries = [",".join(self._grid.tracked)] if self._grid.tracked else []
        root = str(self._grid.workspace.root)
        return [*sizes, *times, self._listed, root, *summaries]

    def _has_mlflow_run(self) -> bool:
        """Whether MLflow still has the cursor's run; notes the experiment if it is
        another than the grid's."""
        mlflow_run = self._cursor.run
        if mlflow_run in self._grid.mlflow_runs.get(self._run_id, {}):
            return True
        experiment = self._tracker.experiment_of(mlflow_run)
        if experiment is not None and experiment != self._grid.experiment:
            self._grid.elsewhere[self._run_id] = experiment
        return experiment is not None

    def _is_complete(self, seen: list[Any]) -> bool:
        """Whether MLflow had all of the run, and once, when its files looked like this."""
        if self._cursor.seen != seen or self._cursor.refill_reason:
            return False
        return not self._list_duplicates()

    def _find_beginning(self, rows: dict[str, list[journal_rows.Row]]) -> str | None:
        """The time of the first row of the first stage that has one."""
        own_rows = [rows[stage.name] for stage in self._stages]
        return next((str(of_stage[0].ts) for of_stage in own_rows if of_stage), None)

    def _prepare(
        self,
        began: str,
        rows: dict[str, list[journal_rows.Row]],
        has_run: bool,
        refill: bool,
    ) -> _Points:
        """The points as MLflow is to have them. Begins a new MLflow run where there is
        none, or it is to be filled anew."""
        in_journal = _choose_points(
            rows, self._cursor.chosen_keys, self._collect_summaries()
        )
        points = self._put_lost_rows_back(in_journal, rows)
        is_doubtful = self._is_doubtful(points)
        if has_run and (is_doubtful or self._has_new_attempt()):
            self._ask_for_lost_rows(in_journal, is_doubtful)
            points = self._put_lost_rows_back(in_journal, rows)
        reason = None
        if has_run:
            reason = self._find_refill_reason(refill, points.disagreements)
        if reason or not has_run:
            self._begin(began, in_journal, reason)
            points = self._put_lost_rows_back(in_journal, rows)
        return points

    def _collect_summaries(self) -> dict[str, list[Point]]:
        """The points of summaries, under the name of a writer of their own; none where
        the grid has no summaries that MLflow is told of."""
        if self._grid.record is None:
            return {}
        points = summary_points.collect_points(
            self._grid.workspace, self._row, self._grid.record, self._grid.tracked
        )
        writer = f"{self._folder.name}/{summary_points.WRITER}"
        return {writer: points} if points else {}

    def _count_attempts(self) -> int:
        """How many of the run's own attempts have begun a journal, in all stages; as
        attempts are numbered, also where the file of an earlier one is gone."""
        return sum(map(journal.find_newest_attempt, self._stages))

    def _has_new_attempt(self) -> bool:
        """Whether an attempt has begun since MLflow was sent something: that before it
        may have died with rows that were sent, and of which neither its journal nor the
        cursor tells. An older zsg never asked."""
        if self._cursor.attempts is UNSET:
            return self._attempts > 1
        return self._cursor.attempts != self._attempts

    def _is_doubtful(self, points: _Points) -> bool:
        """Whether it cannot be told by counting which points MLflow has: what was sent
        last of a writer does not stand there any more. So it is where an older zsg left
        keys out, which chose them anew each time."""
        if self._cursor.keys is UNSET and points.keys.left_out():
            return True
        counts = self._cursor.sent if isinstance(self._cursor.sent, dict) else {}
        return any(
            not self._is_at_its_place(writer, points.by_writer.get(writer, []))
            for writer in counts
        )

    def _is_at_its_place(self, writer: str, points: Sequence[Point]) -> bool:
        """Whether what was sent last of a writer is where it was; of what an older zsg
        sent only the number is known."""
        count = self._cursor.count_sent(writer)
        if not 0 < count <= len(points):
            return count == 0
        last = self._cursor.find_last_sent(writer)
        return last in (None, _name_point(points[count - 1]))

    def _ask_for_lost_rows(self, in_journal: _Points, is_doubtful: bool) -> None:
        """Notes which points MLflow has that the journals have not. Where that is new,
        or it `is_doubtful` how many were sent, all is sent once more, which changes
        nothing of those that are there."""
        lost = self._list_lost_rows(in_journal)
        sent_once = in_journal.choose_sent(lost)
        is_news = sent_once != in_journal.choose_sent(self._cursor.lost_rows)
        if sent_once and is_news:
            logger.warning(
                f"{self._run_id}: MLflow has {lost_rows.describe_lost_rows(sent_once)}. They stay,"
                " and what is computed again is not sent a second time"
            )
        if is_doubtful or is_news:
            self._cursor = replace(self._cursor, sent={}, last=UNSET)
        self._keep(lost=lost or UNSET, attempts=self._attempts)

    def _list_lost_rows(self, in_journal: _Points) -> list[LostRow]:
        """The points that MLflow has and the journals have not. Researchers log metrics
        of their own to a run, which are none of them. Without a cursor that knows the
        keys of what was sent, one of a key that has not come yet may be either: it is
        noted, and told of once the journals have the key, too."""
        keys = in_journal.keys
        noted = set(self._cursor.lost_rows)
        may_be_any = self._cursor.keys is UNSET

        def may_be_lost(row: LostRow) -> bool:
            if keys.is_undecided(row.key):
                return may_be_any or row in noted
            return keys.is_sent(row.key)

        held = self._tracker.list_points(self._cursor.run)
        candidates = lost_rows.find_lost_rows(held, in_journal.by_writer)
        return list(filter(may_be_lost, candidates))

    def _put_lost_rows_back(
        self, in_journal: _Points, rows: dict[str, list[journal_rows.Row]]
    ) -> _Points:
        """The points as MLflow is to have them: what the journals have lost since it
        was sent counts there in place of what was computed again."""
        noted = self._cursor.lost_rows
        lost = lost_rows.find_lost_rows(noted, in_journal.by_writer)
        if not lost:
            return in_journal
        agree = lost_rows.make_comparison(chain.from_iterable(rows.values()))
        by_writer, disagreements = lost_rows.put_back(in_journal.by_writer, lost, agree)
        return dataclasses.replace(
            in_journal,
            by_writer=by_writer,
            disagreements=[*in_journal.disagreements, *disagreements],
            tags=in_journal.tags | _describe_in_tag(in_journal.choose_sent(lost)),
        )

    def _find_refill_reason(
        self, refill: bool, disagreements: Sequence[str]
    ) -> str | None:
        """The flag for which the run is to be filled anew now; None if it is not."""
        is_new = disagreements and self._cursor.refilled != disagreements[0]
        if refill and is_new:
            # killed from now on, the next delivery resumes the refill
            self._keep(refilling=disagreements[0])
        return self._cursor.refill_reason

    def _begin(self, began: str, in_journal: _Points, refilled: str | None) -> None:
        """Finds or makes the MLflow run, to be filled from the first point on. One that
        is found was filled before: how far, it is asked."""
        identity = self._identify(began)
        old = self._cursor.run if refilled else None
        if old:
            identity |= {"zsg.replaces": old}
        target = self._tracker.find_or_create(
            self._grid.experiment,
            identity,
            {PARENT: self._grid.parent},
            mlflow_metadata.name_of(self._row),
            in_journal.first_ts,
        )
        self._grid.mlflow_runs.setdefault(self._run_id, {})[target.run] = began
        self._grid.elsewhere.pop(self._run_id, None)
        self._send_datasets(target.run)
        self._cursor = DeliveryCursor(
            params=False,
            uri=self._grid.store,
            run=target.run,
            began=began,
            doubtful=target.is_doubtful,
            refilled=refilled,
            old=old,
            attempts=self._attempts,
        )
        if target.is_created and not target.is_doubtful:
            self._keep()
        else:
            self._ask_for_lost_rows(in_journal, is_doubtful=True)

    def _identify(self, began: str | None) -> dict[str, str]:
        """The tags by which the MLflow run is known that is filled from this journal."""
        return {
            "zsg.kind": "run",
            RUN: self._run_id,
            "zsg.grid": self._grid.name,
            BEGAN: str(began),
        }

    def _find_experiment(self) -> str:
        """The experiment in which the run stands."""
        return self._grid.elsewhere.get(self._run_id, self._grid.experiment)

    def _send_datasets(self, mlflow_run: str) -> None:
        datasets = [
            Data(*dataset) for dataset in mlflow_metadata.data_sets(self._stages)
        ]
        if datasets:
            self._tracker.read(self._find_experiment(), mlflow_run, datasets)

    def _send_points(self, writer: str, points: list[Point]) -> int:
        """Sends what MLflow lacks of one writer's points, and first the parameters;
        returns how many points."""
        count = self._count_sent(writer, points)
        params = None
        if not self._cursor.params:
            params = mlflow_metadata.flatten_params(self._row)
        unsent = points[count:]
        if unsent:
            self._bring_to_disk()
        for number in self._tracker.log(self._cursor.run, unsent, params):
            count += number
            self._note_sent(writer, points[count - 1 : count], count)
        if params is not None:
            # with the next that is written: sent twice, parameters change nothing
            self._cursor = replace(self._cursor, params=True)
        return len(unsent)

    def _bring_to_disk(self) -> None:
        """Waits until what is sent is on the disk: what MLflow has, a machine that fails
        must not take from the journal."""
        for stage in self._stages if not self._is_on_disk else []:
            journal.bring_to_disk(stage)
        self._is_on_disk = True

    def _count_sent(self, writer: str, points: Sequence[Point]) -> int:
        """How many of a writer's points MLflow has: those up to the last that was sent."""
        is_at_its_place = self._is_at_its_place(writer, points)
        return self._cursor.count_sent(writer) if is_at_its_place else 0

    def _note_sent(self, writer: str, last: Sequence[Point], count: int) -> None:
        """Notes that MLflow has so many of a writer's points, up to the last of them."""
        counts = self._cursor.sent if isinstance(self._cursor.sent, dict) else {}
        names = self._cursor.last if isinstance(self._cursor.last, dict) else {}
        for point in last:
            names = {**names, writer: (count, *_name_point(point))}
        self._keep(sent={**counts, writer: count}, last=names)

    def _list_duplicates(self) -> list[str]:
        """Other MLflow runs that are filled from the same journal: deleted there once,
        and restored."""
        current = (self._cursor.run, self._cursor.old)
        return [
            mlflow_run
            for mlflow_run, began in self._grid.mlflow_runs.get(
                self._run_id, {}
            ).items()
            if began == self._cursor.began and mlflow_run not in current
        ]

    def _delete_duplicates(self) -> None:
        """Deletes them, and what a server made after all when an earlier request to
        create the run got no answer."""
        duplicates = set(self._list_duplicates())
        if self._cursor.doubtful:
            identity = self._identify(self._cursor.began)
            duplicates |= set(self._tracker.find(self._grid.experiment, identity))
        for duplicate in duplicates - {self._cursor.run, self._cursor.old}:
            self._replace(duplicate)
            logger.warning(
                f"{self._run_id}: MLflow had its run twice; {duplicate} was deleted there,"
                f" {self._cursor.run} is filled"
            )

    def _delete_replaced(self) -> None:
        """Takes the MLflow run out of sight that this one was made to replace."""
        old = self._cursor.old
        if not old:
            return
        self._replace(old)
        logger.info(
            f"{self._run_id}: MLflow run {old} was flagged; {self._cursor.run} is filled anew, the"
            " old one deleted in MLflow"
        )

    def _replace(self, old: str) -> None:
        tags = {"zsg.replaced_by": self._cursor.run, "zsg.kind": "replaced"}
        self._tracker.tag(old, tags)
        self._tracker.delete(old)
        self._grid.mlflow_runs.get(self._run_id, {}).pop(old, None)

    def _send_state(
        self, rows: dict[str, list[journal_rows.Row]], points: _Points
    ) -> None:
        """Sends the tags and the status, if the run's state has changed."""
        state = self._collect_state(rows, points)
        if state == self._cursor.state:
            return
        starts = list(find_starts(rows[self._folder.name]))
        tags = mlflow_metadata.collect_facts(self._folder, self._row, starts) | state
        self._note_changed(state)
        mlflow_run = self._cursor.run
        self._tracker.tag(
            mlflow_run, {f"zsg.{key}": value for key, value in tags.items()}
        )
        # what held of the run once, as the cause of a failure that a retry has mended
        gone = [key for key in self._cursor.state or {} if key not in tags]
        self._tracker.untag(mlflow_run, [f"zsg.{key}" for key in gone])
        status = STATUS.get(state["state"], "RUNNING")
        if status != "RUNNING" or self._cursor.state is not None:
            ended = int(state.get("ended", 0)) or None
            self._tracker.set_status(mlflow_run, status, ended)
        self._keep(state=state)

    def _note_changed(self, state: dict[str, str]) -> None:
        text = state.get("values_changed")
        if text and text != (self._cursor.state or {}).get("values_changed"):
            self._grid.changed[self._run_id] = text

    def _collect_state(
        self, rows: dict[str, list[journal_rows.Row]], points: _Points
    ) -> dict[str, str]:
        all_rows = list(chain.from_iterable(rows.values()))
        return {
            **mlflow_metadata.read_run_state(self._stages, points.disagreements),
            **points.tags,
            **mlflow_metadata.collect_doubts(all_rows),
            **mlflow_metadata.name_ways(all_rows),
            "workspace": str(self._grid.workspace.root),
            "listed": self._listed,
        }

    def _send_results_if_done(
        self, rows: dict[str, list[journal_rows.Row]], points: _Points
    ) -> None:
        """A model for every snapshot that was kept; and notes that the losses of items
        and tasks are to be kept.

        Once per end of the run, and again when evaluators have come to more, or the
        workspace to another place.
        """
        state = self._cursor.state or {}
        if state["state"] != State.DONE:
            return
        by_stage = {stage: points.of_stage(stage) for stage in self._stages}
        count = sum(map(len, by_stage.values()))
        results = [state["ended"], count, str(self._grid.workspace.root)]
        if self._cursor.results == results:
            return
        # that of a later stage was not there when the run began
        self._send_datasets(self._cursor.run)
        for stage, of_stage in by_stage.items():
            self._send_snapshots(stage, rows[stage.name], of_stage)
        # written with the end of the sync, which comes next
        self._cursor = replace(self._cursor, results=results, unkept=True)

    def _send_snapshots(
        self, stage: Path, rows: list[journal_rows.Row], points: list[Point]
    ) -> None:
        """A model for every snapshot that a stage has kept and of which something was
        measured."""
        written = find_events(rows, SnapshotWritten)
        digests = {row.step: event.digest for row, event in written}
        for step in mlflow_metadata.kept_snapshots(stage):
            measured = [point for point in points if _is_of_model(point, step)]
            if measured:
                tags = self._make_snapshot_tags(stage, step, digests.get(step))
                self._tracker.model(
                    self._find_experiment(),
                    self._cursor.run,
                    f"{self._run_id}-step-{step}",
                    tags,
                    measured,
                )

    def _make_snapshot_tags(
        self, stage: Path, step: int, digest: str | None
    ) -> dict[str, str]:
        tags = {
            **self._identify(self._cursor.began),
            "zsg.kind": "snapshot",
            "zsg.step": str(step),
            "zsg.path": str(snapshots.folder_of(stage, step)),
        }
        return tags | {"zsg.digest": digest} if digest else tags


def _read_mtime(path: Path) -> int:
    """When a file was changed (ns); 0 if it is not there."""
    try:
        return path.stat().st_mtime_ns
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _is_of_model(point: Point, step: int) -> bool:
    """Whether a point tells of the weights of a step, not of how they were trained."""
    is_of_training = point.key.startswith(("train/", journal.SPEED))
    return point.step == step and not is_of_training


def _read_rows_by_writer(stages: Sequence[Path]) -> dict[str, list[journal_rows.Row]]:
    """The rows of a run that MLflow is told of, by stage and writer."""
    return {
        writer: list(rows) for stage in stages for writer, rows in _rows_of_stage(stage)
    }


def _rows_of_stage(stage: Path) -> Iterator[tuple[str, Iterator[journal_rows.Row]]]:
    """Those of a stage: of its own attempts by its name, of an evaluator by its file's."""
    for name, rows in journal.by_writer(stage).items():
        writer = f"{stage.name}/{name}" if name else stage.name
        yield writer, (row for row in rows if not isinstance(row, ItemsRow))


def _choose_points(
    rows: dict[str, list[journal_rows.Row]],
    chosen: Sequence[str],
    summaries: dict[str, list[Point]],
) -> _Points:
    """The points that count, of the keys that MLflow is told: those `chosen` before, and
    of new ones as many as there is room for, the earliest first. `summaries`: points
    that follow from those of the journals, by a writer's name."""
    keys = mlflow_metadata.Keys(chosen)
    all_points: dict[str, list[Point]] = dict(summaries)
    disagreements: list[str] = []
    for writer, of_writer in rows.items():
        points, flags = journal.first_points(of_writer)
        all_points[writer] = points
        disagreements += flags
    for key in filter(mlflow_metadata.can_be_named, _list_keys(all_points.values())):
        keys.keeps(key)
    by_writer = {
        writer: [point for point in points if _is_told_of(point, keys)]
        for writer, points in all_points.items()
    }
    told_points = chain.from_iterable(by_writer.values())
    tags = keys.left_out() | mlflow_metadata.describe_changed_values(told_points)
    by_writer = {
        writer: list(filter(mlflow_metadata.can_be_sent, points))
        for writer, points in by_writer.items()
    }
    return _Points(by_writer, disagreements, keys, tags)


def _is_told_of(point: Point, keys: mlflow_metadata.Keys) -> bool:
    """Whether MLflow is told a point, or at least that there is one: a name that it does
    not take has no room among its keys."""
    return not mlflow_metadata.can_be_named(point.key) or keys.keeps(point.key)


def _list_keys(writers: Iterable[Sequence[Point]]) -> list[str]:
    """The keys of all points, the earliest first: in whatever order writers are read, a
    later one takes no room from those before it."""
    began: dict[str, int] = {}
    for points in writers:
        of_writer: dict[str, int] = {}
        for point in points:
            of_writer.setdefault(point.key, point.ts)
        for key, ts in of_writer.items():
            began[key] = min(ts, began.get(key, ts))
    return sorted(began, key=lambda key: began[key])


def _describe_in_tag(lost: Sequence[LostRow]) -> dict[str, str]:
    """The tag that tells of lost rows; none where there are none."""
    if not lost:
        return {}
    return {"rows_lost": f"MLflow has {lost_rows.describe_lost_rows(lost)}"}


def _name_point(point: Point) -> tuple[str, int, int]:
    """What a point is known by in its journal."""
    return point.key, point.step, point.ts
