"""state/<step>/state.json: what a saved full state of a train job is of.

The weights, the optimiser and every rank's RNG lie beside it: see jobs.training.state.
Which files these are stands in it, too: a scratch file system removes some of them, and
a disk that fails cuts others.
"""

from pathlib import Path
from typing import Any

import msgspec

from jobs.contract.exit_record import Loss
from jobs.contract.folder import SCHEMA, Damaged, read_json, write_json
from jobs.contract.journal import spell_nonfinite
from jobs.contract.json_values import convert_json
from jobs.files import file_errors

NAME = "state.json"
RANKS = "ranks"  # DeepSpeed's tag
ADVICE = "remove the folder of this state"


class SavedState(msgspec.Struct, frozen=True, kw_only=True):
    """One full state. `what` must be equal for a run to resume from it, and `way` too:
    see `jobs.training.state.choose_state`.

    `ids`: digest of the ids consumed so far. `what`: run_id, stage_id, recipe,
    schedule. `way`: device, world, zero_stage: how the state is cut into files.
    `journal`: bytes of every journal file when all rows up to `step` were on disk.
    `seconds`: how long the save took. `saved`: ms since the epoch. `files`: by their
    paths within the state, the bytes of all that lies beside this record; an older zsg
    did not tell them.
    """

    step: int
    ids: str
    what: dict[str, str]
    way: dict[str, Any]
    journal: dict[str, int]
    seconds: float
    loss: Loss
    attempt: int
    saved: int
    versions: dict[str, str]
    schema: int = SCHEMA
    files: dict[str, int] | None = None

    @property
    def last_loss(self) -> float | None:
        """The last loss that was measured, also one that is no number."""
        return None if self.loss is None else float(self.loss)


def read_saved_state(folder: Path) -> SavedState | None:
    """What the state in a folder is of; None where there is none, or one of another
    schema, which is nobody's. Damaged for what is no such record."""
    path = folder / NAME
    content: Any = read_json(path)
    if not isinstance(content, dict | None):
        raise Damaged(f"{path}: is not what zsg writes there; {ADVICE}")
    if not content or content.keys() | {"files"} != set(SavedState.__struct_fields__):
        return None
    try:
        return convert_json(content, SavedState)
    except msgspec.ValidationError as error:
        raise Damaged(
            f"{path}: is not what zsg writes there: {error}; {ADVICE}"
        ) from None


def write_saved_state(folder: Path, state: SavedState) -> None:
    """Writes what the state in a folder is of."""
    content = msgspec.to_builtins(state)
    if state.files is None:
        del content["files"]
    write_json(folder / NAME, spell_nonfinite(content))


def find_fault(folder: Path, state: SavedState) -> str | None:
    """Which file of a state is missing or has another size than was written; None where
    all are there. Reads no file."""
    if state.files is None:
        zero_stage = state.way.get("zero_stage", 0)
        world = state.way.get("world", 1)
        return _find_lacking_kind(folder / RANKS, zero_stage, world)
    for name, size in state.files.items():
        try:
            now = (folder / name).stat().st_size
        except FileNotFoundError:
            return f"{name} is missing"
        if now != size:
            return f"{name} has {now:,} bytes, {size:,} were written"
    return None


def _find_lacking_kind(ranks: Path, zero_stage: int, world: int) -> str | None:
    """Of which kind files of DeepSpeed are missing; for states that do not list theirs.

    DeepSpeed writes the weights once, with ZeRO 3 a part of them for each of `world`
    processes; the optimiser has a file for each of them, and without ZeRO none of its own.
    """
    due = {
        "model_states": world if zero_stage == 3 else 1,
        "optim_states": world if zero_stage else 0,
    }
    for kind, count in due.items():
        present = len(list(ranks.glob(f"*_{kind}.pt")))
        if present < count:
            return f"{ranks.name}/ has {present} of {count} files *_{kind}.pt"
    return None


def find_broken_content(path: Path) -> str | None:
    """What is wrong with the content of a file that torch has written, by its check
    sums; None where all agree. Reads the whole file. OSError where the file system has
    failed: nobody can tell then."""
    import struct
    import zipfile  # `zsg status` imports this module

    unreadable = (EOFError, ValueError, RuntimeError, struct.error, zipfile.BadZipFile)
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (OSError, *unreadable) as error:
        if file_errors.is_of_file_system(error):
            raise
        return f"{path.parent.name}/{path.name} cannot be read: {error}"
    if broken is None:
        return None
    return f"{path.parent.name}/{path.name} is not what was written: {broken}"
