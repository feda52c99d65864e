"""exit.json: how the newest attempt of a job ended, and what follows from it."""

from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from jobs.contract.folder import SCHEMA, Damaged, Unreadable
from jobs.contract.records import read_record, write_record
from jobs.contract.states import Outcome

NAME = "exit.json"

Loss = float | str | None  # a loss that is no number is a text


class ExitRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The end of one attempt. What is unset, jobs of that kind do not tell, or an older
    zsg did not.

    `nonce` and `submission` are those of the attempt. `ended`: ms since the epoch. `saved`: the
    newest saved step. `signature`: equal for failures of one kind. `continued`,
    `stalled`, `goes_on`: see jobs.contract.continuation. A train job tells its progress
    (`steps`, `first`, `loss`, …), its checkpoints and snapshots, and in `notes` what
    there is to know of its examples; an evaluate job what it `scored`; a canary what it
    saw of its `run`. `other_versions`: which versions of its node are others than those
    of the submit, in a sentence. `from_step`, `last_step`: at which this
    attempt began to train, and the last that it took.
    """

    schema: int = SCHEMA
    attempt: int
    submission: str
    nonce: str
    slurm_job_id: str | None = None
    outcome: Outcome
    cause: str | None = None
    evidence: str | None = None
    step: int | None = None
    ended: int = 0
    signature: str | UnsetType | None = UNSET
    saved: int | UnsetType | None = UNSET
    continued: int | UnsetType = UNSET
    stalled: int | UnsetType = UNSET
    goes_on: str | UnsetType | None = UNSET
    steps: int | UnsetType | None = UNSET
    first: int | UnsetType = UNSET
    examples: int | UnsetType = UNSET
    loss: float | str | UnsetType | None = UNSET
    digest: str | UnsetType | None = UNSET
    weights: str | UnsetType | None = UNSET
    skipped: int | UnsetType = UNSET
    snapshots: list[dict[str, Any]] | UnsetType = UNSET
    world: int | UnsetType = UNSET
    checkpoints: list[int] | UnsetType = UNSET
    quick: dict[str, list[int]] | UnsetType = UNSET
    scored: int | UnsetType = UNSET
    swaps: int | UnsetType = UNSET
    loads: int | UnsetType = UNSET
    lost: int | UnsetType = UNSET
    run: str | UnsetType = UNSET
    tokens_per_s: float | str | UnsetType | None = UNSET
    notes: list[str] | UnsetType = UNSET
    other_versions: str | UnsetType | None = UNSET
    from_step: int | UnsetType = UNSET
    last_step: int | UnsetType = UNSET

    @property
    def reached(self) -> int:
        """The step that it came to: stopped while it started, it is where it was."""
        return self.step or replace_unset(self.saved) or 0

    @property
    def why(self) -> str:
        """Why it ended, in its own words."""
        return ": ".join(
            str(text) for text in (self.cause or self.outcome, self.evidence) if text
        )


def replace_unset(value: Any, otherwise: Any = None) -> Any:
    """The value of a field, or another one where it is unset."""
    return otherwise if value is UNSET else value


def read_exit_record(folder: Path) -> ExitRecord | None:
    """How the last attempt that told its end has ended, which need not be the newest
    one; None if none has.

    Damaged for what is no such record.
    """
    return read_record(folder / NAME, ExitRecord)


def read_if_sound(folder: Path) -> ExitRecord | None:
    """The same for who goes on without it: one that is damaged is none, and the next
    end replaces it. Unreadable where nobody can tell."""
    try:
        return read_exit_record(folder)
    except Unreadable:
        raise
    except Damaged:
        return None


def write_exit_record(folder: Path, record: ExitRecord) -> None:
    """Writes how the newest attempt ended."""
    write_record(folder / NAME, record)


def locate_exit_record(folder: Path) -> Path:
    """Where the record is, for people and for the time of its change."""
    return folder / NAME
