"""A judge on loopback that does whatever a test's script says: answers, refuses,
stumbles, hangs up."""

import json
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from jobs.evaluating.judge import Judge
from zsg_core.retry import ExponentialBackoff

KEY = "sk-not-to-be-seen"
Answer = tuple[int, dict[str, str], bytes]  # status, headers, body


def said(text: Any) -> Answer:
    """A reply of the protocol's form."""
    return 200, {}, json.dumps({"choices": [{"message": {"content": text}}]}).encode()


class FakeJudge:
    """A server on loopback that answers each question by its script, one entry a time,
    the last again and again."""

    def __init__(self, script: Callable[[str, int], Answer]) -> None:
        self.asked: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.script, self._lock = script, threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                user = body["messages"][-1]["content"]
                with fake._lock:
                    number = fake.asked[user]
                    fake.asked[user] += 1
                    fake.bodies.append(body)
                    fake.keys.add(self.headers["Authorization"])
                status, headers, text = fake.script(user, number)
                if status == 0:  # hangs up
                    self.connection.close()
                    return
                is_torn = status < 0  # breaks off in the middle of its reply
                self.send_response(200 if is_torn else status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text[: len(text) // 2] if is_torn else text)
                if is_torn:
                    self.close_connection = True

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: Any) -> None:
                # a client that no longer waits, a connection that the script closed
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.01}
        )
        self.thread.start()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/v1"

    def judge(self, **options: Any) -> Judge:
        retry_policy = ExponentialBackoff(
            limit_s=options.pop("limit_s", 20), first_s=0.001, longest_s=0.01
        )
        return Judge(
            **{
                "id": "gpt-test",
                "uri": self.uri,
                "key": KEY,
                "retry_policy": retry_policy,
            }
            | options
        )

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
