"""decision.json: what came of a look at a study's claims; written by the job that looks,
read by submits and people."""

from pathlib import Path

import msgspec

from jobs.contract.folder import SCHEMA
from jobs.contract.records import read_record, write_record

NAME = "decision.json"
FOLDER = "looks"


class LookDecision(msgspec.Struct, frozen=True, kw_only=True):
    """What a look says. `is_over`: nothing more is trained; `why`: in a sentence;
    `claims`: of each claim and group its word. `at`: ms since the epoch."""

    schema: int = SCHEMA
    grid: str
    number: int
    splits: int
    is_over: bool
    why: str
    claims: list[str]
    at: int


def read_decision(folder: Path) -> LookDecision | None:
    """The decision of a look's folder; None if none was made."""
    return read_record(folder / NAME, LookDecision)


def write_decision(folder: Path, decision: LookDecision) -> None:
    """Writes the decision of a look."""
    write_record(folder / NAME, decision)
