"""A small Hugging Face hub on loopback: the answers that the real client asks for, of
data sets in memory."""

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass
class Hub:
    """What the hub holds: files by (data set, commit), the commit of every branch, and
    what it refuses and how."""

    files: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)
    branches: dict[tuple[str, str], str] = field(default_factory=dict)
    # data set → status and X-Error-Code
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    broken: int = 0  # bits of every file's first byte that come wrong
    lost: set[str] = field(default_factory=set)  # files that are listed and not there
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def __enter__(self) -> "Hub":
        hub = self

        class Handler(_Handler):
            held = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}
        ).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    held: Hub

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.held.asked.append(f"{self.command} {path}")
        if path.startswith("/api/datasets/"):
            repo, _, revision = path.removeprefix("/api/datasets/").partition(
                "/revision/"
            )
            self._info(repo, revision or "main")
        elif "/resolve/" in path:
            repo, _, rest = path.removeprefix("/datasets/").partition("/resolve/")
            commit, _, name = rest.partition("/")
            self._file(repo, commit, name)
        else:
            self._refuse(404, "")

    do_HEAD = do_GET

    def _info(self, repo: str, revision: str) -> None:
        if repo in self.held.refused:
            return self._refuse(*self.held.refused[repo])
        commit = self.held.branches.get((repo, revision), revision)
        if (repo, commit) not in self.held.files:
            known = any(repo == name for name, _ in self.held.files)
            return self._refuse(
                404 if known else 401, "RevisionNotFound" if known else "RepoNotFound"
            )
        files = self.held.files[repo, commit].items()
        siblings = [
            {"rfilename": name, "size": len(data), "lfs": _lfs(data)}
            for name, data in files
        ]
        self._answer(
            json.dumps({"id": repo, "sha": commit, "siblings": siblings}).encode(), {}
        )

    def _file(self, repo: str, commit: str, name: str) -> None:
        data = self.held.files.get((repo, commit), {}).get(name)
        if data is None or name in self.held.lost:
            return self._refuse(404, "EntryNotFound")
        data = bytes([data[0] ^ self.held.broken]) + data[1:]
        self._answer(
            data,
            {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(data).hexdigest()}"'},
        )

    def _answer(self, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


def _lfs(data: bytes) -> dict[str, object]:
    return {
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
        "pointerSize": 130,
    }
