"""A PostgreSQL of Debian's for the tests that need one: run as its own user, gone afterwards."""

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from launcher.mlflow import mlflow_server

INSTALLED = Path("/usr/lib/postgresql")


def missing() -> list[str]:
    """What it lacks here."""
    lacking = [] if _programs() else ["initdb (apt-get install postgresql)"]
    lacking += [] if os.getuid() == 0 else ["root's rights to start it as another user"]
    has_driver = any(map(importlib.util.find_spec, mlflow_server.DRIVERS))
    return lacking + (
        [] if has_driver else ["a driver (pip install 'zsg[postgresql]')"]
    )


def _programs() -> Path | None:
    found = [path.parent for path in INSTALLED.glob("*/bin/initdb")]
    return max(found, key=lambda path: int(path.parent.name), default=None)


@contextmanager
def database() -> Iterator[str]:
    """The address of an empty database, over a socket in a folder of its own."""
    programs = _programs()
    assert programs
    folder = Path("/tmp") / f"zsg-postgresql-{os.getpid()}"
    folder.mkdir()
    shutil.chown(folder, "postgres")
    run = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    options = f"-k {folder} -c listen_addresses= -c max_connections=300 -c fsync=off"
    subprocess.run(
        [*run, programs / "initdb", "-D", folder / "d", "-A", "trust"],
        check=True,
        capture_output=True,
    )
    log = ["-l", folder / "log"]
    subprocess.run(
        [
            *run,
            programs / "pg_ctl",
            "-D",
            folder / "d",
            *log,
            "-w",
            "-o",
            options,
            "start",
        ],
        check=True,
    )
    try:
        subprocess.run(
            [*run, programs / "createdb", "-h", folder, "mlflow"], check=True
        )
        yield f"postgresql://postgres@/mlflow?host={folder}"
    finally:
        subprocess.run(
            [*run, programs / "pg_ctl", "-D", folder / "d", "-m", "immediate", "stop"],
            check=True,
        )
        shutil.rmtree(folder)
