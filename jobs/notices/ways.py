"""Sends one message: by a POST to an address that a variable holds, or to a program.

The address is a secret, as whoever has it can post there: it is read from the
environment when it is needed, and stands in no file, message or log. A reply counts by
its status alone; no redirect is followed, and nothing of a reply is kept.
"""

import contextlib
import http.client
import os
import signal
import ssl
import subprocess
from collections.abc import Mapping

from jobs.contract.notices import Receiver, Way
from jobs.notices import receivers
from jobs.runtime import exchange
from zsg_core import addresses

MOST_BYTES = 64 << 10  # of a reply, its headers included


class NotTaken(Exception):
    """A receiver has not taken a message; the text says why, and names no address."""


def send_message(
    receiver: Receiver,
    message: str,
    body: bytes,
    limit_s: float,
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Sends a message, within so many seconds in all. NotTaken where the receiver has
    not said that it took it, which it may have all the same."""
    why = receivers.explain_unusable(receiver, environment)
    if why is not None:
        raise NotTaken(why)
    if receiver.way == Way.COMMAND:
        _run_command(receiver.command, body, limit_s)
        return
    address = environment[receiver.variable].strip()
    try:
        reply = _post(address, message, body, limit_s)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NotTaken(_describe_failure(error)) from None
    except (exchange.TooLong, exchange.NotHere):
        raise NotTaken("its reply is too long, or it is not this machine") from None
    if 300 <= reply.status < 400:
        raise NotTaken(f"it answered {reply.status}: a redirect, which is not followed")
    if not 200 <= reply.status < 300:
        raise NotTaken(f"it answered {reply.status}")


def _post(address: str, message: str, body: bytes, limit_s: float) -> exchange.Reply:
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "Idempotency-Key": message,
        "User-Agent": "zsg",
    }
    return exchange.post_request(
        address,
        body,
        headers,
        limit_s,
        MOST_BYTES,
        only_here=addresses.is_unencrypted(address),
    )


def _describe_failure(error: Exception) -> str:
    """What kept a message from its receiver, by the kind of error and the system's own
    words: an error's text may quote the address."""
    kind = type(error).__name__
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, exchange.UnknownName):
        return "its name is not known here"
    if isinstance(error, ssl.SSLError):
        return f"{kind}: no encrypted connection, or another one's certificate"
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return f"{kind}: {os.strerror(error.errno)}"
    return kind


def _run_command(command: list[str], body: bytes, limit_s: float) -> None:
    """Runs a program with the message on its standard input; what it prints is for
    nobody."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # an argument must not find a file in whatever folder the user stands in
            cwd="/",
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        number = error.errno if isinstance(error, OSError) else None
        words = os.strerror(number) if number else type(error).__name__
        raise NotTaken(f"it cannot be started: {words}") from None
    try:
        # one that does not read its input has taken the message by ending well
        process.communicate(body, timeout=limit_s)
    except subprocess.TimeoutExpired:
        _end_group(process)
        raise NotTaken(f"it did not end within {limit_s:.0f} s") from None
    if process.returncode:
        raise NotTaken(f"it ended with {process.returncode}")


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends a program and what it has started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
