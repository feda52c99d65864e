"""Starts the delivery of runs from the node that fills their journals, where the
profile says that it reaches MLflow.

It is a process of its own and of low priority, which reads the journal as it grows:
training waits for no server, and DeepSpeed finds no MLflow. It ends soon after the job,
or with it; what it has not sent, `zsg sync` sends.
"""

import importlib.machinery
import logging
import os
import subprocess
import sys
from pathlib import Path

from jobs.contract.job_file import AnyJob, TrainJob, runs_served
from jobs.files import ownership

logger = logging.getLogger(__name__)

LOG = "live.log"


def start_delivery(folder: Path, job: AnyJob) -> subprocess.Popen[bytes] | None:
    """Starts it for a job whose runs are to be delivered live. Never raises: what is
    missing is said once."""
    runs = _runs_of(job)
    if not runs or not job.tracking.live:
        return None
    if importlib.machinery.PathFinder.find_spec("mlflow") is None:
        logger.warning(
            "MLflow is not installed on this node: nothing is delivered live, zsg sync delivers it"
        )
        return None
    # as it lies by now; job.json names where it was submitted
    workspace = folder.absolute().parent.parent
    argv = [sys.executable, "-m", "jobs.tracking.mlflow_sync", str(workspace)]
    argv += ["--run", *runs, "--follow", str(os.getpid())]
    quiet = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    try:
        ownership.make_folder(folder / "delivery")
        # Its own log: with the job's it would hold open what srun waits for.
        with (folder / "delivery" / LOG).open("ab") as log:
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=os.environ | quiet,
            )
    except OSError as error:
        logger.warning(f"nothing is delivered live ({error}); zsg sync delivers it")
        return None


def _runs_of(job: AnyJob) -> list[str]:
    """The runs whose journals a job fills."""
    if isinstance(job, TrainJob):
        return [job.run_id]
    return [served.run for served in runs_served(job)]
