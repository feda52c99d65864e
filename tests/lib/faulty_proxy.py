"""Stands between zsg and a real MLflow server, and does to requests what networks and
servers under load do.

A seed decides what happens to which request: nothing, a delay, a connection dropped
before the server hears of it, an answer that a server gives under load, or a connection
cut after the server has done what was asked.
"""

from __future__ import annotations

import http.client
import json
import random
import socket
import threading
import time
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from jobs.tracking import server_tokens

POOL = b'{"error_code": "BAD_REQUEST", "message": "QueuePool limit of size 5 overflow 10 reached"}'
TWICE = (
    b'{"error_code": "BAD_REQUEST", "message": "(sqlite3.IntegrityError) UNIQUE constraint failed:'
    b' metrics.key"}'
)
LOCKED = b'{"error_code": "BAD_REQUEST", "message": "(sqlite3.OperationalError) database is locked"}'
ANSWERS = [
    (400, POOL),
    (400, LOCKED),
    (429, b"slow down"),
    (500, b"{}"),
    (503, b"<html>busy</html>"),
    (502, b""),
]
REFUSAL = b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "no such thing"}'
# and, where it is asked for, "twice": a row is there already; "refusal": for good
FAULTS = ["delay", "drop", "answer", "cut"]


class FaultyProxy:
    """Listens on a port of its own while it is used in a `with` statement; `share` of
    the requests fare badly."""

    def __init__(self, target: str, seed: int, share: float) -> None:
        self.chance, self.share, self.is_down = random.Random(seed), share, False
        self.requests: list[tuple[str, str, str]] = []  # method, path, what befell it
        # what is to befall the next requests whose paths end so
        self.befalls: dict[str, list[str]] = {}
        # what is answered in the server's place to requests whose paths end so
        self.says: dict[str, bytes] = {}
        # "name:password" of whom it lets through, as a site's own proxy does
        self.login: str | None = None
        # True: it sends everybody on to a page, as a login for browsers does
        self.asks_browsers = False
        # False: it refuses a NaN that it has, as MLflow before 3.15 does
        self.knows_nans = True
        self._nans: set[tuple[str, ...]] = set()
        self._target, self._lock = urlsplit(target).netloc, threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                proxy.handle(self)

            do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # whoever asked is gone

        self._server = Server(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FaultyProxy:
        threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.05},
            daemon=True,
        ).start()
        return self

    def __exit__(self, *ended: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def handle(self, asked: BaseHTTPRequestHandler) -> None:
        """Passes a request on, or not."""
        body = asked.rfile.read(int(asked.headers.get("Content-Length") or 0))
        fault, answer = self._fault(asked.path)
        self.requests.append((asked.command, asked.path, fault))
        if self.asks_browsers:
            self._ask_browser(asked)
            return
        if (
            self.login
            and asked.headers.get("Authorization")
            != f"Basic {b64encode(self.login.encode()).decode()}"
        ):
            _answer(asked, 401, b"You are not authenticated.")
            return
        if said := next(
            (said for end, said in self.says.items() if asked.path.endswith(end)), None
        ):
            _answer(asked, 200, said)
            return
        if fault == "drop":
            _hang_up(asked)
            return
        if fault == "twice" or (
            not self.knows_nans and self._has_nan(asked.path, body)
        ):
            _answer(asked, 400, TWICE)
            return
        if fault == "refusal":
            _answer(asked, 400, REFUSAL)
            return
        if fault == "answer":
            _answer(asked, *answer)
            return
        if fault == "delay":
            time.sleep(answer[0] / 5000)
        status, said = self._pass_on(asked, body)
        _hang_up(asked) if fault == "cut" else _answer(asked, status, said)

    def _ask_browser(self, asked: BaseHTTPRequestHandler) -> None:
        """Sends on to a page of another host, which is this one by another name."""
        if asked.path.startswith("/login"):
            _answer(asked, 200, b"<!doctype html><title>Sign in</title>")
            return
        asked.send_response(302)
        port = urlsplit(self.uri).port
        asked.send_header("Location", f"http://localhost:{port}/login?state=s3cret")
        asked.send_header("Content-Length", "0")
        asked.end_headers()

    def _has_nan(self, path: str, body: bytes) -> bool:
        """Whether a request has a NaN that was passed on before; if not, those that it
        has are from now on."""
        if not path.endswith("log-batch"):
            return False
        told = json.loads(body)
        metrics = [one for one in told.get("metrics", []) if one["value"] == "NaN"]
        nans = {
            (told["run_id"], one["key"], str(one["timestamp"]), str(one["step"]))
            for one in metrics
        }
        with self._lock:
            known = nans & self._nans
            self._nans |= set() if known else nans
        return bool(known)

    def sent(self) -> list[str]:
        """The paths of the requests that would change something."""
        return [
            path
            for method, path, _ in self.requests
            if method != "GET" and not path.endswith("/search")
        ]

    def _fault(self, path: str) -> tuple[str, tuple[int, bytes]]:
        with self._lock:
            if self.is_down:
                return "drop", (0, b"")
            for end, faults in self.befalls.items():
                if path.endswith(end) and faults:
                    return faults.pop(0), ANSWERS[0]
            fares_badly = self.chance.random() < self.share
            return self.chance.choice(
                FAULTS
            ) if fares_badly else "", self.chance.choice(ANSWERS)

    def _pass_on(self, asked: BaseHTTPRequestHandler, body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self._target, timeout=60)
        try:
            headers = {
                key: value
                for key, value in asked.headers.items()
                if key.lower() != "host"
            }
            if token := server_tokens.find_token(f"http://{self._target}"):
                # a site's own proxy has what the server asks for
                headers["Authorization"] = f"Bearer {token}"
            connection.request(asked.command, asked.path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def _answer(asked: BaseHTTPRequestHandler, status: int, said: bytes) -> None:
    asked.send_response(status)
    asked.send_header("Content-Type", "application/json")
    asked.send_header("Content-Length", str(len(said)))
    asked.end_headers()
    asked.wfile.write(said)


def _hang_up(asked: BaseHTTPRequestHandler) -> None:
    asked.close_connection = True
    asked.connection.shutdown(socket.SHUT_RDWR)
