"""Shows that a job lives: rank 0 keeps one small file in the job's folder fresh,
however long a step takes.

heartbeat.json is rewritten every ten seconds by a thread, from before any engine is
imported: attempt, nonce, ts (ms), doing and for how many seconds, step, steps and how
long ago that step was reached, steps and tokens a second, the last losses. How old a
beat is says the file's own time; the durations in it need no clock that machines share.
A disk that is full is no reason to fail: the file is then only touched.
"""

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from jobs.contract import attempt as attempts
from jobs.contract.attempt import Attempt
from jobs.contract.exit_record import Loss
from jobs.contract.folder import SCHEMA, to_json
from jobs.contract.journal import spell_nonfinite
from jobs.contract.json_values import DECODE_ERRORS

NAME = "heartbeat.json"
LONGEST = 1 << 20  # bytes that are read; a beat has a thousand
EVERY_S = 10.0
STARTING, TRAINING, MEASURING, SAVING = "starting", "training", "measuring", "saving"
SAMPLES, SAMPLE_S = 180, 10.0  # the rate is that of the last half hour


class Beat(msgspec.Struct, frozen=True, kw_only=True):
    """What a heartbeat tells; of jobs without steps `step`, `steps`, `step_s` and the
    losses are None. `from_step`: at which this attempt began to train."""

    schema: int = SCHEMA
    attempt: int = 0
    nonce: str
    ts: int = 0
    doing: str = STARTING
    doing_s: float = 0.0
    step: int | None = None
    steps: int | None = None
    step_s: float | None = None
    loss: Loss = None
    train_loss: Loss = None
    note: str | None = None
    notes: list[str] = []  # what there is to know of a run's examples
    other_versions: str | None = None  # than the submit's, in a sentence
    longest_s: dict[str, float] = {}
    steps_per_s: float | UnsetType = UNSET
    tokens_per_s: float | UnsetType = UNSET
    from_step: int | UnsetType = UNSET


def locate_heartbeat(folder: Path) -> Path:
    """Where a job's heartbeat is."""
    return folder / NAME


def read_heartbeat(folder: Path, nonce: str) -> tuple[Beat, float] | None:
    """The heartbeat of an attempt, and when it was written (s, by the file's own time);
    None if there is none.

    Another attempt's is none, nor is one that cannot be read: the next is written within seconds.
    """
    try:
        with locate_heartbeat(folder).open("rb") as file:
            written, beat = (
                os.fstat(file.fileno()).st_mtime,
                msgspec.json.decode(file.read(LONGEST), type=Beat),
            )
    except (OSError, *DECODE_ERRORS):
        return None
    return (beat, written) if beat.nonce == nonce else None


class Pulse:
    """What this process is doing and how far it has come. Its owner tells, a
    Heartbeat's thread reads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing has been done yet. `clock` gives seconds from any begin and never
        goes back; a test passes its own.

        `_reached` is when the newest step ended, `_longest` the longest time in seconds
        that each activity has taken, from which whoever watches concludes how long a
        silence is normal.
        """
        self._clock = clock
        self.doing, self._since = STARTING, clock()
        self.step: int | None = None
        self.steps: int | None = None
        self.from_step: int | None = None
        self.loss: float | None = None
        self.train_loss: float | None = None
        self.note: str | None = None
        self.notes: list[str] = []
        self.other_versions: str | None = None
        self._reached: float | None = None
        self._tokens = 0
        self._longest: dict[str, float] = {}
        # (when, step, tokens so far)
        self._samples: deque[tuple[float, int, int]] = deque(maxlen=SAMPLES)

    def does(self, activity: str) -> None:
        """From now on this is being done."""
        if activity != self.doing:
            now = self._clock()
            if self.doing != TRAINING:  # of which the steps count
                self._took(self.doing, now - self._since)
            self.doing, self._since = activity, now

    def says(self, note: str | None) -> None:
        """A word for whoever looks."""
        self.note = note

    def begins(self, step: int, steps: int, loss: float | None) -> None:
        """Training is about to go on from `step`, where `loss` was the last that was measured."""
        self.step, self.steps, self.loss = step, steps, loss
        self.from_step = step

    def reached(self, step: int, tokens: int, train_loss: float) -> None:
        """A step was taken, over so many tokens."""
        now = self._clock()
        self._took(TRAINING, now - max(self._reached or self._since, self._since))
        self._tokens += tokens
        self.step, self.train_loss, self._reached = step, train_loss, now
        if not self._samples or now - self._samples[-1][0] >= SAMPLE_S:
            self._samples.append((now, step, self._tokens))

    def facts(self) -> dict[str, Any]:
        """What a beat tells."""
        now = self._clock()
        facts: dict[str, Any] = {
            "doing": self.doing,
            "doing_s": now - self._since,
            "step": self.step,
        }
        facts |= {
            "steps": self.steps,
            "step_s": None if self._reached is None else now - self._reached,
        }
        facts |= {"loss": self.loss, "train_loss": self.train_loss, "note": self.note}
        if self.from_step is not None:
            facts |= {"from_step": self.from_step}
        if self.notes:
            facts |= {"notes": self.notes}
        if self.other_versions:
            facts |= {"other_versions": self.other_versions}
        return facts | {"longest_s": dict(self._longest), **self._rates()}

    def _rates(self) -> dict[str, float]:
        """Steps and tokens a second between the oldest sample and the last step,
        evaluations and saves included."""
        if self._reached is None or self.step is None or not self._samples:
            return {}
        since, step, tokens = self._samples[0]
        over_s = self._reached - since
        if over_s <= 0:
            return {}
        return {
            "steps_per_s": (self.step - step) / over_s,
            "tokens_per_s": (self._tokens - tokens) / over_s,
        }

    def _took(self, activity: str, seconds: float) -> None:
        self._longest[activity] = max(seconds, self._longest.get(activity, 0.0))


class Heartbeat:
    """Beats until it is stopped, the process ends or a newer attempt owns the folder.
    Never raises, never waits."""

    def __init__(
        self, folder: Path, attempt: Attempt, pulse: Pulse, every_s: float = EVERY_S
    ) -> None:
        self._folder, self._attempt, self._pulse, self._every_s = (
            folder,
            attempt,
            pulse,
            every_s,
        )
        self._path, self._draft = (
            locate_heartbeat(folder),
            folder / f".{NAME}.{attempt.nonce}",
        )
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """No beat begins from now on."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.is_set() and self._may_beat():
            self._beat()
            self._stopped.wait(self._every_s)

    def _may_beat(self) -> bool:
        try:
            attempts.check_attempt(self._folder, self._attempt)
        except attempts.Superseded:
            return False
        except (OSError, ValueError):
            pass  # a file system that does not answer is no newer attempt
        return True

    def _beat(self) -> None:
        facts = {
            "schema": SCHEMA,
            "attempt": self._attempt.attempt,
            "nonce": self._attempt.nonce,
        }
        facts |= {"ts": attempts.now_ms(), **self._pulse.facts()}
        try:
            self._draft.write_text(to_json(spell_nonfinite(facts)), encoding="utf-8")
            self._draft.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                self._draft.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                os.utime(self._path)
