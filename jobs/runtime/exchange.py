"""Posts a request and reads the whole reply by one clock and within one number of
bytes, whatever the server does.

The clock runs from the look-up of the name to the reply's last byte: a byte a minute,
`100 Continue` without end, a chunk that never comes and a handshake that hangs all end
with it. No redirect is followed, for it would take the key along, and nothing is
unpacked. Proxies are those of the environment, but never for this machine.
"""

import base64
import http.client
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from zsg_core import addresses


class TooLong(Exception):
    """A reply of more bytes than are read."""


class UnknownName(OSError):
    """A host whose name stands for no address, as far as this machine knows."""


class NotHere(Exception):
    """A connection for this machine only that has come to another."""


@dataclass(frozen=True)
class Reply:
    """What a server said."""

    status: int
    retry_after: str | None
    body: bytes


class Limits:
    """The time and the bytes that are left for an exchange."""

    def __init__(self, seconds: float, most_bytes: int) -> None:
        self._until, self._bytes = time.monotonic() + seconds, most_bytes

    def left_s(self) -> float:
        """The seconds that are left. TimeoutError when there are none."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the whole reply did not come in time")
        return left

    def count(self, read: int) -> None:
        """Counts bytes that were read. TooLong when they are more than allowed."""
        self._bytes -= read
        if self._bytes < 0:
            raise TooLong


class _Timed:
    """What both kinds of sockets do by the limits of an exchange; a socket's own
    timeout begins anew at every read."""

    limits: Limits

    def recv_into(self, *args: Any, **options: Any) -> int:
        self.settimeout(self.limits.left_s())  # type: ignore[attr-defined]
        read = super().recv_into(*args, **options)  # type: ignore[misc]
        self.limits.count(read)
        return read

    def send(self, *args: Any, **options: Any) -> int:
        self.settimeout(self.limits.left_s())  # type: ignore[attr-defined]
        return super().send(*args, **options)  # type: ignore[misc]

    def sendall(self, *args: Any, **options: Any) -> None:
        self.settimeout(self.limits.left_s())  # type: ignore[attr-defined]
        super().sendall(*args, **options)  # type: ignore[misc]


class _Socket(_Timed, socket.socket):
    pass


class _EncryptedSocket(_Timed, ssl.SSLSocket):
    pass


class _Connection(http.client.HTTPConnection):
    """A connection by the limits, encrypted where there is a `context`."""

    def __init__(
        self,
        host: str,
        port: int,
        limits: Limits,
        context: ssl.SSLContext | None,
        only_here: bool,
    ) -> None:
        super().__init__(host, port)
        self._limits, self._context, self._only_here = limits, context, only_here
        self.name = host  # by which the server's certificate must be
        # what is sent as one: a server that answers headers alone would hang up
        self.held: bytearray | None = None

    def send(self, data: Any) -> None:
        if self.held is None:
            super().send(data)
        else:
            self.held += data

    def flush(self) -> None:
        """Sends what was held."""
        whole, self.held = bytes(self.held or b""), None
        super().send(whole)

    def connect(self) -> None:
        sock: socket.socket = _connected(self.host, self.port, self._limits)
        self.sock = sock
        if self._only_here and not addresses.is_this_machine(
            str(sock.getpeername()[0])
        ):
            raise NotHere
        if self._tunnel_host:  # type: ignore[attr-defined]
            self._tunnel()  # type: ignore[attr-defined]
        if self._context:
            sock.settimeout(self._limits.left_s())
            encrypted = self._context.wrap_socket(
                sock, server_hostname=self.name, do_handshake_on_connect=False
            )
            self.sock = encrypted
            encrypted.limits = self._limits  # type: ignore[attr-defined]
            encrypted.settimeout(self._limits.left_s())
            encrypted.do_handshake()


def post_request(
    address: str,
    body: bytes,
    headers: Mapping[str, str],
    limit_s: float,
    most_bytes: int,
    *,
    only_here: bool = False,
) -> Reply:
    """The reply to a POST, of any status.

    `limit_s`: of the whole exchange; `most_bytes`: of all that is read, headers too;
    `only_here`: nothing is sent unless the connection is to this machine. Raises
    OSError (TimeoutError among them), http.client.HTTPException, ValueError, TooLong
    and NotHere: their texts may quote what was sent.
    """
    limits = Limits(limit_s, most_bytes)
    parts = urlsplit(address)
    host = parts.hostname or ""
    is_plain = parts.scheme == "http"
    port = parts.port or (80 if is_plain else 443)
    context = None if is_plain else _context()
    proxy = _proxy(parts.scheme, host)
    target, more = _target(parts), {}
    if proxy is None:
        connection = _Connection(host, port, limits, context, only_here)
    else:
        connection = _Connection(proxy.host, proxy.port, limits, context, only_here)
        connection.name = host
        if is_plain:
            target, more = address, proxy.headers
        else:
            connection.set_tunnel(host, port, proxy.headers)
    own = {
        "Host": _host(host, parts.port),
        "Accept-Encoding": "identity",
        "Connection": "close",
    }
    with closing(connection):
        connection.connect()
        connection.held = bytearray()
        connection.request("POST", target, body, {**own, **more, **headers})
        connection.flush()
        with closing(connection.getresponse()) as response:
            # never of the length that a header tells: so much memory would be taken
            said = response.read(most_bytes)
            if response.length:
                raise http.client.IncompleteRead(b"", response.length)
            return Reply(response.status, response.headers.get("Retry-After"), said)


def _target(parts: SplitResult) -> str:
    """What of an address the server itself is asked for."""
    path = parts.path or "/"
    return f"{path}?{parts.query}" if parts.query else path


def _host(name: str, port: int | None) -> str:
    name = f"[{name}]" if ":" in name else name
    return name if port is None else f"{name}:{port}"


def _context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.sslsocket_class = _EncryptedSocket
    return context


@dataclass(frozen=True)
class _Proxy:
    host: str
    port: int
    headers: dict[str, str]


def _proxy(scheme: str, host: str) -> _Proxy | None:
    """The proxy that the environment names for a host; None for this machine, which it
    would not be to a proxy."""
    if addresses.is_this_machine(host) or urllib.request.proxy_bypass(host):
        return None
    named = urllib.request.getproxies().get(scheme)
    if not named:
        return None
    parts = urlsplit(named if "://" in named else f"http://{named}")
    if parts.scheme != "http" or not parts.hostname:
        raise OSError(
            f"the proxy for {scheme} that the environment names is not http://HOST:PORT"
        )
    headers = {}
    if parts.username:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Proxy-Authorization"] = (
            f"Basic {base64.b64encode(user.encode()).decode()}"
        )
    return _Proxy(parts.hostname, parts.port or 80, headers)


def _connected(host: str, port: int, limits: Limits) -> _Socket:
    failed: OSError | None = None
    for family, kind, protocol, _, where in _addresses(host, port, limits):
        sock = _Socket(family, kind, protocol)
        sock.limits = limits
        try:
            sock.settimeout(limits.left_s())
            sock.connect(where)
        except OSError as error:
            sock.close()
            failed = error
            continue
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock
    raise failed or OSError("its name has no address")


def _addresses(host: str, port: int, limits: Limits) -> list[Any]:
    """What a name stands for. A look-up cannot be told to end: it is left behind where
    it takes too long."""
    found: list[Any] = []

    def look_up() -> None:
        try:
            found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            found.append(error)

    at_work = threading.Thread(target=look_up, daemon=True)
    # asked before the thread starts: on a busy machine that alone may take as long
    seconds = limits.left_s()
    at_work.start()
    at_work.join(seconds)
    if not found:
        raise TimeoutError("its name was not looked up in time")
    if isinstance(found[0], Exception):
        raise UnknownName(f"its name is not known: {found[0]}")
    return found[0]
