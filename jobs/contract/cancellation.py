"""Keeps the wish that a job stop, so that no requeue, no link of a chain and no late
start revives it.

`cancel.json` is written before anything is signalled, and names the submission that it
stops: what is submitted later is not meant.
"""

from pathlib import Path

import msgspec
from msgspec import UNSET, UnsetType

from jobs.contract import job_file
from jobs.contract.attempt import now_ms
from jobs.contract.causes import Cause
from jobs.contract.folder import SCHEMA
from jobs.contract.records import read_record, write_record

NAME = "cancel.json"
TOLD = {"cause": Cause.CANCELLED, "evidence": "by zsg cancel"}  # in the exit record


class CancelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The wish that a submission's job stop; `save`: it may first save its state.
    `asked`: ms since the epoch; `why`: in words, where it was no user who asked."""

    schema: int = SCHEMA
    submission: str
    save: bool
    asked: int
    why: str | UnsetType = UNSET

    @property
    def is_spared(self) -> bool:
        """Whether it was a look at the claims that asked."""
        return not isinstance(self.why, UnsetType)

    @property
    def facts(self) -> dict[str, str]:
        """What the exit record says of it."""
        if isinstance(self.why, UnsetType):
            return dict(TOLD)
        return {"cause": Cause.SPARED, "evidence": self.why}


def request_cancellation(
    folder: Path, submission: str, save: bool, why: str | None = None
) -> None:
    """Asks the job of a folder to stop; `save`: it may first save its state; `why`: in
    words, where no user asked."""
    request = CancelRequest(
        submission=submission, save=save, asked=now_ms(), why=why or UNSET
    )
    write_record(folder / NAME, request)


def read_cancellation(folder: Path, submission: str) -> CancelRequest | None:
    """The wish that this submission's job stop, or None."""
    request = read_record(folder / NAME, CancelRequest)
    return request if request and request.submission == submission else None


def is_asked(folder: Path) -> bool:
    """Whether the job that a folder now describes is to stop."""
    job = job_file.read_job(folder)
    return job is not None and read_cancellation(folder, job.submission) is not None
