"""Runs MLflow's server: set up for the load of a cluster, answering before it is told of, ending with all it began.

MLflow's own settings give a worker 15 connections to its database. A request takes a second one while it holds the
first, so 15 at once wait for one another until they fail, as bad requests (400) that no client tries again; a fifth of
what 128 clients sent was lost. A worker's 40 threads need 80, and here have 100.
"""

import contextlib
import importlib.util
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from jobs import ownership
from launcher.clusters import doctor
from zsg_core.errors import ClusterError, UserError

POOL, OVERFLOW = 40, 60  # connections of a worker
STOPS_S = 5.0
STARTS_S = 120.0
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # Its queues judge the answers of language models, which nobody asks for here, and are several processes.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}
SQLITE = "sqlite:///"
DRIVERS = ("psycopg", "psycopg2")


@dataclass(frozen=True)
class Served:
    """What is served and to whom. `folder` takes artifacts and, for sqlite, the database."""

    backend: str
    folder: Path
    host: str
    port: int
    workers: int
    allowed: Sequence[str] = ()

    @property
    def is_open(self) -> bool:
        """Whether other machines reach it."""
        return self.host not in ("127.0.0.1", "localhost", "::1")

    @property
    def uri(self) -> str:
        """The address for a profile's `tracking.uri`."""
        return f"http://{socket.getfqdn() if self.host in ('0.0.0.0', '::') else self.host}:{self.port}"

    @property
    def argv(self) -> list[str]:
        """The server's command; its database, which may name a password, is told by the environment."""
        argv = [sys.executable, "-m", "mlflow", "server", "--host", self.host, "--port", str(self.port)]
        argv += ["--workers", str(self.workers), "--serve-artifacts"]
        argv += ["--artifacts-destination", (self.folder / "artifacts").as_uri()]
        if self.is_open:
            names = dict.fromkeys([*self.allowed, socket.gethostname(), socket.getfqdn(), "localhost", "127.0.0.1"])
            argv += ["--allowed-hosts", ",".join(form for name in names for form in (name, f"{name}:*"))]
        return argv

    @property
    def env(self) -> dict[str, str]:
        """What it is told by the environment."""
        told = {"MLFLOW_BACKEND_STORE_URI": self.backend, "UVICORN_APP_DIR": str(self.folder)}
        told |= {"MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": str(POOL), "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": str(OVERFLOW)}
        return {**os.environ, **QUIET, **told}


def backend_of(text: str | None, folder: Path) -> str:
    """The database to serve: a sqlite file in `folder` unless another is named. UserError where it cannot be served."""
    uri = text or f"{SQLITE}{folder / 'mlflow.db'}"
    if uri.startswith(SQLITE):
        path = Path(uri.removeprefix(SQLITE)).expanduser().resolve()
        there = next(one for one in (path, *path.parents) if one.exists())
        refuse_shared(path, doctor.file_system(Path("/proc/self/mountinfo").read_text(encoding="utf-8"), there))
        return f"{SQLITE}{path}"
    if urlsplit(uri).scheme.split("+")[0] == "postgresql":
        return with_driver(uri, [name for name in DRIVERS if importlib.util.find_spec(name)])
    raise UserError(f"--backend {uri.split('@')[-1]!r}: give sqlite:///FILE on a local disk, or postgresql://…")


def with_driver(uri: str, drivers: Sequence[str]) -> str:
    """A PostgreSQL address that says by which of the installed drivers; SQLAlchemy would take one that may lack."""
    scheme, colon, rest = uri.partition(":")
    if "+" in scheme:
        return uri
    if not drivers:
        raise UserError("no driver for PostgreSQL is installed here: pip install 'zsg[postgresql]'")
    return f"{scheme}+{drivers[0]}{colon}{rest}"


def refuse_shared(path: Path, kind: str) -> None:
    """UserError for a sqlite file on a file system that machines share."""
    if kind.split(".")[0] in doctor.SHARED:
        raise UserError(
            f"{path} lies on {kind}, which locks files badly: sqlite would be locked up or corrupted (sqlite.org, How "
            "To Corrupt An SQLite Database File). Name a --folder on a disk of this machine, or --backend postgresql://…"
        )


def prepare(served: Served, make_store: Callable[[Path], None]) -> None:
    """Makes folder and tables before workers race for them. ClusterError for a port that is taken."""
    ownership.make_folder(served.folder)
    refuse_taken(served.host, served.port)
    if served.backend.startswith(SQLITE):
        path = Path(served.backend.removeprefix(SQLITE))
        make_store(path)
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA journal_mode=WAL")  # readers do not wait for the writer; kept in the file


def refuse_taken(host: str, port: int) -> None:
    """ClusterError if somebody listens there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ClusterError(f"{host}:{port} cannot be listened on ({error.strerror}); try another --port") from None


def run(argv: Sequence[str], env: Mapping[str, str], address: str, when_up: Callable[[], None]) -> int:
    """Runs a server until it ends, or until this process is told to; then nothing of it stays behind.

    `when_up` is called once it answers at `address`. Returns its exit code, 0 if it was told to end.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    server = subprocess.Popen(argv, env=env, stdout=sys.stderr, start_new_session=True)  # its words are no result
    try:
        if _answers(server, address):
            when_up()
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        # It has processes of its own: all of them are in its group.
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(server.pid, number)
                server.wait(STOPS_S)


def _answers(server: "subprocess.Popen[bytes]", address: str) -> bool:
    """Waits until it answers that it is well; False if it has ended. ClusterError if it takes too long."""
    until = time.monotonic() + STARTS_S
    while server.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
                return answer.status == 200
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            pass  # not up yet
        if time.monotonic() > until:
            raise ClusterError(f"{address} did not answer within {STARTS_S:.0f} s; its words are above")
        time.sleep(0.2)
    return False
