"""Does the wheel work by itself, outside the checkout, whatever lies in the folder
where it is called?"""

import contextlib
import importlib.metadata
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
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import typer.main

from launcher.cli import app
from tests.lib.command_line import Zsg, page_at

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
    """The programs of a new environment with the wheel; torch and the like are lent by
    the one that runs the suite."""
    folder = tmp_path_factory.mktemp("elsewhere") / "env"
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin/python"
    _pip("--python", python, "install", "--no-deps", "--no-index", wheel)
    packages = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
    )
    # A path in a .pth file is searched last and its own .pth files are not read: the
    # checkout stays out of sight.
    (Path(packages.stdout.strip()) / "lent.pth").write_text(
        sysconfig.get_path("purelib")
    )
    return folder / "bin"


def _pip(*argv: str | Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "--quiet",
        "--disable-pip-version-check",
        *map(str, argv),
    ]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new environment with the wheel and what it depends on, as `pip
    install zsg` makes it."""
    folder = tmp_path_factory.mktemp("bare") / "env"
    venv.create(folder, with_pip=False, symlinks=True)
    constraints = ["--no-compile", "--constraint", ROOT / "constraints.txt"]
    _pip("--python", folder / "bin/python", "install", *constraints, wheel)
    return folder / "bin"


def put_strangers(folder: Path) -> None:
    """Modules with our names and those of what we start, in the folder where zsg is called."""
    (folder / "jobs").mkdir()
    for name in (
        "jobs/__init__.py",
        "launcher.py",
        "zsg_core.py",
        "mlflow.py",
        "submitit.py",
        "torch.py",
    ):
        (folder / name).write_text(STRANGER)


@pytest.fixture(scope="module")
def finished(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Zsg:
    """The command line in a folder with a grid that was trained where all extras are;
    strangers lie beside it."""
    zsg = Zsg(tmp_path_factory.mktemp("finished"))
    zsg.program = [str(installed / "zsg")]
    zsg("init")
    put_strangers(zsg.folder)
    zsg("submit", zsg.write("walk.yaml", GRID))
    return zsg


@contextlib.contextmanager
def served(zsg: Zsg) -> Iterator[str]:
    """The page that `zsg ui` serves over HTTP."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pipes = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.DEVNULL,
        "start_new_session": True,
    }
    server = zsg.start("ui", "--port", str(port), **pipes)
    try:
        assert server.stdout
        address, _, token = server.stdout.readline().split()[1].partition("?token=")
        yield page_at(address, token=token)
    finally:
        os.killpg(server.pid, signal.SIGINT)
        server.communicate(timeout=30)


def test_the_wheel_owns_three_names(wheel: Path) -> None:
    """The wheel's top-level names are launcher, jobs and zsg_core, and its own metadata."""
    tops = {
        name.split("/")[0]
        for name in zipfile.ZipFile(wheel).namelist()
        if ".dist-info/" not in name
    }

    assert tops == {"zsg", "launcher", "jobs", "zsg_core"}


