"""The command line as a user runs it, its server, and waiting for what they do."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

QUIET = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "COLUMNS": "200",
}


class Zsg:
    """The command line, in a folder and an environment of its own."""

    def __init__(self, folder: Path, env: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.env = {**os.environ, **QUIET, **(env or {})}
        self.program = [sys.executable, "-m", "launcher.cli"]

    @property
    def work(self) -> Path:
        return self.folder / "zsg-work"

    def start(self, *argv: str | Path, **options: Any) -> subprocess.Popen[str]:
        """A command under way. It hears Ctrl-C also where the suite runs in the
        background, which ignores it."""
        command = [*self.program, *map(str, argv)]
        options["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
        return subprocess.Popen(
            command, cwd=self.folder, env=self.env, text=True, **options
        )

    def __call__(self, *argv: str | Path, code: int | tuple[int, ...] = 0) -> str:
        """What a command prints on stdout; it must end with `code`. What it says on
        stderr stays in `said`.

        Several codes are for what this machine decides, such as whether its disk holds
        the states of real models.
        """
        process = self.start(*argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        printed, self.said = process.communicate(timeout=1200)
        codes = code if isinstance(code, tuple) else (code,)
        assert process.returncode in codes, (
            f"zsg {argv} ended with {process.returncode}:\n{printed}\n{self.said}"
        )
        return printed

    def status(self, *argv: str | Path) -> list[dict[str, Any]]:
        """The rows of `zsg status --json`."""
        return json.loads(self("status", "--json", *argv))

    def write(self, name: str, text: str) -> Path:
        """A file in the folder."""
        (self.folder / name).write_text(text, encoding="utf-8")
        return self.folder / name


def wait_until(question: Callable[[], object], limit_s: float = 180) -> None:
    """Asks again and again until the answer is yes; in between rests longer than asking took."""
    until = time.monotonic() + limit_s
    while True:
        asked = time.monotonic()
        if question():
            return
        assert time.monotonic() < until, f"waited {limit_s} s in vain"
        time.sleep(max(0.05, 1.5 * (time.monotonic() - asked)))


def page_at(url: str, limit_s: float = 90, token: str = "") -> str:
    """What a server under way answers once it is up."""
    until = time.monotonic() + limit_s
    asked = urllib.request.Request(
        url, headers={"Authorization": f"Bearer {token}"} if token else {}
    )
    while True:
        try:
            with urllib.request.urlopen(asked, timeout=10) as page:
                return page.read().decode()
        except urllib.error.HTTPError as error:
            error.close()  # else its socket is found open in a later test
        except OSError:
            pass  # not up yet
        assert time.monotonic() < until, f"{url} did not answer in {limit_s} s"
        time.sleep(0.3)


def start_server(
    folder: Path, *options: str, port: int | None = None
) -> tuple[subprocess.Popen[bytes], str]:
    """A `zsg server` that answers, and its address; a port is chosen unless one is given."""
    if port is None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "launcher.cli",
        "server",
        "--folder",
        str(folder),
        "--port",
        str(port),
    ]
    folder.mkdir(exist_ok=True)
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen([*command, *options], stdout=log, stderr=log)
    try:
        page_at(f"http://127.0.0.1:{port}/health")
    except BaseException:
        process.terminate()
        process.wait(30)
        raise
    return process, f"http://127.0.0.1:{port}"


def serve(folder: Path, *options: str) -> Iterator[str]:
    """A `zsg server` while it is needed."""
    process, address = start_server(folder, *options)
    try:
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
