"""Keeps the weights of a stage for as long as a run that starts from them has not had them.

Every run that will start from `runs/<id>/weights` leaves a mark in `runs/<id>/users/`
before it is submitted, and takes it away when it is done; the last one takes the
weights with it. A run that has kept LoRA's adapters leaves its mark: they are nothing
without the weights that they are put on.
"""

import contextlib
from collections.abc import Generator, Sequence
from pathlib import Path

from jobs.contract import attempt as attempts
from jobs.contract import removal
from jobs.contract.attempt import Attempt
from jobs.contract.exit_record import ExitRecord
from jobs.contract.folder import Workspace
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
    """`run` is done with the weights of `start`; removes them if no other run wants them."""
    with _locked(workspace.run(start)) as folder:
        removal.remove_file(workspace.root, folder / run)
        if not list_weights_users(workspace, start):
            removal.discard_folder(
                workspace.root, folder.parent / "weights", removal.IN_WEIGHTS
            )


def is_still_needed(run: Path, job: TrainJob) -> bool:
    """Whether a run that is done has kept LoRA's adapters of the weights that it started from."""
    is_lora = job.train["tuning"]["method"] == "lora"
    return is_lora and any((run / "snapshots").glob("[0-9]*"))


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
