"""Fills MLflow from the journals, exactly once; the only module that knows MLflow.

One idempotent function, run from `zsg sync`, or beside local jobs. MLflow's metric key is (key, timestamp,
step, run, value): a point keeps the timestamp of its journal row, so sending it again changes nothing. The
cursor beside the run only saves work; losing it costs a replay, not a duplicate.

`python -m jobs.deliver <workspace> <grid> [--follow]`
"""

import argparse
import contextlib
import fcntl
import json
import logging
import os
import signal
import sys
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}  # read when mlflow is imported

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from jobs import journal
from jobs.folder import Workspace, read_json, write_json
from zsg_core.errors import ClusterError, UserError, ZsgError

BATCH = 1000  # MLflow's limit of metrics in a request
MOST_CURVES = 40
LISTED = "tags.`zsg.kind` = 'run' and tags.`zsg.listed` = 'yes'"  # the runs that a grid wants now
FOLLOW_S = 2.0


def sync(workspace: Workspace, grid: str) -> dict[str, int]:
    """Sends what MLflow lacks of every run of a grid; returns how many points and runs were sent.

    Raises UserError for an unknown grid, ClusterError if MLflow cannot be reached; both may be tried again.
    """
    wanted = read_json(workspace.grid(grid) / "grid.json")
    if wanted is None:
        raise UserError(f"no grid {grid!r} in {workspace.root}; zsg status lists the grids")
    try:
        return _Delivery(workspace, wanted).send()
    except MlflowException as error:
        raise ClusterError(f"MLflow refused or did not answer: {error}; run zsg sync again") from error


def tracking_uri(workspace: Workspace, wanted: dict[str, Any]) -> str:
    """The profile's MLflow, or the sqlite file of the workspace."""
    return wanted["tracking"] or f"sqlite:///{workspace.mlflow_db}"


def page(uri: str, grid: str | None) -> str:
    """The path, below MLflow's address, of the page that draws the loss of a grid's runs by step.

    A grid of many runs gets its list with charts instead, best first: an address cannot name them all.
    """
    client = _client(uri)
    found = client.get_experiment_by_name(grid) if grid else None
    if found is None:
        return ""
    runs = client.search_runs([found.experiment_id], LISTED, max_results=MOST_CURVES + 1)
    if not 0 < len(runs) <= MOST_CURVES:
        # Ordered by when they began, MLflow would fold all runs away under that of the grid.
        listed = {"searchFilter": LISTED, "orderByKey": "metrics.`loss`", "orderByAsc": "true"}
        listed |= {"compareRunsMode": "CHART"}
        return f"#/experiments/{found.experiment_id}/runs?{urllib.parse.urlencode(listed)}"
    query = {"runs": [run.info.run_id for run in runs], "metric": "loss", "experiments": [found.experiment_id]}
    query |= {"plot_metric_keys": ["loss"], "plot_layout": {"autosize": True, "xaxis": {}, "yaxis": {}}}
    query |= {"show_point": True, "deselected_curves": [], "last_linear_y_axis_range": []}
    words = {key: json.dumps(value, separators=(",", ":")) for key, value in query.items()}
    words |= {"x_axis": "step", "y_axis_scale": "linear", "line_smoothness": "1"}
    return f"#/metric?{urllib.parse.urlencode(words)}"


def _client(uri: str) -> MlflowClient:
    """MLflow's client, over a store that is whole."""
    if uri.startswith("sqlite:///"):
        _make_store(Path(uri.removeprefix("sqlite:///")))
    return MlflowClient(tracking_uri=uri)


def _make_store(path: Path) -> None:
    """Makes a sqlite store that is not there, under another name until it is whole.

    MLflow 3.17 sets its tables up in many steps without a lock: killed among them, or done twice at once, it
    leaves a file that it can never open again ("table _alembic_tmp_tags already exists").
    """
    if path.exists():
        return
    for noisy in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _lock(path.with_name(f".{path.name}.lock")):
        if path.exists():
            return  # another process was first
        for left in path.parent.glob(f".{path.name}.draft*"):
            left.unlink()
        draft = path.with_name(f".{path.name}.draft")
        SqlAlchemyStore(f"sqlite:///{draft}", (path.parent / "mlartifacts").as_uri()).engine.dispose()
        draft.rename(path)


