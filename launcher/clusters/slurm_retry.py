"""Retries calls to Slurm while its controller is away, and tells that from a refusal."""

import time
from collections.abc import Callable
from typing import TypeVar

from zsg_core.errors import ClusterError

# between tries, where the controller is away: it restarts within a minute
PAUSES_S = (2.0, 5.0, 10.0, 20.0, 40.0)
AWAY = (
    "unable to contact slurm controller",
    "socket timed out",
    "connection refused",
    "connection reset",
    "zero bytes were transmitted",
    "slurm_persist_conn",
    "resource temporarily unavailable",
    "connection timed out",
    "slurm backup controller in standby",
    "communication connection failure",
    "slurm temporarily unable",
)

Say = Callable[[str], None]
T = TypeVar("T")


def retry_while_unreachable(
    ask: Callable[[], T], say: Say, sleep: Callable[[float], None] = time.sleep
) -> T:
    """The answer of a call to Slurm, retried for a minute and a half while the
    controller is away."""
    for pause in PAUSES_S:
        try:
            return ask()
        except ClusterError as error:
            if not is_unreachable(error):
                raise
            say(
                f"Slurm does not answer ({get_last_line(error)}); retrying in {pause:g} s"
            )
            sleep(pause)
    return ask()


def is_unreachable(error: ClusterError) -> bool:
    """Whether the controller did not answer, which may pass, in place of refusing,
    which does not."""
    return any(words in str(error).lower() for words in AWAY)


def get_last_line(error: ClusterError) -> str:
    """The last line of what a command of Slurm complained."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else "nothing"
