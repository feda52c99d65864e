"""Is MLflow's server behind the gate, with artifacts in one folder only; the one module
that serves MLflow.

What it needs stands in its environment, as launcher.mlflow.mlflow_server sets it: a
list of processes shows neither the token nor the database's password. It listens at a
socket that it is handed, so that nobody else can answer at the address that was
printed.
"""

# The names of MLflow's variables, which all its versions have there:
# pyright: reportPrivateImportUsage=false

import json
import os
import posixpath
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from mlflow import server as mlflow_server
from mlflow.entities import FileInfo
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    PERMISSION_DENIED,
    RESOURCE_DOES_NOT_EXIST,
)
from mlflow.server import handlers
from mlflow.server.fastapi_app import app as mlflow_app
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import (
    get_artifact_repository,
    get_registered_artifact_repositories,
)
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as ModelStore
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as RunStore
from mlflow.utils.file_utils import (
    local_file_uri_to_path,  # pyright: ignore[reportUnknownVariableType]  (MLflow leaves its parameter untyped)
)

from jobs.runtime.job_log import write_line
from jobs.tracking import artifact_folder
from jobs.tracking.artifact_folder import NotBelow
from launcher.mlflow.gate import Gate, GateKeys

SETTINGS = "ZSG_SERVED"
STOPS_S = 3
# addresses of artifacts that clients send to this server
PASSED_ON = "mlflow-artifacts"
# addresses that name a run's or a model's, which is looked at when it is followed
INDIRECT = ("runs", "models")
NOWHERE = "dummy-source"  # what MLflow gives a prompt, which has no files


@dataclass(frozen=True)
class ServerSettings:
    """What the processes of the server are told. `artifacts`: the one folder that
    artifacts lie in."""

    token: str
    session: str
    hosts: tuple[str, ...]
    backend: str
    artifacts: str
    passes_artifacts: bool
    workers: int
    socket: int

    def to_json(self) -> str:
        """As it stands in the environment."""
        return json.dumps(asdict(self))

    @classmethod
    def of_environment(cls) -> "ServerSettings":
        """What this process was told."""
        settings = json.loads(os.environ[SETTINGS])
        fields: dict[str, Any] = {**settings, "hosts": tuple(settings["hosts"])}
        return cls(**fields)


class OwnArtifacts(ArtifactRepository):
    """Artifacts on this machine's disks: those below the one folder, reached through no link."""

    root: Path

    def __init__(self, artifact_uri: str, *arguments: Any, **named: Any) -> None:
        super().__init__(artifact_uri, *arguments, **named)
        self._parts = _allowed(
            lambda: artifact_folder.split_below(
                self.root, local_file_uri_to_path(artifact_uri)
            )
        )

    def log_artifact(self, local_file: Any, artifact_path: str | None = None) -> None:
        """Keeps a file, in place of one of the same name."""
        names = [*self._to(artifact_path), Path(local_file).name]
        _allowed(lambda: artifact_folder.write_file(self.root, names, Path(local_file)))

    def log_artifacts(self, local_dir: Any, artifact_path: str | None = None) -> None:
        """Keeps all files of a folder."""
        for path in sorted(Path(local_dir).rglob("*")):
            if path.is_file():
                names = [*self._to(artifact_path), *path.relative_to(local_dir).parts]
                _allowed(
                    lambda names=names, path=path: artifact_folder.write_file(
                        self.root, names, path
                    )
                )

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """What lies in a folder, with paths from that of the artifacts on."""
        entries = _allowed(
            lambda: artifact_folder.list_entries(self.root, self._to(path))
        )
        above = "/".join(artifact_folder.split_path(path or ""))
        return [
            FileInfo(posixpath.join(above, entry.name), entry.is_folder, entry.size)
            for entry in entries
        ]

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Removes a file, or a folder with all in it."""
        _allowed(
            lambda: artifact_folder.delete_entry(self.root, self._to(artifact_path))
        )

    def _is_directory(self, artifact_path: str | None) -> bool:
        return artifact_folder.is_folder(self.root, self._to(artifact_path))

    def _download_file(self, remote_file_path: str, local_path: Any) -> None:
        names = self._to(remote_file_path)
        if not names:
            raise MlflowException(
                f"{remote_file_path!r} names no file", INVALID_PARAMETER_VALUE
            )
        _allowed(lambda: artifact_folder.read_file(self.root, names, Path(local_path)))

    def _to(self, path: str | None) -> list[str]:
        return [*self._parts, *_allowed(lambda: artifact_folder.split_path(path or ""))]


def _allowed(do: Callable[[], Any]) -> Any:
    """What it returns; its refusal as MLflow's pages and clients understand it."""
    try:
        return do()
    except NotBelow as error:
        raise MlflowException(f"refused: {error}", PERMISSION_DENIED) from None
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MlflowException(
            f"No such artifact: {error.filename}", RESOURCE_DOES_NOT_EXIST
        ) from None
    except IsADirectoryError as error:
        raise MlflowException(
            f"{error.filename} is a folder", INVALID_PARAMETER_VALUE
        ) from None