class _Delivery:
    def __init__(self, workspace: Workspace, wanted: dict[str, Any]) -> None:
        self._workspace, self._wanted, self._grid = workspace, wanted, wanted["name"]
        self._uri = tracking_uri(workspace, wanted)
        self._client = _client(self._uri)

    def send(self) -> dict[str, int]:
        sent = {"runs": 0, "points": 0}
        with _lock(self._workspace.grid(self._grid) / "delivery.lock"):
            experiment = self._experiment()
            parent = self._parent(experiment)
        refused: list[MlflowException] = []
        former = [row for row in self._wanted.get("former", []) if not row.get("is_stage")]
        for row in [*self._wanted["runs"], *former]:
            folder = self._workspace.run(row["run"])
            if not any(journal.files(one) for one in self._workspace.stages(folder.name)):
                continue
            (folder / "delivery").mkdir(exist_ok=True, mode=0o700)
            try:
                with _lock(folder / "delivery" / f"{self._grid}.lock"):
                    points = self._send_run(folder, row, experiment, parent)
            except MlflowException as error:  # one run's trouble must not keep the others from MLflow
                refused.append(error)
                continue
            sent["runs"] += points > 0
            sent["points"] += points
        if refused:
            raise refused[0]
        return sent

    def _experiment(self) -> str:
        found = self._client.get_experiment_by_name(self._grid)
        if found is not None:
            return found.experiment_id
        artifacts = None if self._wanted["tracking"] else (self._workspace.root / "mlartifacts").as_uri()
        try:
            # Without the tag MLflow's pages take the experiment for one of prompts and traces.
            kind = {"mlflow.experimentKind": "custom_model_development"}
            return self._client.create_experiment(self._grid, artifacts, kind)
        except MlflowException:
            found = self._client.get_experiment_by_name(self._grid)  # another machine was first
            if found is None:
                raise
            return found.experiment_id

    def _parent(self, experiment: str) -> str:
        """The run that stands for the grid."""
        tags = {"zsg.kind": "grid", "zsg.grid": self._grid}
        found = self._find(experiment, tags)
        if found is not None:
            return found
        made = self._client.create_run(experiment, tags=tags, run_name=self._grid)
        self._client.set_terminated(made.info.run_id, "FINISHED")
        return made.info.run_id

    def _send_run(self, folder: Path, row: dict[str, Any], experiment: str, parent: str) -> int:
        cursor_path = folder / "delivery" / f"{self._grid}.json"
        cursor = read_json(cursor_path) or {}
        read = [(one.name, *journal.first_points(journal.read(one))) for one in self._workspace.stages(folder.name)]
        if cursor.get("uri") != self._uri or type(cursor["sent"]) is not dict or not self._holds(cursor["run"]):
            started = min((points[0].ts for _, points, _ in read if points), default=None)
            run = self._create_or_find(row, experiment, parent, started)
            cursor = {"uri": self._uri, "run": run, "sent": {}, "state": None}
            write_json(cursor_path, cursor)
        # Counted by stage: one that is shared may gain points after a later stage was sent.
        sent = sum(self._send_points(cursor, cursor_path, stage, points) for stage, points, _ in read)
        disagree = [flag for *_, flags in read for flag in flags]
        state = _state(folder, disagree) | {"listed": "no" if row in self._wanted.get("former", []) else "yes"}
        if state != cursor["state"]:
            self._set_state(cursor["run"], folder, state)
            write_json(cursor_path, cursor | {"state": state})
        return sent

    def _send_points(self, cursor: dict[str, Any], path: Path, stage: str, points: list[journal.Point]) -> int:
        """Sends what MLflow lacks of one stage; the cursor is kept after every batch."""
        news = points[cursor["sent"].get(stage, 0) :]
        for start in range(0, len(news), BATCH):
            part = news[start : start + BATCH]
            self._client.log_batch(cursor["run"], metrics=[Metric(p.key, p.value, p.ts, p.step) for p in part])
            cursor["sent"][stage] = cursor["sent"].get(stage, 0) + len(part)
            write_json(path, cursor)
        return len(news)

    def _holds(self, run: str) -> bool:
        """Whether MLflow still has a run: a lost store or a deleted run is filled again from the journal."""
        try:
            return self._client.get_run(run).info.lifecycle_stage == LifecycleStage.ACTIVE
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise

    def _create_or_find(self, row: dict[str, Any], experiment: str, parent: str, started: int | None) -> str:
        tags = {"zsg.kind": "run", "zsg.run": row["run"], "zsg.grid": self._grid}
        found = self._find(experiment, tags)
        if found is None:
            name = " ".join(f"{key.split('.')[-1]}={_text(value)}" for key, value in row["axes"].items()) or row["run"]
            tags["mlflow.parentRunId"] = parent
            found = self._client.create_run(experiment, started, tags, name[:200]).info.run_id
        params = _params(row)
        for start in range(0, len(params), 100):
            self._client.log_batch(found, params=params[start : start + 100])
        return found

    def _find(self, experiment: str, tags: dict[str, str]) -> str | None:
        query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        found = self._client.search_runs([experiment], query, run_view_type=ViewType.ACTIVE_ONLY, max_results=1)
        return found[0].info.run_id if found else None

    def _set_state(self, run: str, folder: Path, state: dict[str, str]) -> None:
        tags = [RunTag(f"zsg.{key}", value) for key, value in (_facts(folder) | state).items()]
        self._client.log_batch(run, tags=tags)
        status = {"done": "FINISHED", "failed": "FAILED", "cancelled": "KILLED"}.get(state["state"], "RUNNING")
        if status == "RUNNING":
            self._client.update_run(run, status)
        else:
            self._client.set_terminated(run, status, end_time=int(state["ended"]))


