"""Starts the delivery of runs from the node that fills their journals, where the
profile says that it reaches MLflow.

It is a process of its own and of low priority, which reads the journal as it grows:
training waits for no server, and DeepSpeed finds no MLflow. It ends soon after the job,
or with it; what it has not sent, `zsg sync` sends.
"""

import importlib.machinery
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from jobs.files import ownership
from jobs.runtime.telling import tell

LOG = "live.log"


def start(folder: Path, job: dict[str, Any]) -> subprocess.Popen[bytes] | None:
    """Starts it for a job whose runs are to be delivered live. Never raises: what is
    missing is said once."""
    runs = (
        [one["run"] for one in job["serves"]]
        if job["kind"] == "evaluate"
        else [job["run_id"]]
    )
    if job["kind"] not in ("train", "evaluate") or not job["tracking"].get("live"):
        return None
    if importlib.machinery.PathFinder.find_spec("mlflow") is None:
        tell(
            "MLflow is not installed on this node: nothing is delivered live, zsg sync delivers it"
        )
        return None
    # as it lies by now; job.json names where it was submitted
    workspace = folder.absolute().parent.parent
    argv = [sys.executable, "-m", "jobs.tracking.deliver", str(workspace)]
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
        tell(f"nothing is delivered live ({error}); zsg sync delivers it")
        return None
