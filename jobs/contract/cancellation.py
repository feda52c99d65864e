"""Keeps the wish that a job stop, so that no requeue, no link of a chain and no late start revives it.

`cancel.json` is written before anything is signalled, and names the submission that it stops: what is submitted later
is not meant.
"""

from pathlib import Path
from typing import Any

from jobs.contract.attempt import now_ms
from jobs.contract.causes import Cause
from jobs.contract.folder import SCHEMA, read_json, write_json

TOLD = {"cause": Cause.CANCELLED, "evidence": "by zsg cancel"}  # in the exit record


def ask(folder: Path, submission: str, save: bool) -> None:
    """Asks the job of a folder to stop; `save`: it may first save its state."""
    write_json(folder / "cancel.json", {"schema": SCHEMA, "submission": submission, "save": save, "asked": now_ms()})


def asked(folder: Path, submission: str) -> dict[str, Any] | None:
    """The wish that this submission's job stop, or None."""
    row = read_json(folder / "cancel.json")
    return row if row and row["submission"] == submission else None


def is_asked(folder: Path) -> bool:
    """Whether the job that a folder now describes is to stop."""
    job = read_json(folder / "job.json")
    return job is not None and asked(folder, job["submission"]) is not None
