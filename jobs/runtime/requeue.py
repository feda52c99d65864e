"""Asks Slurm, from within a job, whether the job may be requeued, and requeues it.

What follows is decided in jobs.contract.continuation.
"""

import os
import re
import signal
import subprocess

from jobs.contract.continuation import SlurmAnswer
from jobs.runtime import slurm_calls, slurm_environment
from jobs.runtime.slurm_calls import Runner, run_program

PATIENCE_S = 30.0


def ask_slurm(job_id: str, submission: str, run: Runner = run_program) -> SlurmAnswer:
    """Asks Slurm of this job of a submission; by its name and user, too, that the
    number is this job's."""
    output, trouble = _run_scontrol(["show", "job", "--oneliner", job_id], run)
    if trouble:
        return SlurmAnswer(trouble=trouble)
    fields = slurm_calls.read_fields(output, "JobId")
    name, user = fields.get("JobName", ""), fields.get("UserId", "")
    has_our_name = re.fullmatch(rf"zsg-.+-{re.escape(submission)}(-\d+)?", name)
    if not has_our_name or not user.endswith(f"({os.getuid()})"):
        return SlurmAnswer(
            trouble=(
                f"job {job_id} is {name or 'nobody knows what'} of {user or 'nobody knows whom'},"
                " not this"
            )
        )
    preempted_at = fields.get("PreemptTime", "None")
    return SlurmAnswer(
        may_requeue=fields.get("Requeue") != "0",
        is_preempted=preempted_at not in ("None", "N/A", "Unknown"),
    )


def requeue_job(job_id: str, run: Runner = run_program) -> str | None:
    """Puts this very job back into the queue; returns why it could not.

    Slurm then ends it: the SIGTERM that comes finds nothing left to do.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    trouble = _run_scontrol(["requeue", job_id], run)[1]
    # a preemption was quicker: once is enough
    return None if trouble and "pending" in trouble else trouble


def _run_scontrol(arguments: list[str], run: Runner) -> tuple[str, str | None]:
    """What scontrol says, and why it could not be asked: a container may lack it."""
    env = slurm_environment.make_call_environment()
    try:
        completed = run(["scontrol", *arguments], env=env, timeout=PATIENCE_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"scontrol {arguments[0]}: {error}"
    if completed.returncode:
        trouble = completed.stderr.strip()
        fallback = f"scontrol {arguments[0]} ended with {completed.returncode}"
        return "", trouble or fallback
    return completed.stdout, None
