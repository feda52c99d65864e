"""Retries calls to Slurm while its controller is away, and tells that from a refusal."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from zsg_core.errors import ClusterError
from zsg_core.retry import FixedWaits

logger = logging.getLogger(__name__)

# between tries, where the controller is away: it restarts within a minute
WAITS_S = (2.0, 5.0, 10.0, 20.0, 40.0)
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
    "did not answer within",
)

T = TypeVar("T")


def make_retry_policy(sleep: Callable[[float], None] = time.sleep) -> FixedWaits:
    """How calls are retried while the controller is away: for a minute and a half."""
    return FixedWaits(waits_s=WAITS_S, sleep=sleep)


def retry_while_unreachable(
    ask: Callable[[], T], sleep: Callable[[float], None] = time.sleep
) -> T:
    """The answer of a call to Slurm, retried while the controller is away."""

    def tell(error: Exception, wait_s: float) -> None:
        logger.warning(
            f"Slurm does not answer ({get_last_line(error)}); retrying in {wait_s:g} s"
        )

    return make_retry_policy(sleep).call(ask, is_unreachable, tell=tell)


def is_unreachable(error: Exception) -> bool:
    """Whether the controller did not answer, which may pass, in place of refusing,
    which does not."""
    if not isinstance(error, ClusterError):
        return False
    return any(words in str(error).lower() for words in AWAY)


def get_last_line(error: Exception) -> str:
    """The last line of what a command of Slurm complained."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else "nothing"
