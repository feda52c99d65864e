"""Does `zsg server` stand a cluster's load, refuse what would break, and end with all
that it began?"""

import json
import signal
import socket
import sqlite3
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobs.contract.folder import Workspace
from jobs.tracking import mlflow_sync, server_tokens
from launcher.mlflow import mlflow_server
from launcher.mlflow.mlflow_server import ServerOptions
from tests.lib.command_line import Zsg, wait_until
from tests.lib.grown_journals import write_grid, write_run
from tests.lib.mlflow_contents import MlflowClient, assert_exactly_once
from tests.lib.processes import group
from zsg_core.errors import ClusterError, UserError


@pytest.fixture
def port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(
    "workers", [1, pytest.param(4, marks=pytest.mark.soak(part="tracking"))]
)
def test_it_serves_and_ends(zsg: Zsg, port: int, workers: int) -> None:
    """It says what a profile needs once it answers; after Ctrl-C nothing of it is left.
    Its sqlite has a WAL.

    Nor is its token left where jobs look for it; started anew it has the same one.
    """
    process = zsg.start(
        "server", "--port", str(port), "--workers", str(workers), stdout=subprocess.PIPE
    )
    assert process.stdout
    told = [process.stdout.readline(), process.stdout.readline()]
    while not told[-1].startswith("in a profile"):
        told.append(process.stdout.readline())
        assert told[-1], told
    MlflowClient(f"http://127.0.0.1:{port}").create_experiment("asked")
    begun = group(process.pid)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)

    assert f"tracking: {{uri: http://127.0.0.1:{port}, live: true}}" in told[-1]
    assert process.returncode == 0
    assert len(begun) >= (1 if workers == 1 else 1 + workers)
    assert server_tokens.find_token(f"http://127.0.0.1:{port}") is None
    assert (
        f"?token={mlflow_server.read_or_make_token(zsg.folder / 'zsg-mlflow')} "
        in "".join(told)
    )
    wait_until(lambda: not [one for one in begun if Path(f"/proc/{one}").exists()], 10)
    with sqlite3.connect(zsg.folder / "zsg-mlflow/mlflow.db") as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize("kind", ["nfs4", "lustre", "fuse.sshfs"])
def test_sqlite_on_a_shared_disk_is_refused(kind: str) -> None:
    """With the reason, and what to do instead."""
    with pytest.raises(
        UserError,
        match=rf"lies on {kind}, which locks files badly.*--backend postgresql",
    ):
        mlflow_server.refuse_shared(Path("/shared/mlflow.db"), kind)


def test_other_databases_are_refused_without_their_passwords(tmp_path: Path) -> None:
    """What zsg was never tried with is not served; a password in the address is not repeated."""
    with pytest.raises(UserError, match="postgresql://") as refused:
        mlflow_server.resolve_backend("mysql://me:secret@host/db", tmp_path)
    assert "secret" not in str(refused.value)
    assert (
        mlflow_server.resolve_backend("postgresql+asyncpg://u:p@h/d", tmp_path)
        == "postgresql+asyncpg://u:p@h/d"
    )
    assert (
        mlflow_server.resolve_backend(None, tmp_path)
        == f"sqlite:///{tmp_path}/mlflow.db"
    )


def test_postgresql_by_the_driver_that_is_there() -> None:
    """An address without a driver gets an installed one; without any it is said how to
    install one."""
    assert (
        mlflow_server.add_driver("postgresql://u@h/d", ["psycopg2"])
        == "postgresql+psycopg2://u@h/d"
    )
    with pytest.raises(UserError, match=r"pip install 'zsg\[postgresql\]'"):
        mlflow_server.add_driver("postgresql://u@h/d", [])


