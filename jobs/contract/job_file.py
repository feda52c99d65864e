"""job.json: what a job is to do, written by the launcher before the job is submitted,
read by whoever looks at it."""

from pathlib import Path
from typing import Any

from jobs.contract.folder import JOB, Damaged, read_json, write_json
from jobs.contract.records import refuse_newer


def read(folder: Path) -> dict[str, Any] | None:
    """The job of a folder; None if there is none. Damaged for what is no job, or one of
    a newer zsg."""
    job = read_json(path(folder))
    refuse_newer(path(folder), job)
    if job is not None and not isinstance(job, dict):
        raise Damaged(f"{path(folder)}: is no job; zsg submit writes it anew")
    return job


def read_if_sound(folder: Path) -> dict[str, Any]:
    """The same for who goes on without it: empty where there is none, or one that
    cannot be read."""
    try:
        return read(folder) or {}
    except Damaged:
        return {}


def is_there(folder: Path) -> bool:
    """Whether a folder holds a job."""
    return path(folder).is_file()


def path(folder: Path) -> Path:
    """Where a folder's job is, for people."""
    return folder / JOB


def write(folder: Path, job: dict[str, Any]) -> None:
    """Writes the job of a folder."""
    write_json(folder / JOB, job)
