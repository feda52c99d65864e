"""Says what a signal asks of a job, and what all ranks make of it together: go on, save, stop.

Slurm announces a time limit by USR1 or USR2 (`--signal`), a preemption by the same where the site asks for it.
scancel, requeue and plain preemption send SIGTERM, and SIGKILL after KillWait.
"""

import signal
import time
from dataclasses import dataclass
from types import FrameType

from jobs.attempt import CANCELLED, CONTINUE

GO_ON, LEAVE, PAUSE = 0, 1, 2  # what the signals of all ranks amount to: the highest counts
MARGIN_S = 10.0  # of KillWait, kept for the way out


class Signals:
    """Remembers the first signal that asks this process to stop; a second SIGTERM or SIGINT ends it at once."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._since = 0.0
        self._watched = False
        self._told_to_end = False
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        ends = number in (signal.SIGTERM, signal.SIGINT)
        again = ends and self._told_to_end  # the SIGTERM after a USR2 is the time limit itself: a save may still end
        self._told_to_end |= ends
        if self.received is None:
            self.received, self._since = number, time.monotonic()
        if again or not self._watched:
            raise KeyboardInterrupt

    def watch(self) -> None:
        """From now on a first signal only sets the flag: the caller promises to ask for it."""
        self._watched = True

    @property
    def asks(self) -> int:
        """GO_ON, LEAVE or PAUSE."""
        if self.received is None:
            return GO_ON
        return PAUSE if self.received in (signal.SIGUSR1, signal.SIGUSR2) else LEAVE

    @property
    def waited_s(self) -> float:
        """How long ago the signal came; 0 without one."""
        return time.monotonic() - self._since if self.received else 0.0

    @property
    def name(self) -> str | None:
        return signal.Signals(self.received).name if self.received else None


def outcome(asked: int) -> str:
    """How a job ends that stops for what was asked: paused, it was not ended but stopped."""
    return CONTINUE if asked == PAUSE else CANCELLED


@dataclass(frozen=True)
class Verdict:
    """What every rank does after a step."""

    save: bool
    stop: bool


def decide(asked: int, due: bool, fits: bool) -> Verdict:
    """`asked`: by the signals of all ranks. `due`: a state is. `fits`: a save ends well before SIGKILL."""
    if asked == GO_ON:
        return Verdict(save=due, stop=False)
    return Verdict(save=asked == PAUSE or fits, stop=True)


def save_fits(last_save_s: float | None, waited_s: float, kill_wait_s: float) -> bool:
    """Whether a save as long as the last one, begun now, ends before SIGKILL; of one never measured nobody knows."""
    return last_save_s is not None and waited_s + last_save_s <= kill_wait_s - MARGIN_S


def is_due(step: int, every: int | None, since_s: float, every_min: float | None) -> bool:
    """Whether a state is to be saved after `step`, `since_s` seconds after the last one."""
    return bool(every and step % every == 0) or bool(every_min and since_s >= 60 * every_min)
