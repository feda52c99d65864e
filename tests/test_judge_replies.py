"""Whatever a judge's server sends: is an item rated or missing with a reason, in time,
and is the key kept nowhere?"""

import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.evaluating.judge import Judge, Judged, Kept, Rating, rate_requests
from jobs.runtime import chat_server, exchange
from tests.lib.fake_judge import KEY, said
from zsg_core.errors import ClusterError, UserError
from zsg_core.metrics import mt_bench
from zsg_core.metrics.mt_bench import JudgeRequest
from zsg_core.retry import ExponentialBackoff

ASKED = JudgeRequest(
    id="q", task="writing", system="s", user="u", answer="a" * 64, prompt="p" * 64
)
LIMIT_S = 0.2
HANGS_S = 60  # how long a server holds who waits without a limit
ENDED_S = 30  # whoever has a limit is back long before, also on a machine that is busy

Act = Callable[[socket.socket], Any]


class Raw:
    """A server on loopback that does with each connection what a test says, once it has
    the request."""

    def __init__(self, act: Act, reads: bool = True) -> None:
        self.asked: list[bytes] = []
        self._act, self._reads = act, reads
        self._held = socket.create_server(("127.0.0.1", 0))
        self.port = self._held.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def _serve(self) -> None:
        while True:
            try:
                one, _ = self._held.accept()
            except OSError:
                return
            with one:
                one.settimeout(3)
                try:
                    self.asked.append(one.recv(65536) if self._reads else b"")
                    self._act(one)
                except OSError:
                    pass  # who asked has had enough

    def close(self) -> None:
        self._held.shutdown(socket.SHUT_RDWR)
        self._held.close()
        self._thread.join()


@pytest.fixture
def serve() -> Iterator[Callable[..., Raw]]:
    """Makes servers that end with the test."""
    made: list[Raw] = []

    def make(act: Act, reads: bool = True) -> Raw:
        made.append(Raw(act, reads))
        return made[-1]

    yield make
    for one in made:
        one.close()


def reply(body: bytes, *headers: str, status: str = "200 OK") -> Act:
    head = "".join(
        f"{line}\r\n"
        for line in (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers)
    )
    return lambda one: one.sendall(head.encode("latin-1") + b"\r\n" + body)


def text(content: str) -> Act:
    return reply(said(content)[2])


def without_end(piece: bytes, first: bytes = b"") -> Act:
    """Sends a piece a hundred times a second, until whoever asked is gone."""

    def act(one: socket.socket) -> None:
        one.sendall(first)
        for _ in range(HANGS_S * 100):
            one.sendall(piece)
            time.sleep(0.01)

    return act


def say_nothing(one: socket.socket) -> None:
    """Holds the connection until whoever asked is gone."""
    one.settimeout(HANGS_S)
    while one.recv(65536):
        pass


def asked(server: Raw, kept: Path, **options: Any) -> Judged:
    retry_policy = ExponentialBackoff(limit_s=0.01, first_s=0.001, longest_s=0.002)
    one = Judge(
        "m",
        server.uri,
        **{"key": KEY, "timeout_s": 5.0, "retry_policy": retry_policy, **options},
    )
    return rate_requests([ASKED], one, Kept(kept), workers=1)


