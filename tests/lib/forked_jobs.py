"""How do the tests start a real train job in a second? One process imports the engines,
and forks for each rank.

What a fork runs is `jobs.entry.run`, as under Slurm; only the imports are shared. As a
script: a JSON line on stdin, {"folder", "env", "log", "largest_file"}, is answered by
the process id of a rank. As a script with the name of a socket: forks the jobs that a
`zsg submit` on this machine starts, see forked_start.
"""

from __future__ import annotations

import contextlib
import faulthandler
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
from collections.abc import Callable, Iterator, Mapping
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


class ForkedJobs:
    """Starts jobs; ends with `stop`, and everything it has begun with it."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=_environment(),
        )
        self._begun: list[Rank] = []

    def start(
        self, folder: Path, world: int = 1, largest_file: int | None = None
    ) -> list[Rank]:
        """A new start of a job, with so many ranks; no file of it may grow beyond
        `largest_file` bytes."""
        assert self._server.stdin and self._server.stdout
        job_id, ranks = str(next(_starts)), []
        for rank in range(world):
            env = {
                "SLURM_JOB_ID": job_id,
                "SLURM_PROCID": str(rank),
                "SLURM_NTASKS": str(world),
            }
            log = folder / f"rank{rank}.txt"
            asked = {"folder": str(folder), "env": env, "log": str(log)}
            self._server.stdin.write(
                json.dumps(asked | {"largest_file": largest_file}) + "\n"
            )
            self._server.stdin.flush()
            ranks.append(Rank(int(self._server.stdout.readline()), log))
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
        assert self._server.stdin and self._server.stdout
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()


def wait_until(question: Callable[[], Any], limit_s: float = LIMIT_S) -> Any:
    """The first answer that is true, asked for so often that moments of some
    milliseconds are seen."""
    until = time.monotonic() + limit_s
    while not (answer := question()):
        assert time.monotonic() < until, f"waited {limit_s} s in vain"
        time.sleep(0.001)
    return answer


@contextlib.contextmanager
def serve(address: Path) -> Iterator[dict[str, str]]:
    """Within, local jobs with the variables that it yields are forked off one process."""
    server = subprocess.Popen(
        [sys.executable, __file__, str(address)], env=_environment()
    )
    try:
        wait_until(address.exists, limit_s=600)  # other tests may want the cores, too
        yield {
            "PYTHONPATH": str(Path(__file__).with_name("forked_start")),
            "FORKED_JOBS": str(address),
        }
    finally:
        server.kill()
        server.wait()


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


def _listen(address: str) -> None:
    """Forks a job for whoever connects; the fork alone holds the connection then."""
    import sentence_transformers  # noqa: F401

    _import_engines()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{address}.new")
        server.listen()
        Path(f"{address}.new").rename(address)
        while True:
            connection, _ = server.accept()
            text, (out, err), *_ = socket.recv_fds(connection, 1 << 20, 2)
            if os.fork() == 0:
                folder, *variables = text.decode().split("\0")
                # The code that was submitted is this very code, not its copy.
                env = dict(one.split("=", 1) for one in variables)
                _be_a_job(
                    folder,
                    {key: value for key, value in env.items() if key != "ZSG_CODE"},
                    out,
                    err,
                )
            for handle in (connection.detach(), out, err):
                os.close(handle)


def _import_engines() -> None:
    import deepspeed.runtime.zero.muon.original_muon  # noqa: F401  # its import costs more than all the others
    import torch  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401

    from jobs import entry  # noqa: F401
    from jobs.evaluating import evaluate  # noqa: F401
    from jobs.preparing import prepare  # noqa: F401
    from jobs.training import train  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries the ranks


def _serve() -> None:
    _import_engines()
    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _be_a_rank(asked)
        print(pid, flush=True)


def _be_a_rank(asked: Mapping[str, Any]) -> None:
    log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    if asked["largest_file"]:
        resource.setrlimit(
            resource.RLIMIT_FSIZE, (asked["largest_file"], asked["largest_file"])
        )
    _be_a_job(asked["folder"], asked["env"], log, log)


def _be_a_job(folder: str, env: Mapping[str, str], out: int, err: int) -> None:
    from jobs import entry

    code = 70
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for new, old in ((nothing, 0), (out, 1), (err, 2)):
            os.dup2(new, old)
        faulthandler.register(signal.SIGRTMIN)  # where a rank hangs, for its log
        os.environ |= env
        entry.run(folder)
        code = 0
    finally:
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    _listen(sys.argv[1]) if len(sys.argv) > 1 else _serve()
