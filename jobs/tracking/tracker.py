"""Speaks to MLflow; the only module that does. Every call may be made twice, and what
is transient is tried again.

MLflow's client by itself tries again for many minutes, but not where its server has run
out of connections to its database, which it calls a bad request (400): so the trying is
ours, and the client's is off. See jobs.tracking.mlflow_trouble for what its errors
mean.
"""

import contextlib
import functools
import itertools
import json
import logging
import math
import os
import re
import sqlite3
import sys
import threading
import urllib.parse
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from jobs.files import locks, ownership, paths

# read when mlflow is imported
os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
os.environ |= {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
if paths.find_home() is None:
    os.environ["HOME"] = "/"  # MLflow is not imported without a home
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # seconds
os.environ.setdefault("MLFLOW_TRACKING_AUTH", "zsg")  # OwnServers

import requests
from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    Experiment,
    InputTag,
    LifecycleStage,
    LoggedModelOutput,
    Metric,
    Param,
    RunTag,
    ViewType,
)
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking.request_auth.abstract_request_auth_provider import (
    RequestAuthProvider,
)
from mlflow.tracking.request_auth.registry import (
    _request_auth_provider_registry,  # pyright: ignore[reportPrivateUsage]
)
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.rest_utils import http_request, verify_rest_response
from sqlalchemy.exc import SQLAlchemyError

from jobs.contract.delivery_cursor import LostRow
from jobs.contract.journal import Point, spell_nonfinite
from jobs.tracking import artifact_folder, logins, server_tokens
from jobs.tracking import mlflow_trouble as trouble
from jobs.tracking.mlflow_trouble import NotSeen
from zsg_core import secrets
from zsg_core.errors import ClusterError, UserError
from zsg_core.retry import ExponentialBackoff, RetryPolicy
from zsg_core.shown_text import make_showable

MOST_METRICS, MOST_PARAMS, MOST_TAGS = 1000, 100, 100  # of one request
# of its texts, as JSON: with a thousand metrics it stays below MLflow's limit of a megabyte
MOST_BYTES = 600_000
MOST_CURVES = 40
# the runs that a grid wants now
LISTED = "tags.`zsg.kind` = 'run' and tags.`zsg.listed` = 'yes'"
TAG_LENGTH, PARAM_LENGTH, DIGEST_LENGTH = 5000, 6000, 36
PAGE = 1000  # runs of one answer
VERSION_S = 10.0
LIST = "/api/2.0/mlflow/artifacts/list"
LOG_BATCH = "/api/2.0/mlflow/runs/log-batch"
PROBE = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
BUSY_S = 60.0  # how long another process may hold a sqlite store
# What in a store has the address of artifacts, the experiments' own last: the others
# are found by theirs.
LOCATED = (
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("experiments", "artifact_location"),
)

KEPT = "The journals keep everything; run zsg sync again"

T = TypeVar("T")


def _query(tags: Mapping[str, str]) -> str:
    return " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())


class Unreachable(ClusterError):
    """MLflow did not answer for as long as it was retried, so no other run need be tried now."""


class Refused(ClusterError):
    """MLflow said no, and would say it again."""


class NotKept(ClusterError):
    """MLflow's artifacts cannot be written from here, so no other file need be tried now."""


@dataclass(frozen=True)
class Data:
    """A data set that a run has read: MLflow shows them by name, and finds runs by digest."""

    name: str
    digest: str
    context: str
    source: str


@dataclass(frozen=True)
class FoundRun:
    """A run that was found in MLflow, or made there. `is_created`: nothing can have
    been sent to it yet. `is_doubtful`: there may be a second one, since an attempt to
    create it got no answer: the server may yet be at it."""

    run: str
    is_created: bool
    is_doubtful: bool


