"""Is every trouble with MLflow told in one clear message without a password, and is
nothing lost by it?"""

import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from mlflow.exceptions import MlflowException
from mlflow.server.security_utils import INVALID_HOST_MSG, is_allowed_host_header
from mlflow.utils.rest_utils import verify_rest_response

from jobs.contract.folder import Workspace, read_json, write_json
from jobs.tracking import mlflow_sync, tracker
from jobs.tracking import mlflow_trouble as trouble
from jobs.tracking.tracker import Refused, Tracker, Unreachable
from launcher.clusters import profiles
from tests.lib.builders import mounted
from tests.lib.command_line import Zsg
from tests.lib.faulty_proxy import FaultyProxy
from tests.lib.grown_journals import write_grid, write_run
from tests.lib.journal_rows import plain_rows
from tests.lib.mlflow_contents import (
    MlflowClient,
    assert_exactly_once,
    child_runs,
    mlflow_runs,
)
from zsg_core.errors import UserError
from zsg_core.retry import ExponentialBackoff

HASTE = ExponentialBackoff(limit_s=0.5, first_s=0.01, longest_s=0.05)
NAME, SECRET = "me", "s3cret-w0rd"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store: to make its tables takes seconds."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    tracker.make_store(path)
    return path


@pytest.fixture
def work(tmp_path: Path, store: Path) -> Path:
    """A workspace with a run of two points, which its MLflow has."""
    work = tmp_path / "work"
    write_run(work, "one", [[{"loss": 3.0}, {"loss": 2.0}]])
    write_grid(work, "grid", ["one"])
    shutil.copy(store, work)
    assert send(work, "grid") == {"runs": 1, "points": 2}
    return work


@pytest.fixture
def proxy(mlflow: str) -> Iterator[FaultyProxy]:
    """A server behind what a site may put before it."""
    with FaultyProxy(mlflow, seed=0, share=0.0) as proxy:
        yield proxy


def send(work: Path, grid: str, **how: object) -> dict[str, int]:
    """A delivery that does not wait long."""
    return mlflow_sync.Delivery(Workspace(work), grid, HASTE).send(**how)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:secret@host:5000/api failed", "http://host:5000/api failed"),
        ("postgresql+psycopg://me:s:/e@host/db", "postgresql+psycopg://host/db"),
        (
            "http://host:5000/api?api_key=secret&v=1 failed",
            "http://host:5000/api?api_key=…&v=1 failed",
        ),
        (
            "HTTPConnectionPool(host='host', port=1):\n refused",
            "HTTPConnectionPool(host='host', port=1): refused",
        ),
        ("sent to me@lab.org", "sent to me@lab.org"),
    ],
)
def test_an_address_is_shown_without_its_password(text: str, shown: str) -> None:
    """On one line; what is no address stays."""
    assert trouble.shorten_error(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        (
            "(sqlite3.IntegrityError) UNIQUE constraint failed: datasets.experiment_id,"
            " datasets.name, datasets.digest"
        ),
        'duplicate key value violates unique constraint "dataset_pk"',
        "(1062, \"Duplicate entry '1-a' for key 'datasets.PRIMARY'\")",
    ],
    ids=["sqlite", "postgresql", "mysql"],
)
def test_a_row_that_another_request_has_made_may_pass(text: str) -> None:
    """It comes as a bad request, and the next try finds the row."""
    assert trouble.is_there_already(text) and trouble.may_pass(400, text)
    assert not trouble.is_there_already("no such column")


@pytest.mark.parametrize(
    ("version", "is_old"),
    [
        ("1.30.1", True),
        ("2.22.0", True),
        ("3.0.0rc1", False),
        ("3.17.2", False),
        ("<html>2.1", False),
    ],
)
def test_which_servers_are_too_old(version: str, is_old: bool) -> None:
    """Those before 3.0; of one that does not say, or stands behind what says something
    else, nothing is known."""
    assert trouble.is_too_old(version) == is_old


