"""Is what may pass tried again, less and less often, and for no longer than was said?"""

import random

import pytest
import requests
from mlflow.exceptions import MlflowException, RestException

from jobs.tracking import follow
from jobs.tracking.patience import Patience
from jobs.tracking.tracker import is_transient


class Clock:
    """A clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def patience(self, limit_s: float) -> Patience:
        return Patience(
            limit_s,
            1.0,
            8.0,
            clock=lambda: self.now,
            sleep=self.sleep,
            chance=random.Random(0),
        )

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
    assert clock.patience(1e9).again(lambda: fail(6, made), lambda error: True) == 7

    assert all(
        most / 2 <= slept <= most
        for slept, most in zip(clock.slept, [1, 2, 4, 8, 8, 8], strict=True)
    )
    assert len(set(clock.slept)) == 6


def test_patience_ends() -> None:
    """When the next pause would go beyond the limit, the error is raised."""
    clock, made = Clock(), []
    with pytest.raises(ValueError, match="busy"):
        clock.patience(10).again(lambda: fail(99, made), lambda error: True)

    assert 2 < len(made) < 7
    assert sum(clock.slept) <= 10


def test_who_asks_to_wait_is_waited_for_within_the_limit() -> None:
    """A busy server says how long; one that asks for longer than patience lasts is
    tried once more and given up."""
    clock, made = Clock(), []
    clock.patience(100).again(
        lambda: fail(1, made), lambda error: True, lambda error: 20
    )
    assert clock.slept == [20]

    clock, made = Clock(), []
    with pytest.raises(ValueError, match="busy"):
        clock.patience(10).again(
            lambda: fail(99, made), lambda error: True, lambda error: 1e9
        )
    assert clock.slept == [10]


def test_what_is_permanent_is_raised_at_once() -> None:
    """No second try of what would fail again."""
    clock, made = Clock(), []
    with pytest.raises(ValueError):
        clock.patience(10).again(lambda: fail(1, made), lambda error: False)

    assert len(made) == 1


def response(status: int) -> requests.HTTPError:
    """What an upload of an artifact raises."""
    answer = requests.Response()
    answer.status_code = status
    return requests.HTTPError(response=answer)


TRANSIENT = [
    MlflowException(
        "API request to http://x failed with exception ConnectionResetError"
    ),
    RestException(
        {
            "error_code": "BAD_REQUEST",
            "message": "QueuePool limit of size 5 overflow 10 reached",
        }
    ),
    RestException(
        {
            "error_code": "BAD_REQUEST",
            "message": "(sqlite3.OperationalError) database is locked",
        }
    ),
    RestException({"error_code": "RESOURCE_EXHAUSTED", "message": "slow down"}),
    RestException({"error_code": "TEMPORARILY_UNAVAILABLE", "message": "soon"}),
    RestException({"error_code": "INTERNAL_ERROR", "message": "oops"}),
    requests.ConnectionError("refused"),
    requests.Timeout("late"),
    response(503),
    response(429),
]
PERMANENT = [
    RestException({"error_code": "INVALID_PARAMETER_VALUE", "message": "bad key"}),
    RestException({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no run"}),
    RestException({"error_code": "PERMISSION_DENIED", "message": "no"}),
    requests.exceptions.InvalidURL("http://"),
    response(404),
    KeyError("a bug of ours"),
]


@pytest.mark.parametrize("error", TRANSIENT, ids=repr)
def test_what_may_pass(error: Exception) -> None:
    """Broken connections, overload and what MLflow's server wrongly calls a bad request."""
    assert is_transient(error)


@pytest.mark.parametrize("error", PERMANENT, ids=repr)
def test_what_will_not_pass(error: Exception) -> None:
    """Wrong requests, missing rights and our own mistakes."""
    assert not is_transient(error)


def test_a_follower_asks_a_dead_server_less_and_less() -> None:
    """Two seconds while all is well; after many failures minutes, never more than five."""
    assert follow.pause_s(0) == follow.EVERY_S
    assert all(1 <= follow.pause_s(1) <= 4 for _ in range(20))
    assert all(
        150 <= follow.pause_s(failures) <= 300 for failures in range(8, 2000, 50)
    )
