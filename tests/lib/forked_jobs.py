"""How do the tests start a real train job in a second? One process imports the engines,
and forks for each rank.

What a fork runs is `jobs.entry.run`, as under Slurm; only the imports are shared. As a
script, with the name of a socket and of further modules to import: forks a job for
whoever connects. ForkedJobs does, and the jobs that a `zsg submit` on this machine
starts, see forked_start. A line of JSON, {"folder", "env", "largest_file"}, with the
descriptors of stdout and stderr, is answered by the process id; the connection is open
until the job ends.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import itertools
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LIMIT_S = 120.0
_starts = itertools.count(int(time.time()))


@dataclass
class Rank:
    """One rank's process; it is no child of ours, so it is watched through a descriptor
    that knows its end."""

    pid: int
    log: Path
    _handle: int = field(init=False)

    def __post_init__(self) -> None:
        try:
            self._handle = os.pidfd_open(self.pid)
        except ProcessLookupError:  # it has ended already
            self._handle = -1

    def send(self, number: int) -> None:
        """A signal, unless it has ended."""
        if self._handle >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, number)

    def stack(self) -> str:
        """Where it is, in the words of its log, and what the kernel says of it."""
        self.send(signal.SIGRTMIN)
        time.sleep(0.5)
        status = Path(f"/proc/{self.pid}/status").read_text()
        return f"{status.splitlines()[2]}\n{self.log.read_text()[-4000:]}"

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
        self._handle = -1

    def ended(self, within_s: float = 0) -> bool:
        """Whether it has ended, or ends in so many seconds."""
        return self._handle < 0 or bool(
            select.select([self._handle], [], [], within_s)[0]
        )


class JobServer:
    """The process that forks, from `start` (or `with`) to `stop`; it also ends with ours."""

    def __init__(self, address: Path, preload: Sequence[str] = ()) -> None:
        self.address = address
        self._preload = preload
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> JobServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def variables(self) -> dict[str, str]:
        """The variables by which local jobs are forked off this process."""
        return {
            "PYTHONPATH": str(Path(__file__).with_name("forked_start")),
            "FORKED_JOBS": str(self.address),
        }

    def start(self) -> None:
        """Returns when the engines are imported."""
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(self.address), *self._preload],
            stdin=subprocess.PIPE,
            env=_environment(),
        )
        wait_until(self.address.exists, limit_s=600)  # other tests may want the cores

    def fork(
        self, folder: Path, env: Mapping[str, str], log: Path, largest_file: int | None
    ) -> int:
        """The process id of a new rank."""
        request = {"folder": str(folder), "env": env, "largest_file": largest_file}
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            with socket.socket(socket.AF_UNIX) as server:
                server.connect(str(self.address))
                text = f"{json.dumps(request)}\n".encode()
                socket.send_fds(server, [text], [output, output])
                with server.makefile() as answer:
                    return int(answer.readline())
        finally:
            os.close(output)

    def stop(self) -> None:
        assert self._process and self._process.stdin
        self._process.stdin.close()
        self._process.wait()


class ForkedJobs:
    """Starts jobs as forks of a server; ends with `stop`, and all it has begun with it."""

    def __init__(self, server: JobServer) -> None:
        self._server = server
        self._begun: list[Rank] = []

    def start(
        self, folder: Path, world: int = 1, largest_file: int | None = None
    ) -> list[Rank]:
        """A new start of a job, with so many ranks; no file of it may grow beyond
        `largest_file` bytes."""
        job_id, ranks = str(next(_starts)), []
        for rank in range(world):
            env = {
                "SLURM_JOB_ID": job_id,
                "SLURM_PROCID": str(rank),
                "SLURM_NTASKS": str(world),
            }
            log = folder / f"rank{rank}.txt"
            ranks.append(Rank(self._server.fork(folder, env, log, largest_file), log))
        self._begun += ranks
        return ranks

    def run(self, folder: Path, world: int = 1, **how: Any) -> dict[str, Any]:
        """Starts a job, waits for its end and returns its exit record."""
        ranks = self.start(folder, world, **how)
        for rank in ranks:
            assert rank.ended(within_s=LIMIT_S), "still running"
        return json.loads((folder / "exit.json").read_text())

    def stop(self) -> None:
        for rank in self._begun:
            rank.send(signal.SIGKILL)
            rank.close()


def wait_until(question: Callable[[], Any], limit_s: float = LIMIT_S) -> Any:
    """The first answer that is true, asked for so often that moments of some
    milliseconds are seen."""
    until = time.monotonic() + limit_s
    while not (answer := question()):
        assert time.monotonic() < until, f"waited {limit_s} s in vain"
        time.sleep(0.001)
    return answer


def _environment() -> dict[str, str]:
    env = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
    return {key: value for key, value in env.items() if not key.startswith("SLURM")} | {
        "DS_ACCELERATOR": "cpu"
    }


def _listen(address: str, preload: Sequence[str]) -> None:
    """Forks a job for whoever connects, until stdin is closed; the fork alone holds the
    connection then."""
    _import_engines()
    for name in preload:
        importlib.import_module(name)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{address}.new")
        server.listen()
        Path(f"{address}.new").rename(address)
        # nothing is ever written to stdin: it can be read once it is closed
        while sys.stdin not in select.select([server, sys.stdin], [], [])[0]:
            connection, _ = server.accept()
            request, (out, err) = _receive(connection)
            pid = os.fork()
            if pid == 0:
                server.close()
                _be_a_job(request, out, err)
            connection.sendall(f"{pid}\n".encode())
            for handle in (connection.detach(), out, err):
                os.close(handle)


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    text, handles, *_ = socket.recv_fds(connection, 1 << 20, 2)
    while not text.endswith(b"\n"):
        text += connection.recv(1 << 20)
    return json.loads(text), handles


def _import_engines() -> None:
    import deepspeed.runtime.zero.muon.original_muon  # noqa: F401  # its import costs more than all the others
    import torch  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401

    from jobs import entry  # noqa: F401
    from jobs.evaluating import evaluate  # noqa: F401
    from jobs.preparing import prepare  # noqa: F401
    from jobs.training import train  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries the ranks


def _be_a_job(request: Mapping[str, Any], out: int, err: int) -> None:
    from jobs import entry

    code = 70
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if size := request["largest_file"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        nothing = os.open(os.devnull, os.O_RDONLY)
        for new, old in ((nothing, 0), (out, 1), (err, 2)):
            os.dup2(new, old)
        faulthandler.register(signal.SIGRTMIN)  # where a rank hangs, for its log
        os.environ |= request["env"]
        entry.run(request["folder"])
        code = 0
    finally:
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    _listen(sys.argv[1], sys.argv[2:])
