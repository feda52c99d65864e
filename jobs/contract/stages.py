"""Keeps the weights of a stage for as long as a run that starts from them has not had them.

Every run that will start from `runs/<id>/weights` leaves a mark in `runs/<id>/users/`
before it is submitted, and takes it away when it is done; the last one takes the
weights with it. A run that has kept LoRA's adapters leaves its mark: they are nothing
without the weights that they are put on. So does one whose adapters another stage is to
start from; where these go, its mark may go, too.
"""

import contextlib
from collections.abc import Generator, Sequence
from pathlib import Path

from jobs.contract import attempt as attempts
from jobs.contract import job_file, removal
from jobs.contract.attempt import Attempt
from jobs.contract.exit_record import ExitRecord
from jobs.contract.folder import Workspace, is_committed
from jobs.contract.job_file import TrainJob
from jobs.contract.states import Outcome
from jobs.files import locks, ownership


def note_weights_user(workspace: Workspace, start: str, run: str) -> None:
    """Notes that `run` is going to start from the weights of `start`."""
    with _locked(workspace.run(start)) as users:
        (users / run).touch()


def list_weights_users(workspace: Workspace, start: str) -> list[str]:
    """The runs that still want the weights of `start`."""
    return sorted(path.name for path in (workspace.run(start) / "users").glob("[!.]*"))


def release_weights(workspace: Workspace, start: str, run: str) -> None:
    """`run` is done with the weights of `start`; removes them if no other run wants them,
    and so on with those that adapters among them were put on."""
    with _locked(workspace.run(start)) as folder:
        removal.remove_file(workspace.root, folder / run)
        if list_weights_users(workspace, start):
            return
        weights = folder.parent / "weights"
        removal.discard_folder(workspace.root, weights, removal.IN_WEIGHTS)
    job = _read_done_job(workspace, start)
    if job and job.before and not is_still_needed(workspace.run(start), job):
        release_weights(workspace, job.before[-1], start)


def is_still_needed(run: Path, job: TrainJob) -> bool:
    """Whether a run that is done has kept LoRA's adapters of the weights that it started
    from: snapshots, or what other runs are to start from."""
    if job.train["tuning"]["method"] != "lora":
        return False
    return any((run / "snapshots").glob("[0-9]*")) or is_committed(run / "weights")


def find_continued(job: TrainJob) -> Path | None:
    """The folder of the adapters that a stage trains on; None where it starts from
    weights, be they those that adapters are added to."""
    if not job.before:
        return None
    before, own = (stage["train"]["tuning"] for stage in job.recipe["stages"][-2:])
    has_both = before["method"] == own["method"] == "lora"
    is_continued = has_both and own.get("start") != "merge"
    return job.base_folder if is_continued else None


def _read_done_job(workspace: Workspace, run: str) -> TrainJob | None:
    """The job of a run that is done; None for one that may yet start from its weights, or
    of which that cannot be told."""
    folder = workspace.run(run)
    end = attempts.end_of_newest(folder)
    if end is None or end.outcome != Outcome.DONE:
        return None
    job = job_file.read_job_if_sound(folder)
    return job if isinstance(job, TrainJob) else None


def read_newest_stage(
    folders: Sequence[Path],
) -> tuple[Attempt | None, ExitRecord | None]:
    """The attempt of the newest of a run's stages that has begun, and how it ended;
    `folders` has the run's own last.

    No end while it is under way; nor of an earlier stage that is done, after which the run goes on.
    """
    for folder in reversed(folders):
        if attempt := attempts.read_attempt(folder):
            end = attempts.end_of_newest(folder)
            is_over = end is not None and (
                end.outcome != Outcome.DONE or folder == folders[-1]
            )
            return attempt, end if is_over else None
    return None, None


@contextlib.contextmanager
def _locked(start: Path) -> Generator[Path]:
    folder = start / "users"
    ownership.make_folder(folder)
    with locks.hold_lock(folder / ".lock"):
        yield folder
