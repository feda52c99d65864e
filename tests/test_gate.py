"""Does the gate before MLflow let in its owner, and nobody else, whatever is asked?"""

import asyncio
from base64 import b64encode
from collections.abc import MutableMapping
from typing import Any

import pytest

from launcher.mlflow.gate import Gate, GateKeys, Request, check_request

KEYS = GateKeys("the-token", "the-session", ("127.0.0.1", "localhost", "::1"))
HOST = ("host", "127.0.0.1:5000")
COOKIE = ("cookie", f"{KEYS.cookie}=the-session")
BEARER = ("authorization", "Bearer the-token")
DELETE_RUN = "/ajax-api/2.0/mlflow/runs/delete"


def asked(
    *headers: tuple[str, str],
    method: str = "GET",
    path: str = "/get-artifact",
    query: str = "",
    host: bool = True,
) -> int:
    """The status of the gate's answer; 0 where the request may pass."""
    answer = check_request(
        KEYS, Request(method, path, query, (*([HOST] if host else []), *headers))
    )
    return answer.status if answer else 0


def basic(text: str) -> tuple[str, str]:
    """A name and a password, as a client sends them."""
    return "authorization", f"Basic {b64encode(text.encode()).decode()}"


@pytest.mark.parametrize(
    "headers",
    [
        [BEARER],
        [("authorization", "bearer the-token")],
        [basic("anybody:the-token")],
        [COOKIE],
    ],
    ids=["bearer", "another case", "password", "cookie"],
)
def test_who_knows_the_secret_passes(headers: list[tuple[str, str]]) -> None:
    """As a token, as a password, or as the cookie that the token brought."""
    assert asked(*headers) == 0


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("authorization", "Bearer the-toke")],
        [("authorization", "Bearer the-token2")],
        [("authorization", "Bearer ")],
        [("authorization", "Bearer")],
        [("authorization", "the-token")],
        [("authorization", "Bearer the-session")],
        [("authorization", "Bearer \udcff")],
        [basic("the-token:")],
        [("authorization", "Basic ???")],
        [BEARER, ("authorization", "Bearer other")],
        [("authorization", "Bearer other"), COOKIE],
        [("cookie", f"{KEYS.cookie}=the-token")],
        [("cookie", f"{KEYS.cookie}=")],
        [("cookie", KEYS.cookie)],
        [("cookie", "zsg-mlflow=the-session")],
    ],
)
@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/get-artifact",
        "/graphql",
        "/static-files/x.js",
        "/health/",
        "//health",
        "/x",
    ],
)
def test_who_does_not_know_it_is_refused(
    headers: list[tuple[str, str]], path: str
) -> None:
    """On every path, also beside what is open."""
    assert asked(*headers, path=path) == 401


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_what_is_open_is_read_only(method: str) -> None:
    """Whether it is well, and its version, anybody may ask, and nothing more."""
    assert (
        asked(path="/health", host=False),
        asked(path="/version", method="HEAD"),
    ) == (0, 0)
    assert asked(path="/health", method=method) == 401


def test_the_token_in_the_address_brings_the_cookie() -> None:
    """A page that leaves the token out of the address; the cookie is no script's, no
    other site's, and not the token.

    Only the first page takes it, and only the right one.
    """
    answer = check_request(KEYS, Request("GET", "/", "token=the-token", (HOST,)))
    assert answer and answer.status == 200 and "location.hash" in answer.text
    [cookie] = [value for key, value in answer.headers if key == "Set-Cookie"]
    assert cookie == f"{KEYS.cookie}=the-session; Path=/; HttpOnly; SameSite=Strict"
    assert "the-token" not in answer.text + cookie
    refused = [
        asked(path="/", query=query)
        for query in ("token=other", "token=", "token=the-token&token=other")
    ]
    assert refused == [401] * 3
    assert asked(path="/get-artifact", query="token=the-token") == 401
    assert asked(path="/", query="token=the-token", method="POST") == 401


@pytest.mark.parametrize(
    "host",
    [
        "evil.org",
        "127.0.0.1.evil.org:5000",
        "evil.org:5000",
        "",
        "[::1",
        "10.0.0.1:5000",
    ],
)
def test_a_name_that_is_not_its_own_is_refused(host: str) -> None:
    """With the right token too: a site may have its own name point to this machine (DNS
    rebinding)."""
    for headers in ([BEARER], [COOKIE]):
        assert asked(*headers, ("host", host), host=False) == 403
    assert asked(path="/", query="token=the-token", host=False) == 403  # no name, and
    assert asked(BEARER, HOST) == 403  # two


