"""Decides which snapshots of a run that is done stay, by what the grids that list it want
to keep at present.

What was to be kept when a run was trained stands in its exit record; a grid may say
otherwise since. The records of grids say it anew with every submit. Where several grids
list a run, what any of them keeps stays; so does what one says that an older zsg
recorded, which is what the run was trained with.
"""

import json
import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from jobs.contract import snapshots
from jobs.contract.folder import Workspace
from jobs.contract.grid_record import GridRecord, Keeping, ListedRun
from jobs.contract.job_file import job_path
from launcher.workspace import run_folders
from launcher.workspace.job_state import JobState
from zsg_core.training import schedule
from zsg_core.training.snapshots import select_kept_steps

BEYOND_PRESENT = "beyond what checkpoints.keep keeps"

_SNAPSHOT = re.compile(
    r"runs/(?P<run>[^/]+)/snapshots/(?P<step>0|[1-9][0-9]{0,17})(?=/|$)"
)
# an absolute path in a job's file
_PATH = re.compile(rb'"/(?:[^"\\]|\\.)*"')
_WITH_JOBS = ("runs", "prepare", "evaluate", "canary", "looks")


@dataclass
class RunKeeping:
    """What is to stay of a run. `wanted`: what the grids say that list it; `is_older`:
    one of them was recorded by an older zsg, which did not say."""

    wanted: list[Keeping] = field(default_factory=list[Keeping])
    is_older: bool = False

    def add(self, row: ListedRun) -> None:
        """Adds what one more grid says."""
        self.wanted += row.keeping
        if not row.keeping:
            self.is_older = True

    @property
    def scored(self) -> list[str]:
        """The keys that evaluators are to take of each snapshot, in the order in which
        grids name them."""
        keys: dict[str, None] = {}
        for keeping in self.wanted:
            for key in keeping.scored:
                keys[key] = None
        return list(keys)

    def keeps_state(self, at_training: bool) -> bool:
        """Whether what a resume needs is to stay.

        `at_training`: what was said when the run was submitted. It counts where one
        that lists the run is silent, as an older zsg has recorded it.
        """
        if self.is_older and at_training:
            return True
        return any(keeping.keep_state for keeping in self.wanted)


# of a run that no grid lists: what it was trained with counts
UNLISTED = RunKeeping(is_older=True)


def collect_keeping(records: Iterable[GridRecord]) -> dict[str, RunKeeping]:
    """By run, what the grids that list it want to keep of it.

    What a grid once listed and lists no longer is none of its business; of a run that
    no grid lists any more, what those said last that once did counts.
    """
    present: dict[str, RunKeeping] = {}
    former: dict[str, RunKeeping] = {}
    for record in records:
        _add_rows(present, record.runs)
        _add_rows(present, record.before)
        _add_rows(former, record.former)
    return {**former, **present}


def _add_rows(
    keeping_by_run: dict[str, RunKeeping],
    rows: Iterable[ListedRun],
) -> None:
    """Adds to what is known of each run what a grid's rows say of it."""
    for row in rows:
        keeping = keeping_by_run.setdefault(row.run, RunKeeping())
        keeping.add(row)


def select_kept(
    folder: Path,
    state: JobState,
    steps: Collection[int],
    keeping: RunKeeping,
) -> frozenset[int]:
    """Of the snapshots of a run that is done those that stay, by their steps.

    `folder`: the run's; `state`: how it ended; `steps`: those of which there is a
    folder; `keeping`: what the grids want.

    A rule is applied three times, and what any of the three names stays. Once to all
    that is on disk. Once to what is whole: what is damaged takes the place of nothing
    that loads. And once to the steps that the grid asks for now: a snapshot that it no
    longer asks for takes the place of none that it does.
    """
    staying = set[int]()
    if keeping.is_older:
        staying |= _list_kept_at_training(state)
    rules = [each.keep for each in keeping.wanted]
    if None in rules:
        return frozenset(steps)
    if not rules:
        return frozenset(staying.intersection(steps))
    losses = collect_losses(state)
    whole_steps = snapshots.find_steps(folder)
    for each in keeping.wanted:
        asked_steps = list_wanted_steps(state, each.snapshots)
        present_steps = asked_steps.intersection(steps)
        for candidates in (steps, whole_steps, present_steps):
            staying |= select_kept_steps(candidates, losses, each.keep)
    return frozenset(staying.intersection(steps))


