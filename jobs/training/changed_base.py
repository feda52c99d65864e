"""Refuses a user's model that has changed since its runs were submitted: days may lie
between a submit and a job, and between the stages of a run."""

from pathlib import Path

from jobs.contract.job_file import TrainJob
from jobs.model.content import model_files, refuse_changed
from jobs.model.lora import find_adapted_base


def refuse_changed_base(job: TrainJob) -> None:
    """UserError where a job reads the user's folder, and it holds other weights than the
    recipe says.

    The first stage reads it, and so does every later one that puts adapters on it.
    ClusterError where weights that adapters were put on are gone.
    """
    folder = find_users_base(job)
    if folder is not None:
        refuse_changed(folder, model_files, job.recipe["base"]["digest"])


def find_users_base(job: TrainJob) -> Path | None:
    """The user's folder that a job reads weights of; None where it reads zsg's own alone."""
    if job.made.base is not None:
        return None
    if not job.before:
        return job.base_folder
    folder = find_adapted_base(job.base_folder)
    # adapters may stand on a sum of others, which again stand on the user's weights
    while folder is not None and folder.is_relative_to(job.workspace.root):
        folder = find_adapted_base(folder)
    return folder