@pytest.mark.parametrize("host", ["127.0.0.1", "LOCALHOST:8080", "[::1]:5000"])
def test_its_own_names_pass_at_any_port(host: str) -> None:
    """Through `ssh -L` the port is another one."""
    assert asked(BEARER, ("host", host), host=False) == 0


@pytest.mark.parametrize(
    ("headers", "method", "status"),
    [
        ([("origin", "http://127.0.0.1:5000")], "POST", 0),
        (
            [("origin", "http://127.0.0.1:5000"), ("sec-fetch-site", "same-origin")],
            "POST",
            0,
        ),
        ([("sec-fetch-site", "same-origin")], "POST", 0),
        ([], "POST", 403),
        ([], "GET", 0),
        ([("sec-fetch-site", "none")], "GET", 0),
        ([("sec-fetch-site", "same-origin")], "GET", 0),
        ([("sec-fetch-site", "same-site")], "GET", 403),
        ([("sec-fetch-site", "cross-site")], "GET", 403),
        ([("sec-fetch-site", "none")], "POST", 403),
        ([("origin", "http://127.0.0.1:6000")], "POST", 403),
        ([("origin", "http://localhost:5000")], "POST", 403),
        ([("origin", "http://127.0.0.1:6000")], "GET", 403),
        ([("origin", "null")], "POST", 403),
        (
            [("origin", "http://127.0.0.1:5000"), ("origin", "http://evil.org")],
            "POST",
            403,
        ),
        (
            [("origin", "http://127.0.0.1:6000"), ("sec-fetch-site", "same-site")],
            "POST",
            403,
        ),
    ],
)
def test_a_cookie_counts_from_the_servers_own_pages(
    headers: list[tuple[str, str]], method: str, status: int
) -> None:
    """Not from another site's, nor from one that another user serves at another port of
    the same host."""
    assert asked(COOKIE, *headers, method=method, path=DELETE_RUN) == status


def test_the_first_page_opens_from_anywhere() -> None:
    """Who follows a link to it, having the cookie, sees it; as a picture or a script of
    another page it is not sent."""
    site = ("sec-fetch-site", "cross-site")
    assert asked(COOKIE, site, ("sec-fetch-mode", "navigate"), path="/") == 0
    assert asked(COOKIE, site, ("sec-fetch-mode", "no-cors"), path="/") == 403
    assert (
        asked(COOKIE, site, ("sec-fetch-mode", "navigate"), path="/get-artifact") == 403
    )


def test_the_cookie_is_found_among_others() -> None:
    """Servers at other ports set theirs for the same host, some that no parser reads."""
    assert asked(("cookie", f'a="; b=c; {KEYS.cookie}=the-session; d')) == 0
    assert asked(("cookie", "a=b"), COOKIE) == 0
    assert GateKeys("t", "another session", ()).cookie != KEYS.cookie


@pytest.mark.parametrize(
    "path",
    [
        "/gateway/openai/v1/chat/completions",
        "//gateway/x",
        "/ajax-api/2.0/mlflow/gateway-proxy",
        "/api/3.0/mlflow/gateway/secrets/create",
        "/ajax-api/3.0/mlflow/assistant/message",
        "/ajax-api/3.0/jobs/",
        "/api/3.0/mlflow/prompt-optimization/jobs",
        "/api/2.0/mlflow/webhooks/1/test",
    ],
)
def test_what_runs_programs_or_calls_addresses_is_closed(path: str) -> None:
    """To the owner, too: the database says which, and it may be somebody else's."""
    assert asked(BEARER, method="POST", path=path) == 403


def test_names_of_artifacts_close_nothing() -> None:
    """A folder of artifacts may be called like a part that is closed."""
    for name in ("jobs", "gateway", "webhooks", "assistant"):
        assert (
            asked(
                BEARER,
                method="PUT",
                path=f"/api/2.0/mlflow-artifacts/artifacts/{name}/a.txt",
            )
            == 0
        )


def test_nothing_but_requests_reaches_mlflow() -> None:
    """A web socket is closed; a request without a secret is answered, and MLflow never
    hears of it."""
    heard: list[str] = []
    sent: list[MutableMapping[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        heard.append(scope["type"])

    async def receive() -> MutableMapping[str, Any]:
        return {}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    gate = Gate(app, KEYS)
    plain = {
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "headers": [(b"Host", b"127.0.0.1")],
    }
    for scope in (
        {"type": "websocket", "headers": []},
        {"type": "http", **plain},
        {"type": "lifespan"},
    ):
        asyncio.run(gate(scope, receive, send))

    assert heard == ["lifespan"]
    assert [message.get("status", message.get("code")) for message in sent] == [
        1008,
        401,
        None,
    ]
    assert (b"cache-control", b"no-store") in sent[1]["headers"]