class OwnServers(RequestAuthProvider):
    """Sends to each `zsg server` of the user's the token that it published, and to
    nobody else anything.

    It goes by the address of every single request. A login that MLflow's client has is
    for other servers: to one of the user's own it is not sent.
    """

    # The base tells no types.
    def get_name(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What MLFLOW_TRACKING_AUTH calls it."""
        return "zsg"

    def get_auth(self) -> "OwnServers":  # pyright: ignore[reportIncompatibleMethodOverride]
        """What `requests` calls with every request."""
        return self

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if token := server_tokens.find_token(request.url or ""):
            request.headers["Authorization"] = f"Bearer {token}"
        return request


_request_auth_provider_registry.register(OwnServers)


def is_transient(error: Exception) -> bool:
    """Whether the same call may succeed in a moment: no connection, an overloaded
    server, a locked database."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return trouble.may_pass(error.response.status_code, error.response.text)
    if isinstance(error, requests.RequestException):
        return not isinstance(
            error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema
        )
    # of a store that is being opened; later MLflow wraps them
    if isinstance(error, SQLAlchemyError):
        return trouble.may_pass(500, str(error))
    return isinstance(error, MlflowException) and trouble.may_pass(
        error.get_http_status_code(), str(error)
    )


def open_client(uri: str, moved_to: str | None = None) -> MlflowClient:
    """MLflow's client, over a store that is whole; and whose artifacts are in
    `moved_to`, wherever they were."""
    if uri.startswith("sqlite:///"):
        path = Path(uri.removeprefix("sqlite:///"))
        make_store(path)
        if moved_to:
            follow_artifacts(path, moved_to)
    return MlflowClient(tracking_uri=uri)


def make_store(path: Path) -> None:
    """Makes a sqlite store that is not there, under another name until it is whole.

    MLflow 3.17 sets its tables up in many steps without a lock: killed among them, or
    done twice at once, it leaves a file that it can never open again ("table
    _alembic_tmp_tags already exists").
    """
    if path.exists():
        return
    for noisy in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    ownership.make_folder(path.parent)
    with locks.hold_lock(path.with_name(f".{path.name}.lock")):
        if path.exists():
            return  # another process was first
        of_ours = re.compile(
            rf"\.{re.escape(path.name)}\.draft\.[0-9a-f]{{8}}(-journal|-wal|-shm)?"
        )
        for path_there in path.parent.iterdir():
            if of_ours.fullmatch(path_there.name) and not path_there.is_symlink():
                path_there.unlink()
        # A name of its own: MLflow keeps the connections of a process to a path, also
        # to one that was removed.
        draft = path.with_name(f".{path.name}.draft.{uuid.uuid4().hex[:8]}")
        SqlAlchemyStore(
            f"sqlite:///{draft}", (path.parent / "mlartifacts").as_uri()
        ).engine.dispose()
        ownership.share_file(draft)
        draft.rename(path)


def follow_artifacts(path: Path, artifacts: str) -> None:
    """Tells a sqlite store that was moved with its folder of artifacts where that folder is by now.

    MLflow keeps the whole address of each experiment's, run's and model's artifacts: it
    would make the old folder anew, put new files there and find none of the old. Only
    addresses of a folder of that name, as this module has them made, are written anew:
    that of an experiment is the folder itself, or MLflow's own <folder>/<its id>.
    """
    name = artifacts.rpartition("/")[2]
    with contextlib.closing(sqlite3.connect(path, timeout=BUSY_S)) as database:
        try:
            experiments = database.execute(
                "select experiment_id, artifact_location from experiments"
            ).fetchall()
        except sqlite3.Error:
            return  # what is wrong with it MLflow says itself
        moved: list[tuple[int, str, str]] = []
        for number, old in experiments:
            folder = (old or "").removesuffix(f"/{number}")
            if folder.endswith(f"/{name}") and _as_uri(folder) != artifacts:
                moved.append((number, old, artifacts + old.removeprefix(folder)))
        if not moved:
            return
        try:
            with database:  # one transaction
                for number, old, new in moved:
                    for table, column in LOCATED:
                        database.execute(
                            f"update {table} set {column} = ? || substr({column}, ?) where"
                            f" experiment_id = ? and ({column} = ? or substr({column}, 1, ?) = ?)",
                            (new, len(old) + 1, number, old, len(old) + 1, f"{old}/"),
                        )
        except sqlite3.Error as error:
            raise MlflowException(f"(sqlite3) {error}") from error


def _as_uri(location: str) -> str:
    return Path(location).as_uri() if location.startswith("/") else location


def _identity(metric: Metric) -> tuple[str, int, int, str]:
    """What makes two points of a run the same to MLflow, which keeps an infinity as the
    largest number there is."""
    value = "nan"
    if not math.isnan(metric.value):
        value = repr(max(-sys.float_info.max, min(sys.float_info.max, metric.value)))
    return metric.key, metric.timestamp, metric.step, value


def _spell_metric(metric: Metric) -> dict[str, object]:
    """A metric as the body of a request has it, in which a number that is not finite is
    a word of protobuf's."""
    value: float | str = metric.value
    if not math.isfinite(metric.value):
        value = NOT_FINITE[repr(metric.value)]
    spelled: dict[str, object] = {
        "key": metric.key,
        "value": value,
        "timestamp": metric.timestamp,
        "step": metric.step,
    }
    if metric.model_id:
        spelled |= {"model_id": metric.model_id, "run_id": metric.run_id}
    return spelled


def _is_missing(error: Refused) -> bool:
    """Whether MLflow refused since it does not have what was asked for."""
    code = getattr(error.__cause__, "error_code", None)
    return code == "RESOURCE_DOES_NOT_EXIST"


def _fitting(texts: Sequence[str]) -> int:
    """How many of these go into one request, from the first on."""
    sizes = itertools.accumulate(len(json.dumps(text)) for text in texts)
    return max(sum(size <= MOST_BYTES for size in sizes), min(1, len(texts)))


class Tracker:
    """One MLflow. Raises Unreachable or Refused; may be used by several threads.

    `artifacts`: where the artifacts of new experiments go; None: where the server says.
    With `moves` they are moved together with the sqlite store, whose old ones are
    looked for there too.
    """

    def __init__(
        self,
        uri: str,
        artifacts: str | None = None,
        retry_policy: RetryPolicy | None = None,
        moves: bool = False,
    ) -> None:
        self.uri, self._artifacts = uri, artifacts
        self._retry_policy = retry_policy or ExponentialBackoff()
        self._refuse_login()
        self._client = self._again(
            lambda: open_client(uri, artifacts if moves else None)
        )
        # experiment, name and digest of what MLflow has
        self._known_data: set[tuple[str, str, str]] = set()
        self._new_data = threading.Lock()

    def experiment(self, name: str) -> str:
        """The id of the experiment of that name, which is made if there is none.

        Refused where the experiment was deleted, since MLflow keeps its name taken.
        """
        created = self._again(lambda: self._create_experiment(name))
        if isinstance(created, str):
            return created
        if created.lifecycle_stage != LifecycleStage.ACTIVE:
            is_own = logins.is_own_server(self.uri)
            again = trouble.bring_back(self._place, created.experiment_id, is_own)
            raise Refused(
                f"{self._place}: the experiment {name!r} was deleted in MLflow: {again}. {KEPT}"
            )
        return created.experiment_id

    def _refuse_login(self) -> None:
        """Raises Refused where MLflow's client would send a login in the clear, or one
        that is none."""
        if not self.uri.startswith("http"):
            return
        if why := logins.explain_refusal(self.uri):
            raise Refused(f"nothing is sent to MLflow at {self._place}: {why}. {KEPT}")
        try:
            token = secrets.read_key(logins.TOKEN)
        except UserError as error:
            raise Refused(
                f"nothing is sent to MLflow at {self._place}: {error}. {KEPT}"
            ) from None
        if token:
            os.environ[logins.TOKEN] = token  # without the line end that a file had

    def refuse_too_old(self) -> None:
        """Raises Refused for a server that lacks what zsg asks of it."""
        if self.uri.startswith("http") and trouble.is_too_old(
            version := self._version()
        ):
            raise Refused(
                f"{self._place} is MLflow {version}; zsg needs {trouble.OLDEST_TEXT} or newer."
                f" {KEPT}"
            )

    def has_no_page(self) -> bool:
        """Whether a server says that there is no page at its address."""
        answer = self._ask("/")
        return answer is not None and answer.status_code == 404

    def named(self, name: str) -> str | None:
        """The id of the experiment of that name, if there is one that is not deleted."""
        experiment = self._again(lambda: self._client.get_experiment_by_name(name))
        return (
            experiment.experiment_id
            if experiment and experiment.lifecycle_stage == LifecycleStage.ACTIVE
            else None
        )

    def name_of(self, experiment: str) -> str:
        """What an experiment is called by now."""
        return self._again(lambda: self._client.get_experiment(experiment)).name

    def list_experiments(self) -> dict[str, str]:
        """The experiments that are not deleted: id → name."""
        return self._again(self._list_experiments)

    def choose_experiments_with(
        self, experiments: Sequence[str], tags: Mapping[str, str]
    ) -> list[str]:
        """Those of some experiments that have an active run with these tags."""
        if not experiments:
            return []
        return self._again(lambda: self._choose_experiments_with(experiments, tags))

    def find(
        self, experiment: str, tags: Mapping[str, str], keys: Sequence[str] = ()
    ) -> dict[str, list[str]]:
        """The active runs that carry these tags: id → the values of the tags `keys`,
        where it carries those."""
        return self._again(lambda: self._find(experiment, tags, keys))

    def find_or_create(
        self,
        experiment: str,
        known_by: Mapping[str, str],
        tags: Mapping[str, str],
        name: str,
        started: int | None,
    ) -> FoundRun:
        """The run that carries the tags `known_by`, made if there is none."""
        is_doubtful = False

        def once() -> FoundRun:
            nonlocal is_doubtful
            if runs := self._find(experiment, known_by):
                return FoundRun(min(runs), False, is_doubtful)
            is_doubtful, was = True, is_doubtful
            created = self._client.create_run(
                experiment,
                started,
                {**tags, **known_by},
                make_showable(name, keep="")[:200],
            )
            is_doubtful = was
            return FoundRun(created.info.run_id, True, is_doubtful)

        return self._again(once)

    def experiment_of(self, run: str) -> str | None:
        """The experiment of a run; None where it is deleted or MLflow never had it.

        A lost store or a deleted run is filled again from the journal.
        """
        try:
            info = self._again(lambda: self._client.get_run(run)).info
        except Refused as error:
            if _is_missing(error):
                return None
            raise
        return (
            info.experiment_id
            if info.lifecycle_stage == LifecycleStage.ACTIVE
            else None
        )

    def log(
        self, run: str, points: Sequence[Point], params: Mapping[str, str] | None = None
    ) -> Iterator[int]:
        """Sends in requests of the size that MLflow takes; yields after each how many
        points it had."""
        unsent_params = [
            Param(key, make_showable(value)[:PARAM_LENGTH])
            for key, value in (params or {}).items()
        ]
        metrics = [Metric(p.key, p.value, p.ts, p.step) for p in points]
        while unsent_params or metrics:
            count = _fitting([param.value for param in unsent_params[:MOST_PARAMS]])
            some, unsent_params = unsent_params[:count], unsent_params[count:]
            batch = metrics[: MOST_METRICS - len(some)]
            metrics = metrics[len(batch) :]
            self._log_points(run, batch, some)
            yield len(batch)

    def list_points(self, run: str) -> list[LostRow]:
        """Every point of every metric that a run has."""
        keys = self._again(lambda: self._client.get_run(run)).data.metrics
        return [point for key in keys for point in self._list_points_of(run, key)]

    def _list_points_of(self, run: str, key: str) -> list[LostRow]:
        history = self._again(lambda: self._client.get_metric_history(run, key))
        return [
            LostRow(
                metric.key,
                metric.step,
                metric.timestamp,
                spell_nonfinite(metric.value),
            )
            for metric in history
        ]

    def tag(self, run: str, tags: Mapping[str, str]) -> None:
        """Sets tags, in as many requests as it takes."""
        unsent_tags = [
            RunTag(key, make_showable(value)[:TAG_LENGTH])
            for key, value in tags.items()
        ]
        while unsent_tags:
            count = _fitting([tag.value for tag in unsent_tags[:MOST_TAGS]])
            self._log(run, tags=unsent_tags[:count])
            unsent_tags = unsent_tags[count:]

    def untag(self, run: str, keys: Sequence[str]) -> None:
        """Removes tags; one that is not there is no error."""
        for key in keys:
            try:
                self._again(functools.partial(self._client.delete_tag, run, key))
            except Refused as error:
                if not _is_missing(error):
                    raise

    def set_status(self, run: str, status: str, ended: int | None = None) -> None:
        """RUNNING, or FINISHED, FAILED or KILLED at `ended` (ms)."""
        if status == "RUNNING":
            self._again(lambda: self._client.update_run(run, status))
        else:
            self._again(lambda: self._client.set_terminated(run, status, ended))

    def delete(self, run: str) -> None:
        """Deletes a run, as MLflow deletes: its pages no longer list it, and it can be restored."""
        self._again(lambda: self._client.delete_run(run))

    def read(self, experiment: str, run: str, data: Sequence[Data]) -> None:
        """Notes which data sets a run of an experiment has read.

        MLflow looks whether it knows a data set and then makes it, without a lock: of
        two requests at once that bring the same new one, one fails. So a new one is
        told alone; once it is known, runs are told side by side.
        """
        inputs = [
            DatasetInput(
                Dataset(
                    dataset.name,
                    dataset.digest[:DIGEST_LENGTH],
                    "local",
                    json.dumps({"uri": dataset.source}),
                ),
                [InputTag("mlflow.data.context", dataset.context)],
            )
            for dataset in data
        ]
        named = {(experiment, dataset.name, dataset.digest) for dataset in data}
        with contextlib.nullcontext() if named <= self._known_data else self._new_data:
            self._again(lambda: self._client.log_inputs(run, inputs))
            self._known_data |= named

    def upload(self, run: str, file: Path, folder: str) -> None:
        """Keeps a file among a run's artifacts, in place of one of the same name.

        Raises NotKept where they lie out of reach: in a bucket without its library or
        its key here, in a folder of the server's machine. Of a sqlite store only in the
        folder beside it: the store may be somebody else's, and name any folder.
        """
        location = self._again(lambda: self._client.get_run(run)).info.artifact_uri
        location = location or ""
        try:
            if self._artifacts is None:
                self._upload_by_client(run, location, file, folder)
            else:
                self._write_beside_store(location, file, folder)
        except artifact_folder.NotBelow as error:
            raise Refused(
                f"{self._place}: nothing is written to {location}: {error}. {KEPT}"
            ) from None
        except Exception as error:  # of whatever library reaches the artifacts
            if is_transient(error):
                # Unreachable, where it is the server itself that does not answer
                self._again(lambda: self._client.get_run(run))
            is_server = self.uri.startswith("http")
            why = trouble.explain_not_kept(location, error, is_server)
            raise NotKept(why) from error

    def _upload_by_client(
        self, run: str, location: str, file: Path, folder: str
    ) -> None:
        """Sends a file where MLflow says that the run's artifacts are; NotSeen for a
        folder of this machine that its server does not see."""
        self._retry_policy.call(
            lambda: self._client.log_artifact(run, str(file), folder), is_transient
        )
        is_local = urllib.parse.urlsplit(location).scheme in ("", "file")
        if not (is_local and self.uri.startswith("http")):
            return
        listed = self._ask(
            f"{LIST}?{urllib.parse.urlencode({'run_id': run, 'path': folder})}"
        )
        if listed is not None and listed.ok and file.name not in listed.text:
            raise NotSeen

    def _write_beside_store(self, location: str, file: Path, folder: str) -> None:
        root = Path(local_file_uri_to_path(self._artifacts))
        names = artifact_folder.split_below(root, local_file_uri_to_path(location))
        artifact_folder.write_file(
            root, [*names, *artifact_folder.split_path(folder), file.name], file
        )

    def model(
        self,
        experiment: str,
        run: str,
        name: str,
        tags: Mapping[str, str],
        points: Sequence[Point],
    ) -> None:
        """Makes the model of that name, of a run, with what was measured of it; its
        weights stay where they are."""
        model_id = self._again(
            lambda: self._find_or_create_model(experiment, run, name, tags)
        )
        metrics = [
            Metric(p.key, p.value, p.ts, p.step, model_id=model_id, run_id=run)
            for p in points
        ]
        self._again(lambda: self._link(run, model_id, points[0].step))
        self._log_points(run, metrics, is_of_model=True)
        self._again(lambda: self._client.finalize_logged_model(model_id, "READY"))

    def page(self, experiment: str) -> str:
        """The path, below MLflow's address, of the page that draws the loss of an
        experiment's runs by step.

        One of many runs gets its list with charts instead, best first: an address
        cannot name them all.
        """
        runs = self._again(
            lambda: self._client.search_runs(
                [experiment], LISTED, max_results=MOST_CURVES + 1
            )
        )
        if not 0 < len(runs) <= MOST_CURVES:
            # Ordered by when they began, MLflow would fold all runs away under that of the grid.
            listed = {
                "searchFilter": LISTED,
                "orderByKey": "metrics.`loss`",
                "orderByAsc": "true",
            }
            listed |= {"compareRunsMode": "CHART"}
            return f"#/experiments/{experiment}/runs?{urllib.parse.urlencode(listed)}"
        query = {
            "runs": [run.info.run_id for run in runs],
            "metric": "loss",
            "experiments": [experiment],
        }
        query |= {
            "plot_metric_keys": ["loss"],
            "plot_layout": {"autosize": True, "xaxis": {}, "yaxis": {}},
        }
        query |= {
            "show_point": True,
            "deselected_curves": [],
            "last_linear_y_axis_range": [],
        }
        words = {
            key: json.dumps(value, separators=(",", ":"))
            for key, value in query.items()
        }
        words |= {"x_axis": "step", "y_axis_scale": "linear", "line_smoothness": "1"}
        return f"#/metric?{urllib.parse.urlencode(words)}"

    def _create_experiment(self, name: str) -> str | Experiment:
        """The id of the experiment that was made, or the one that has the name already."""
        # Without the tag MLflow's pages take the experiment for one of prompts and traces.
        kind = {"mlflow.experimentKind": "custom_model_development"}
        try:
            return self._client.create_experiment(name, self._artifacts, kind)
        except MlflowException:
            # another machine was first, or it was deleted
            experiment = self._client.get_experiment_by_name(name)
            if experiment is None:
                raise
            return experiment

    def _list_experiments(self) -> dict[str, str]:
        names: dict[str, str] = {}
        token = None
        while True:
            page = self._client.search_experiments(
                ViewType.ACTIVE_ONLY, PAGE, page_token=token
            )
            names |= {experiment.experiment_id: experiment.name for experiment in page}
            if not (token := page.token):
                return names

    def _choose_experiments_with(
        self, experiments: Sequence[str], tags: Mapping[str, str]
    ) -> list[str]:
        runs = self._client.search_runs(
            [*experiments], _query(tags), ViewType.ACTIVE_ONLY, PAGE
        )
        return sorted({run.info.experiment_id for run in runs})

    def _find(
        self, experiment: str, tags: Mapping[str, str], keys: Sequence[str] = ()
    ) -> dict[str, list[str]]:
        query = _query(tags)
        tags_by_run: dict[str, list[str]] = {}
        token = None
        while True:
            page = self._client.search_runs(
                [experiment], query, ViewType.ACTIVE_ONLY, PAGE, page_token=token
            )
            tags_by_run |= {
                run.info.run_id: [run.data.tags.get(key, "") for key in keys]
                for run in page
            }
            if not (token := page.token):
                return tags_by_run

    def _version(self) -> str:
        """What the server says it is, asked with the login that its client has; nothing
        where it does not say, or stands behind what does not let us ask."""
        answer = self._ask("/version")
        if answer is None or not answer.ok:
            return ""
        return trouble.shorten_error(answer.text[:100])

    def _find_redirect(self) -> str:
        """Where the server sends on who asks it for MLflow, to end a message with;
        nothing where it sends nobody on."""
        answer = self._ask(PROBE, follow_redirects=False)
        if answer is None or not answer.is_redirect:
            return ""
        return trouble.describe_redirect(self._place, answer.headers["Location"])

    def _ask(
        self, path: str, follow_redirects: bool = True
    ) -> requests.Response | None:
        """The server's answer to a request, asked once, as its client asks; None without one."""
        ask: Callable[..., requests.Response | None] = http_request
        try:
            return ask(
                get_default_host_creds(self.uri),
                path,
                "GET",
                timeout=VERSION_S,
                raise_on_status=False,
                allow_redirects=follow_redirects,
            )
        except MlflowException:
            return None

    @property
    def _place(self) -> str:
        return trouble.without_password(self.uri)

    def _find_or_create_model(
        self, experiment: str, run: str, name: str, tags: Mapping[str, str]
    ) -> str:
        query = f"source_run_id = '{run}' AND name = '{name}'"
        models = self._client.search_logged_models([experiment], query)
        if models:
            # its snapshot lies elsewhere by now
            if tags.items() - (models[0].tags or {}).items():
                self._client.set_logged_model_tags(models[0].model_id, dict(tags))
            return models[0].model_id
        created = self._client.create_logged_model(
            experiment, name, run, {**tags, "mlflow.model.isExternal": "true"}
        )
        return created.model_id

    def _link(self, run: str, model: str, step: int) -> None:
        outputs = self._client.get_run(run).outputs
        if model not in [
            output.model_id for output in (outputs.model_outputs if outputs else [])
        ]:
            self._client.log_outputs(run, [LoggedModelOutput(model, step)])

    def _log(self, run: str, **entities: Sequence[object]) -> None:
        self._again(lambda: self._client.log_batch(run, **entities))  # pyright: ignore[reportArgumentType]

    def _log_points(
        self,
        run: str,
        metrics: Sequence[Metric],
        params: Sequence[Param] = (),
        is_of_model: bool = False,
    ) -> None:
        """Sends points, also such as MLflow has: sent again, a point changes nothing.

        Before 3.15 MLflow does not know a NaN again that it has, and refuses the whole
        request. So where it says that something is there already, that is left out: the
        NaNs first, and all points where that is not enough. Of a model's points, which
        all stand as the run's own too, only the NaNs, by which no model is ranked.
        """
        unsent = list(metrics)

        def once() -> None:
            nonlocal unsent
            if not unsent and not params:
                return
            try:
                self._send_batch(run, unsent, params)
            except MlflowException as error:
                if trouble.is_there_already(str(error)):
                    unsent = self._lacking(run, unsent, only_nans=is_of_model)
                raise

        self._again(once)

    def _send_batch(
        self, run: str, metrics: Sequence[Metric], params: Sequence[Param]
    ) -> None:
        """MLflow's log_batch. To a server it is the request that MLflow's client would
        make, without the client's way through protobuf, which takes a tenth of the
        whole time."""
        if not self.uri.startswith("http"):
            self._client.log_batch(run, metrics=metrics, params=params)
            return
        body = {
            "run_id": run,
            "metrics": [_spell_metric(metric) for metric in metrics],
            "params": [{"key": param.key, "value": param.value} for param in params],
        }
        send: Callable[..., requests.Response | None] = http_request
        answer = send(get_default_host_creds(self.uri), LOG_BATCH, "POST", json=body)
        verify_rest_response(answer, LOG_BATCH)

    def _lacking(
        self, run: str, metrics: Sequence[Metric], only_nans: bool
    ) -> list[Metric]:
        """Those of a request that the run lacks: looked at are the NaNs, or all where
        there are none."""
        nans = [metric for metric in metrics if math.isnan(metric.value)]
        if only_nans and not nans:
            return list(metrics)
        present = self._list_present(run, nans or metrics)
        return [metric for metric in metrics if _identity(metric) not in present]

    def _list_present(
        self, run: str, metrics: Sequence[Metric]
    ) -> set[tuple[str, int, int, str]]:
        """The identities of those metrics that the run has."""
        history = {
            _identity(metric)
            for key in {metric.key for metric in metrics}
            for metric in self._client.get_metric_history(run, key)
        }
        return history & {_identity(metric) for metric in metrics}

    def _again(self, do: Callable[[], T]) -> T:
        """What `do` returns, tried again while the failure may pass.

        Raises Unreachable where it had not passed at the last try: nothing is lost and
        the next sync begins there. Raises Refused where asking again would not help,
        with what can be done; so also where the answer is that something exists
        already, which comes with an overloaded server's status.
        """
        try:
            return self._retry_policy.call(do, is_transient)
        except (MlflowException, SQLAlchemyError, requests.RequestException) as error:
            message = f"{self._place}: {trouble.shorten_error(str(error))}"
            if is_transient(error) and not trouble.is_there_already(str(error)):
                raise Unreachable(
                    f"MLflow does not answer or is overloaded: {message}. {KEPT}"
                ) from error
            advice = trouble.advise_on_error(str(error), self._place)
            if trouble.is_page(str(error)):
                advice += self._find_redirect()
            raise Refused(f"MLflow refused: {message}{advice}. {KEPT}") from error
