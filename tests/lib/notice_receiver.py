"""Receivers of notices on loopback, a workspace's notices, and a sender that is killed
at a given moment."""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from jobs.contract import notices as records
from jobs.contract.folder import Workspace
from jobs.contract.notices import Kind, Notice, NoticeRow, Receiver, Way
from jobs.notices import sender, ways
from jobs.notices.sender import Patience

VARIABLE = "LAB_HOOK"
HOOK = Receiver(way=Way.WEBHOOK, variable=VARIABLE, on=list(Kind))
ASKED = Patience(20.0, is_asked=True)
# what a receiver answers to each message in turn, the last again and again
Script = Callable[[int], int]


class NoticeReceiver:
    """A server on loopback that keeps what was posted, and answers by its script: a
    status, 0 to hang up, -1 to wait until it is closed."""

    def __init__(self, script: Script = lambda number: 200) -> None:
        self.posts: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self.closing = threading.Event()
        self.headers: dict[str, str] = {}
        self.script, self._lock = script, threading.Lock()
        kept = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = kept.script(kept.keep(body))
                if status == -1:
                    kept.closing.wait(60)
                if status <= 0:
                    self.connection.close()
                    return
                self.send_response(status)
                for name, value in kept.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: Any) -> None:
                # a sender that no longer waits, or was killed
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.01}
        )
        self.thread.start()

    def keep(self, body: bytes) -> int:
        """Keeps a message; its number, counted from 0."""
        with self._lock:
            self.bodies.append(body)
            self.posts.append(json.loads(body))
            return len(self.posts) - 1

    @property
    def address(self) -> str:
        """With a secret in its path and in its query, as services have it."""
        port = self.server.server_port
        return f"http://127.0.0.1:{port}/hooks/s3cr3t-path?sig=s3cr3t-query"

    def list_told(self) -> list[str]:
        """The ids of all notices that came, each as often as it came."""
        return [each for post in self.posts for each in post["ids"]]

    def close(self) -> None:
        """Ends it, with whoever waits."""
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def make_failure(number: int, reason: str = "out of memory") -> Notice:
    """That a run has failed."""
    item = f"runs/{number:04d}"
    return Notice(
        id=records.name_job_notice(Kind.FAILED, item, "s1", 1),
        kind=Kind.FAILED,
        grid="g",
        alike=records.tell_alike(Kind.FAILED, "g", reason, None),
        item=item,
        attempt=1,
        cause=reason,
        evidence=f"it failed in run {number}",
        at=1_700_000_000_000,
    )


def find_two_ids(receiver: NoticeReceiver) -> list[str]:
    """The notices that came in messages of more than one id, which none should."""
    messages: dict[str, set[str]] = {}
    for post in receiver.posts:
        for each in post["ids"]:
            messages.setdefault(each, set()).add(post["id"])
    return [each for each, ids in messages.items() if len(ids) > 1]


class _Killer:
    """Kills this process at its n-th moment."""

    def __init__(self, moment: int) -> None:
        self._left = moment

    def is_now(self) -> bool:
        self._left -= 1
        return self._left == 0

    def pass_moment(self) -> None:
        if self.is_now():
            os.kill(os.getpid(), signal.SIGKILL)


def send_and_die(root: Path, moment: int, numbers: list[int]) -> None:
    """Tells of these failures, and is killed at a moment: before, within or behind a
    write, before or behind a message."""
    killer = _Killer(moment)
    append, send = records.append_rows, ways.send_message

    def append_or_die(workspace: Workspace, rows: list[NoticeRow]) -> None:
        killer.pass_moment()
        if rows and killer.is_now():
            with records.locate_notices(workspace).open("ab") as file:
                file.write(b'{"row":"meant","to":"webhook:LAB')
            os.kill(os.getpid(), signal.SIGKILL)
        append(workspace, rows)
        killer.pass_moment()

    def send_or_die(*given: Any) -> None:
        killer.pass_moment()
        send(*given)
        killer.pass_moment()

    records.append_rows = append_or_die
    ways.send_message = send_or_die
    failures = [make_failure(number, f"reason {number % 2}") for number in numbers]
    sender.tell(Workspace(root), [HOOK], failures, ASKED)


if __name__ == "__main__":
    send_and_die(Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]))
