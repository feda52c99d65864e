"""Does a token reach the user's own jobs, at its own server's address, and nobody else?"""

from pathlib import Path

import pytest
import requests

from jobs.tracking import server_tokens
from jobs.tracking.server_tokens import Exposed
from jobs.tracking.tracker import OwnServers
from tests.lib.other_user import OtherUser


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def test_it_is_found_by_the_servers_address_alone() -> None:
    """By each of its names and its port; nothing for another port, host, scheme or user."""
    server_tokens.publish_token(["Login01:5000", "[::1]:5000"], "secret")

    assert server_tokens.find_token("http://login01:5000") == "secret"
    assert (
        server_tokens.find_token("http://LOGIN01:5000/api/2.0/mlflow/runs/get?run_id=1")
        == "secret"
    )
    assert server_tokens.find_token("http://[::1]:5000/x") == "secret"
    others = [
        "http://login01:5001",
        "http://login02:5000",
        "https://login01:5000",
        "http://me@login01:5000",
    ]
    others += [
        "http://login01:5000.evil.org",
        "sqlite:////login01:5000",
        "http:///login01:5000",
        "http://../mlflow",
        "",
    ]
    assert [server_tokens.find_token(url) for url in others] == [None] * len(others)


def test_a_request_takes_it_there_only() -> None:
    """Instead of the login that MLflow's client has for others; a request to another
    server is left as it is."""
    server_tokens.publish_token(["login01:5000"], "secret")
    own = {"Authorization": "Basic bWU6cHc="}

    def sent(url: str, headers: dict[str, str] | None = None) -> str | None:
        prepared = requests.Request(
            "GET", url, headers=headers, auth=OwnServers()
        ).prepare()
        return prepared.headers.get("Authorization")

    assert sent("http://login01:5000/api") == "Bearer secret"
    assert sent("http://login01:5000/api", own) == "Bearer secret"
    assert sent("http://evil.org:5000/api", own) == "Basic bWU6cHc="
    assert sent("http://evil.org:5000/api") is None


def test_only_its_owner_reads_it(home: Path) -> None:
    """File and folders are private; it is gone with its server, but not that of a later
    one at the same address."""
    [file] = server_tokens.publish_token(["login01:5000"], "old")
    modes = [
        path.stat().st_mode & 0o777
        for path in (home / ".zsg", home / ".zsg/mlflow", file)
    ]
    server_tokens.publish_token(["login01:5000"], "new")
    server_tokens.withdraw_token([file], "old")
    kept = server_tokens.find_token("http://login01:5000")
    server_tokens.withdraw_token([file], "new")

    assert modes == [0o700, 0o700, 0o600]
    assert kept == "new"
    assert not file.exists() and server_tokens.find_token("http://login01:5000") is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_one_that_others_may_read_is_refused(mode: int) -> None:
    """With its path and what to do."""
    [file] = server_tokens.publish_token(["login01:5000"], "secret")
    file.chmod(mode)
    with pytest.raises(
        Exposed,
        match=r"login01:5000 holds a token, but is not yours alone .* remove it",
    ):
        server_tokens.find_token("http://login01:5000")


def test_links_are_not_followed(home: Path, tmp_path: Path) -> None:
    """Neither when it is read, nor when it is written; a folder that is a link holds none."""
    other = tmp_path / "other"
    other.write_text("theirs")
    other.chmod(0o600)
    [file] = server_tokens.publish_token(["login01:5000"], "secret")
    file.unlink()
    file.symlink_to(other)
    with pytest.raises(Exposed):
        server_tokens.find_token("http://login01:5000")
    server_tokens.publish_token(["login01:5000"], "secret")
    assert (
        other.read_text() == "theirs"
        and server_tokens.find_token("http://login01:5000") == "secret"
    )

    (home / ".zsg").rename(tmp_path / "moved")
    (home / ".zsg").symlink_to(tmp_path / "moved")
    for do in (
        lambda: server_tokens.find_token("http://login01:5000"),
        lambda: server_tokens.publish_token(["a:1"], "secret"),
    ):
        with pytest.raises(Exposed, match="no folder that only you may write"):
            do()


def test_what_another_user_has_made_is_refused(stranger: OtherUser, home: Path) -> None:
    """A token file, or the folder of tokens."""
    [file] = server_tokens.publish_token(["login01:5000"], "secret")
    stranger.owns(file)
    with pytest.raises(Exposed, match="not yours alone"):
        server_tokens.find_token("http://login01:5000")
    stranger.owns(home / ".zsg")
    with pytest.raises(Exposed, match="no folder that only you may write"):
        server_tokens.publish_token(["login01:5000"], "secret")
