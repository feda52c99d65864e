"""Is what may pass retried, less and less often, and for no longer than was said?"""

import random

import pytest

from zsg_core.retry import ExponentialBackoff, FixedWaits


class Clock:
    """A clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def backoff(self, limit_s: float) -> ExponentialBackoff:
        return ExponentialBackoff(
            limit_s,
            1.0,
            8.0,
            clock=lambda: self.now,
            sleep=self.sleep,
            chance=random.Random(0),
        )

    def fixed(self, *waits_s: float) -> FixedWaits:
        return FixedWaits(waits_s, clock=lambda: self.now, sleep=self.sleep)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def fail(times: int, made: list[int]) -> int:
    """Fails so many times, then returns how often it was called."""
    made.append(1)
    if len(made) <= times:
        raise ValueError("busy")
    return len(made)


def test_pauses_double_up_to_a_bound_and_are_drawn() -> None:
    """Each pause lies in the upper half of twice the one before, none beyond the longest."""
    clock, made = Clock(), []
    assert clock.backoff(1e9).call(lambda: fail(6, made), lambda error: True) == 7

    assert all(
        most / 2 <= slept <= most
        for slept, most in zip(clock.slept, [1, 2, 4, 8, 8, 8], strict=True)
    )
    assert len(set(clock.slept)) == 6


def test_a_backoff_ends() -> None:
    """When the next pause would go beyond the limit, the error is raised."""
    clock, made = Clock(), []
    with pytest.raises(ValueError, match="busy"):
        clock.backoff(10).call(lambda: fail(99, made), lambda error: True)

    assert 2 < len(made) < 7
    assert sum(clock.slept) <= 10


def test_who_asks_to_wait_is_waited_for_within_the_limit() -> None:
    """A busy server says how long; one that asks for longer than the limit is
    tried once more and given up."""
    clock, made = Clock(), []
    clock.backoff(100).call(lambda: fail(1, made), lambda error: True, lambda error: 20)
    assert clock.slept == [20]

    clock, made = Clock(), []
    with pytest.raises(ValueError, match="busy"):
        clock.backoff(10).call(
            lambda: fail(99, made), lambda error: True, lambda error: 1e9
        )
    assert clock.slept == [10]


def test_what_is_permanent_is_raised_at_once() -> None:
    """No second try of what would fail again."""
    clock, made = Clock(), []
    with pytest.raises(ValueError):
        clock.backoff(10).call(lambda: fail(1, made), lambda error: False)

    assert len(made) == 1


def test_the_waits_of_a_backoff_are_decided_without_a_clock() -> None:
    """The first retry there always is, however late; a later one not beyond the limit."""
    policy = ExponentialBackoff(60, 1.0, 8.0)

    assert 0.5 <= policy.choose_wait_s(1, elapsed_s=1e6) <= 1
    assert 4 <= policy.choose_wait_s(10_000, elapsed_s=50) <= 8
    assert policy.choose_wait_s(2, elapsed_s=60) is None
    assert policy.choose_wait_s(1, 0, asked_s=1e9) == 60


def test_fixed_waits_are_waited_in_turn() -> None:
    """After the last of them there is one more call."""
    clock, made = Clock(), []
    heard: list[float] = []
    assert (
        clock.fixed(2, 5, 10).call(
            lambda: fail(3, made),
            lambda error: True,
            tell=lambda error, wait_s: heard.append(wait_s),
        )
        == 4
    )
    assert clock.slept == heard == [2, 5, 10]


def test_fixed_waits_end() -> None:
    """With the last call's error; without waits there is no retry."""
    clock, made = Clock(), []
    with pytest.raises(ValueError, match="busy"):
        clock.fixed(2, 5).call(lambda: fail(99, made), lambda error: True)
    assert (len(made), clock.slept) == (3, [2, 5])

    clock, made = Clock(), []
    with pytest.raises(ValueError, match="busy"):
        clock.fixed().call(lambda: fail(1, made), lambda error: True)
    assert (len(made), clock.slept) == (1, [])
