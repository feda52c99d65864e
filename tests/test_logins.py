"""Which login does MLflow's client send to an address, and when is it kept from it?"""

from pathlib import Path

import pytest

from jobs.tracking import logins, server_tokens
from jobs.tracking.tracker import Refused, Tracker

SECRET = "hunter2hunter2"
TOKEN = {"MLFLOW_TRACKING_TOKEN": SECRET}
ELSEWHERE = "http://mallory.example:5000"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def login_file(home: Path) -> Path:
    """MLflow's own file of a login."""
    file = home / ".mlflow/credentials"
    file.parent.mkdir()
    file.write_text(
        f"[mlflow]\nmlflow_tracking_username = me\nmlflow_tracking_password = {SECRET}\n"
    )
    return file


def test_a_login_of_the_environment_does_not_go_in_the_clear() -> None:
    """To another machine it goes encrypted or not at all."""
    told = logins.explain_refusal(ELSEWHERE, TOKEN)

    assert told is not None
    assert told.startswith(
        "the server would be told MLFLOW_TRACKING_TOKEN, and its address is plain http"
    )
    assert told.endswith("; or unset them") and SECRET not in told
    assert logins.explain_refusal("https://lab.example", TOKEN) is None
    assert logins.explain_refusal("http://127.0.0.1:5000", TOKEN) is None
    assert logins.explain_refusal("", TOKEN) is None


def test_a_login_of_mlflows_file_does_not_go_in_the_clear(login_file: Path) -> None:
    """Its client reads it where no variable says one: a tracker refuses before it asks anything."""
    told = logins.explain_refusal(ELSEWHERE, {})

    assert told is not None
    assert told.startswith(
        "the server would be told the login of ~/.mlflow/credentials, and its address is plain http"
    )
    assert told.endswith("; or move ~/.mlflow/credentials away")
    with pytest.raises(
        Refused, match=r"nothing is sent to MLflow .*credentials"
    ) as refused:
        Tracker(ELSEWHERE)
    assert SECRET not in str(refused.value)
    login_file.unlink()
    assert logins.explain_refusal(ELSEWHERE, {}) is None


def test_a_server_of_the_users_own_is_told_its_token_only(login_file: Path) -> None:
    """So neither a variable nor a file keeps jobs from it."""
    server_tokens.publish_token(["login01:5000"], "its own")

    assert logins.list_told("http://login01:5000", TOKEN) == [
        "the token of your zsg server there, unencrypted"
    ]
    assert logins.explain_refusal("http://login01:5000", TOKEN) is None
    assert logins.list_told("http://login01:5001", TOKEN) == ["MLFLOW_TRACKING_TOKEN"]
    assert logins.list_told("http://login01:5001", {}) == [
        "the login of ~/.mlflow/credentials"
    ]
