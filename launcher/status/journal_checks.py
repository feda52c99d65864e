"""Looks whether journals of runs have lost rows, so that status, plan and why say so.

A journal is read once, and again when its files have changed. journals.json in the
workspace remembers what was found; it is derived and may be removed at any time. Of
many journals that were never read, a command reads as many as it can in LOOK_S seconds
and the next command goes on: every command that uses a journal's rows names it anyway.

Whether files have changed is looked at each time for runs that may still write. Of runs
that have ended, and of those that wait in a queue and may have run before, a command
looks at some, others each time: a workspace may have thousands of them, and asks a file
server for each. What had a hole is always looked at.
"""

import contextlib
import os
import random
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from jobs.contract import journal
from jobs.contract.folder import SCHEMA, Unreadable, Workspace
from jobs.contract.journal import HoleError
from jobs.contract.json_values import DECODE_ERRORS
from jobs.contract.states import State
from launcher.workspace.job_state import (
    JOURNAL_UNREADABLE,
    JobState,
    JournalDamage,
)

LOOK_S = 0.5
PLAN_LOOK_S = 0.1  # of a command that may remember nothing, and so reads the same anew
AGAIN_S = 0.1  # for files of runs that have ended
FEWEST = 50  # journals, however long that takes
# the coarsest clock of a file system, with room: what changed just now may change again
# under the same time
RESTED_S = 5.0
RUNS = "runs/"

# of each file of a journal: name, bytes, time of change (ns)
Look = list[tuple[str, int, int]]


