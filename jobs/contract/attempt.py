"""Says which start of a job may write: the newest attempt owns the folder, all others
exit without writing.

Slurm may requeue a job while ranks of its last start still live. Each start writes
`attempt.json`; every commit and every journal flush first reads it back, and an attempt
that finds another's nonce stops.
"""

import os
import socket
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from jobs.contract import causes, exit_record
from jobs.contract.exit_record import ExitRecord
from jobs.contract.folder import SCHEMA
from jobs.contract.records import read_record, write_record
from jobs.contract.states import Outcome

NAME = "attempt.json"


class Superseded(Exception):
    """A newer attempt owns the folder; whoever sees this must not write."""


class Attempt(msgspec.Struct, frozen=True):
    """One start of a job. `submission` ties it to the launcher's ledger, the rest to
    the scheduler. `gpus`: that it holds, on all nodes; unset where an older zsg wrote."""

    attempt: int
    submission: str
    slurm_job_id: str | None
    restart_count: int
    nonce: str
    host: str
    started: int
    pid: int = 0  # of rank 0, on `host`
    schema: int = SCHEMA
    gpus: int | UnsetType = UNSET


def slurm_job_id() -> str | None:
    """The id as squeue shows it, `123_4` for a task of an array; None outside Slurm."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if array:
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def restart_count() -> int:
    """How often Slurm has requeued this job."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


def get_node_name() -> str:
    """This node, by Slurm's name for it."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def describe_placement(attempt: Attempt) -> dict[str, Any]:
    """Where an attempt runs, as its journal tells it: the scheduler's id, and the nodes
    as Slurm writes them."""
    return {
        "slurm_job_id": attempt.slurm_job_id,
        "nodes": os.environ.get("SLURM_JOB_NODELIST", attempt.host),
    }


def read_attempt(folder: Path) -> Attempt | None:
    """The newest attempt of a folder; None if there has been none. Damaged for what is
    no attempt."""
    return read_record(folder / NAME, Attempt)


def write_attempt(folder: Path, attempt: Attempt) -> None:
    """Gives the folder to an attempt."""
    write_record(folder / NAME, attempt)


def locate_attempt(folder: Path) -> Path:
    """Where the record is, for the time of its change."""
    return folder / NAME


def is_current(record: ExitRecord | None, newest: Attempt | None) -> bool:
    """Whether an end is that of the newest attempt: none has begun since."""
    return record is not None and newest is not None and record.nonce == newest.nonce


def end_of_newest(folder: Path) -> ExitRecord | None:
    """How the newest attempt ended; None while it is under way, or if there is none."""
    record, newest = exit_record.read_exit_record(folder), read_attempt(folder)
    return record if is_current(record, newest) else None


def begin_attempt(
    folder: Path, submission: str, gpus: int | UnsetType = UNSET
) -> Attempt:
    """Takes the folder over: the attempt after the last one, with a nonce of its own.
    `gpus`: that it holds, on all nodes."""
    last = read_attempt(folder)
    attempt = Attempt(
        attempt=last.attempt + 1 if last else 1,
        submission=submission,
        slurm_job_id=slurm_job_id(),
        restart_count=restart_count(),
        nonce=uuid.uuid4().hex,
        host=get_node_name(),
        started=now_ms(),
        pid=os.getpid(),
        gpus=gpus,
    )
    write_attempt(folder, attempt)
    return attempt


def done_before(folder: Path, submission: str) -> bool:
    """Whether this very job had told that it was done before Slurm started it again, or
    its chain's next link."""
    record = exit_record.read_if_sound(folder)
    if record is None or (record.outcome, record.submission) != (
        Outcome.DONE,
        submission,
    ):
        return False
    current_job, finished_job = slurm_job_id(), record.slurm_job_id
    return (
        restart_count() > 0
        if current_job == finished_job
        else None not in (current_job, finished_job)
    )


def await_begin(folder: Path, timeout_s: float) -> Attempt | None:
    """For ranks other than 0: the attempt that rank 0 of this very start wrote, or None
    after the time-out."""
    until = time.monotonic() + timeout_s
    while True:
        newest = read_attempt(folder)
        if newest and (newest.slurm_job_id, newest.restart_count) == (
            slurm_job_id(),
            restart_count(),
        ):
            return newest
        if time.monotonic() > until:
            return None
        time.sleep(0.1)


def check_attempt(folder: Path, attempt: Attempt) -> None:
    """Raises Superseded if a newer attempt owns the folder."""
    newest = read_attempt(folder)
    if newest is None or newest.nonce != attempt.nonce:
        raise Superseded(
            f"{folder} belongs to attempt {newest.attempt if newest else '?'}, this is"
            f" {attempt.attempt}"
        )


def end_attempt(folder: Path, attempt: Attempt, outcome: Outcome, **facts: Any) -> None:
    """Writes exit.json, unless the attempt is superseded or another rank has already
    said why it ended.

    What only followed from something gives way to what it followed from. Notes on the
    run's examples stay, whichever rank has told them.
    """
    check_attempt(folder, attempt)
    last = exit_record.read_if_sound(folder)
    all_facts: dict[str, Any] = {"ended": now_ms(), **facts}
    if last is not None and is_current(last, attempt):
        if not causes.precedes(facts.get("cause"), last.cause):
            _add_missing_notes(folder, last, facts)
            return
        all_facts.setdefault("notes", last.notes)
    record = ExitRecord(
        attempt=attempt.attempt,
        submission=attempt.submission,
        nonce=attempt.nonce,
        slurm_job_id=attempt.slurm_job_id,
        outcome=outcome,
        **all_facts,
    )
    exit_record.write_exit_record(folder, record)


def _add_missing_notes(
    folder: Path, last: ExitRecord, facts: Mapping[str, Any]
) -> None:
    """Adds a rank's notes to what another rank has told of the end without any."""
    if not exit_record.replace_unset(last.notes) and "notes" in facts:
        record = msgspec.structs.replace(last, notes=facts["notes"])
        exit_record.write_exit_record(folder, record)


def amend_end(folder: Path, attempt: Attempt, **facts: Any) -> None:
    """Corrects what this attempt has told of its end."""
    check_attempt(folder, attempt)
    if record := exit_record.read_exit_record(folder):
        exit_record.write_exit_record(folder, msgspec.structs.replace(record, **facts))


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000
