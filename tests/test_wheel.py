"""Does the wheel work by itself, outside the checkout, whatever lies in the folder where it is called?"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Zsg, page_at

ROOT = Path(__file__).resolve().parent.parent
GRID = """
name: walk
defaults:
  model: {name: tiny, hidden: 64, layers: 2, vocab: 600}
  data: {path: tasks, train_per_task: 2, test_per_task: 1, positive_examples: 0}
  train: {batch: 8, steps: 4, lr: 2e-3, max_length: 64, precision: fp32}
  checkpoints: {every: 2}
grid: {arrangement.order: [random]}
"""
STRANGER = "raise SystemExit('a module of the folder was taken for one of ours')\n"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    _pip("wheel", "--no-deps", "--wheel-dir", folder, ROOT)
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new environment with the wheel; torch and the like are lent by the one that runs the suite."""
    folder = tmp_path_factory.mktemp("elsewhere") / "env"
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin/python"
    _pip("--python", python, "install", "--no-deps", "--no-index", wheel)
    packages = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True
    )
    # A path in a .pth file is searched last and its own .pth files are not read: the checkout stays out of sight.
    (Path(packages.stdout.strip()) / "lent.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin"


def _pip(*argv: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, argv)]
    subprocess.run(command, check=True, capture_output=True)


def put_strangers(folder: Path) -> None:
    """Modules with our names and those of what we start, in the folder where zsg is called."""
    (folder / "jobs").mkdir()
    for name in ("jobs/__init__.py", "launcher.py", "zsg_core.py", "mlflow.py", "submitit.py", "torch.py"):
        (folder / name).write_text(STRANGER)


@contextlib.contextmanager
def served(zsg: Zsg) -> Iterator[str]:
    """The page that `zsg ui` serves over HTTP."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    server = zsg.start("ui", "--port", str(port), **pipes)
    try:
        yield page_at(f"http://127.0.0.1:{port}/")
    finally:
        os.killpg(server.pid, signal.SIGINT)
        server.wait(30)


def test_the_wheel_owns_three_names(wheel: Path) -> None:
    """The wheel's top-level names are launcher, jobs and zsg_core, and its own metadata."""
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}

    assert tops == {"launcher", "jobs", "zsg_core"}


def test_the_wheel_carries_the_data(wheel: Path) -> None:
    """Every template and profile is inside the wheel, below launcher/."""
    tracked = subprocess.run(
        ["git", "ls-files", "templates", "cluster_profiles"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()

    assert tracked
    assert {f"launcher/{path}" for path in tracked} <= set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_is_what_is_imported(installed: Path, tmp_path: Path) -> None:
    """In the new environment our packages come from it, not from the checkout."""
    code = "import launcher, jobs, zsg_core; print(launcher.__file__, jobs.__file__, zsg_core.__file__)"
    done = subprocess.run([installed / "python", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert all(Path(path).is_relative_to(installed.parent) for path in done.stdout.split())


def test_a_walk_with_the_wheel(installed: Path, tmp_path: Path) -> None:
    """init, doctor, plan, submit here, status, sync and ui; modules of our names in the folder change nothing."""
    zsg = Zsg(tmp_path)
    zsg.program = [str(installed / "zsg")]
    zsg("init")
    put_strangers(tmp_path)

    package = next(row for row in json.loads(zsg("doctor", "--json")) if row["what"] == "package")
    assert (package["verdict"], f"{installed.parent}/lib" in package["found"]) == ("ok", True)
    assert "2 submit" in zsg("plan", "grid.yaml")
    zsg("submit", zsg.write("walk.yaml", GRID))
    [row] = zsg.status()
    assert (row["state"], row["step"], row["attempt"]) == ("done", 4, 1)
    # Nothing is left to sync: the delivery beside the run has met no stranger either.
    assert "walk: sent 0 points of 0 runs" in zsg("sync")
    with served(zsg) as page:
        assert "<title>MLflow</title>" in page


@pytest.mark.slurm
@pytest.mark.soak
def test_a_walk_with_the_wheel_on_slurm(installed: Path, zsg_on_slurm: Zsg) -> None:
    """Jobs on the nodes start in the folder where zsg was called, and take nothing there for ours either."""
    zsg = zsg_on_slurm
    zsg.program = [str(installed / "zsg")]
    zsg("init")
    put_strangers(zsg.folder)
    profile = zsg.write("cluster.yaml", "name: cluster\ninherits: slurm-minimal\nslurm: {partition: main}\n")
    zsg("submit", zsg.write("walk.yaml", GRID), "--profile", profile)
    until = time.monotonic() + 240
    while (row := zsg.status()[0])["state"] in ("waiting", "queued", "running", "unknown"):
        assert time.monotonic() < until, f"still active: {row}"
        time.sleep(1)

    assert (row["state"], row["step"], row["attempt"]) == ("done", 4, 1), row
