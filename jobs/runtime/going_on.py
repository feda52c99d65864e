"""Decides how a job goes on that its time limit has stopped: requeued, as the next link
of a chain, or not by itself.

The exit record counts how often a submission's job was stopped so (`continued`), and
how often in a row without a new state to go on from (`stalled`), and says what comes
next (`goes_on`). A preemption counts for neither.
"""

import os
import re
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jobs.contract.causes import Cause
from jobs.contract.exit_record import CONTINUE, FAILED, ExitRecord, given
from jobs.runtime import slurm_environment

REQUEUE, CHAIN = "requeue", "chain"
# set by the script of a submission: a job replayed by hand is nobody's to requeue
SUBMISSION = "ZSG_SUBMISSION"
LINKS_LEFT = "ZSG_LINKS_LEFT"  # of a chain, how many jobs wait behind this one
STALLED_MOST = 3  # starts in a row that may end without a new state
NEXT = "zsg submit goes on"
PATIENCE_S = 30.0

Run = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class Slurm:
    """What Slurm says of the job it is about to end. `trouble`: why it cannot be asked."""

    may_requeue: bool = True
    preempted: bool = False
    trouble: str | None = None


@dataclass(frozen=True)
class Stop:
    """How far a stopped job has come. `before` and `saved`: the newest saved steps at
    its start and now."""

    before: int | None
    saved: int | None
    links_left: int = 0


@dataclass(frozen=True)
class Verdict:
    """The outcome and what the exit record says of it."""

    outcome: str
    facts: dict[str, Any]

    @property
    def goes_on(self) -> str | None:
        return self.facts["goes_on"]


def decide(
    rule: Mapping[str, Any], past: ExitRecord | None, stop: Stop, slurm: Slurm
) -> Verdict:
    """What follows from a stop. `rule` is job.json's go_on; `past` the submission's
    last end, if any."""
    counted = int(not slurm.preempted)
    continued = (given(past.continued, 0) if past else 0) + counted
    is_stalled = stop.saved is None or stop.saved == stop.before
    stalled = (given(past.stalled, 0) if past else 0) + counted if is_stalled else 0
    facts: dict[str, Any] = {
        "continued": continued,
        "stalled": stalled,
        "goes_on": None,
    }
    facts["cause"] = Cause.PREEMPTED if slurm.preempted else Cause.TIME_LIMIT
    if stalled >= STALLED_MOST:
        why = f"stopped {stalled} times in a row before a new step was saved"
        return Verdict(
            FAILED,
            facts
            | {"evidence": f"{why}; give it a longer train.time_min, then zsg retry"},
        )
    if continued > rule["most"]:
        why = f"it has gone on {rule['most']} times, the most that slurm.max_continues allows"
    elif rule["by"] == CHAIN:
        if stop.links_left:
            return Verdict(
                CONTINUE,
                facts
                | {"goes_on": CHAIN, "evidence": f"{stop.links_left} links are left"},
            )
        why = "it was the last link of its chain (slurm.max_continues)"
    elif slurm.trouble:
        why = f"it cannot be requeued: {slurm.trouble}"
    elif not slurm.may_requeue:
        why = "Slurm says Requeue=0 of it"
    else:
        return Verdict(CONTINUE, facts | {"goes_on": REQUEUE, "evidence": "requeued"})
    return Verdict(CONTINUE, facts | {"evidence": f"{why}; {NEXT}"})


def ours(submission: str) -> bool:
    """Whether this process runs in a job that the submission's own script has started."""
    return os.environ.get(SUBMISSION) == submission


def links_left() -> int:
    """How many links of the chain wait behind this job."""
    return int(os.environ.get(LINKS_LEFT, "0"))


def is_replaced(submission: str) -> bool:
    """Whether the submission whose script runs here is not the one whose job the folder
    now describes."""
    return os.environ.get(SUBMISSION, submission) != submission


def look(job_id: str, submission: str, run: Run = subprocess.run) -> Slurm:
    """Asks Slurm of this job of a submission; by its name and user, too, that the
    number is this job's."""
    said, trouble = _scontrol(["show", "job", "--oneliner", job_id], run)
    if trouble:
        return Slurm(trouble=trouble)
    words = dict(word.split("=", 1) for word in said.split() if "=" in word)
    name, user = words.get("JobName", ""), words.get("UserId", "")
    if not re.fullmatch(
        rf"zsg-.+-{re.escape(submission)}(-\d+)?", name
    ) or not user.endswith(f"({os.getuid()})"):
        return Slurm(
            trouble=(
                f"job {job_id} is {name or 'nobody knows what'} of {user or 'nobody knows whom'},"
                " not this"
            )
        )
    return Slurm(
        words.get("Requeue") != "0",
        words.get("PreemptTime", "None") not in ("None", "N/A", "Unknown"),
    )


def requeue(job_id: str, run: Run = subprocess.run) -> str | None:
    """Puts this very job back into the queue; returns why it could not.

    Slurm then ends it: the SIGTERM that comes finds nothing left to do.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    trouble = _scontrol(["requeue", job_id], run)[1]
    # a preemption was quicker: once is enough
    return None if trouble and "pending" in trouble else trouble


def _scontrol(argv: list[str], run: Run) -> tuple[str, str | None]:
    """What scontrol says, and why it could not be asked: a container may lack it."""
    try:
        env = slurm_environment.of_calls()
        done = run(
            ["scontrol", *argv],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE_S,
            env=env,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"scontrol {argv[0]}: {error}"
    if done.returncode:
        return (
            "",
            done.stderr.strip() or f"scontrol {argv[0]} ended with {done.returncode}",
        )
    return done.stdout, None
