"""Marks in a job's log where an attempt begins: Slurm appends all attempts of a job to one file per rank."""

import re
import time
from dataclasses import dataclass

from jobs.attempt import Attempt

PATTERN = re.compile(rb"^=== zsg attempt (\d+), rank (\d+) of (\d+), job (\S+), node (\S+), (\S+) ===$", re.M)


@dataclass(frozen=True)
class Mark:
    """Where in a log an attempt begins."""

    attempt: int
    offset: int  # bytes


def line(attempt: Attempt, rank: int, world: int, node: str) -> str:
    """The line that a rank writes once it knows its attempt."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    job = attempt.slurm_job_id or "local"
    return f"=== zsg attempt {attempt.attempt}, rank {rank} of {world}, job {job}, node {node}, {now} ==="
