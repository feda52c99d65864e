"""Tries again what may succeed in a moment, less and less often, and gives up in the end.

The pauses double and are drawn at random (full jitter: AWS Architecture Blog,
"Exponential Backoff And Jitter"): a hundred jobs that lost the same server must not
come back to it together.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """For how long something is tried again: at the least twice, and until `limit_s`
    have gone by."""

    limit_s: float = 60.0
    first_s: float = 0.1
    most_s: float = 10.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    chance: random.Random = field(default_factory=random.Random)

    def pauses_s(self, number: int) -> float:
        """How long to wait after so many failures, the first being 0; drawn anew each time."""
        most = min(self.most_s, self.first_s * 2 ** min(number, 20))
        return self.chance.uniform(most / 2, most)

    def again(
        self,
        do: Callable[[], T],
        is_transient: Callable[[Exception], bool],
        asked_s: Callable[[Exception], float] = lambda _: 0.0,
    ) -> T:
        """What `do` returns, tried until it does; raises its error if that is not
        transient, or patience has ended.

        `do` must be safe to be done twice: what failed may have been done. `asked_s`:
        how long an error asks to wait, which is done unless patience ends before.
        """
        began, failures = self.clock(), 0
        while True:
            try:
                return do()
            except Exception as error:
                pause_s = max(
                    self.pauses_s(failures), min(asked_s(error), self.limit_s)
                )
                if not is_transient(error) or (
                    failures and self.clock() - began + pause_s > self.limit_s
                ):
                    raise
            failures += 1
            self.sleep(pause_s)