def test_a_taken_port_is_said_before_anything_starts(port: int) -> None:
    """Naming the port and the option."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(ClusterError, match=f"127.0.0.1:{port} .*--port"):
            mlflow_server.open_socket("127.0.0.1", port)


def test_a_token_is_kept_until_its_file_is_removed(tmp_path: Path) -> None:
    """Jobs that run go on with it after a restart; one that others may read is refused."""
    folder = tmp_path / "server"
    token = mlflow_server.read_or_make_token(folder)
    file = folder / mlflow_server.TOKEN_FILE

    assert len(token) == 43 and mlflow_server.read_or_make_token(folder) == token
    assert [path.stat().st_mode & 0o777 for path in (folder, file)] == [0o700, 0o600]
    file.chmod(0o644)
    with pytest.raises(
        UserError,
        match=r"server/token holds a token, but is not yours alone .* the next start makes",
    ):
        mlflow_server.read_or_make_token(folder)
    file.unlink()
    assert mlflow_server.read_or_make_token(folder) != token


def test_settings_of_the_shell_do_not_open_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's variables that would let others in, or name passwords, are not handed
    on; those of its database are."""
    for name in (
        "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE",
        "MLFLOW_TRACKING_PASSWORD",
        "_MLFLOW_STATIC_PREFIX",
    ):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("MLFLOW_SERVER_ALLOWED_HOSTS", "*")
    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_ECHO", "true")
    env = ServerOptions("", tmp_path, "127.0.0.1", 5000, 4).env(3)

    database = {
        f"MLFLOW_SQLALCHEMYSTORE_{name}"
        for name in ("ECHO", "POOL_SIZE", "MAX_OVERFLOW")
    }
    known = {*mlflow_server.QUIET, "MLFLOW_SERVER_ALLOWED_HOSTS", *database}
    assert {name for name in env if "MLFLOW" in name} == {
        name for name in known if "MLFLOW" in name
    }
    assert env["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")[:2] == [
        "127.0.0.1",
        "127.0.0.1:*",
    ]
    assert "*" not in env["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")


def test_the_database_is_no_argument(tmp_path: Path) -> None:
    """Its password would stand in the list of processes; a server that is open to
    others allows the names it has."""
    served = ServerOptions(
        "postgresql://u:secret@h/d", tmp_path, "0.0.0.0", 5000, 4, ["login01"]
    )
    settings = json.loads(served.env(3)["ZSG_SERVED"])

    assert "secret" not in " ".join(served.argv) and served.token not in " ".join(
        served.argv
    )
    assert (settings["backend"], settings["token"]) == (served.backend, served.token)
    assert "login01,login01:*" in served.env(3)["MLFLOW_SERVER_ALLOWED_HOSTS"]
    assert {"login01", "127.0.0.1"} <= set(settings["hosts"])
    assert ServerOptions("", tmp_path, "127.0.0.1", 5000, 4).names == [
        "127.0.0.1",
        "localhost",
        "::1",
    ]


@pytest.mark.parametrize(
    ("backend", "has"),
    [
        ("postgresql://u:pw@h/d", True),
        ("postgresql://h/d?user=u&password=pw", True),
        ("postgresql://[u:pw@h/d", True),
        ("postgresql://u@h/d", False),
        ("sqlite:////local/m.db", False),
    ],
)
def test_whether_an_address_holds_a_password(backend: str, has: bool) -> None:
    """As its user's, or as a parameter; one that cannot be read may."""
    assert mlflow_server.has_password(backend) is has


@pytest.mark.parametrize("option", ["--backend {}", "--backend={}"])
def test_a_password_leaves_the_list_of_processes(
    zsg: Zsg, option: str, port: int
) -> None:
    """The server says so and starts anew without it, before it looks for its database
    or for a driver."""
    address = f"postgresql://me:hunter2hunter2@127.0.0.1:{port}/db"
    with zsg.start(
        "server", *option.format(address).split(), stderr=subprocess.PIPE
    ) as process:
        assert process.stderr
        told = process.stderr.readline()
        line = b""
        # until it has started anew
        while (not line or b"hunter2" in line) and process.poll() is None:
            line = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        process.terminate()
        _, rest = process.communicate(timeout=60)
    said = " ".join(f"{told}{rest}".split())

    assert line.rstrip(b"\0").endswith(b"server") and b"hunter2" not in line
    assert (
        said.count("could read the password of --backend") == 1
        and "ZSG_BACKEND" in said
    )
    assert "hunter2" not in said


@pytest.mark.soak(part="tracking")
def test_postgresql_takes_runs_side_by_side(
    tmp_path: Path, mlflow_on_postgresql: str
) -> None:
    """Forty runs sent at once by eight deliveries are there once, point for point."""
    names = [f"run-{number}" for number in range(40)]
    for name in names:
        write_run(tmp_path, name, [[{"loss": float(step)} for step in range(60)]] * 2)
    write_grid(tmp_path, "side-by-side", names, mlflow_on_postgresql)
    with ThreadPoolExecutor(8) as pool:
        sent = list(
            pool.map(
                lambda _: mlflow_sync.sync_grid(Workspace(tmp_path), "side-by-side"),
                range(8),
            )
        )

    assert sum(one["points"] for one in sent) == 40 * 60
    assert_exactly_once(tmp_path, "side-by-side", names, mlflow_on_postgresql)
    began = time.monotonic()
    assert mlflow_sync.sync_grid(Workspace(tmp_path), "side-by-side") == {
        "runs": 0,
        "points": 0,
    }
    print(f"a second sync of 40 runs: {time.monotonic() - began:.1f} s")
