"""Runs MLflow's server: for its owner only, set up for the load of a cluster, ending
with all it began.

What stands before MLflow is in launcher.mlflow.gate, and what keeps it to one folder in
launcher.mlflow.guarded_server. The socket is opened here and handed on: who answers at
the address that is told is this server, and no other user who was quicker to take the
port.

MLflow's own settings give a worker 15 connections to its database. A request takes a
second one while it holds the first, so 15 at once wait for one another until they fail,
as bad requests (400) that no client tries again; a fifth of what 128 clients sent was
lost. A worker's 40 threads need 80, and here have 100.
"""

import contextlib
import importlib.util
import json
import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from jobs.files import ownership
from jobs.files.paths import expand_home
from jobs.tracking import server_tokens
from launcher.workspace import file_systems
from zsg_core.errors import ClusterError, UserError

POOL, OVERFLOW = 40, 60  # connections of a worker
STOPS_S = 5.0
STARTS_S = 120.0
BACKLOG = 2048
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # Its queues judge the answers of language models, which nobody asks for here, and
    # are several processes.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    # MLflow's affair, not the reader's
    "PYTHONWARNINGS": "ignore:starlette.middleware.wsgi is deprecated",
}
SQLITE = "sqlite:///"
DRIVERS = ("psycopg", "psycopg2")


LOOPBACK = ("127.0.0.1", "localhost", "::1")
ANY = ("0.0.0.0", "::")
TOKEN_FILE = "token"
BACKEND = "ZSG_BACKEND"  # the variable that names the database as --backend does
# What of MLflow's settings is handed on from the shell: of its database only. Others
# change who is let in, and what is asked of whom; some name passwords, which a server
# needs not.
HANDED_ON = "MLFLOW_SQLALCHEMYSTORE_"


@dataclass(frozen=True)
class ServerOptions:
    """What is served and to whom. `artifacts`: the folder of all artifacts; others are refused.

    With `passes_artifacts` clients send artifacts through the server; else they write
    them to that folder themselves.
    """

    backend: str
    artifacts: Path
    host: str
    port: int
    workers: int
    allowed: Sequence[str] = ()
    passes_artifacts: bool = True
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    @property
    def is_open(self) -> bool:
        """Whether other machines reach it."""
        return self.host not in LOOPBACK

    @property
    def names(self) -> list[str]:
        """The names by which it may be called, without a port."""
        if not self.is_open:
            return list(LOOPBACK)
        bound = [] if self.host in ANY else [self.host]
        names = [
            *self.allowed,
            *bound,
            socket.gethostname(),
            socket.getfqdn(),
            "localhost",
            "127.0.0.1",
        ]
        return [name.lower() for name in dict.fromkeys(names)]

    @property
    def uri(self) -> str:
        """The address for a profile's `tracking.uri`."""
        host = socket.getfqdn() if self.host in ANY else self.host
        return f"http://{_bracketed(host)}:{self.port}"

    @property
    def local_uri(self) -> str:
        """The address on this machine."""
        return f"http://{'127.0.0.1' if self.host in ANY else _bracketed(self.host)}:{self.port}"

    @property
    def places(self) -> list[str]:
        """Every HOST:PORT that an address of it may have."""
        return [f"{_bracketed(name)}:{self.port}" for name in self.names]

    @property
    def argv(self) -> list[str]:
        """The server's command. What is secret is told by the environment, which no
        other user sees."""
        return [sys.executable, "-m", "launcher.mlflow.start_server"]

    def env(self, socket_number: int) -> dict[str, str]:
        """What it is told by the environment; `socket_number`: of the file that it listens at."""
        settings = {
            "token": self.token,
            "session": secrets.token_urlsafe(32),
            "hosts": self.names,
            "backend": self.backend,
            "artifacts": str(self.artifacts),
            "passes_artifacts": self.passes_artifacts,
            "workers": self.workers,
            "socket": socket_number,
        }
        hosts = ",".join(
            form
            for name in map(_bracketed, self.names)
            for form in (name, f"{_escaped(name)}:*")
        )
        variables = {
            "ZSG_SERVED": json.dumps(settings),
            "MLFLOW_SERVER_ALLOWED_HOSTS": hosts,
        }
        variables |= {
            "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": str(POOL),
            "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": str(OVERFLOW),
        }
        inherited = {
            key: value for key, value in os.environ.items() if _is_handed_on(key)
        }
        return {**inherited, **QUIET, **variables, "PYTHONSAFEPATH": "1"}


def _bracketed(name: str) -> str:
    return f"[{name}]" if ":" in name else name


def _escaped(name: str) -> str:
    return name.replace("[", "[[]")  # MLflow takes what has a star in it for a pattern


def _is_handed_on(name: str) -> bool:
    is_of_mlflow = (
        name.startswith(("MLFLOW_", "_MLFLOW_")) or name == "prometheus_multiproc_dir"
    )
    return name.startswith(HANDED_ON) or not is_of_mlflow


def has_password(backend: str) -> bool:
    """Whether a database's address holds a password, or may hold one."""
    try:
        address = urlsplit(backend)
    except ValueError:
        return True
    return bool(address.password) or "pass" in address.query.lower()


