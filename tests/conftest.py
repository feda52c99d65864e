"""What several tests share: the command line as a user runs it, small data, the real
data, a real Slurm."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests.lib import browser, postgresql, suite
from tests.lib.builders import copy_made
from tests.lib.command_line import Zsg, serve
from tests.lib.forked_jobs import ForkedJobs, JobServer
from tests.lib.logged_messages import collect_messages, fresh_loggers
from tests.lib.module_times import ModuleTimes
from tests.lib.other_user import (
    OtherUser,
    missing_for_another_user,
    open_folder,
    other_user,
)
from tests.lib.requirements import need, new_slurm
from tests.lib.slurm_cluster import SlurmCluster
from zsg_core import skills

if TYPE_CHECKING:
    from tests.lib.train_bench import Bench

# How long an example takes is a matter of what else the machine does.
hypothesis.settings.register_profile("zsg", deadline=None)
hypothesis.settings.load_profile("zsg")

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    """What `make` asks for: see tests/lib/suite.py and tests/lib/module_times.py."""
    parser.addoption(
        "--fast", action="store_true", help="only tests that need no extras, no process"
    )
    parser.addoption(
        "--module-times", action="store_true", help="print the most expensive modules"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Keeps engines out of a fast run, and counts times where they are printed."""
    if config.getoption("fast"):
        suite.block_packages_of_extras()
    if config.getoption("module_times"):
        config.pluginmanager.register(ModuleTimes())


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A fast run does not even read a module that imports an engine."""
    is_test = collection_path.name.startswith("test_")
    if config.getoption("fast") and is_test and suite.needs_extras(collection_path):
        return True
    return None


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Puts the long modules first; a fast run keeps what is fast."""
    for item in items:
        suite.check_soak_part(item)
    suite.put_long_modules_first(items)
    if config.getoption("fast"):
        config.hook.pytest_deselected(
            items=[item for item in items if not suite.is_fast(item)]
        )
        items[:] = [item for item in items if suite.is_fast(item)]


@pytest.fixture(autouse=True)
def _fresh_loggers() -> Iterator[None]:
    with fresh_loggers():
        yield


@pytest.fixture
def logged(_fresh_loggers: None) -> Iterator[list[str]]:
    """The messages that zsg logs during a test, from INFO on."""
    with collect_messages() as messages:
        yield messages


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
def job_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobServer]:
    """A process that has imported the engines and forks jobs; one for all tests, as the
    imports are the dear part."""
    with JobServer(tmp_path_factory.mktemp("forked") / "socket") as server:
        yield server


@pytest.fixture(scope="session")
def forked(tmp_path_factory: pytest.TempPathFactory, job_server: JobServer) -> Path:
    """A profile of this machine whose jobs are forks, for runs that nobody disturbs: a
    signal to a job would reach the process that waits for its fork."""
    path = tmp_path_factory.mktemp("profile") / "forked.yaml"
    environment = {"set": job_server.variables}
    path.write_text(
        json.dumps({"name": "forked", "inherits": "local", "environment": environment})
    )
    return path


@pytest.fixture(scope="session")
def made(
    tmp_path_factory: pytest.TempPathFactory, tasks: Path, job_server: JobServer
) -> Path:
    """A workspace with what prepare jobs make for small runs, in every order that a
    test asks for."""
    from tests.lib.small_runs import make_needs

    zsg = Zsg(tmp_path_factory.mktemp("made"))
    make_needs(zsg, tasks, ForkedJobs(job_server))
    return zsg.work


@pytest.fixture(scope="module")
def bench(
    tmp_path_factory: pytest.TempPathFactory, job_server: JobServer
) -> Iterator["Bench"]:
    """Makes and starts single jobs."""
    # imports much of the launcher, which most modules do not need
    from tests.lib.train_bench import Bench

    made = Bench(tmp_path_factory.mktemp("bench"), ForkedJobs(job_server))
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
