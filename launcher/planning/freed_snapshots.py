"""Finds what `zsg gc` would free of a grid's runs once the grid is submitted as it now
is: snapshots that its settings keep no longer."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from jobs.contract import evaluations, grid_record, job_file, removal, snapshots
from jobs.contract.folder import Damaged, Workspace
from jobs.contract.grid_record import GridRecord, Keeping, ListedRun
from jobs.contract.states import State
from launcher.grids.runs import Run
from launcher.planning.plan import run_item
from launcher.workspace import kept_snapshots, recorded_grids, run_folders
from launcher.workspace.disk_usage import format_bytes, measure_size
from launcher.workspace.job_state import JobState
from launcher.workspace.kept_snapshots import RunKeeping, SnapshotUsers
from zsg_core.by_object import ByObject

MOST_MEASURED = 200  # of more snapshots the size is told by these


@dataclass(frozen=True)
class FreedSnapshots:
    """Snapshots that a grid keeps no longer: of how many runs, and their bytes, which
    are `estimated` where they were too many to be measured."""

    count: int
    runs: int
    size: int
    is_estimated: bool = False

    @property
    def words(self) -> str:
        """In a sentence."""
        snapshots_text = (
            "1 snapshot" if self.count == 1 else f"{self.count:,} snapshots"
        )
        runs_text = "1 run" if self.runs == 1 else f"{self.runs:,} runs"
        about = "some " if self.is_estimated else ""
        return (
            f"checkpoints.keep now keeps fewer: {snapshots_text} of {runs_text},"
            f" {about}{format_bytes(self.size)}, which zsg gc frees after this submit"
        )


def collect_wanted(runs: Sequence[Run]) -> dict[str, list[Keeping]]:
    """What is to stay of each run and of each stage before it, by its id.

    A stage is shared by the runs that begin with it: what each of them says counts.
    What is said twice is listed once.
    """
    keeping_by_run: dict[str, list[Keeping]] = {}
    of_settings = ByObject[Keeping]()
    for run in runs:
        make = partial(_make_keeping, run)
        keeping = of_settings.get((run.checkpoints,), None, make)
        for stage in [*run.all_before, run]:
            of_stage = keeping_by_run.setdefault(stage.id, [])
            if keeping not in of_stage:
                of_stage.append(keeping)
    return keeping_by_run


def _make_keeping(run: Run) -> Keeping:
    """What a run's settings want to keep of it once it is done."""
    checkpoints = run.checkpoints
    rule = checkpoints.keep
    return Keeping(
        snapshots=checkpoints.snapshots,
        keep=rule.model_dump() if rule else None,
        keep_state=checkpoints.keep_state,
        scored=run.scored,
    )


def mark_removed(
    workspace: Workspace,
    runs: Sequence[Run],
    states: Mapping[str, JobState],
) -> dict[str, JobState]:
    """The states, in which snapshots that are there no longer count as not kept.

    An exit record tells what was kept when a run ended; `zsg gc` may have freed some
    since. Looked at are runs that are done and of which the grid wants snapshots.
    `states`: by job folder.
    """
    marked = dict(states)
    for run in runs:
        item = run_item(run)
        state = states[item]
        if run.checkpoints.snapshots is None or not state.snapshots:
            continue
        folder = workspace.root / item / snapshots.FOLDER
        names = run_folders.list_names(folder)
        # where the folder may not be read nobody can tell
        if names is not None:
            marked[item] = _mark_rows(state, names)
    return marked


def _mark_rows(state: JobState, names: Collection[str]) -> JobState:
    """The state of a run; `names`: those of the snapshots that are there."""
    rows: list[dict[str, Any]] = []
    for row in state.snapshots:
        is_present = str(row["step"]) in names
        rows.append({**row, "kept": row["kept"] and is_present})
    return replace(state, snapshots=tuple(rows))