def _refuse_elsewhere(settings: ServerSettings, location: str | None) -> None:
    """MlflowException for artifacts that would lie anywhere but in the one folder, or
    on another machine."""
    if not location or location == NOWHERE:
        return
    scheme = urlsplit(location).scheme
    if (
        scheme == PASSED_ON
        and settings.passes_artifacts
        and not urlsplit(location).netloc
    ):
        _allowed(
            lambda: artifact_folder.split_path(urlsplit(location).path.lstrip("/"))
        )
    elif scheme in ("", "file"):
        _allowed(
            lambda: artifact_folder.split_below(
                Path(settings.artifacts), local_file_uri_to_path(location)
            )
        )
    elif scheme not in INDIRECT:
        refused = f"refused: {location} is not in the folder of artifacts, {settings.artifacts}"
        raise MlflowException(refused, PERMISSION_DENIED)


def _keep_artifacts_in_one_folder(settings: ServerSettings) -> None:
    """Every way to a file goes through a repository; every address of one through these
    two stores."""
    OwnArtifacts.root = Path(settings.artifacts)
    repositories: dict[str, Any] = get_registered_artifact_repositories()  # pyright: ignore[reportAssignmentType]
    indirect = {scheme: repositories[scheme] for scheme in INDIRECT}
    repositories.clear()
    repositories.update({"": OwnArtifacts, "file": OwnArtifacts, **indirect})
    _guard(settings, RunStore, "create_experiment", "artifact_location")
    _guard(settings, ModelStore, "create_model_version", "source")
    for elsewhere in (
        "file:///etc",
        "/",
        "s3://bucket/folder",
        f"{PASSED_ON}://host/folder",
    ):
        try:
            get_artifact_repository(elsewhere)
        except MlflowException:
            continue
        raise RuntimeError(f"this MLflow would open {elsewhere}, so it is not served")


def _guard(settings: ServerSettings, store: type, method: str, argument: str) -> None:
    do = getattr(store, method)

    def guarded(
        self: Any, name: str, location: str | None = None, *arguments: Any, **named: Any
    ) -> Any:
        _refuse_elsewhere(settings, named.get(argument, location))
        return do(
            self, name, *(() if argument in named else (location,)), *arguments, **named
        )

    setattr(store, method, guarded)


def _prepare(settings: ServerSettings) -> None:
    """Tells MLflow's modules what is served, as `mlflow server` tells its workers."""
    artifacts = Path(settings.artifacts).as_uri()
    root = f"{PASSED_ON}:/" if settings.passes_artifacts else artifacts
    variables = {
        mlflow_server.BACKEND_STORE_URI_ENV_VAR: settings.backend,
        mlflow_server.REGISTRY_STORE_URI_ENV_VAR: settings.backend,
        mlflow_server.ARTIFACT_ROOT_ENV_VAR: root,
    }
    if settings.passes_artifacts:
        variables[mlflow_server.SERVE_ARTIFACTS_ENV_VAR] = "true"
        variables[mlflow_server.ARTIFACTS_DESTINATION_ENV_VAR] = artifacts
    os.environ.update(variables)
    _keep_artifacts_in_one_folder(settings)


def make_app() -> Gate:
    """The application that each process serves."""
    settings = ServerSettings.of_environment()
    _prepare(settings)
    return Gate(mlflow_app, GateKeys(settings.token, settings.session, settings.hosts))


def run_server() -> None:
    """Makes the tables where they lack, then serves until told to end."""
    settings = ServerSettings.of_environment()
    _prepare(settings)
    root = os.environ[mlflow_server.ARTIFACT_ROOT_ENV_VAR]
    try:
        handlers.initialize_backend_stores(settings.backend, settings.backend, root)
    except Exception as error:
        write_line(f"MLflow cannot open its database: {error}")
        sys.exit(1)
    uvicorn.run(
        "launcher.mlflow.guarded_server:make_app",
        factory=True,
        fd=settings.socket,
        workers=settings.workers,
        access_log=False,  # it would write down the address with the token
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=STOPS_S,
        log_level="warning",
    )
