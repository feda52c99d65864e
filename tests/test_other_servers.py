"""Does a plain `mlflow server`, as a site runs it, get all that it can take: below a path,
by allowed names only, with its artifacts out of reach?"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests

from jobs.contract import attempt as attempts
from jobs.contract import item_losses
from jobs.contract.folder import Workspace
from jobs.contract.journal import Journal
from jobs.tracking import mlflow_sync
from jobs.tracking.tracker import Refused
from tests.lib.command_line import Zsg, wait_until
from tests.lib.faulty_proxy import FaultyProxy
from tests.lib.grown_journals import write_grid, write_job
from tests.lib.mlflow_contents import MlflowClient, assert_exactly_once
from zsg_core.retry import ExponentialBackoff

PREFIX, BUCKET = "/team", "s3://lab/mlflow"
HASTE = ExponentialBackoff(limit_s=0.5, first_s=0.01, longest_s=0.05)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of MLflow's own server with a --static-prefix, whose artifacts are in a
    bucket for which nothing is installed here."""
    folder = tmp_path_factory.mktemp("site")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    options += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    options += ["--no-serve-artifacts", "--default-artifact-root", BUCKET]
    options += ["--static-prefix", PREFIX, "--allowed-hosts", f"127.0.0.1:{port}"]
    env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *options],
            stdout=log,
            stderr=log,
            env=env,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}{PREFIX}"
    try:
        wait_until(lambda: is_up(address), 60)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def is_up(address: str) -> bool:
    """Whether a server answers."""
    try:
        return requests.get(f"{address}/health", timeout=5).ok
    except requests.ConnectionError:
        return False


def write_measured(work: Path, run: str) -> None:
    """A run that is done, with the losses of its test items."""
    folder = write_job(work, run)
    item_losses.describe_items(folder, ["x:1", "y:1"], ["x", "y"], [7, 8], {})
    attempt = attempts.begin_attempt(folder, "submission")
    journal = Journal(folder, attempt, "train", "s")
    item_losses.journal_item_losses(
        journal, "loss", np.array([3.0, 4.0]), step=0, examples=0
    )
    journal.add_metrics({"loss": 3.5, "train/lr": 0.1}, step=0, examples=0)
    journal.close()
    attempts.end_attempt(folder, attempt, "done")


def send(work: Path, grid: str) -> dict[str, int]:
    """A delivery that does not wait long."""
    return mlflow_sync.Delivery(Workspace(work), grid, HASTE).send()


def test_artifacts_out_of_reach_keep_no_metric_back(
    tmp_path: Path, site: str, logged: list[str]
) -> None:
    """The metrics of all runs arrive, once; one line says where artifacts cannot be kept,
    why, and what helps; the next sync says so again."""
    runs = [f"run-{number}" for number in range(12)]
    for run in runs:
        write_measured(tmp_path, run)
    write_grid(tmp_path, "bucket", runs, site)

    assert send(tmp_path, "bucket") == {"runs": 12, "points": 24}
    assert_exactly_once(tmp_path, "bucket", runs, site)
    [line] = logged
    assert f"bucket: artifacts cannot be kept in {BUCKET}/" in line
    assert "No module named 'boto3'" in line and "install boto3 where zsg runs" in line
    assert send(tmp_path, "bucket") == {"runs": 0, "points": 0}
    assert logged == [line, line]


def test_a_folder_of_the_servers_machine_keeps_no_metric_back(
    tmp_path: Path, site: str, logged: list[str]
) -> None:
    """Where it cannot be written here, and where it can, but the server does not see it."""
    client = MlflowClient(site)
    for name, folder in (
        ("no-folder", "/proc/no/folder"),
        ("unseen", tmp_path / "here"),
    ):
        client.create_experiment(name, Path(folder).as_uri())
        write_measured(tmp_path, name)
        write_grid(tmp_path, name, [name], site)
    assert send(tmp_path, "no-folder") == {"runs": 1, "points": 2}
    with FaultyProxy(site, seed=0, share=0.0) as proxy:
        proxy.says["path=losses"] = b'{"files": []}'
        write_grid(tmp_path, "unseen", ["unseen"], f"{proxy.uri}{PREFIX}")
        assert send(tmp_path, "unseen") == {"runs": 1, "points": 2}

    assert [line.partition("/")[0] for line in logged] == [
        "no-folder: artifacts cannot be kept in file:",
        "unseen: artifacts cannot be kept in file:",
    ]
    assert "No such file or directory" in logged[0] and "--serve-artifacts" in logged[0]
    assert "its server does not see there what this machine writes" in logged[1]


def test_a_grid_below_a_prefix_opens_at_its_page(zsg: Zsg, site: str) -> None:
    """What `zsg ui` prints leads to MLflow's pages, with no password of an older record;
    without the prefix no MLflow answers, which is told at once."""
    write_measured(zsg.work, "one")
    with_password = site.replace("://", "://me:s3cret@")
    write_grid(zsg.work, "prefixed", ["one"], with_password)
    send(zsg.work, "prefixed")
    told = zsg("ui", "prefixed")
    address = told.split()[-1]

    assert address.startswith(f"{site}/#/metric?") and "%22loss%22" in address
    page = requests.get(address.partition("#")[0])
    assert page.ok and page.headers["Content-Type"].startswith("text/html")
    assert "--static-prefix" not in zsg.said

    bare = site.removesuffix(PREFIX)
    write_grid(zsg.work, "bare", ["one"], bare)
    with pytest.raises(Refused, match=r"no MLflow answers there: .*--static-prefix"):
        send(zsg.work, "bare")


def test_a_name_that_the_server_does_not_allow_is_refused(
    tmp_path: Path, site: str
) -> None:
    """MLflow's commonest refusal on a cluster: not the password, the name."""
    port = urlsplit(site).port
    write_measured(tmp_path, "one")
    write_grid(tmp_path, "named", ["one"], f"http://localhost:{port}{PREFIX}")
    with pytest.raises(
        Refused, match=r"Start it with --allowed-hosts 'localhost,localhost:\*,"
    ):
        send(tmp_path, "named")