def test_the_wheel_carries_the_data(wheel: Path) -> None:
    """Every template and profile is inside the wheel, below launcher/."""
    tracked = subprocess.run(
        ["git", "ls-files", "templates", "cluster_profiles"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()

    assert tracked
    assert {f"launcher/{path}" for path in tracked} <= set(
        zipfile.ZipFile(wheel).namelist()
    )


def test_the_wheel_carries_what_a_page_is_written_by(wheel: Path) -> None:
    """The templates, the style sheet and the script of reports stand beside their module."""
    folder = ROOT / "launcher/reporting/html"
    files = {
        str(path.relative_to(ROOT))
        for ending in ("j2", "css", "js")
        for path in folder.glob(f"*.{ending}")
    }

    assert len(files) >= 4
    assert files <= set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_is_what_is_imported(installed: Path, tmp_path: Path) -> None:
    """In the new environment our packages come from it, not from the checkout."""
    code = (
        "import launcher, jobs, zsg_core; print(launcher.__file__, jobs.__file__,"
        " zsg_core.__file__)"
    )
    done = subprocess.run(
        [installed / "python", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )

    assert all(
        Path(path).is_relative_to(installed.parent) for path in done.stdout.split()
    )


def test_a_walk_with_the_bare_wheel(bare: Path, tmp_path: Path) -> None:
    """`pip install zsg` alone: init, doctor, plan, schema, status and all help; what
    needs an extra names it."""
    zsg = Zsg(tmp_path)
    zsg.program = [str(bare / "zsg")]

    assert zsg("--version") == f"zsg {importlib.metadata.version('zsg')}\n"
    assert "zsg plan grid.yaml" in zsg("init")
    rows = {row["what"]: row for row in json.loads(zsg("doctor", "--json", code=3))}
    assert [name for name, row in rows.items() if row["verdict"] == "problem"] == [
        "zsg[train]"
    ]
    assert {
        f"zsg[{name}]" for name in ("train", "track", "report", "evaluate")
    } <= rows.keys()
    needs = (
        "training needs torch, transformers, deepspeed, which are not installed here: pip install"
        " 'zsg[train]'"
    )
    planned = zsg("plan", "grid.yaml", code=3)
    assert (
        "starter: 2 to submit" in planned and f"submit would refuse: {needs}" in planned
    )
    zsg("submit", "grid.yaml", code=3)
    assert zsg.said.endswith(f"error: {needs}\n")
    assert {"name", "defaults", "grid"} <= json.loads(zsg("schema", "grid"))[
        "properties"
    ].keys()
    zsg("status", code=2)
    assert "no grid was submitted here; zsg submit GRID.YAML" in zsg.said


NO_MLFLOW = "mlflow is not installed here: pip install 'zsg[track]'"
NO_EMBEDDING = "all-MiniLM-L6-v2 is not installed: pip install 'zsg[train]'"
# each command, its exit code, and what it says, where another machine has trained
ELSEWHERE = {
    "status walk": (0, ""),
    "why walk": (0, ""),
    "logs RUN": (0, ""),
    "gc": (0, ""),
    "cancel walk": (0, ""),
    "retry walk": (0, ""),
    "arrange show RUN": (0, ""),
    "arrange compare RUN RUN": (0, ""),
    "arrange draw RUN": (2, "is not embedded"),
    "export walk --out all.parquet": (0, ""),
    "export walk --out items.csv --items": (0, ""),
    "verify RUN": (
        0,
        "a replay needs torch, transformers, deepspeed, which are not installed here",
    ),
    "report walk": (
        2,
        "a report needs jinja2, matplotlib, which are not installed here: pip install"
        " 'zsg[report]'",
    ),
    "sync walk": (2, NO_MLFLOW),
    "ui walk": (2, NO_MLFLOW),
    "server": (2, NO_MLFLOW),
    "server --backend postgresql://h/d": (2, "pip install 'zsg[postgresql]'"),
    "answers export walk": (2, "no run has answers yet"),
    "score scores.jsonl": (2, "has no answers of step 0"),
    "plan near.yaml": (2, NO_EMBEDDING),
    "arrange make near.yaml": (2, NO_EMBEDDING),
}
MANY = """
import contextlib, io, json, sys
from launcher import cli
ended = []
for line in sys.argv[1:]:
    sys.argv, out, code = ["zsg", *line.split()], io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
    ended.append([code, out.getvalue()])
print(json.dumps(ended))
"""


def run_all(
    python: Path, folder: Path, commands: Sequence[str]
) -> list[tuple[int, str]]:
    """How commands end and what they say, all in one process, which imports what they
    share once."""
    done = subprocess.run(
        [python, "-P", "-c", MANY, *commands],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [(code, said) for code, said in json.loads(done.stdout.splitlines()[-1])]


def test_what_the_bare_wheel_does_in_a_full_workspace(
    bare: Path, finished: Zsg
) -> None:
    """Where another machine trained, every command works, or says in one line what to
    install; never a traceback."""
    run = next((finished.work / "runs").iterdir()).name
    finished.write("near.yaml", GRID.replace("random", "nft").replace("walk", "near"))
    score = {"run": run, "step": 0, "id": "1", "metric": "mine", "score": 1}
    finished.write("scores.jsonl", json.dumps(score) + "\n")
    commands = [command.replace("RUN", run) for command in ELSEWHERE]
    ended = run_all(bare / "python", finished.folder, commands)

    for command, (code, words), (found, said) in zip(
        ELSEWHERE, ELSEWHERE.values(), ended, strict=True
    ):
        assert (command, found, words in " ".join(said.split())) == (
            command,
            code,
            True,
        ), said


def test_help_of_every_command_on_the_bare_wheel(bare: Path, tmp_path: Path) -> None:
    """Every command, and every command below one, prints its help."""
    top = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    commands = [
        f"{name} {below} --help"
        for name, one in top.items()
        for below in getattr(one, "commands", {})
    ]
    commands += [f"{name} --help" for name in top]

    for command, (code, said) in zip(
        commands, run_all(bare / "python", tmp_path, commands), strict=True
    ):
        assert (command, code) == (command, 0)
        assert f"Usage: zsg {command.removesuffix(' --help')}" in " ".join(said.split())


def test_a_walk_with_the_wheel(installed: Path, finished: Zsg) -> None:
    """init, doctor, plan, submit here, status, sync and ui; modules of our names in the
    folder change nothing."""
    zsg = finished

    package = next(
        row for row in json.loads(zsg("doctor", "--json")) if row["what"] == "package"
    )
    assert (package["verdict"], f"{installed.parent}/lib" in package["found"]) == (
        "ok",
        True,
    )
    assert "2 to submit" in zsg("plan", "grid.yaml")
    [row] = zsg.status()
    assert (row["state"], row["step"], row["attempt"]) == ("done", 4, 1)
    # Nothing is left to sync: the delivery beside the run has met no stranger either.
    assert "walk: sent 0 points of 0 runs" in zsg("sync")
    with served(zsg) as page:
        assert "<title>MLflow</title>" in page


@pytest.mark.slurm
@pytest.mark.soak(part="users")
def test_a_walk_with_the_wheel_on_slurm(installed: Path, zsg_on_slurm: Zsg) -> None:
    """Jobs on the nodes start in the folder where zsg was called, and take nothing
    there for ours either."""
    zsg = zsg_on_slurm
    zsg.program = [str(installed / "zsg")]
    zsg("init")
    put_strangers(zsg.folder)
    profile = zsg.write(
        "cluster.yaml",
        "name: cluster\ninherits: slurm-minimal\nslurm: {partition: main}\n",
    )
    zsg("submit", zsg.write("walk.yaml", GRID), "--profile", profile)
    until = time.monotonic() + 240
    while (row := zsg.status()[0])["state"] in (
        "waiting",
        "queued",
        "running",
        "unknown",
    ):
        assert time.monotonic() < until, f"still active: {row}"
        time.sleep(1)

    assert (row["state"], row["step"], row["attempt"]) == ("done", 4, 1), row
