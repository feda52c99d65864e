"""Which errors of MLflow may pass, and does a follower ask a dead server less and less?"""

import pytest
import requests
from mlflow.exceptions import MlflowException, RestException

from jobs.tracking import follow
from jobs.tracking.tracker import is_transient


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