def _state(folder: Path, disagree: list[str]) -> dict[str, str]:
    """What of a run's end is told to MLflow; facts of an attempt are tags, never params."""
    attempt, record = read_json(folder / "attempt.json") or {}, read_json(folder / "exit.json")
    state = {"state": "running", "attempt": str(attempt.get("attempt")), "host": str(attempt.get("host"))}
    state |= {"slurm_job_id": str(attempt.get("slurm_job_id")), "restart_count": str(attempt.get("restart_count"))}
    if record and record["nonce"] == attempt.get("nonce"):
        state |= {"state": record["outcome"], "ended": str(record["ended"])}
        state |= {key: str(record[key]) for key in ("cause", "evidence", "digest") if record.get(key)}
        state["state"] = "running" if record["outcome"] == "continue" else record["outcome"]
    if disagree:
        state["flag"] = f"a restart computed other values ({len(disagree)}): {disagree[0]}"
    return {key: value[:5000] for key, value in state.items()}


def _facts(folder: Path) -> dict[str, str]:
    """The digests and the code behind a run."""
    job = read_json(folder / "job.json") or {}
    workspace, made = Workspace(Path(job["paths"]["workspace"])), job["made"]
    meta = read_json(workspace.arrangement(made["arrangement"]) / "meta.json") or {}
    corpus = meta.get("sources", {}).get("corpus_meta", {})
    # The values that count are the first attempt's, and so is the code that computed them.
    started = (row["data"] for row in journal.read(folder) if row["data"].get("event") == "start")
    code = next(started, {}).get("code") or job["code"]
    facts = {f"code.{key}": str(value) for key, value in code.items()}
    facts |= {"arrangement": made["arrangement"], "corpus": made["corpus"], "stage": job["stage_id"]}
    facts |= {"arrangement.ids_digest": str(meta.get("ids_digest")), "test_digest": str(corpus.get("test_digest"))}
    if made["base"]:
        base = read_json(workspace.base(made["base"]) / "meta.json") or {}
        facts |= {"base": made["base"], "base.digest": str(base.get("digest"))}
    return facts


def _params(row: dict[str, Any]) -> list[Param]:
    """What varies first, under the names of the grid file; then the recipe, flattened."""
    named = {key: _text(value) for key, value in row["axes"].items()} | {"model.name": row["model"]}
    first, *others = row["recipe"]["stages"]
    later = {f"stage{number}": stage for number, stage in enumerate(others, start=2)}
    for key, value in _flat({**first, **later, "base": row["recipe"]["base"]}):
        named.setdefault(key, _text(value))
    return [Param(key, value[:6000]) for key, value in named.items()]


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _follow(workspace: Workspace, grid: str, parent: int) -> None:
    """Delivers again and again until told to stop or left by its parent, then once more; errors only delay it."""
    stop: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, frame: stop.append(received))
    while True:
        last = bool(stop) or os.getppid() != parent
        try:
            sync(workspace, grid)
        except (ZsgError, OSError) as error:
            sys.stderr.write(f"{error}\n")
            if last:
                sys.exit(3)
        if last:
            return
        until = time.monotonic() + FOLLOW_S
        while time.monotonic() < until and not stop and os.getppid() == parent:
            time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("workspace", type=Path)
    parser.add_argument("grid")
    parser.add_argument("--follow", type=int, metavar="PID", help="go on until told to stop or that parent has ended")
    given = parser.parse_args()
    workspace = Workspace(given.workspace.resolve())
    if given.follow:
        _follow(workspace, given.grid, given.follow)
    else:
        sys.stdout.write(json.dumps(sync(workspace, given.grid)) + "\n")


if __name__ == "__main__":
    main()
