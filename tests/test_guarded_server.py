"""Does a real server of MLflow serve its owner only, and of files only those in its
folder of artifacts?"""

import json
import os
import re
import sqlite3
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from jobs.tracking import server_tokens
from tests.lib.command_line import serve
from tests.lib.mlflow_contents import MlflowClient
from tests.lib.other_user import OtherUser
from tests.lib.processes import group

PRIVATE = "PRIVATE KEY"


@dataclass
class Server:
    """A server, its folder, and what its database says of a run whose artifacts would
    be a private folder."""

    uri: str
    folder: Path
    home: Path
    token: str
    run: str = ""
    elsewhere: str = ""
    model: str = ""

    def ask(
        self,
        path: str,
        data: Any = None,
        method: str | None = None,
        token: str | None = None,
    ) -> tuple[int, str]:
        """Status and text of what the owner is answered, or who says that token."""
        body = data if isinstance(data, bytes | None) else json.dumps(data).encode()
        headers = {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {token or self.token}",
        }
        asked = urllib.request.Request(
            f"{self.uri}{path}", body, headers, method=method
        )
        try:
            with urllib.request.urlopen(asked, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def home_is_untouched(self) -> bool:
        """Whether the private folder has what it had."""
        return {path.name: path.read_text() for path in self.home.iterdir()} == {
            "id_rsa": PRIVATE
        }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose database somebody else has written: runs, models and links lead to
    a private folder."""
    folder, home = tmp_path_factory.mktemp("guarded"), tmp_path_factory.mktemp("home")
    (home / "id_rsa").write_text(PRIVATE)
    # no place that modules come from
    (folder / "mlflow.py").write_text("raise SystemExit('code of somebody else')\n")
    started = serve(folder, "--workers", "1")
    uri = next(started)
    made = Server(uri, folder, home, (folder / "token").read_text().strip())
    client = MlflowClient(uri)
    experiment = client.create_experiment("own")
    made.run = client.create_run(experiment).info.run_id
    made.elsewhere = client.create_run(experiment).info.run_id
    made.model = client.create_logged_model(experiment, "model", made.run).model_id
    client.create_registered_model("registered")
    client.create_model_version(
        "registered", f"models:/{made.model}", model_id=made.model
    )
    with sqlite3.connect(folder / "mlflow.db") as database:
        database.execute(
            "update runs set artifact_uri = ? where run_uuid = ?",
            (home.as_uri(), made.elsewhere),
        )
        database.execute(
            "update logged_models set artifact_location = ?", (home.as_uri(),)
        )
        database.execute(
            "update model_versions set source = ?, storage_location = ?",
            (home.as_uri(), home.as_uri()),
        )
    database.close()
    artifacts = folder / "artifacts" / experiment / made.run / "artifacts"
    artifacts.mkdir(parents=True)
    (artifacts / "own.txt").write_text("own")
    (artifacts / "folder").symlink_to(home)
    (artifacts / "file").symlink_to(home / "id_rsa")
    yield made
    next(started, None)


@pytest.mark.parametrize(
    "secret",
    [[], ["-H", "Authorization: Bearer wrong"], ["-H", "Cookie: zsg-mlflow=wrong"]],
)
def test_another_user_gets_nothing(
    server: Server, stranger: OtherUser, secret: list[str]
) -> None:
    """He reaches the port as every user of the machine does; reads, writes and
    forgeries alike are refused."""
    made = ["-X", "POST", "-H", "Content-Type: application/json", "-d"]
    asks = [
        [f"/get-artifact?run_uuid={server.run}&path=own.txt"],
        ["/"],
        ["/?token=wrong"],
        ["/ajax-api/2.0/mlflow/runs/delete", *made, json.dumps({"run_id": server.run})],
        ["/api/2.0/mlflow/runs/create", *made, json.dumps({"experiment_id": "1"})],
        [
            f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={server.run}&path=own.txt",
            *made,
            "his",
        ],
        ["/api/2.0/mlflow-artifacts/artifacts/1/x", "-X", "PUT", "-d", "his"],
        ["/graphql", *made, "{}"],
        ["/ajax-api/3.0/mlflow/assistant/message", *made, "{}"],
    ]
    command: list[str] = []
    for path, *options in asks:
        command += [
            *(["--next"] if command else []),
            "-s",
            "-w",
            "%{http_code}\n",
            *secret,
            *options,
            server.uri + path,
        ]
    said = stranger.run("curl", *command).stdout

    assert re.findall(r"^\d+$", said, re.MULTILINE) == ["401"] * len(asks)
    assert "own" not in said.replace("owner", "")
    client = MlflowClient(server.uri)
    assert client.get_run(server.run).info.lifecycle_stage == "active"
    assert len(client.search_runs(["1"])) == 2
    assert server.ask(f"/get-artifact?run_uuid={server.run}&path=own.txt") == (
        200,
        "own",
    )


def test_no_other_user_sees_the_secret(server: Server, stranger: OtherUser) -> None:
    """Not in the list of processes, nor in their environments, nor in the files that keep it."""
    listed = stranger.run("ps", "-eo", "pid,args").stdout
    processes = [
        int(line.split()[0])
        for line in listed.splitlines()
        if "launcher.mlflow.start_server" in line
    ]
    files = [
        server.folder / "token",
        server_tokens.locate_tokens() / server.uri.removeprefix("http://"),
    ]

    assert processes and server.token not in listed
    for process in [one for number in processes for one in (number, *group(number))]:
        assert (
            server.token.encode() not in Path(f"/proc/{process}/cmdline").read_bytes()
        )
        assert not stranger.can('cat "/proc/$1/environ"', str(process))
    assert [file.read_text().strip() for file in files] == [server.token] * 2
    assert [file.stat().st_mode & 0o777 for file in files] == [0o600] * 2
    assert not any(stranger.can('cat "$1"', file) for file in files)


@pytest.mark.parametrize(
    "path",
    [
        "/get-artifact?run_uuid={elsewhere}&path=id_rsa",
        "/get-artifact?run_uuid={run}&path=file",
        "/get-artifact?run_uuid={run}&path=folder/id_rsa",
        "/get-artifact?run_uuid={run}&path=..%2F..%2F..%2F..%2F{home}%2Fid_rsa",
        "/get-artifact?run_uuid={run}&path=%252e%252e%2Fid_rsa",
        "/get-artifact?run_uuid={run}&path=file%3A%2F%2F{home}%2Fid_rsa",
        "/model-versions/get-artifact?name=registered&version=1&path=id_rsa",
        "/ajax-api/2.0/mlflow/logged-models/{model}/artifacts/files?artifact_file_path=id_rsa",
        "/ajax-api/2.0/mlflow/logged-models/{model}/artifacts/directories",
        "/ajax-api/2.0/mlflow/artifacts/list?run_id={elsewhere}",
        "/api/2.0/mlflow/artifacts/list?run_id={run}&path=folder",
        "/api/2.0/mlflow-artifacts/artifacts/1/{run}/artifacts/file",
        "/ajax-api/2.0/mlflow-artifacts/artifacts/1/{run}/artifacts/folder/id_rsa",
        "/api/2.0/mlflow-artifacts/artifacts/..%2f..%2f{home}%2fid_rsa",
        "/api/2.0/mlflow-artifacts/artifacts?path=1/{run}/artifacts/folder",
        "/api/2.0/mlflow-artifacts/artifacts?path=..",
    ],
)
def test_the_owner_is_not_shown_private_files_either(server: Server, path: str) -> None:
    """Whatever a database and a folder that somebody else made say: by no endpoint,
    through no link."""
    named = {"run": server.run, "elsewhere": server.elsewhere, "model": server.model}
    status, said = server.ask(
        path.format(home=quote(str(server.home), safe=""), **named)
    )

    assert PRIVATE not in said and '"id_rsa"' not in said
    assert status in (400, 403, 404, 500) or (
        "artifacts/list" in path and '"files"' not in said
    )


@pytest.mark.parametrize(
    ("path", "method"),
    [
        (
            "/ajax-api/2.0/mlflow/upload-artifact?run_uuid={elsewhere}&path=.bashrc",
            "POST",
        ),
        (
            "/ajax-api/2.0/mlflow/upload-artifact?run_uuid={run}&path=folder/.bashrc",
            "POST",
        ),
        (
            "/ajax-api/2.0/mlflow/upload-artifact?run_uuid={run}&path=folder/id_rsa",
            "POST",
        ),
        ("/api/2.0/mlflow-artifacts/artifacts/1/{run}/artifacts/folder/id_rsa", "PUT"),
        (
            "/ajax-api/2.0/mlflow-artifacts/artifacts/1/{run}/artifacts/folder/new/x",
            "PUT",
        ),
        ("/api/2.0/mlflow-artifacts/artifacts/..%2f..%2fx", "PUT"),
        (
            "/api/2.0/mlflow-artifacts/artifacts/1/{run}/artifacts/folder/id_rsa",
            "DELETE",
        ),
        ("/api/2.0/mlflow-artifacts/artifacts/1/{run}/artifacts/folder/", "DELETE"),
    ],
)
def test_nothing_private_is_overwritten_or_removed(
    server: Server, path: str, method: str
) -> None:
    """Not by its owner either, who looks at what somebody else has sent."""
    status, _ = server.ask(
        path.format(run=server.run, elsewhere=server.elsewhere), b"a command\n", method
    )

    assert server.home_is_untouched()
    # which removes the link itself
    assert status in (400, 403, 404, 405, 500) or path.endswith("folder/")
    link = server.folder / "artifacts/1" / server.run / "artifacts/folder"
    if not link.is_symlink():
        link.symlink_to(server.home)


def test_artifacts_go_to_the_folder_and_come_back(
    server: Server, tmp_path: Path
) -> None:
    """Through MLflow's own client, with the token that it finds; kept private."""
    client = MlflowClient(server.uri)
    (tmp_path / "new.txt").write_text("new")
    client.log_artifact(server.run, str(tmp_path / "new.txt"), "a/b")
    back = client.download_artifacts(server.run, "a/b/new.txt", str(tmp_path))
    [listed] = client.list_artifacts(server.run, "a/b")

    kept = server.folder / "artifacts/1" / server.run / "artifacts/a/b/new.txt"
    assert Path(back).read_text() == kept.read_text() == "new"
    assert (listed.path, listed.file_size, kept.stat().st_mode & 0o777) == (
        "a/b/new.txt",
        3,
        0o600,
    )
    # no link is told
    assert [one.path for one in client.list_artifacts(server.run)] == ["a", "own.txt"]
    assert server.ask(f"/get-artifact?run_uuid={server.run}&path=a%2Fb%2Fnew.txt") == (
        200,
        "new",
    )


@pytest.mark.parametrize(
    "location",
    [
        "{home}",
        "file://{home}",
        "file://{artifacts}/../x",
        "s3://bucket/x",
        "x",
        "mlflow-artifacts://host/x",
        "ftp://h/x",
    ],
)
def test_artifacts_elsewhere_are_refused(server: Server, location: str) -> None:
    """Of a new experiment, and of a model: only below the server's own folder."""
    place = location.format(home=server.home, artifacts=server.folder / "artifacts")
    made = {"name": f"at {place}", "artifact_location": place}
    assert server.ask("/api/2.0/mlflow/experiments/create", made)[0] in (400, 403)
    assert server.ask(
        "/api/2.0/mlflow/model-versions/create", {"name": "registered", "source": place}
    )[0] in (400, 403)
    assert MlflowClient(server.uri).get_experiment_by_name(f"at {place}") is None


def test_artifacts_below_its_folder_are_taken(server: Server) -> None:
    """Named by its path, or as what is sent through the server."""
    client = MlflowClient(server.uri)
    for number, place in enumerate(
        ((server.folder / "artifacts/x").as_uri(), "mlflow-artifacts:/y")
    ):
        client.create_experiment(f"below {number}", place)


def test_a_browsers_way_in(server: Server, tmp_path: Path) -> None:
    """The printed address brings a cookie with which the page and its files open;
    another start's is worth nothing."""
    [address] = re.findall(
        r"^MLflow: (\S+)", (server.folder / "log").read_text(), re.MULTILINE
    )
    jar = tmp_path / "jar"

    def curl(*argv: str) -> str:
        return subprocess.run(
            ["curl", "-s", *argv], capture_output=True, text=True, check=True
        ).stdout

    assert address == f"{server.uri}/?token={server.token}"
    assert "location.replace" in curl("-c", str(jar), address)
    assert re.search(
        r"#HttpOnly_127.0.0.1\tFALSE\t/\tFALSE\t0\tzsg-mlflow-\w{12}\t[\w-]{43}",
        jar.read_text(),
    )
    page = curl("-b", str(jar), f"{server.uri}/")
    script = re.findall(r'src="(static-files/[^"]+\.js)"', page)[0]
    assert (
        "<title>MLflow</title>" in page
        and len(curl("-b", str(jar), f"{server.uri}/{script}")) > 1000
    )
    status = ["-o", os.devnull, "-w", "%{http_code}"]
    assert curl(*status, f"{server.uri}/{script}") == "401"
    jar.write_text(
        jar.read_text().replace(server.token, "other").rpartition("\t")[0] + "\tstale\n"
    )
    assert curl(*status, "-b", str(jar), f"{server.uri}/") == "401"


def test_the_secret_stands_in_the_address_line_only(server: Server) -> None:
    """No log has it, though requests with it in their address were made. The way there
    and the stakes are told."""
    server.ask(f"/?token={server.token}")
    said = (server.folder / "log").read_text()

    assert [line.split()[0] for line in said.splitlines() if server.token in line] == [
        "MLflow:"
    ]
    port = server.uri.rpartition(":")[2]
    assert f"  ssh -N -L {port}:127.0.0.1:{port} " in said
    assert "every user of this machine reaches the port" in said
    assert (
        f"all files in {server.folder}/artifacts can be read, written and deleted"
        in said
    )