def is_on_command_line(backend: str, argv: Sequence[str] = sys.orig_argv) -> bool:
    """Whether this process's own arguments name that database; not so where zsg is
    called from Python."""
    return len(without_backend(backend, argv)) < len(argv)


def leave_command_line(backend: str) -> NoReturn:
    """Starts this process anew; it then takes the address from the variable BACKEND,
    which no other user sees."""
    os.execve(
        sys.executable,
        without_backend(backend, sys.orig_argv),
        {**os.environ, BACKEND: backend},
    )


def without_backend(backend: str, argv: Sequence[str]) -> list[str]:
    """A command's arguments without those that name this database."""
    arguments: list[str] = []
    for argument in argv:
        if argument == backend and arguments and arguments[-1] == "--backend":
            arguments.pop()
        elif argument != f"--backend={backend}":
            arguments.append(argument)
    return arguments


def resolve_backend(text: str | None, folder: Path) -> str:
    """The database to serve: a sqlite file in `folder` unless another is named.
    UserError where it cannot be served."""
    uri = text or f"{SQLITE}{folder / 'mlflow.db'}"
    if uri.startswith(SQLITE):
        if "?" in uri or "#" in uri:
            raise UserError(
                "--backend: a sqlite file is named by its path alone, sqlite:///FILE without `?`"
                " and `#`"
            )
        path = expand_home(Path(uri.removeprefix(SQLITE))).resolve()
        existing = next(folder for folder in (path, *path.parents) if folder.exists())
        refuse_shared(
            path,
            file_systems.file_system(
                Path("/proc/self/mountinfo").read_text(encoding="utf-8"), existing
            ),
        )
        return f"{SQLITE}{path}"
    if urlsplit(uri).scheme.split("+")[0] == "postgresql":
        return add_driver(
            uri, [name for name in DRIVERS if importlib.util.find_spec(name)]
        )
    raise UserError("--backend: give sqlite:///FILE on a local disk, or postgresql://…")


def add_driver(uri: str, drivers: Sequence[str]) -> str:
    """A PostgreSQL address that says by which of the installed drivers; SQLAlchemy
    would take one that may lack."""
    scheme, colon, address = uri.partition(":")
    if "+" in scheme:
        return uri
    if not drivers:
        raise UserError(
            "no driver for PostgreSQL is installed here: pip install 'zsg[postgresql]'"
        )
    return f"{scheme}+{drivers[0]}{colon}{address}"


def refuse_shared(path: Path, kind: str) -> None:
    """UserError for a sqlite file on a file system that machines share."""
    if kind.split(".")[0] in file_systems.SHARED:
        raise UserError(
            f"{path} lies on {kind}, which locks files badly: sqlite would be locked up or"
            " corrupted (sqlite.org, How To Corrupt An SQLite Database File). Name a --folder on a"
            " disk of this machine, or --backend postgresql://…"
        )


def prepare_store(served: ServerOptions, make_store: Callable[[Path], None]) -> None:
    """Makes folder and tables before workers race for them."""
    ownership.make_folder(served.artifacts.parent)
    if served.backend.startswith(SQLITE):
        path = Path(served.backend.removeprefix(SQLITE))
        make_store(path)
        with contextlib.closing(sqlite3.connect(path)) as database:
            # readers do not wait for the writer; kept in the file
            database.execute("PRAGMA journal_mode=WAL")


def read_or_make_token(folder: Path) -> str:
    """The token that a folder's server had before, or a new one, kept in a file for its owner only.

    Jobs that run while it is started anew go on with it. Who wants another one removes
    the file. UserError for one that others may read.
    """
    path = folder / TOKEN_FILE
    try:
        if token := server_tokens.read_private(path):
            return token
    except FileNotFoundError:
        pass
    except server_tokens.Exposed as error:
        raise UserError(f"{error}; the next start makes a new one") from None
    token = secrets.token_urlsafe(32)
    ownership.make_folder(folder)
    server_tokens.write_private(path, token)
    return token


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that listens there. ClusterError if somebody else does."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # those that it accepts have it too
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise ClusterError(
            f"{host}:{port} cannot be listened on ({error.strerror}); try another --port"
        ) from None
    return listening


def run_server(
    served: ServerOptions, listening: socket.socket, when_up: Callable[[], None]
) -> int:
    """Runs a server until it ends, or until this process is told to; then nothing of it
    stays behind.

    `when_up` is called once it answers. Returns its exit code, 0 if it was told to end.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    server = subprocess.Popen(
        served.argv,
        env=served.env(listening.fileno()),
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,  # its words are no result
        start_new_session=True,
        pass_fds=[listening.fileno()],
    )
    listening.close()
    try:
        if _answers(server, served.local_uri):
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
    """Waits until it answers that it is well; False if it has ended. ClusterError if it
    takes too long."""
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
            raise ClusterError(
                f"{address} did not answer within {STARTS_S:.0f} s; its words are above"
            )
        time.sleep(0.2)
    return False