MALFORMED = {
    "nested deeply": reply(b'{"choices":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "a number of 5,000 digits": reply(b'{"choices": ' + b"1" * 5000 + b"}"),
    "not a number": reply(b'{"choices": [{"message": {"content": NaN}}]}'),
    "no JSON": reply(b"\xff\xfe\x00 <html>"),
    "a list": reply(b"[]"),
    "packed": reply(b"\x1f\x8b\x08\x00" + b"\0" * 64, "Content-Encoding: gzip"),
    "a chunk of a negative size": reply(
        b"-5\r\nabc\r\n0\r\n\r\n", "Transfer-Encoding: chunked"
    ),
    "a rating that is none": text("[[" + "9" * 100_000 + "]]"),
    "digits and no bracket": text("[" + "1" * 300_000),
    "half a surrogate": reply(b'{"choices": [{"message": {"content": "\\ud800"}}]}'),
    "empty": reply(b""),
}


@pytest.mark.parametrize("act", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_reply_that_is_none_makes_its_item_missing(
    serve, tmp_path: Path, act: Act
) -> None:
    """It is asked for three times, in a moment, and the reason is told; but what has a
    text is asked for once, as the judge would say it again."""
    server, began = serve(act), time.monotonic()
    judged = asked(server, tmp_path / "kept")

    assert judged.ratings == {}
    is_text = "no rating from 1 to 10" in judged.missing["q"]
    assert judged.missing["q"].endswith(", 3 times") != is_text
    assert len(server.asked) == (1 if is_text else 3)
    assert time.monotonic() - began < ENDED_S


def test_a_reply_beyond_the_bytes_that_are_read_is_malformed(
    serve, tmp_path: Path, monkeypatch
) -> None:
    """Also where its length is a lie, or it is all headers."""
    monkeypatch.setattr(chat_server, "MOST_BYTES", 10_000)
    lie = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999\r\n\r\n"
    for act in (
        reply(b"x" * 20_000),
        without_end(b"x" * 5000, lie),
        without_end(b"X: " + b"y" * 5000 + b"\r\n", lie[:17]),
    ):
        judged = asked(serve(act), tmp_path / "kept")

        assert judged.missing == {"q": "the reply has more than 10,000 bytes, 3 times"}


HANGS = {
    "100 Continue without end": without_end(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "headers that drip": without_end(b"x", b"HTTP/1.1 200 OK\r\nX: "),
    "a body that drips": without_end(
        b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n"
    ),
    "chunks that drip": without_end(
        b"1\r\nx\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    ),
    "an error that drips": without_end(
        b"x", b"HTTP/1.1 500 No\r\nContent-Length: 9000\r\n\r\n"
    ),
    "nothing": say_nothing,
}


@pytest.mark.parametrize("act", HANGS.values(), ids=HANGS.keys())
def test_one_clock_is_of_the_whole_reply(serve, tmp_path: Path, act: Act) -> None:
    """A server that always sends a little more holds no worker; the judge is away, and
    this is tried twice."""
    server, began = serve(act), time.monotonic()
    with pytest.raises(ClusterError, match=r"did not answer for 0\.01 s: TimeoutError"):
        asked(server, tmp_path / "kept", timeout_s=LIMIT_S)

    assert time.monotonic() - began < ENDED_S


def test_the_clock_is_of_the_handshake_too(serve) -> None:
    """A server that takes the connection and says nothing."""
    server, began = serve(say_nothing, reads=False), time.monotonic()
    with pytest.raises(TimeoutError):
        exchange.post_request(
            f"https://127.0.0.1:{server.port}/", b"", {}, LIMIT_S, 1000
        )

    assert time.monotonic() - began < ENDED_S


def test_the_clock_is_of_the_name_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up that hangs is left behind."""
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(HANGS_S))
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="not looked up in time"):
        exchange.post_request("http://judge.example/", b"", {}, LIMIT_S, 1000)
    over.set()

    assert time.monotonic() - began < ENDED_S


def test_a_reply_that_is_cut_is_asked_for_again(serve, tmp_path: Path) -> None:
    """The server went away in the middle of it."""
    with pytest.raises(ClusterError, match="IncompleteRead"):
        asked(
            serve(
                lambda one: one.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"
                )
            ),
            tmp_path / "kept",
        )


ECHOES = {
    "in the rating": text(f"Bearer {KEY} [[7]]"),
    "escaped in the rating": reply(
        b'{"choices": [{"message": {"content": "[[7]] '
        + "".join(f"\\u{ord(one):04x}" for one in KEY).encode()
        + b' \\\\u0073\\\\u006b-not-to-be-seen"}}]}'
    ),
    "in no rating": text(f"Bearer {KEY}"),
    "in an error": reply(KEY.encode(), status="400 Bad"),
    "in an error, as JSON": reply(
        json.dumps({"key": "".join(f"%{ord(one):02x}" for one in KEY)}).encode(),
        status="422 X",
    ),
    "in a busy error": reply(KEY.encode(), status="503 Busy"),
    "in a wrong key": reply(f"Incorrect API key {KEY}".encode(), status="401 No"),
    "in the reason": reply(b"no", status=f"403 {KEY}"),
    "in a redirect": reply(
        b"", f"Location: http://127.0.0.1:1/{KEY}", status="302 Found"
    ),
    "in the status line": lambda one: one.sendall(f"HTTP/1.1 {KEY}\r\n\r\n".encode()),
    "in place of HTTP": lambda one: one.sendall(f"Bearer {KEY}\r\n\r\n".encode()),
    "in a chunk's size": reply(f"{KEY}\r\n".encode(), "Transfer-Encoding: chunked"),
    "cut in an error": reply(b"x" * 290 + KEY.encode(), status="400 Bad"),
}


@pytest.mark.parametrize("act", ECHOES.values(), ids=ECHOES.keys())
def test_what_a_server_echoes_of_the_key_is_kept_and_told_nowhere(
    serve, tmp_path: Path, act: Act
) -> None:
    """Neither with the ratings, nor in the reason of a missing item, nor in an error."""
    server = serve(act)
    try:
        told = repr(asked(server, tmp_path / "kept"))
    except (ClusterError, UserError) as error:
        told = f"{error} {error.__cause__} {error.__context__ and error.__suppress_context__}"
    kept = (tmp_path / "kept").read_text() if (tmp_path / "kept").exists() else ""

    assert server.asked[0].count(KEY.encode()) == 1, "the server had the key"
    assert KEY[:8] not in told + kept
    assert "not-to-be-seen" not in told + kept


def test_a_rating_is_read_before_the_key_is_hidden(serve, tmp_path: Path) -> None:
    """A key of a server of one's own may be any word, also one of the reply."""
    judged = asked(serve(text("five [[5]]")), tmp_path / "kept", key="five")

    assert judged.ratings == {"q": 5.0}
    assert json.loads((tmp_path / "kept").read_text())["reply"] == "… [[5]]"


def test_what_a_server_says_is_shown_without_its_escapes(serve, tmp_path: Path) -> None:
    """An error text with the sequences of a terminal."""
    judged = asked(
        serve(reply(b"\x1b]0;TITLE\x07\xe2\x80\xaeno", status="400 Bad")),
        tmp_path / "kept",
    )

    assert judged.missing == {"q": r"HTTP 400 \x1b]0;TITLE\x07\u202eno"}


def test_a_key_is_not_sent_over_plain_http_to_another_machine(
    serve, tmp_path: Path, monkeypatch
) -> None:
    """By no name of it, and not where a name of this machine turns out to be another's."""
    server = serve(text("[[5]]"))
    for host in ("node7", "localhost.evil.example", "10.0.0.1"):
        one = Judge("m", f"http://{host}:{server.port}/v1", KEY)
        with pytest.raises(UserError, match="no key is sent there"):
            rate_requests([ASKED], one, Kept(tmp_path / "kept"))
    real = exchange.addresses.is_this_machine
    monkeypatch.setattr(
        exchange.addresses,
        "is_this_machine",
        lambda host: host == "localhost" or (host != "127.0.0.1" and real(host)),
    )
    with pytest.raises(UserError, match="no key is sent there"):
        rate_requests(
            [ASKED],
            Judge("m", f"http://localhost:{server.port}/v1", KEY),
            Kept(tmp_path / "kept"),
        )

    assert not any(KEY.encode() in request for request in server.asked)


def test_no_proxy_is_asked_for_this_machine(
    serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be told the key in the clear, and this machine is another one to it."""
    proxy, server = serve(text("[[1]]")), serve(text("[[5]]"))
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.delenv("no_proxy", raising=False)

    assert asked(server, tmp_path / "kept").ratings == {"q": 5.0}
    assert proxy.asked == []


def test_a_proxy_is_told_the_host_and_its_own_login_and_no_key(
    serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is encrypted goes through it as it is; that it refuses is told without its password."""
    proxy = serve(reply(b"", status="407 Login"))
    monkeypatch.setenv(
        "https_proxy", f"http://me:proxy-password@127.0.0.1:{proxy.port}"
    )
    monkeypatch.delenv("no_proxy", raising=False)
    retry_policy = ExponentialBackoff(limit_s=0.01, first_s=0.001, longest_s=0.002)
    with pytest.raises(ClusterError, match="Tunnel connection failed: 407") as refused:
        Judge("m", "https://judge.example/v1", KEY, retry_policy=retry_policy).reply(
            "s", "u"
        )

    assert proxy.asked[0].startswith(b"CONNECT judge.example:443 HTTP/1.")
    assert b"Proxy-Authorization: Basic bWU6cHJveHktcGFzc3dvcmQ=" in proxy.asked[0]
    assert not any(KEY.encode() in request for request in proxy.asked)
    assert "proxy-password" not in str(refused.value)


def test_an_encrypted_judge_is_asked_and_must_be_who_it_says(
    serve, tmp_path: Path, monkeypatch
) -> None:
    """With a certificate that is trusted; without one the key is not sent."""
    if not shutil.which("openssl"):
        pytest.skip("needs openssl, which makes a certificate")
    certificate, private = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "1",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            private,
            "-out",
            certificate,
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private)
    requests: list[bytes] = []

    def act(one: socket.socket) -> None:
        with context.wrap_socket(one.dup(), server_side=True) as encrypted:
            requests.append(encrypted.recv(65536))
            text("[[6]]")(encrypted)

    server = serve(act, reads=False)
    address = f"https://127.0.0.1:{server.port}/v1"
    retry_policy = ExponentialBackoff(limit_s=0.01, first_s=0.001, longest_s=0.002)
    with pytest.raises(ClusterError, match="certificate verify failed"):
        Judge("m", address, KEY, retry_policy=retry_policy).reply("s", "u")
    assert requests == []

    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert (
        Judge("m", address, KEY, retry_policy=retry_policy).reply("s", "u").text
        == "[[6]]"
    )
    assert f"Authorization: Bearer {KEY}".encode() in requests[0]


@pytest.mark.parametrize(
    ("said", "rating"),
    [
        ("[[7]]", 7.0),
        ("[[7.]]", 7.0),
        ("[[7.5]] [[3]]", 7.5),
        ("[8]", 8.0),
        ("[[0]]", None),
        ("[[11]]", None),
        ("7", None),
    ],
)
def test_ratings_are_read_as_by_fastchat(said: str, rating: float | None) -> None:
    """The first in double brackets, else in single ones, from 1 to 10."""
    assert mt_bench.read_rating(said) == rating


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000,
        '{"rating": 1e999}',
        f'{{"answer": "a", "judge": "m", "prompt": "p", "rating": {"9" * 400}}}',
    ],
)
def test_a_line_of_ratings_that_is_none_is_passed_over(
    tmp_path: Path, line: str
) -> None:
    """What is whole after it counts."""
    row = {"answer": ASKED.answer, "judge": "m", "prompt": ASKED.prompt, "rating": 4}
    (tmp_path / "kept").write_text(
        f"{line}\n{json.dumps(row | {'rating': 70})}\n{json.dumps(row)}\n"
    )

    assert Kept(tmp_path / "kept").get("m", ASKED) == Rating(4.0)
