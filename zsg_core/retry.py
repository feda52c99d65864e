"""Retry policies: how long to wait before a failed call is made once more, and when to
give up.

The waits of a backoff double and are drawn at random (full jitter: AWS Architecture
Blog, "Exponential Backoff And Jitter"): a hundred jobs that lost the same server must
not come back to it together.
"""

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")
MOST_DOUBLINGS = 20  # beyond it every wait is the longest, and floats stay small


def _asks_for_no_wait(error: Exception) -> float:  # noqa: ARG001  as a server's wish is read
    return 0.0


def _tell_nobody(error: Exception, wait_s: float) -> None:
    """Says nothing of a retry."""


@dataclass(frozen=True, kw_only=True)
class RetryPolicy(ABC):
    """When a call that failed is retried. `choose_wait_s` decides, `call` does it.

    `clock` (seconds) and `sleep` are the only touch with time: tests give their own.
    """

    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)

    @abstractmethod
    def choose_wait_s(
        self, failures: int, elapsed_s: float, asked_s: float = 0.0
    ) -> float | None:
        """Seconds to wait after the failure of this number, the first being 1; None to
        give up.

        `elapsed_s`: since the first call began; `asked_s`: how long the server asks to wait.
        """

    def call(
        self,
        do: Callable[[], T],
        is_transient: Callable[[Exception], bool],
        asked_s: Callable[[Exception], float] = _asks_for_no_wait,
        tell: Callable[[Exception, float], None] = _tell_nobody,
    ) -> T:
        """What `do` returns, retried until it does; raises its error if that is not
        transient, or the policy gives up.

        `do` must be safe to be done twice: what failed may have been done. `asked_s`:
        how long an error asks to wait. `tell` hears of an error and the wait that follows.
        """
        began, failures = self.clock(), 0
        while True:
            try:
                return do()
            except Exception as error:
                if not is_transient(error):
                    raise
                failures += 1
                wait_s = self.choose_wait_s(
                    failures, self.clock() - began, asked_s(error)
                )
                if wait_s is None:
                    raise
                tell(error, wait_s)
            self.sleep(wait_s)


@dataclass(frozen=True)
class ExponentialBackoff(RetryPolicy):
    """Waits that double from `first_s` to `longest_s`, each drawn from its upper half.

    One retry there always is; later ones only where their wait ends within `limit_s`
    of the first call. What a server asks for is waited, up to `limit_s`.
    """

    limit_s: float = 60.0
    first_s: float = 0.1
    longest_s: float = 10.0
    chance: random.Random = field(default_factory=random.Random, repr=False)

    def choose_wait_s(
        self, failures: int, elapsed_s: float, asked_s: float = 0.0
    ) -> float | None:
        """See RetryPolicy; drawn anew each time."""
        doubled_s = self.first_s * 2 ** min(failures - 1, MOST_DOUBLINGS)
        upper_s = min(self.longest_s, doubled_s)
        drawn_s = self.chance.uniform(upper_s / 2, upper_s)
        wait_s = max(drawn_s, min(asked_s, self.limit_s))
        if failures > 1 and elapsed_s + wait_s > self.limit_s:
            return None
        return wait_s


@dataclass(frozen=True)
class FixedWaits(RetryPolicy):
    """The waits in turn; after the last of them one more call, and then the end."""

    waits_s: tuple[float, ...] = ()

    def choose_wait_s(
        self,
        failures: int,
        elapsed_s: float,  # noqa: ARG002  its limit is the number of waits
        asked_s: float = 0.0,  # noqa: ARG002  a command of Slurm asks for no wait
    ) -> float | None:
        """See RetryPolicy."""
        if failures > len(self.waits_s):
            return None
        return self.waits_s[failures - 1]