def find_freed_snapshots(
    workspace: Workspace,
    grid: str,
    runs: Sequence[Run],
    states: Mapping[str, JobState],
) -> FreedSnapshots | None:
    """What is free for `zsg gc` once the grid is submitted; None where that is nothing,
    or cannot be told. `states`: by job folder.

    Other grids are read only where this one alone would free something.
    """
    keeping_by_run = collect_wanted(runs)
    finder = _Finder(workspace, states)
    candidates: list[str] = []
    for run, keeping in keeping_by_run.items():
        if finder.find_beyond(run, RunKeeping(keeping)):
            candidates.append(run)
    if not candidates:
        return None
    folders: list[Path] = []
    try:
        together = _add_other_grids(workspace, grid, keeping_by_run)
        users = kept_snapshots.find_snapshot_users(workspace)
        for run in candidates:
            folders += finder.list_free(run, together[run], users)
    except Damaged:  # zsg gc tells what cannot be read
        return None
    return _measure_folders(folders)


def _add_other_grids(
    workspace: Workspace,
    grid: str,
    keeping_by_run: Mapping[str, list[Keeping]],
) -> dict[str, RunKeeping]:
    """By run, what all grids want to keep of it once this one is submitted.

    `grid`: the name of this one, of which what its record says until then does not
    count.
    """
    rows: list[ListedRun] = []
    for run, keeping in keeping_by_run.items():
        rows.append(ListedRun(run=run, axes={}, keeping=keeping))
    records = [GridRecord(name=grid, runs=rows)]
    for name in grid_record.list_grids(workspace):
        if name != grid:
            record = recorded_grids.read_grid(workspace, name)
            records.append(record)
    return kept_snapshots.collect_keeping(records)


@dataclass(frozen=True)
class _Finder:
    """Finds snapshots of runs that are done. `states`: by job folder."""

    workspace: Workspace
    states: Mapping[str, JobState]

    def find_beyond(self, run: str, keeping: RunKeeping) -> list[int]:
        """The steps of snapshots that are on disk and that no grid keeps; none of a run
        that is not done."""
        state = self.states[f"runs/{run}"]
        folder = self.workspace.run(run)
        if state.state != State.DONE:
            return []
        if any(each.keep is None for each in keeping.wanted):
            return []
        names = run_folders.list_names(folder / snapshots.FOLDER)
        steps = set[int]()
        for name in names or ():
            if removal.STEP.fullmatch(name):
                steps.add(int(name))
        if not steps:
            return []
        staying = kept_snapshots.select_kept(folder, state, steps, keeping)
        return sorted(steps - staying)

    def list_free(
        self,
        run: str,
        keeping: RunKeeping,
        users: SnapshotUsers,
    ) -> list[Path]:
        """The folders of a run's snapshots that no grid keeps and nobody needs.

        Damaged where the run's job, or the journal of an evaluator, cannot be read.
        """
        folder = self.workspace.run(run)
        beyond = self.find_beyond(run, keeping)
        job = job_file.read_train_job(folder)
        scored = [*keeping.scored]
        if job is not None:
            scored += job.scored
        needed = evaluations.find_needed_steps(folder, scored, beyond)
        free: list[Path] = []
        for step in beyond:
            is_used = users.find_reason(run, step) != ""
            if step not in needed and not is_used:
                free.append(snapshots.folder_of(folder, step))
        return free


def _measure_folders(folders: Sequence[Path]) -> FreedSnapshots | None:
    """How many snapshots these are, of how many runs, and their bytes; None of none.

    Of many the first are measured, and the others taken to be as large.
    """
    if not folders:
        return None
    measured = folders[:MOST_MEASURED]
    size = sum(map(measure_size, measured))
    runs = {folder.parent for folder in folders}
    return FreedSnapshots(
        count=len(folders),
        runs=len(runs),
        size=size * len(folders) // len(measured),
        is_estimated=len(folders) > len(measured),
    )