def _list_kept_at_training(state: JobState) -> set[int]:
    """The steps whose snapshots a run has kept by the rule that it was trained with."""
    return {
        row["step"]
        for row in state.snapshots
        # as its exit record says
        if row["kept"]
    }


def list_wanted_steps(
    state: JobState,
    named: int | str | list[int] | None,
) -> set[int]:
    """The steps at which a grid wants snapshots of a run that is done.

    They count from the first stage's start. `state`: how the run ended, with how many
    steps; `named`: the words of `checkpoints.snapshots`, as in jobs.contract.job_file.
    """
    first = state.first
    total = (state.steps or 0) - first
    steps_of_stage = schedule.list_snapshot_steps(total, named)
    return {first + step for step in steps_of_stage}


def collect_losses(state: JobState) -> dict[int, float | None]:
    """The test loss of each snapshot that a run has written, by its step; None where it
    was not measured.

    An exit record has losses as texts, since JSON knows no NaN.
    """
    losses: dict[int, float | None] = {}
    for row in state.snapshots:
        loss = row["probe_loss"]
        losses[row["step"]] = None
        if loss is not None:
            losses[row["step"]] = float(loss)
    return losses


@dataclass
class SnapshotUsers:
    """The jobs whose files name a snapshot of a run: they start from its weights, or
    ask it. `unread`: a job's file that could not be read, which may name any."""

    jobs: dict[tuple[str, int], list[str]]
    unread: list[str] = field(default_factory=list[str])

    def add(self, item: str, used: Iterable[tuple[str, int]]) -> None:
        """Adds a job, by its folder, and the snapshots that its file names; but for
        those of its own run."""
        for run, step in used:
            if item == f"runs/{run}":
                continue
            users = self.jobs.setdefault((run, step), [])
            users.append(item)

    def find_reason(self, run: str, step: int) -> str:
        """Why a snapshot has to stay for others; empty if none needs it."""
        users = self.jobs.get((run, step), [])
        if users:
            return f"{users[0]} uses its weights"
        if self.unread:
            return f"{self.unread[0]} may use its weights: its job.json cannot be read"
        return ""


def find_snapshot_users(workspace: Workspace) -> SnapshotUsers:
    """The jobs of a workspace that use snapshots of other runs.

    Every path in a job's file is looked at: that of the model which a run starts from,
    that of a reward model, of one that embeds texts or whose answers are sampled; also
    where a link leads to a snapshot.
    """
    users = SnapshotUsers({})
    # a path stands in the files of many jobs
    snapshots_by_path: dict[bytes, set[tuple[str, int]]] = {}
    for item in _list_job_folders(workspace):
        try:
            content = job_path(workspace.root / item).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            users.unread.append(item)
            continue
        for path in set(_PATH.findall(content)):
            if path not in snapshots_by_path:
                snapshots_by_path[path] = _find_snapshots_in(path)
            users.add(item, snapshots_by_path[path])
    return users


def _list_job_folders(workspace: Workspace) -> list[str]:
    """The folders of jobs that may use weights, relative to the workspace."""
    items: list[str] = []
    for kind in _WITH_JOBS:
        names = run_folders.list_names(workspace.root / kind) or set()
        for name in sorted(names):
            items.append(f"{kind}/{name}")
    return items


def _find_snapshots_in(path: bytes) -> set[tuple[str, int]]:
    """The run and step of the snapshot to which a path of a job's file leads, by its
    name or by links; none for another path.

    `path`: as JSON has it, in quotes. A path may name a folder within a snapshot, too.
    """
    try:
        name = json.loads(path)
        places = [name, os.path.realpath(name)]
    except (ValueError, OSError):
        return set()
    return {
        (match["run"], int(match["step"]))
        for place in places
        for match in _SNAPSHOT.finditer(place)
    }
