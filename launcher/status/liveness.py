"""Reads what a job has shown of itself: when it last gave a sign of life, what it does,
whether it stands still.

Ages are differences between times of one file system, so that no two machines' clocks are compared.
"""

import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jobs.contract import attempt as attempts
from jobs.contract import heartbeat, journal
from jobs.contract.attempt import Attempt
from jobs.contract.exit_record import replace_unset
from jobs.contract.folder import Workspace
from jobs.contract.heartbeat import STARTING, TRAINING, Beat

LOST_S = 60.0  # without a sign of life for longer, nobody knows that a job runs
PATIENCE = 3.0  # an evaluation or a save may take so many times its longest so far


class Clock:
    """The time by which the workspace's file system stamps its files; this machine's
    own where it may not write."""

    def __init__(self, workspace: Workspace) -> None:
        self._path = workspace.root / ".clock"

    def now(self) -> float:
        return time.time() + self._ahead

    @cached_property
    def _ahead(self) -> float:
        try:
            self._path.touch(mode=0o600)
            return self._path.stat().st_mtime - time.time()
        except OSError:
            return 0.0


@dataclass(frozen=True)
class Signs:
    """What is known of the newest attempt: its record, seconds since its last sign of
    life, its heartbeat if any."""

    attempt: Attempt
    age_s: float
    beat: Beat | None
    beat_s: float | None

    def predate(self, elapsed_s: float | None) -> bool:
        """Whether all of them are older than the start of a job that runs for so long:
        it has not begun yet."""
        return elapsed_s is not None and self.age_s > elapsed_s + 1

    @property
    def eta_s(self) -> float | None:
        """Seconds until the last step, at the rate of the last half hour; None where
        that is not known."""
        rate = replace_unset(self.beat.steps_per_s) if self.beat else None
        if not self.beat or not rate or self.beat.step is None or not self.beat.steps:
            return None
        return max(
            0.0,
            (self.beat.steps - self.beat.step) / rate - self._since(self.beat.step_s),
        )

    def stands_still_for(self, hang_min: float) -> float | None:
        """For how many seconds there has been no progress, if that is longer than it should be.

        What a job does between its steps may take long, and is given three times the
        longest that it has taken.
        """
        if not self.beat or (
            self.beat.doing not in (STARTING, TRAINING) and self.beat.step is None
        ):
            return None  # prepare jobs have no steps
        quiet = min(self._since(self.beat.doing_s), self._since(self.beat.step_s))
        allowed = max(
            60 * hang_min, PATIENCE * self.beat.longest_s.get(self.beat.doing, 0.0)
        )
        return quiet if quiet > allowed else None

    def _since(self, seconds: float | None) -> float:
        return float("inf") if seconds is None else seconds + (self.beat_s or 0.0)


def read_signs(folder: Path, clock: Clock) -> Signs | None:
    """The signs of the newest attempt; None if there has been none."""
    signs = _look(folder, clock)
    if signs and signs.age_s > LOST_S:
        # a network file system may still show a heartbeat that has been replaced
        list(folder.iterdir())
        signs = _look(folder, clock)
    return signs


def _look(folder: Path, clock: Clock) -> Signs | None:
    """The signs as the file system shows them at this moment; None where no attempt has
    begun.

    An attempt is as old as the newest of what it wrote: its own file, its heartbeat,
    and, where the heartbeat is missing or older than `LOST_S`, its newest journal, for
    which the folder has to be listed. No age is below 0: the clocks of two nodes may
    differ.
    """
    attempt = attempts.read_attempt(folder)
    if not attempt:
        return None
    beat, beaten = heartbeat.read_heartbeat(folder, attempt.nonce) or (None, 0.0)
    times = [_modified(attempts.locate_attempt(folder)), beaten]
    if beat is None or clock.now() - beaten > LOST_S:
        times += [_modified(path) for path in journal.list_owned_files(folder)[-1:]]
    beat_s = max(0.0, clock.now() - beaten) if beat else None
    return Signs(attempt, max(0.0, clock.now() - max(times)), beat, beat_s)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
