"""Says what a signal asks of a job, and what all ranks make of it together: continue, save, stop.

Slurm announces a time limit by USR1 or USR2 (`--signal`), a preemption by the same
where the site asks for it. scancel, requeue and plain preemption send SIGTERM, and
SIGKILL after KillWait.
"""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

from jobs.contract.states import Outcome

# what the signals of all ranks amount to: the highest counts
CONTINUE, LEAVE, PAUSE = 0, 1, 2
MARGIN_S = 10.0  # of KillWait, kept for the way out
# on a preemption slurmstepd and srun each send a SIGTERM: that is one request
SAME_S = 5.0


class Signals:
    """Remembers the first signal that asks this process to stop; asked again to end, it
    ends at once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Takes over the four signals by which Slurm or a user ends a job: from here on
        none ends the process by itself. Only the main thread may do that. `clock` gives
        seconds and never goes back."""
        self.received: int | None = None
        self._clock = clock
        self._since = 0.0
        self._told_to_end: float | None = None
        self._watched = False
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        now = self._clock()
        if self.received is None:
            self.received, self._since = number, now
        if self._asks_again(number, now) or not self._watched:
            raise KeyboardInterrupt

    def _asks_again(self, number: int, now: float) -> bool:
        """The SIGTERM after a USR2 is the time limit itself: the save that is under way
        may still end."""
        if number not in (signal.SIGTERM, signal.SIGINT):
            return False
        first, self._told_to_end = self._told_to_end, self._told_to_end or now
        return first is not None and (number == signal.SIGINT or now - first > SAME_S)

    def watch(self) -> None:
        """From now on a first signal only sets the flag: the caller promises to ask for it."""
        self._watched = True

    @property
    def asks(self) -> int:
        """CONTINUE, LEAVE or PAUSE."""
        if self.received is None:
            return CONTINUE
        return PAUSE if self.received in (signal.SIGUSR1, signal.SIGUSR2) else LEAVE

    @property
    def waited_s(self) -> float:
        """How long ago the signal came; 0 without one."""
        return self._clock() - self._since if self.received else 0.0

    @property
    def name(self) -> str | None:
        return signal.Signals(self.received).name if self.received else None


def choose_outcome(request: int) -> Outcome:
    """How a job ends that stops for what was asked: paused, it was not ended but stopped."""
    return Outcome.CONTINUE if request == PAUSE else Outcome.CANCELLED


@dataclass(frozen=True)
class StepAction:
    """What every rank does after a step."""

    save: bool
    stop: bool


def choose_step_action(request: int, due: bool, fits: bool) -> StepAction:
    """`request`: by the signals of all ranks. `due`: a state is. `fits`: a save ends well
    before SIGKILL."""
    if request == CONTINUE:
        return StepAction(save=due, stop=False)
    return StepAction(save=request == PAUSE or fits, stop=True)


def save_fits(last_save_s: float | None, waited_s: float, kill_wait_s: float) -> bool:
    """Whether a save as long as the last one, begun now, ends before SIGKILL; of one
    never measured nobody knows."""
    return last_save_s is not None and waited_s + last_save_s <= kill_wait_s - MARGIN_S


def compute_seconds_left(
    request: int, save_s: float, waited_s: float, kill_wait_s: float
) -> float | None:
    """Seconds for what is being written, before a save of `save_s` and SIGKILL; None:
    as long as it takes."""
    return (
        max(0.0, kill_wait_s - MARGIN_S - waited_s - save_s)
        if request == LEAVE
        else None
    )


def is_due(
    step: int, every: int | None, since_s: float, every_min: float | None
) -> bool:
    """Whether a state is to be saved after `step`, `since_s` seconds after the last one."""
    return bool(every and step % every == 0) or bool(
        every_min and since_s >= 60 * every_min
    )
