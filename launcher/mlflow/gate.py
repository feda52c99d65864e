"""Stands before MLflow's server and lets in its owner only. Pure ASGI, knows nothing of
MLflow's inside.

On a login node every user reaches 127.0.0.1, and MLflow, which acts with its owner's
rights, asks nobody anything. Two credentials are taken: the token, as programs send it
(`Authorization: Bearer`, or as a Basic password), and a cookie, which a browser gets
for the token in the address that zsg prints, and keeps.

A browser sends its cookie with whatever a page asks it to, and to every port of a host
alike. So what comes with the cookie must come from this server's own pages:
SameSite=Strict keeps other sites out, and Origin and Sec-Fetch-Site keep out other
ports of this host. The cookie is drawn anew at every start, so what reaches a later
server at the port is worth nothing. The name that a request calls the server by must be
one of its own, or a site could have its own name point here (DNS rebinding).
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

OPEN = ("/health", "/version")  # they tell nothing of anybody, and probes have no token
TOKEN = "token"  # of the address that is printed
READING = ("GET", "HEAD")
# MLflow's servers of language models and of jobs, its assistant, which runs programs,
# and its calls of addresses that stand in the database: zsg needs none of them. A word
# of the path that tells one, and where in the path it stands.
CLOSED = {
    "gateway": (0, 3),
    "gateway-proxy": (3,),
    "assistant": (3,),
    "jobs": (2,),
    "prompt-optimization": (3,),
    "webhooks": (3,),
}

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# the token leaves the address; the page stays
WELCOME = "location.replace(location.pathname + location.hash)"
PAGE = (
    f'<!doctype html><meta charset="utf-8"><title>MLflow</title><script>{WELCOME}</script><a'
    ' href="./">MLflow</a>\n'
)
SCRIPT_DIGEST = base64.b64encode(hashlib.sha256(WELCOME.encode()).digest()).decode()
ALWAYS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": (
        f"default-src 'none'; script-src 'sha256-{SCRIPT_DIGEST}'; frame-ancestors 'none'"
    ),
}


@dataclass(frozen=True)
class GateKeys:
    """What opens the gate. `hosts`: the names, without a port, by which the server may
    be called."""

    token: str
    session: str
    hosts: tuple[str, ...]

    @property
    def cookie(self) -> str:
        """The cookie's name: of this start, since a browser has one jar for all ports of a host."""
        return f"zsg-mlflow-{hashlib.sha256(self.session.encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class Request:
    """A request without its body; the names of the headers in lower case."""

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, scope: Scope) -> "Request":
        """As ASGI tells it."""
        headers = tuple(
            (key.decode("latin-1").lower(), value.decode("latin-1"))
            for key, value in scope["headers"]
        )
        return cls(
            scope["method"],
            scope["path"],
            scope["query_string"].decode("latin-1"),
            headers,
        )

    def all(self, name: str) -> list[str]:
        """The values of a header, which may stand several times."""
        return [value for key, value in self.headers if key == name]

    def one(self, name: str) -> str | None:
        """The value of a header that stands once."""
        values = self.all(name)
        return values[0] if len(values) == 1 else None


@dataclass(frozen=True)
class GateAnswer:
    """What is answered in MLflow's place."""

    status: int
    text: str
    headers: tuple[tuple[str, str], ...] = ()


def check_request(keys: GateKeys, request: Request) -> GateAnswer | None:
    """What is answered in MLflow's place; None for a request that may pass."""
    if request.path in OPEN and request.method in READING:
        return None
    host = request.one("host")
    if host is None or _name(host) not in keys.hosts:
        return _refused(
            HTTPStatus.FORBIDDEN,
            "this server is not called by that name; zsg server --allow adds one",
        )
    if (token := _token_of_address(request)) is not None:
        return _welcome(keys) if _is(keys.token, token) else _unknown()
    if refusal := _check_credentials(keys, request, host):
        return refusal
    if _is_closed(request.path):
        return _refused(
            HTTPStatus.FORBIDDEN,
            "this part of MLflow is closed here: zsg does not need it",
        )
    return None


def _token_of_address(request: Request) -> str | None:
    """The token in the address that zsg prints; None for any other address."""
    if request.path != "/" or request.method != "GET":
        return None
    return parse_qs(request.query).get(TOKEN, [None])[-1]


