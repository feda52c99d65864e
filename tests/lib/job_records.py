"""A whole job of each kind, of which a test says only what it is about."""

import json
from pathlib import Path
from typing import Any

import msgspec

from jobs.contract.folder import write_json
from jobs.contract.job_file import AnyJob, job_path

GOLDEN = Path(__file__).resolve().parents[1] / "golden/jobs"
NAMES = {"sample": "sampled.sample"}


def job_fields(kind: str = "train", **changes: Any) -> dict[str, Any]:
    """The fields of a job.json. Of `paths`, `resources` and the like only the keys that
    are given change."""
    name = NAMES.get(kind, f"local.{kind}")
    fields = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    for key, value in changes.items():
        is_part = isinstance(value, dict) and isinstance(fields.get(key), dict)
        fields[key] = fields[key] | value if is_part else value
    return fields


def write_job_file(folder: Path, kind: str = "train", **changes: Any) -> None:
    """Such a job.json in a folder."""
    write_json(job_path(folder), job_fields(kind, **changes))


def job_record(kind: str = "train", **changes: Any) -> Any:
    """Such a job, as its readers have it."""
    return msgspec.convert(job_fields(kind, **changes), AnyJob)
