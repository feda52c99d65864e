"""Marks in a job's log where a start and an attempt begin: Slurm appends all starts of
a job to one file per rank.

A start is the script's, with the setup lines; an attempt is zsg's own, which begins
once Python runs.
"""

import re
import time
from dataclasses import dataclass

from jobs.contract.attempt import Attempt

PATTERN = re.compile(
    rb"^=== zsg attempt (\d+), rank (\d+) of (\d+), job (\S+), node (\S+), (\S+) ===$",
    re.M,
)
# As the script prints them, by printf.
START = "=== zsg start %s, job %s, node %s, %(%Y-%m-%dT%H:%M:%SZ)T ==="
SETUP = "=== zsg setup line %s: %s ==="
SETUP_ENDED = "=== zsg setup line %s ended with %s ==="
SETUP_DONE = "=== zsg setup done ==="
# its node and its time
START_PATTERN = re.compile(
    rb"^=== zsg start \d+, job \S+, node (\S+), (\S+) ===$", re.M
)
SETUP_PATTERN = re.compile(rb"^=== zsg setup line (\d+ of \d+): (.*) ===$", re.M)
SETUP_ENDED_PATTERN = re.compile(
    rb"^=== zsg setup line (\d+ of \d+) ended with (.*) ===$", re.M
)


@dataclass(frozen=True)
class Mark:
    """Where in a log an attempt begins."""

    attempt: int
    offset: int  # bytes


def format_attempt_mark(attempt: Attempt, rank: int, world: int, node: str) -> str:
    """The line that a rank writes once it knows its attempt."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    job = attempt.slurm_job_id or "local"
    return (
        f"=== zsg attempt {attempt.attempt}, rank {rank} of {world}, job {job}, node {node},"
        f" {now} ==="
    )