class _Hole(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """Where a file has lost rows: see HoleError."""

    file: str
    line: int
    reason: str


class _Entry(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """What was found when a journal looked so."""

    look: Look
    holes: list[_Hole]


class _ChecksFile(msgspec.Struct):
    """journals.json: the entry of each job folder."""

    schema: int
    journals: dict[str, _Entry]


def flag_journals(
    workspace: Workspace, states: Mapping[str, JobState], *, keeps: bool = True
) -> dict[str, JobState]:
    """The states of jobs, flagged where the journal of a run has lost rows. `keeps`:
    whether what is found may be written to the workspace; zsg plan writes nothing."""
    checks = _JournalChecks(workspace, LOOK_S if keeps else PLAN_LOOK_S)
    runs = _sort_runs(states)
    holes = {item: checks.find_holes(item) for item in runs.at_work}
    holes |= checks.find_some_holes(runs.ended, have_journals=True)
    holes |= checks.find_some_holes(runs.queued, have_journals=False)
    if keeps:
        checks.save()
    flagged = dict(states)
    for item, of_item in holes.items():
        if of_item:
            flagged[item] = _flag(workspace.root, item, states[item], of_item[0])
    return flagged


@dataclass(frozen=True)
class _Runs:
    """The runs that may have journals: those at work, those that have ended, and those
    that wait in a queue. Of a job that was put back without a record Slurm does not
    tell whether it has run before."""

    at_work: list[str] = field(default_factory=list[str])
    ended: list[str] = field(default_factory=list[str])
    queued: list[str] = field(default_factory=list[str])


def _sort_runs(states: Mapping[str, JobState]) -> _Runs:
    runs = _Runs()
    for item, state in states.items():
        if not item.startswith(RUNS):
            continue
        if state.attempt is None:
            if state.state in (State.QUEUED, State.WAITING):
                runs.queued.append(item)
        elif _has_ended(state):
            runs.ended.append(item)
        else:
            runs.at_work.append(item)
    return runs


def _has_ended(state: JobState) -> bool:
    """Whether nobody trains a run any more."""
    is_over = state.state in (State.DONE, State.FAILED, State.CANCELLED)
    return is_over and not state.is_active


def _flag(root: Path, item: str, state: JobState, hole: _Hole) -> JobState:
    """The state of a job whose journal has lost rows."""
    path = journal.folder_of(root / item) / hole.file
    text = f"{JOURNAL_UNREADABLE}: {path}: {hole.reason}"
    if state.flag and not state.flag.startswith(JOURNAL_UNREADABLE):
        text = f"{state.flag}; {text}"
    damage = JournalDamage(
        file=str(path.relative_to(root)),
        line=hole.line,
        reason=hole.reason,
        is_own=not journal.is_guest_file(path),
    )
    return replace(state, flag=text, damage=damage)


class _JournalChecks:
    """What is known of the journals of a workspace."""

    def __init__(self, workspace: Workspace, look_s: float) -> None:
        """`look_s`: for how long journals are read."""
        self._root, self._path = workspace.root, workspace.journal_checks
        self._entries = _read_entries(self._path)
        self._is_changed = False
        self._reading = _Share(look_s)

    def find_holes(self, item: str) -> list[_Hole]:
        """The holes of a run's journal, as it looks now; those that were known before
        where there is no time to read it again, and none where nobody ever did."""
        entry = self._entries.get(item)
        if entry is None and self._reading.is_over:
            return []
        folder = self._root / item
        look = _look_at(journal.folder_of(folder))
        if entry is not None and entry.look == look:
            return entry.holes
        if not look:
            return []
        if not self._reading.take():
            return entry.holes if entry else []
        return self._read(item, folder, look)

    def find_some_holes(
        self, items: Sequence[str], *, have_journals: bool
    ) -> dict[str, list[_Hole]]:
        """By the folders of runs that nobody trains now, the holes of their journals. Of
        those that had none some are looked at again, each time others; and so it is with
        those that were never read, where they may not have a journal."""
        first = random.randrange(len(items)) if items else 0
        again = _Share(AGAIN_S)
        holes: dict[str, list[_Hole]] = {}
        for item in (*items[first:], *items[:first]):
            entry = self._entries.get(item)
            is_settled = not have_journals if entry is None else not entry.holes
            if not is_settled or again.take():
                holes[item] = self.find_holes(item)
        return holes

    def save(self) -> None:
        """Writes what is new. In a workspace that may not be written the journals are
        read anew the next time."""
        if not self._is_changed:
            return
        content = msgspec.json.encode(_ChecksFile(SCHEMA, self._entries))
        draft = self._path.with_name(f".{self._path.name}.{uuid.uuid4().hex[:8]}")
        try:
            draft.write_bytes(content)
            draft.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)

    def _read(self, item: str, folder: Path, look: Look) -> list[_Hole]:
        """The holes of a journal that was read; remembered unless it may change again
        under the same look."""
        try:
            holes = [_describe(hole) for hole in journal.find_holes(folder)]
        except Unreadable:  # at this moment, or by this user: who needs it is told
            entry = self._entries.get(item)
            return entry.holes if entry else []
        newest = max(changed for _, _, changed in look)
        if time.time() - newest / 1e9 > RESTED_S:
            self._entries[item] = _Entry(look, holes)
            self._is_changed = True
        return holes


class _Share:
    """A share of a command's time: for the first FEWEST, and so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        self._taken = 0

    @property
    def is_over(self) -> bool:
        """Whether there is no more of it."""
        return self._taken >= FEWEST and time.monotonic() > self._until

    def take(self) -> bool:
        """Takes of it for one journal; False where it is over."""
        if self.is_over:
            return False
        self._taken += 1
        return True


def _read_entries(path: Path) -> dict[str, _Entry]:
    """What was remembered; nothing where the file is damaged, or of another schema."""
    try:
        file = msgspec.json.decode(path.read_bytes(), type=_ChecksFile)
    except (OSError, *DECODE_ERRORS):
        return {}
    return file.journals if file.schema == SCHEMA else {}


def _look_at(folder: Path) -> Look:
    """How a journal's files look; nothing where there are none."""
    try:
        with os.scandir(folder) as entries:
            stats = [(entry.name, entry.stat()) for entry in entries]
    except OSError:
        return []
    return sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


def _describe(hole: HoleError) -> _Hole:
    return _Hole(hole.path.name, hole.line, hole.reason)
