"""Looks whether journals of runs have lost rows, so that status, plan and why say so.

A journal is read once, and again when its files have changed. journals.json in the
workspace remembers what was found; it is derived and may be removed at any time. Of
many journals that were never read, a command reads as many as it can in LOOK_S seconds
and the next command goes on: every command that uses a journal's rows names it anyway.
"""

import contextlib
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import msgspec

from jobs.contract import journal
from jobs.contract.folder import SCHEMA, Unreadable, Workspace
from jobs.contract.journal import HoleError
from jobs.contract.json_values import DECODE_ERRORS
from launcher.workspace.job_state import (
    JOURNAL_UNREADABLE,
    JobState,
    JournalDamage,
)

LOOK_S = 0.5
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
    checks = _JournalChecks(workspace)
    flagged = {item: checks.add_to(item, state) for item, state in states.items()}
    if keeps:
        checks.save()
    return flagged


class _JournalChecks:
    """What is known of the journals of a workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self._root, self._path = workspace.root, workspace.journal_checks
        self._entries = _read_entries(self._path)
        self._is_changed = False
        self._until = time.monotonic() + LOOK_S

    def add_to(self, item: str, state: JobState) -> JobState:
        """The state of a job, flagged where the journal of a run has lost rows."""
        if not item.startswith(RUNS) or state.attempt is None:
            return state
        holes = self._find_holes(item)
        if not holes:
            return state
        first, folder = holes[0], journal.folder_of(self._root / item)
        path = folder / first.file
        text = f"{JOURNAL_UNREADABLE}: {path}: {first.reason}"
        if state.flag and not state.flag.startswith(JOURNAL_UNREADABLE):
            text = f"{state.flag}; {text}"
        damage = JournalDamage(
            file=str(path.relative_to(self._root)),
            line=first.line,
            reason=first.reason,
            is_own=not journal.is_guest_file(path),
        )
        return replace(state, flag=text, damage=damage)

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

    def _find_holes(self, item: str) -> list[_Hole]:
        """The holes of a run's journal; none where there is no time to look."""
        folder = self._root / item
        look = _look_at(journal.folder_of(folder))
        entry = self._entries.get(item)
        if entry is not None and entry.look == look:
            return entry.holes
        if not look or time.monotonic() > self._until:
            return []
        try:
            holes = [_describe(hole) for hole in journal.find_holes(folder)]
        except Unreadable:  # at this moment, or by this user: who needs it is told
            return []
        newest = max(changed for _, _, changed in look)
        if time.time() - newest / 1e9 > RESTED_S:
            self._entries[item] = _Entry(look, holes)
            self._is_changed = True
        return holes


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
