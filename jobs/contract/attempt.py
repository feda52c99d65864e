"""Says which start of a job may write: the newest attempt owns the folder, all others exit without writing.

Slurm may requeue a job while ranks of its last start still live. Each start writes `attempt.json`; every
commit and every journal flush first reads it back, and an attempt that finds another's nonce stops.
"""

import os
import socket
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.contract import causes
from jobs.contract.folder import SCHEMA, read_json, write_json

DONE, CONTINUE, FAILED, CANCELLED = "done", "continue", "failed", "cancelled"


class Superseded(Exception):
    """A newer attempt owns the folder; whoever sees this must not write."""


@dataclass(frozen=True)
class Attempt:
    """One start of a job. `submission` ties it to the launcher's ledger, the rest to the scheduler."""

    attempt: int
    submission: str
    slurm_job_id: str | None
    restart_count: int
    nonce: str
    host: str
    started: int
    pid: int = 0  # of rank 0, on `host`
    schema: int = SCHEMA


def slurm_job_id() -> str | None:
    """The id as squeue shows it, `123_4` for a task of an array; None outside Slurm."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if array:
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def restart_count() -> int:
    """How often Slurm has requeued this job."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


def node() -> str:
    """This node, by Slurm's name for it."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def where(attempt: Attempt) -> dict[str, Any]:
    """Where an attempt runs, as its journal tells it: the scheduler's id, and the nodes as Slurm writes them."""
    return {"slurm_job_id": attempt.slurm_job_id, "nodes": os.environ.get("SLURM_JOB_NODELIST", attempt.host)}


def begin(folder: Path, submission: str) -> Attempt:
    """Takes the folder over: the attempt after the last one, with a nonce of its own."""
    last = read_json(folder / "attempt.json")
    attempt = Attempt(
        attempt=last["attempt"] + 1 if last else 1,
        submission=submission,
        slurm_job_id=slurm_job_id(),
        restart_count=restart_count(),
        nonce=uuid.uuid4().hex,
        host=node(),
        started=now_ms(),
        pid=os.getpid(),
    )
    write_json(folder / "attempt.json", asdict(attempt))
    return attempt


def done_before(folder: Path, submission: str) -> bool:
    """Whether this very job had told that it was done before Slurm started it again, or its chain's next link."""
    record = read_json(folder / "exit.json") or {}
    if (record.get("outcome"), record.get("submission")) != (DONE, submission):
        return False
    ours, theirs = slurm_job_id(), record.get("slurm_job_id")
    return restart_count() > 0 if ours == theirs else None not in (ours, theirs)


def await_begin(folder: Path, timeout_s: float) -> Attempt | None:
    """For ranks other than 0: the attempt that rank 0 of this very start wrote, or None after the time-out."""
    until = time.monotonic() + timeout_s
    while True:
        row = read_json(folder / "attempt.json")
        if row and (row["slurm_job_id"], row["restart_count"]) == (slurm_job_id(), restart_count()):
            return Attempt(**row)
        if time.monotonic() > until:
            return None
        time.sleep(0.1)


def check(folder: Path, attempt: Attempt) -> None:
    """Raises Superseded if a newer attempt owns the folder."""
    row = read_json(folder / "attempt.json")
    if not row or row["nonce"] != attempt.nonce:
        raise Superseded(f"{folder} belongs to attempt {row['attempt'] if row else '?'}, this is {attempt.attempt}")


def end(folder: Path, attempt: Attempt, outcome: str, **facts: Any) -> None:
    """Writes exit.json, unless the attempt is superseded or another rank has already said why it ended.

    What only followed from something gives way to what it followed from.
    """
    check(folder, attempt)
    last = read_json(folder / "exit.json")
    if last and last["nonce"] == attempt.nonce and not causes.precedes(facts.get("cause"), last["cause"]):
        return
    record = {"schema": SCHEMA, "attempt": attempt.attempt, "submission": attempt.submission}
    record |= {"nonce": attempt.nonce, "slurm_job_id": attempt.slurm_job_id, "outcome": outcome}
    record |= {"cause": None, "evidence": None, "step": None, "ended": now_ms(), **facts}
    write_json(folder / "exit.json", record)


def amend(folder: Path, attempt: Attempt, **facts: Any) -> None:
    """Corrects what this attempt has told of its end."""
    check(folder, attempt)
    write_json(folder / "exit.json", (read_json(folder / "exit.json") or {}) | facts)


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000