def test_a_server_that_is_too_old_is_refused(
    proxy: FaultyProxy, tmp_path: Path
) -> None:
    """By its version, before anything is sent; once it is new enough everything arrives."""
    write_run(tmp_path, "aged", [[{"loss": 3.0}]])
    write_grid(tmp_path, "aged", ["aged"], proxy.uri)
    proxy.says["/version"] = b"2.9.2"
    with pytest.raises(
        Refused,
        match=rf"{proxy.uri} is MLflow 2.9.2; zsg needs 3.0 or newer. The journals keep every",
    ):
        send(tmp_path, "aged")
    assert proxy.sent() == []

    proxy.says.clear()
    assert send(tmp_path, "aged") == {"runs": 1, "points": 1}


def test_a_server_that_is_too_old_is_refused_behind_a_login(
    proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its version is asked with the login that its client has; nothing is sent."""
    write_run(tmp_path, "aged", [[{"loss": 3.0}]])
    write_grid(tmp_path, "aged-behind", ["aged"], proxy.uri)
    proxy.login, proxy.says["/version"] = f"{NAME}:{SECRET}", b"2.22.0"
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", NAME)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)

    with pytest.raises(Refused, match=r"is MLflow 2\.22\.0; zsg needs 3\.0 or newer"):
        send(tmp_path, "aged-behind")
    assert proxy.sent() == []


def test_a_login_page_is_told_as_one(proxy: FaultyProxy, tmp_path: Path) -> None:
    """At once, with where it sends on to, and without what stands in that address."""
    write_run(tmp_path, "one", [[{"loss": 3.0}]])
    write_grid(tmp_path, "behind", ["one"], proxy.uri)
    proxy.asks_browsers = True
    with pytest.raises(
        Refused, match="a web page answers in MLflow's place"
    ) as refused:
        send(tmp_path, "behind")

    said = str(refused.value)
    assert (
        f"it sends on to http://localhost:{proxy.uri.rpartition(':')[2]}/login" in said
    )
    assert "s3cret" not in said and "<" not in said
    assert len(proxy.requests) < 10


@pytest.mark.parametrize(
    ("status", "body", "is_final", "advice"),
    [
        (200, "<html>Sign in", True, "a login that is made for browsers"),
        (405, "<html>no", True, "a login that is made for browsers"),
        (404, "<!doctype html>", True, "check the host, the port and the path"),
        (503, "<html>busy", False, ""),
        (200, '{"run": ', False, ""),
    ],
    ids=str,
)
def test_pages_in_place_of_an_answer(
    status: int, body: str, is_final: bool, advice: str
) -> None:
    """A page of a server that is busy, and an answer that was cut, may pass."""
    verify = lambda: verify_rest_response(answered(status, body), "/api/2.0/mlflow/x")  # noqa: E731
    with pytest.raises(MlflowException) as raised:
        verify()

    assert tracker.is_transient(raised.value) is not is_final
    assert advice in trouble.advise_on_error(str(raised.value))


def answered(status: int, body: str) -> requests.Response:
    """An answer of a server."""
    answer = requests.Response()
    answer.status_code, answer._content = status, body.encode()
    return answer


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("https://sso.lab.org/login?state=secret", "https://sso.lab.org/login"),
        ("/login", "http://mlflow.lab.org/login"),
        (
            "https://mlflow.lab.org/team/api/2.0/mlflow/x",
            "https://mlflow.lab.org/team: name that as tracking.uri",
        ),
    ],
)
def test_where_a_server_sends_on(location: str, told: str) -> None:
    """Without its query; an address that has become encrypted is the one to name."""
    described = trouble.describe_redirect("http://mlflow.lab.org/team/", location)
    assert described == f"; it sends on to {told}"


@pytest.mark.parametrize(
    "address", ["http://login01:5000", "http://[fd00::7]:5000/team"]
)
def test_a_name_that_mlflow_does_not_allow_is_told(address: str) -> None:
    """With the option that allows it, which MLflow's own check then takes."""
    text = (
        "API request to endpoint /api/2.0/mlflow/experiments/get-by-name failed with error code 403"
        f" != 200. Response body: '{INVALID_HOST_MSG}'"
    )
    advice = trouble.advise_on_error(text, address)
    words = shlex.split(advice.partition("--allowed-hosts ")[2])
    names = words[0].removesuffix(",").split(",")

    assert "PASSWORD" not in advice and not trouble.may_pass(403, text)
    for host in (urlsplit(address).netloc, "localhost:5000"):
        assert is_allowed_host_header(names, host)
    assert not is_allowed_host_header(names, "elsewhere:5000")


def test_a_name_that_zsg_server_does_not_allow_is_told(mlflow: str) -> None:
    """Its own refusal says which option adds a name."""
    answer = requests.get(f"{mlflow}/api/2.0/mlflow/x", headers={"Host": "elsewhere"})
    with pytest.raises(MlflowException) as raised:
        verify_rest_response(answer, "/api/2.0/mlflow/x")

    advice = trouble.advise_on_error(str(raised.value))
    assert "start it with --allow" in advice and "PASSWORD" not in advice


def test_wrong_credentials_are_told_and_never_shown(
    proxy: FaultyProxy, zsg: Zsg, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line names how to give them; no output holds the password, nor does any file;
    the right one delivers."""
    write_run(zsg.work, "closed", [[{"loss": 3.0}]])
    write_grid(zsg.work, "closed", ["closed"], proxy.uri)
    proxy.login = f"{NAME}:the right one"
    zsg.env |= {"MLFLOW_TRACKING_USERNAME": NAME, "MLFLOW_TRACKING_PASSWORD": SECRET}
    printed = zsg("sync", "closed", code=3)

    assert SECRET not in printed + zsg.said
    assert (
        zsg.said.count("\n") == 1
        and "MLFLOW_TRACKING_PASSWORD" in zsg.said
        and "~/.mlflow/credentials" in zsg.said
    )
    assert not [
        path
        for path in zsg.folder.rglob("*")
        if path.is_file() and SECRET.encode() in path.read_bytes()
    ]
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", NAME)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "the right one")
    assert send(zsg.work, "closed") == {"runs": 1, "points": 1}


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        pytest.param(
            f"http://{NAME}:{SECRET}@host:5000",
            "~/.mlflow/credentials",
            id="a password",
        ),
        pytest.param(
            f"postgresql://{NAME}:{SECRET}@host/db",
            "~/.mlflow/credentials",
            id="a database with a password",
        ),
        pytest.param("postgresql:///db", "see zsg server", id="a database"),
        pytest.param(
            "file:///shared/mlruns", "is no MLflow that zsg can fill", id="a folder"
        ),
        pytest.param(
            f"databricks://{SECRET}", "is no MLflow that zsg can fill", id="a service"
        ),
        pytest.param(
            f"file:///shared/mlruns?{SECRET}",
            "is no MLflow that zsg can fill",
            id="a folder with a query",
        ),
        pytest.param(
            f"sqlite:////local/m.db?{SECRET}",
            "is no MLflow that zsg can fill",
            id="a file with a query",
        ),
        pytest.param(f"http://host:5000/#{SECRET}", "holds a query", id="a fragment"),
        pytest.param("login01:5000", "give http://HOST:PORT", id="no scheme"),
        pytest.param("http://", "give http://HOST:PORT", id="no host"),
        pytest.param(
            "http://host:many", "give http://HOST:PORT", id="a port that is none"
        ),
        pytest.param(
            "sqlite:///mlflow.db",
            "by its whole path as sqlite:////FILE",
            id="a path that depends on where",
        ),
    ],
)
def test_an_address_that_cannot_be_is_refused(
    tmp_path: Path, uri: str, said: str
) -> None:
    """When the profile is read, with its file and line, and without the password."""
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: mine\nkind: slurm\ntracking: {{uri: '{uri}'}}\n")
    with pytest.raises(UserError, match=r"mine.yaml:3: tracking.uri") as refused:
        profiles.load_profile(str(path), tmp_path)

    assert said in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "uri",
    ["http://login01:5000", "https://mlflow.lab.org/team", "sqlite:////local/a@b.db"],
)
def test_addresses_that_can_be(tmp_path: Path, uri: str) -> None:
    """A server, also below a path, or a file."""
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: mine\nkind: slurm\ntracking: {{uri: '{uri}'}}\n")

    assert profiles.load_profile(str(path), tmp_path).tracking.uri == uri


@pytest.mark.parametrize(
    ("uri", "token", "said"),
    [
        ("http://mallory.example:5000", SECRET, "is plain http to another machine"),
        (
            "http://127.0.0.1:1",
            f"{SECRET}\r\nX: y",
            "the value of MLFLOW_TRACKING_TOKEN is no key",
        ),
    ],
)
def test_a_login_is_not_sent_in_the_clear_nor_told(
    monkeypatch, uri: str, token: str, said: str
) -> None:
    """To another machine it goes encrypted or not at all; one that no header can carry
    is not shown."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", token)
    with pytest.raises(
        Refused, match=f"nothing is sent to MLflow at {uri}: "
    ) as refused:
        Tracker(uri)

    assert said in str(refused.value)
    assert SECRET not in str(refused.value)


def test_a_host_that_does_not_exist_is_unreachable(tmp_path: Path) -> None:
    """As a server that is down: it may be there in a moment."""
    write_run(tmp_path, "one", [[{"loss": 3.0}]])
    write_grid(tmp_path, "nowhere", ["one"], "http://no-such-host.invalid:5000")

    with pytest.raises(
        Unreachable,
        match=r"does not answer .* http://no-such-host.invalid:5000: .*run zsg sync again",
    ):
        send(tmp_path, "nowhere")


def test_long_texts_fit_into_requests(tmp_path: Path, mlflow: str) -> None:
    """Forty parameters of 6,000 characters beyond ASCII are 1.4 MB as JSON; a server
    takes 1 MB at once."""
    write_run(tmp_path, "long", [[{"loss": 1.0}]])
    write_grid(tmp_path, "long", ["long"], mlflow)
    path = Workspace(tmp_path).grid("long") / "grid.json"
    record: Any = read_json(path)
    record["runs"][0]["recipe"]["stages"][0] |= {
        f"key{number}": "数" * 6000 for number in range(40)
    }
    write_json(path, record)
    mlflow_sync.sync_grid(Workspace(tmp_path), "long")

    params = child_runs(tmp_path, "long", mlflow)["long"]["params"]
    assert [len(params[f"key{number}"]) for number in range(40)] == [6000] * 40


def test_a_deleted_experiment_is_told_and_a_restored_one_goes_on(work: Path) -> None:
    """MLflow keeps the name of a deleted experiment: the message says what frees it.
    Restored, only news are sent."""
    client = MlflowClient(f"sqlite:///{work}/mlflow.db")
    experiment = client.get_experiment_by_name("grid")
    assert experiment
    client.delete_experiment(experiment.experiment_id)
    write_run(work, "one", [[{"loss": 3.0}, {"loss": 2.0}, {"loss": 1.0}]])
    with pytest.raises(
        Refused, match="'grid' was deleted in MLflow: `MLFLOW_TRACKING_URI="
    ) as refused:
        send(work, "grid")

    do_as_told(str(refused.value), "restore")
    assert send(work, "grid") == {"runs": 1, "points": 1}
    assert_exactly_once(work, "grid", ["one"])


def do_as_told(message: str, word: str) -> None:
    """Runs the command of a message that has this word, in a shell, in an empty folder."""
    [command] = [part for part in message.split("`") if f" {word} " in part]
    env = {
        key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"
    }
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    with tempfile.TemporaryDirectory() as empty:
        subprocess.run(
            command, shell=True, check=True, cwd=empty, env=env, capture_output=True
        )
        assert not list(Path(empty).iterdir())


def test_a_deleted_experiment_of_an_own_server_is_restored_as_told(
    tmp_path: Path, mlflow: str
) -> None:
    """The command names the server's token, without which it would be let in nowhere."""
    write_run(tmp_path, "one", [[{"loss": 3.0}]])
    write_grid(tmp_path, "once-deleted", ["one"], mlflow)
    send(tmp_path, "once-deleted")
    client = MlflowClient(mlflow)
    experiment = client.get_experiment_by_name("once-deleted")
    assert experiment
    client.delete_experiment(experiment.experiment_id)
    with pytest.raises(Refused, match="was deleted in MLflow") as refused:
        send(tmp_path, "once-deleted")

    do_as_told(str(refused.value), "restore")
    assert send(tmp_path, "once-deleted") == {"runs": 0, "points": 0}


@pytest.mark.soak(part="tracking")
def test_a_deleted_experiment_begins_anew_as_told(work: Path) -> None:
    """The other command of the message frees the name: all is sent to a new experiment."""
    client = MlflowClient(f"sqlite:///{work}/mlflow.db")
    client.delete_experiment("1")
    with pytest.raises(Refused, match="was deleted in MLflow") as refused:
        send(work, "grid")
    do_as_told(str(refused.value), "gc")

    assert send(work, "grid") == {"runs": 1, "points": 2}
    assert_exactly_once(work, "grid", ["one"])


@pytest.mark.parametrize(
    ("place", "told"),
    [
        (
            "http://host:5000",
            (
                "`MLFLOW_TRACKING_URI=http://host:5000 mlflow experiments restore -x 7`, or where"
                " its server runs, `MLFLOW_TRACKING_URI=http://host:5000 mlflow gc"
                " --backend-store-uri DATABASE --experiment-ids 7` with the address of its"
                " database, to begin anew"
            ),
        ),
        (
            "sqlite:////my work/mlflow.db",
            (
                "`MLFLOW_TRACKING_URI='sqlite:////my work/mlflow.db' mlflow experiments restore -x"
                " 7`, or `MLFLOW_TRACKING_URI='sqlite:////my work/mlflow.db' mlflow gc"
                " --backend-store-uri 'sqlite:////my work/mlflow.db' --experiment-ids 7` to begin"
                " anew"
            ),
        ),
    ],
)
def test_the_commands_that_are_told_name_their_store(place: str, told: str) -> None:
    """Without it MLflow takes another one, or none; of a server only its own machine
    knows the database."""
    assert trouble.bring_back(place, "7") == told


@pytest.mark.parametrize("is_known", [True, False], ids=["with its cursor", "without"])
def test_a_restored_run_is_no_second_one(
    work: Path, is_known: bool, logged: list[str]
) -> None:
    """Deleted, filled anew and then restored, a run is there twice: the next delivery
    leaves one, and it is whole."""
    client = MlflowClient(f"sqlite:///{work}/mlflow.db")
    old = child_runs(work, "grid")["one"]["id"]
    client.delete_run(old)
    assert send(work, "grid") == {"runs": 1, "points": 2}
    client.restore_run(old)
    if not is_known:
        shutil.rmtree(work / "runs/one/delivery")
    mlflow_sync.sync_grid(Workspace(work), "grid")

    assert_exactly_once(work, "grid", ["one"])
    assert [line.startswith("one: MLflow had its run twice") for line in logged] == [
        True
    ]
    assert send(work, "grid") == {"runs": 0, "points": 0}


@pytest.mark.parametrize("is_known", [True, False], ids=["with its cursor", "without"])
def test_a_renamed_experiment_is_filled_under_its_new_name(
    work: Path, is_known: bool, logged: list[str]
) -> None:
    """It is found by its runs, and told; no second one is made, and the page is that of
    the renamed one."""
    client = MlflowClient(f"sqlite:///{work}/mlflow.db")
    client.rename_experiment("1", "archive")
    if not is_known:
        shutil.rmtree(work / "runs/one/delivery")
    write_run(work, "one", [[{"loss": 3.0}, {"loss": 2.0}, {"loss": 1.0}]])
    sent = mlflow_sync.sync_grid(Workspace(work), "grid")

    assert sent == {"runs": 1, "points": 1 if is_known else 3}
    assert logged == [
        "grid: its experiment is called 'archive' in MLflow by now, which is filled"
    ]
    assert_exactly_once(work, "archive", ["one"])
    assert {one.name for one in client.search_experiments()} == {"Default", "archive"}
    assert "experiments=%5B%221%22%5D" in mlflow_sync.find_grid_page(
        Workspace(work), "grid"
    )


def test_runs_that_stand_in_two_experiments_are_filled_where_they_are(
    work: Path, logged: list[str]
) -> None:
    """Renamed, and its later runs in a new one, as older zsg made it: each stays where
    it is, and that is told."""
    client = MlflowClient(f"sqlite:///{work}/mlflow.db")
    client.rename_experiment("1", "archive")
    write_run(work, "two", [[{"loss": 5.0}]])
    write_grid(work, "grid", ["one", "two"])
    second = client.create_run(
        client.create_experiment("grid"), tags=tags_of(work, "two")
    ).info.run_id
    folder = work / "runs/two/delivery"
    folder.mkdir()
    facts = {
        "uri": f"sqlite:///{work}/mlflow.db",
        "run": second,
        "began": tags_of(work, "two")["zsg.began"],
    }
    write_json(folder / "grid.json", {"sent": {}, "params": False, **facts})

    assert mlflow_sync.sync_grid(Workspace(work), "grid") == {
        "runs": 1,
        "points": 1,
    }
    assert_exactly_once(work, "archive", ["one"])
    assert_exactly_once(work, "grid", ["two"])
    assert logged[1:] == [
        "grid: 1 of its runs stand in MLflow's experiment 'grid', and are filled there"
    ]


def tags_of(work: Path, run: str) -> dict[str, str]:
    """The tags by which the delivery of the grid knows a run."""
    [began] = {str(row["ts"]) for row in islice(plain_rows(work / "runs" / run), 1)}
    return {"zsg.kind": "run", "zsg.run": run, "zsg.grid": "grid", "zsg.began": began}


def test_an_archived_study_of_the_same_name_is_not_filled(
    work: Path, tmp_path: Path
) -> None:
    """Another workspace's grid that was renamed has none of our runs: ours get an
    experiment of their own."""
    MlflowClient(f"sqlite:///{work}/mlflow.db").rename_experiment("1", "archive")
    other = tmp_path / "other"
    write_run(other, "one", [[{"loss": 3.0}, {"loss": 2.5}]])
    write_grid(other, "grid", ["one"], f"sqlite:///{work}/mlflow.db")
    send(other, "grid")

    assert_exactly_once(other, "grid", ["one"], f"sqlite:///{work}/mlflow.db")
    assert_exactly_once(work, "archive", ["one"])


def test_the_same_run_of_another_workspace_is_another_one(
    work: Path, tmp_path: Path
) -> None:
    """Trained twice, in two workspaces that share an MLflow, a run is two, each with
    its own points once."""
    other = tmp_path / "other"
    write_run(other, "one", [[{"loss": 3.0}, {"loss": 2.5}]])
    write_grid(other, "grid", ["one"], f"sqlite:///{work}/mlflow.db")
    for _ in range(2):
        send(other, "grid")
        send(work, "grid")

    runs = [
        row for row in mlflow_runs(work, "grid") if row["tags"]["zsg.kind"] == "run"
    ]
    found = {
        row["tags"]["zsg.workspace"]: sorted(point[2] for point in row["points"])
        for row in runs
    }
    assert len(runs) == 2
    assert found == {str(work): [2.0, 3.0], str(other): [2.5, 3.0]}


def test_a_database_of_another_mlflow_is_told(tmp_path: Path, store: Path) -> None:
    """One that an older or a newer MLflow has made is refused at once, with what to do."""
    work = tmp_path / "work"
    write_run(work, "one", [[{"loss": 3.0}]])
    write_grid(work, "grid", ["one"])
    shutil.copy(store, work)
    with sqlite3.connect(work / "mlflow.db") as database:
        database.execute("update alembic_version set version_num = '451aebb31d03'")
    database.close()

    with pytest.raises(
        Refused, match=f"`mlflow db upgrade sqlite:///{work}/mlflow.db`"
    ):
        send(work, "grid")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that is quickly filled."""
    # MLflow keeps its stores open
    with mounted("8m", tmp_path / "disk", lazily=True) as folder:
        yield folder


def test_a_full_disk_loses_nothing(small_disk: Path) -> None:
    """Full when the store is made, and when it is filled: one message, at once; with
    room again all arrives once."""
    work = small_disk / "work"
    write_run(work, "one", [[{"loss": 0.0}]], outcome=None)
    write_grid(work, "grid", ["one"])
    refuse_full(work, left=100_000)
    send(work, "grid")
    write_run(work, "one", [[{"loss": float(step)} for step in range(3000)]])
    refuse_full(work, left=50_000)

    assert send(work, "grid")["runs"] == 1
    assert_exactly_once(work, "grid", ["one"])


def refuse_full(work: Path, left: int) -> None:
    """A delivery on a disk with so many bytes left fails with a message that says so."""
    room, filling = os.statvfs(work), work / "filling"
    filling.write_bytes(bytes(room.f_bavail * room.f_bsize - left))
    with pytest.raises((Refused, OSError), match=r"is full|No space left"):
        send(work, "grid")
    filling.unlink()