def _check_credentials(
    keys: GateKeys, request: Request, host: str
) -> GateAnswer | None:
    """Refuses who sends neither the token nor the cookie, and a cookie that another
    site's page has sent."""
    if request.all("authorization"):
        return None if _is(keys.token, _sent_token(request)) else _unknown()
    if not _is(keys.session, _sent_session(keys, request)):
        return _unknown()
    if not _is_from_own_page(request, host):
        return _refused(
            HTTPStatus.FORBIDDEN, "this was asked by a page of another address"
        )
    return None


class Gate:
    """The ASGI application: `app` behind the gate."""

    def __init__(self, app: App, keys: GateKeys) -> None:
        self._app, self._keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})  # MLflow has none
            return
        answer = check_request(self._keys, Request.of(scope))
        if answer is None:
            await self._app(scope, receive, send)
            return
        body = answer.text.encode()
        fields = {
            "Content-Type": "text/plain; charset=utf-8",
            **ALWAYS,
            **dict(answer.headers),
        }
        fields["Content-Length"] = str(len(body))
        headers = [
            (key.lower().encode(), value.encode("latin-1"))
            for key, value in fields.items()
        ]
        await send(
            {"type": "http.response.start", "status": answer.status, "headers": headers}
        )
        await send(
            {
                "type": "http.response.body",
                "body": b"" if scope["method"] == "HEAD" else body,
            }
        )


def _welcome(keys: GateKeys) -> GateAnswer:
    # A page, not a redirect: where a link was clicked on another site, a browser keeps
    # a strict cookie from the page that it is redirected to, but not from one that this
    # page opens.
    cookie = f"{keys.cookie}={keys.session}; Path=/; HttpOnly; SameSite=Strict"
    return GateAnswer(
        HTTPStatus.OK,
        PAGE,
        (("Set-Cookie", cookie), ("Content-Type", "text/html; charset=utf-8")),
    )


def _unknown() -> GateAnswer:
    text = (
        "this MLflow lets in its owner only: open the address that zsg printed, or set"
        " MLFLOW_TRACKING_TOKEN"
    )
    return _refused(HTTPStatus.UNAUTHORIZED, text, ("WWW-Authenticate", "Bearer"))


def _refused(status: int, text: str, *headers: tuple[str, str]) -> GateAnswer:
    return GateAnswer(status, f"{text}\n", headers)


def _is(secret: str, candidate: str | None) -> bool:
    """Whether this is the secret; the time that it takes tells nothing of it."""
    return candidate is not None and hmac.compare_digest(
        secret.encode(), candidate.encode("utf-8", "surrogateescape")
    )


def _sent_token(request: Request) -> str | None:
    scheme, _, credentials = (request.one("authorization") or "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    if scheme.lower() == "basic":
        try:
            return (
                base64.b64decode(credentials.strip(), validate=True)
                .decode()
                .partition(":")[2]
            )
        except (binascii.Error, UnicodeDecodeError):
            return None
    return None


def _sent_session(keys: GateKeys, request: Request) -> str | None:
    # Taken apart here: http.cookies gives up where another server of this host has set
    # a cookie that it cannot read.
    for pair in ";".join(request.all("cookie")).split(";"):
        name, _, value = pair.strip().partition("=")
        if name == keys.cookie:
            return value
    return None


def _is_from_own_page(request: Request, host: str) -> bool:
    """Whether a browser asks this for one of this server's own pages, or because
    somebody opens the first of them."""
    origins, sites = request.all("origin"), request.all("sec-fetch-site")
    if any(urlsplit(origin).netloc.lower() != host.lower() for origin in origins):
        return False
    if request.method not in READING:
        return bool(origins) or sites == ["same-origin"]
    is_opened = request.path == "/" and request.one("sec-fetch-mode") == "navigate"
    return is_opened or all(site in ("same-origin", "none") for site in sites)


def _name(host: str) -> str:
    """The name of a Host header, without its port and, of an IPv6 address, without brackets."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _is_closed(path: str) -> bool:
    """Whether a path of MLflow's server leads to what the gate lets nobody reach. A
    word is closed only at the places in the path where it means that service, so that a
    run or an experiment may be called alike."""
    words: Iterable[str] = [word for word in path.split("/") if word]
    return any(number in CLOSED.get(word, ()) for number, word in enumerate(words))
