"""state/<step>/state.json: what a saved full state of a train job is of.

The weights, the optimiser and every rank's RNG lie beside it: see jobs.training.state.
"""

from pathlib import Path
from typing import Any

import msgspec

from jobs.contract.exit_record import Loss
from jobs.contract.folder import SCHEMA, Damaged, read_json, write_json
from jobs.contract.journal import spell_nonfinite

NAME = "state.json"
ADVICE = "remove the folder of this state"


class SavedState(msgspec.Struct, frozen=True, kw_only=True):
    """One full state. `what` must be equal for a run to resume from it, and `way` too:
    see `jobs.training.state.choose_state`.

    `ids`: digest of the ids consumed so far. `what`: run_id, stage_id, recipe,
    schedule. `way`: device, world, zero_stage: how the state is cut into files.
    `journal`: bytes of every journal file when all rows up to `step` were on disk.
    `seconds`: how long the save took. `saved`: ms since the epoch.
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
    if not content or content.keys() != set(SavedState.__struct_fields__):
        return None
    try:
        return msgspec.convert(content, SavedState)
    except msgspec.ValidationError as error:
        raise Damaged(
            f"{path}: is not what zsg writes there: {error}; {ADVICE}"
        ) from None


def write_saved_state(folder: Path, state: SavedState) -> None:
    """Writes what the state in a folder is of."""
    write_json(folder / NAME, spell_nonfinite(msgspec.to_builtins(state)))
