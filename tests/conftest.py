"""What several tests share: the command line as a user runs it, small data, the real
data, a real Slurm."""

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
from typing import TYPE_CHECKING, Any

import browser
import postgresql
import pytest
from builders import copy_made
from other_user import OtherUser, missing_for_another_user, open_folder, other_user
from slurm_cluster import SlurmCluster, missing_programs

from zsg_core import skills

if TYPE_CHECKING:
    from train_bench import Bench

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
QUIET = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "COLUMNS": "200",
}
# With two workers the modules that take minutes begin, or one worker would be left with
# one in the end.
LONG_MODULES = [
    "chaos",
    "on_slurm",
    "lifecycle_on_slurm",
    "local",
    "submit_options",
    "stages",
    "resume",
    "evaluate",
    "deliver",
    "exactly_once",
    "live",
    "wheel",
    "tuning",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the long modules first."""
    ranks = {f"test_{name}": rank for rank, name in enumerate(LONG_MODULES)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))


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


@pytest.fixture
def zsg(tmp_path: Path) -> Zsg:
    """The command line in an empty folder."""
    return Zsg(tmp_path)


@pytest.fixture
def zsg_on_slurm(tmp_path: Path, slurm: SlurmCluster) -> Iterator[Zsg]:
    """The command line in an empty folder of a machine with Slurm; its jobs are
    cancelled afterwards."""
    # blanks and quotes must survive sbatch, srun and submitit
    folder = tmp_path / "a user's folder"
    folder.mkdir()
    yield Zsg(folder, slurm.env)
    slurm.run("scontrol", "update", "partitionname=main", "state=up")
    slurm.run("scancel", "--user", "root", "--partition", "main")


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


@pytest.fixture(scope="session")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real MLflow server, as `zsg server` sets it up, over sqlite."""
    yield from serve(tmp_path_factory.mktemp("server"), "--workers", "1")


@pytest.fixture(scope="session")
def mlflow_on_postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The same over PostgreSQL; without it a test fails, for make soak is to have it."""
    if missing := postgresql.missing():
        pytest.fail(f"no PostgreSQL: {', '.join(missing)}")
    with postgresql.database() as address:
        yield from serve(
            tmp_path_factory.mktemp("server"), "--backend", address, "--workers", "2"
        )


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set in the layout of Natural Instructions: 24 training and 6 held-out tasks."""
    folder = tmp_path_factory.mktemp("data") / "tasks"
    skills.write_tasks(folder, per_task=12)
    return folder


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, tasks: Path) -> Path:
    """A workspace with what prepare jobs make for small runs, in every order that a
    test asks for."""
    from small_runs import small_grid

    zsg = Zsg(tmp_path_factory.mktemp("made"))
    grid = small_grid(zsg, tasks, "[cluster, random, round_robin, nft, fft]")
    zsg("arrange", "make", grid)
    # which needs the base, too
    zsg("submit", grid, "--only", "arrangement.order=random", "--set", "train.steps=1")
    return zsg.work


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Bench"]:
    """Makes and starts single jobs; one for all tests of a module, as the jobs' imports
    are the dear part."""
    # imports much of the launcher, which most modules do not need
    from train_bench import Bench

    made = Bench(tmp_path_factory.mktemp("bench"))
    yield made
    made.jobs.stop()


@pytest.fixture
def prepared(zsg: Zsg, made: Path) -> Zsg:
    """The command line in a folder whose workspace holds what prepare jobs make for
    small runs, but no run."""
    copy_made(made, zsg.work)
    return zsg


@pytest.fixture
def prepared_on_slurm(zsg_on_slurm: Zsg, made: Path) -> Zsg:
    """The same on a machine with Slurm."""
    copy_made(made, zsg_on_slurm.work)
    return zsg_on_slurm


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real published data; without it a test skips, or fails where
    ZSG_REQUIRE_DATA is set."""
    need("data", [] if REAL_DATA.is_dir() else [str(REAL_DATA)])
    return REAL_DATA


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """A real Slurm of two nodes; without one a test skips, or fails where
    ZSG_REQUIRE_SLURM is set."""
    with new_slurm(tmp_path_factory) as cluster:
        yield cluster


def new_slurm(tmp_path_factory: pytest.TempPathFactory) -> SlurmCluster:
    """A Slurm of two nodes that is yet to be started."""
    need("Slurm", missing_programs())
    if os.getuid() != 0:
        need("Slurm", ["root's rights to start it"])
    return SlurmCluster(tmp_path_factory.mktemp("slurm") / "cluster")


@pytest.fixture(autouse=True)
def umask_of_the_suite() -> Iterator[None]:
    """Commands that a test calls in this process keep others out of what is made; later
    tests begin as this one."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


@pytest.fixture(scope="session")
def stranger() -> Iterator[OtherUser]:
    """A second real user of this machine; only root can make one."""
    if missing := missing_for_another_user():
        need("stranger", [missing])
    with other_user() as user:
        yield user


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder that every user of the machine can enter and read."""
    with open_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def chromium() -> None:
    """A browser on this machine; without one a test skips, or fails where
    ZSG_REQUIRE_BROWSER is set."""
    need("browser", browser.missing_programs())


@pytest.fixture(scope="session")
def unused_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def need(what: str, missing: list[str]) -> None:
    """Skips a test for what is missing, or fails it where ZSG_REQUIRE_<WHAT> is set."""
    if not missing:
        return
    if os.environ.get(f"ZSG_REQUIRE_{what.upper()}"):
        pytest.fail(f"{what} is required here, but missing: {', '.join(missing)}")
    pytest.skip(f"no {what}: missing {', '.join(missing)}")
