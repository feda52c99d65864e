"""Has a snapshot of LoRA's adapters written as a plain model's folder, in a process of its
own: torch is not imported here."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.contract import job_file, snapshots
from jobs.contract.folder import Workspace
from jobs.contract.job_file import TrainJob
from jobs.files.paths import expand_home
from launcher.status import queries
from launcher.workspace import extras
from zsg_core.errors import ClusterError, UserError

PRECISIONS = ("bf16", "fp16", "fp32")


@dataclass(frozen=True, kw_only=True)
class Merged:
    """A folder that was written; for the rest see jobs.training.merge_snapshot."""

    run: str
    step: int
    folder: Path
    dtype: str
    untied: bool
    parameters: int
    difference: float


def merge_run(
    text: str,
    find_workspace: Callable[[], Workspace],
    step: int | None,
    folder: Path | None,
    precision: str | None,
) -> Merged:
    """Merges a run's snapshot of a step, the newest by default, into a folder that must
    not be there: by default <run>-<step> where the user is.

    `text`: the unique prefix of a run's id. UserError for what has no adapters, no such
    snapshot, or a folder that is there.
    """
    workspace = find_workspace()
    item = queries.find_item(workspace, text)
    run = workspace.root / item
    job = job_file.read_train_job(run) if item.startswith("runs/") else None
    if job is None:
        raise UserError(f"{text}: is no run, and zsg merge merges a run's adapters")
    _refuse_whole(run, job)
    chosen = _choose_step(run, step)
    if precision not in (None, *PRECISIONS):
        raise UserError(
            f"--precision: {precision!r} is none of {', '.join(PRECISIONS)}"
        )
    target = _choose_folder(folder or Path(f"{job.run_id}-{chosen}"))
    if why := extras.describe_missing(
        "zsg merge", ("torch", "transformers", "peft"), "train"
    ):
        raise UserError(why)
    snapshot = snapshots.folder_of(run, chosen)
    told = _run(snapshot, target, precision or job.train["precision"])
    return Merged(run=job.run_id, step=chosen, folder=target, **told)


def _refuse_whole(run: Path, job: TrainJob) -> None:
    """UserError for a run whose snapshots are whole models already."""
    method = job.train["tuning"]["method"]
    if method != "lora":
        raise UserError(
            f"{job.run_id} trains no adapters (train.tuning.method: {method}): its snapshots, in"
            f" {run / snapshots.FOLDER}, are plain models' folders already"
        )


def _choose_step(run: Path, step: int | None) -> int:
    steps = snapshots.find_steps(run)
    if not steps:
        raise UserError(
            f"{run.name} has no snapshot; keep some (checkpoints.snapshots, checkpoints.keep)"
        )
    if step is None:
        return steps[-1]
    if step not in steps:
        listed = ", ".join(map(str, steps))
        raise UserError(
            f"{run.name} has no snapshot of step {step}; it has those of {listed}"
        )
    return step


def _choose_folder(folder: Path) -> Path:
    """The whole path of a folder that is yet to be made. UserError for one that is there."""
    target = expand_home(folder).absolute()
    if os.path.lexists(target):
        raise UserError(
            f"{target} is there, and nothing is overwritten; give another folder (--to)"
        )
    if not target.parent.is_dir():
        raise UserError(
            f"{target.parent} is no folder; make it, or give another (--to)"
        )
    return target


def _run(snapshot: Path, folder: Path, precision: str) -> dict[str, Any]:
    """What the process says. UserError with its own words where it could not."""
    module = "jobs.training.merge_snapshot"
    process = subprocess.run(
        [sys.executable, "-m", module, str(snapshot), str(folder), precision],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONSAFEPATH": "1"},
    )
    try:
        told = json.loads(process.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        lines = process.stderr.strip().splitlines()
        last = lines[-1][:300] if lines else f"exit code {process.returncode}"
        raise ClusterError(
            f"{snapshot}: could not be merged: {last}; has this machine the memory for the model?"
        ) from None
    if "trouble" in told:
        raise UserError(told["trouble"])
    return told
