"""Does a job show that it lives, whatever it does, and never fail or wait for it?"""

import json
import os
import time
from pathlib import Path

import pytest

from jobs.contract import attempt as attempts
from jobs.contract.heartbeat import MEASURING, NAME, TRAINING, Heartbeat, Pulse
from jobs.training.train import AttemptContext
from tests.lib.command_line import wait_until

EVERY_S = 0.02


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def beat(folder: Path) -> dict:
    """The heartbeat on disk; empty without one."""
    return json.loads((folder / NAME).read_text()) if (folder / NAME).exists() else {}


@pytest.fixture
def beating(tmp_path: Path):
    """A folder, its attempt and a fast heartbeat."""
    attempt, pulse = attempts.begin_attempt(tmp_path, "s"), Pulse()
    heartbeat = Heartbeat(tmp_path, attempt, pulse, EVERY_S)
    yield tmp_path, attempt, pulse, heartbeat
    heartbeat.stop()
    heartbeat._thread.join()


def test_a_beat_says_who_lives_and_how_far_it_is(beating) -> None:
    """The first beat comes at once, later ones tell the newest step; the folder holds
    one file of it."""
    folder, attempt, pulse, _ = beating
    wait_until(lambda: beat(folder), 10)
    assert (beat(folder)["doing"], beat(folder)["step"], beat(folder)["nonce"]) == (
        "starting",
        None,
        attempt.nonce,
    )

    pulse.begins(0, 9, None)
    pulse.does(TRAINING)
    pulse.reached(1, 100, float("nan"))
    wait_until(lambda: beat(folder)["step"] == 1, 10)
    assert (
        beat(folder)["steps"],
        beat(folder)["train_loss"],
        beat(folder)["attempt"],
    ) == (
        9,
        "nan",
        1,
    )
    wait_until(
        lambda: (
            sorted(path.name for path in folder.iterdir()) == ["attempt.json", NAME]
        ),
        10,
    )


def test_a_superseded_attempt_stops_beating(beating) -> None:
    """Once a newer attempt owns the folder, the older one's thread ends."""
    folder, _, _, heartbeat = beating
    attempts.begin_attempt(folder, "s")

    heartbeat._thread.join(10)
    assert not heartbeat._thread.is_alive()


def test_a_disk_that_is_full_is_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no beat can be written the last one is touched, so that the job still shows
    that it lives."""
    attempt = attempts.begin_attempt(tmp_path, "s")
    (tmp_path / NAME).write_text(json.dumps({"nonce": attempt.nonce}))
    os.utime(tmp_path / NAME, (0, 0))
    write = Path.write_text

    def full(self: Path, *argv, **options):
        if NAME in self.name:
            raise OSError(28, "No space left on device")
        return write(self, *argv, **options)

    monkeypatch.setattr(Path, "write_text", full)
    heartbeat = Heartbeat(tmp_path, attempt, Pulse(), EVERY_S)
    wait_until(lambda: time.time() - (tmp_path / NAME).stat().st_mtime < 60, 10)
    heartbeat.stop()
    heartbeat._thread.join(10)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["attempt.json", NAME]


def test_the_rate_is_that_of_the_last_half_hour() -> None:
    """Steps and tokens a second include what lies between the steps, and not what was long ago."""
    clock = Clock()
    pulse = Pulse(clock)
    pulse.begins(0, 10_000, None)
    for step in range(1, 301):
        pulse.does(TRAINING)
        clock.now += 10 if step < 100 else 20
        pulse.reached(step, 1000, 2.0)

    assert pulse.facts()["steps_per_s"] == pytest.approx(1 / 20)
    assert pulse.facts()["tokens_per_s"] == pytest.approx(1000 / 20)


def test_how_long_each_thing_took_is_told() -> None:
    """The longest evaluation is told apart from the longest step; what is being done is
    told with its seconds."""
    clock = Clock()
    pulse = Pulse(clock)
    for measure_s in (100, 300, 200):
        pulse.does(TRAINING)
        for _ in range(3):
            clock.now += 7
            pulse.reached(1, 1, 1.0)
        pulse.does(MEASURING)
        clock.now += measure_s

    facts = pulse.facts()
    assert facts["longest_s"] == {"starting": 0, "training": 7, "measuring": 300}
    assert (facts["doing"], facts["doing_s"], facts["step_s"]) == (
        "measuring",
        200,
        200,
    )


def test_every_rank_has_a_pulse() -> None:
    """A trainer may tell it whether anybody listens or not."""
    assert AttemptContext.__dataclass_fields__["pulse"].default_factory is Pulse
