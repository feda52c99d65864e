"""Is what has no end in a user's task of the harness stopped, and told?"""

import re
import sys
import threading
import time
from typing import Any

import pytest

from jobs.evaluating import harness_limits
from jobs.evaluating.harness_limits import TimeAllowance, TooLong

ENDLESS = re.compile(r"(?s)(?:.|.|.)*(?!)")
TEXT = "a" * 60


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock looks soon, and little is allowed."""
    monkeypatch.setattr(harness_limits, "AT_LEAST_S", 0.05)
    monkeypatch.setattr(harness_limits, "TICK_S", 0.02)


def compute_for(seconds: float) -> None:
    """Keeps the processor busy."""
    end_s = time.thread_time() + seconds
    while time.thread_time() < end_s:
        pass


def test_a_regular_expression_without_end_is_stopped() -> None:
    """In the middle of its matching; what is called after it has its own time."""
    with pytest.raises(TooLong, match="its filter takes more than"):
        with TimeAllowance("its filter").limiting():
            ENDLESS.match(TEXT)
    with TimeAllowance("another").limiting():
        assert re.match("a", TEXT)


def test_many_calls_share_their_time() -> None:
    """Each of them is short, and all together have no end."""
    allowance = TimeAllowance("its template")
    calls = 0

    def call() -> None:
        with allowance.limiting(calls=0):
            compute_for(0.01)

    with pytest.raises(TooLong):
        while calls < 1000:
            call()
            calls += 1
    assert calls


def test_what_calls_something_limited_stays_limited() -> None:
    """A template within the scoring of an item is over; the scoring is not."""
    with pytest.raises(TooLong, match="scoring"):
        with TimeAllowance("scoring").limiting():
            with TimeAllowance("a template").limiting(calls=1000):
                pass
            ENDLESS.match(TEXT)


def test_no_alarm_rings_where_nothing_is_limited() -> None:
    """What runs afterwards is not disturbed."""
    with TimeAllowance("a template").limiting():
        pass
    compute_for(0.1)


def test_what_waits_for_a_processor_is_not_stopped() -> None:
    """A job that is suspended, or shares its processors, is no task without end."""
    with TimeAllowance("a template").limiting(calls=0):
        time.sleep(0.2)


def test_a_limit_that_is_being_set_is_not_left_behind() -> None:
    """An error between would leave it to what runs later; the alarm rings again."""
    clock = harness_limits._Clock()
    clock._limits.append((-1.0, "a template"))
    code = compile(
        "import sys\nframe = sys._getframe()", harness_limits.__file__, "exec"
    )
    inside: dict[str, Any] = {}
    exec(code, inside)

    clock._ring(0, inside["frame"])
    with pytest.raises(TooLong, match="a template"):
        clock._ring(0, sys._getframe())


def test_another_thread_is_not_limited() -> None:
    """Alarms ring in the main thread alone."""
    found: list[bool] = []

    def work() -> None:
        with TimeAllowance("a template").limiting():
            compute_for(0.2)
        found.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found
