"""A run's snapshots on disk: their names, and meta.json as a typed record.

<run>/snapshots/<step>/   weights that load, with meta.json and, last, COMMIT: see
                          jobs.contract.folder
<run>/weights/            the same, of the end of a stage from which other runs start
"""

import stat
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from jobs.contract.folder import (
    COMMIT,
    META,
    SCHEMA,
    Damaged,
    find_damage,
    is_committed,
    is_whole,
    list_paths,
    write_json,
)
from jobs.contract.journal import spell_nonfinite
from jobs.contract.journal_rows import Number
from jobs.contract.records import read_record

FOLDER, WEIGHTS = "snapshots", "weights"
M = TypeVar("M", bound=msgspec.Struct)


class StartedFrom(msgspec.Struct, frozen=True):
    """The weights that a run started from."""

    path: str
    digest: str


class SnapshotMeta(msgspec.Struct, frozen=True, kw_only=True):
    """meta.json of a snapshot. `step`: counted from the first stage's start.
    `probe_loss`: the test loss measured there. `weights`: their digest. `base`: LoRA's
    adapters are nothing without it. What has a default is filled in when the weights
    are written."""

    step: int
    attempt: int
    probe_loss: Number | None
    schema: int = SCHEMA
    weights: str = ""
    dtype: str = ""
    bytes: int = 0
    base: StartedFrom = StartedFrom("", "")


class StageEndMeta(msgspec.Struct, frozen=True, kw_only=True):
    """meta.json of the weights of the end of a stage: how the stage ended, as its exit
    record tells it, and as SnapshotMeta."""

    step: int
    steps: int = 0
    first: int = 0
    examples: int = 0
    loss: Number | None = None
    digest: str | None = None
    weights: str | None = None
    skipped: int = 0
    snapshots: list[dict[str, Any]] = []
    schema: int = SCHEMA
    dtype: str = ""
    bytes: int = 0
    base: StartedFrom = StartedFrom("", "")


Meta = SnapshotMeta | StageEndMeta
# when a snapshot was made that this process has found whole
_FOUND_WHOLE: dict[Path, int] = {}


def folder_of(run: Path, step: int) -> Path:
    """The snapshot of a step."""
    return run / FOLDER / str(step)


def weights_of(run: Path) -> Path:
    """The weights of the end of a stage."""
    return run / WEIGHTS


def find_steps(run: Path) -> list[int]:
    """The steps of which there are whole snapshots.

    One that this process has found whole is looked at again when it is loaded: an
    evaluator asks every few seconds, and every file of all of them is much to ask of a
    network file system.
    """
    folders = list_paths(run / FOLDER, "[0-9]*")
    return sorted(int(path.name) for path in folders if _was_whole(path))


def _was_whole(folder: Path) -> bool:
    """Whether a snapshot is whole, or was so at an earlier look. One that is removed
    meanwhile is not."""
    try:
        marker = (folder / COMMIT).stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not stat.S_ISREG(marker.st_mode):
        return False
    made = marker.st_mtime_ns
    if _FOUND_WHOLE.get(folder) != made and is_whole(folder):
        _FOUND_WHOLE[folder] = made
    return _FOUND_WHOLE.get(folder) == made


def find_damaged(run: Path) -> dict[int, str]:
    """The steps whose snapshots were whole once, and what is missing of them. One that
    is removed meanwhile has no damage."""
    folders = list_paths(run / FOLDER, "[0-9]*")
    damages: dict[int, str] = {}
    for path in filter(is_committed, folders):
        damage = find_damage(path)
        if damage and is_committed(path):
            damages[int(path.name)] = damage
    return dict(sorted(damages.items()))


def read_meta(folder: Path) -> SnapshotMeta:
    """What a snapshot tells of itself. Damaged for what is no such record, or no file."""
    return _read_meta(folder, SnapshotMeta)


def read_end_meta(folder: Path) -> StageEndMeta:
    """What the weights of the end of a stage tell of themselves. Damaged as above."""
    return _read_meta(folder, StageEndMeta)


def _read_meta(folder: Path, kind: type[M]) -> M:
    meta = read_record(folder / META, kind)
    if meta is None:
        raise Damaged(f"{folder / META}: is not there, beside weights that are whole")
    return meta


def write_meta(folder: Path, meta: Meta) -> None:
    """Writes what a folder of weights tells of itself."""
    write_json(folder / META, spell_nonfinite(msgspec.to_builtins(meta)))
