"""Does what a command asks: opens grids and workspaces, submits, follows local jobs, reads states and logs."""

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.folder import Workspace, read_json
from launcher import arrays, inputs, job_files, local, profiles, show
from launcher import grid as grids
from launcher import runs as runs_of
from launcher import submit as submits
from launcher.grid import Grid
from launcher.ledger import Ledger, submit_lock
from launcher.plan import Allow, Plan
from launcher.runs import Run
from launcher.status import collect
from launcher.submit import Site
from zsg_core.errors import ClusterError, UserError

DELIVERY_S = 60.0
WATCH_S = 20  # the scheduler is asked no more often
VARIABLE = "ZSG_WORKSPACE"


@dataclass(frozen=True)
class Opened:
    """A grid, resolved on its profile."""

    grid: Grid
    site: Site
    runs: list[Run]


def open_grid(path: Path, profile_name: str | None, workspace_path: Path | None) -> Opened:
    """Reads the grid and its profile and resolves the runs. UserError for whatever is wrong in them."""
    grid = grids.load(path)
    profile = profiles.load(profile_name or grid.profile or "local", path.resolve().parent)
    place = workspace(workspace_path or _from_environment() or Path(profile.workspace))
    place.create()
    resolved, notes = runs_of.resolve(grid, profile, inputs.Inputs(place.digest_cache, show.say))
    for run in resolved:
        job_files.check(run, profile)
    for note in [*grid.notes, *notes]:
        show.say(f"note: {note}")
    return Opened(grid, Site(place, profile), resolved)


def workspace(path: Path | None) -> Workspace:
    """The workspace asked for, that of ZSG_WORKSPACE, or zsg-work in the current folder."""
    root = (path or _from_environment() or Path("zsg-work")).expanduser().resolve()
    if "%" in str(root) or not str(root).isprintable():
        raise UserError(
            f"workspace {str(root)!r}: '%' and control characters have a meaning to Slurm; use another folder"
        )
    return Workspace(root)


def submit(opened: Opened, allow: Allow) -> bool:
    """Submits what the plan says; on a local profile runs it to its end. Returns whether a local run failed."""
    site, grid = opened.site, opened.grid
    with submit_lock(site.workspace):
        ledger = Ledger(site.workspace)
        submits.settle(site, ledger, show.say)
        plan = submits.plan(site, opened.runs, ledger, allow)
        submits.record_grid(site, grid, opened.runs)
        show.plan_table(plan)
        if not plan.acting:
            show.result(f"{grid.name}: nothing to submit ({show.summary(plan)}); {_hint('ui', opened)}")
            return False
        if site.profile.kind == "slurm":
            submits.submit_slurm(site, grid, plan, ledger, show.say)
            show.result(f"{grid.name}: {show.summary(plan)}; {_hint('status', opened)} --watch")
            return False
        jobs, locks = submits.submit_local(site, grid, plan, ledger)
    try:
        _run_here(opened, plan, jobs)
    finally:
        for lock in locks:
            os.close(lock)
    rows = _look(opened, [])[1]
    show.status(rows)
    show.result(_hint("ui", opened))
    return any(row["state"] != "done" for row in rows)


def _run_here(opened: Opened, plan: Plan, jobs: Sequence[local.LocalJob]) -> None:
    site, name = opened.site, opened.grid.name
    prepares = [prepare.item for prepare in plan.prepares]
    with (site.workspace.grid(name) / "delivery.log").open("ab") as log:
        delivery = subprocess.Popen(
            [sys.executable, "-m", "jobs.deliver", str(site.workspace.root), name, "--follow", str(os.getpid())],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        with show.Progress() as progress:
            tick = lambda: progress.show(*_look(opened, prepares)) if progress.due() else None  # noqa: E731
            local.run_all(site.workspace, site.profile, jobs, tick)
    finally:
        delivery.terminate()
        _await_delivery(delivery, name)


def _await_delivery(delivery: subprocess.Popen[bytes], name: str) -> None:
    """A server that does not answer must not hold the terminal; the journals keep everything."""
    try:
        code = delivery.wait(DELIVERY_S)
    except subprocess.TimeoutExpired:
        delivery.kill()
        code = delivery.wait()
    if code:
        show.say(
            f"MLflow did not get everything; see delivery.log in the workspace's grids/{name}, then: zsg sync {name}"
        )


def _look(opened: Opened, prepares: Sequence[str]) -> tuple[str, list[dict[str, Any]]]:
    wanted = [{"run": run.id, "axes": run.axes} for run in opened.runs]
    items = [f"runs/{run.id}" for run in opened.runs]
    states = collect(opened.site.workspace, [*prepares, *items], Ledger(opened.site.workspace))
    rows = show.status_rows(opened.grid.name, wanted, states)
    return show.prepare_note({item: states[item] for item in prepares}), rows


def _hint(command: str, opened: Opened) -> str:
    """The command that goes on from here, with the workspace unless it is the one that zsg looks in anyway."""
    what = {"ui": "compare the runs", "status": "follow them"}[command]
    root = opened.site.workspace.root
    place = "" if root == workspace(None).root else f" --workspace {shlex.quote(_shown(root))}"
    return f"{what}: {_command()} {command} {opened.grid.name}{place}"


def status_rows(place: Workspace, grid: str | None) -> list[dict[str, Any]]:
    """The rows of `zsg status`, every grid's in turn."""
    listed = [_wanted(place, name) for name in grid_names(place, grid)]
    items = {f"runs/{run['run']}" for wanted in listed for run in wanted["runs"]}
    states = collect(place, sorted(items), Ledger(place))
    return [row for wanted in listed for row in show.status_rows(wanted["name"], wanted["runs"], states)]


def grid_names(place: Workspace, grid: str | None) -> list[str]:
    """The named grid, or all of the workspace. UserError if there is none such."""
    known = sorted(path.parent.name for path in (place.root / "grids").glob("*/grid.json"))
    if grid is None and known:
        return known
    if grid in known:
        return [grid]
    if not known:
        raise UserError(f"{place.root}: no grid was submitted here; zsg submit GRID.YAML, or name the --workspace")
    raise UserError(f"no grid {grid!r} in {place.root}; known: {', '.join(known)}")


def print_log(place: Workspace, beginning: str, rank: int, follow: bool) -> None:
    """Prints the log of the run whose id begins so; with `follow`, goes on as it grows."""
    path = _log_path(place, _find_run(place, beginning), rank)
    with path.open("rb") as file:
        while True:
            chunk = file.read(1 << 16)
            sys.stdout.write(chunk.decode("utf-8", "replace"))
            sys.stdout.flush()
            if not chunk and not follow:
                return
            if not chunk:
                time.sleep(0.5)


def delivery() -> Any:
    """jobs.deliver, which imports MLflow. UserError where MLflow is not installed."""
    try:
        from jobs import deliver
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed here: pip install 'zsg[track]'") from None
    return deliver


def serve_ui(place: Workspace, grid: str | None, port: int) -> None:
    """Serves MLflow's pages over the workspace's store, or names the address of the profile's server."""
    deliver = delivery()
    name = grid_names(place, grid)[0] if grid else None
    uri = deliver.tracking_uri(place, _wanted(place, name or grid_names(place, None)[0]))
    if uri.startswith("http"):
        show.result(f"this grid's MLflow is at {uri}{deliver.page(uri, name)}")
        return
    page = deliver.page(uri, name)
    show.result(f"MLflow: http://127.0.0.1:{port}/{page}  (Ctrl-C ends it)")
    argv = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    argv += ["--port", str(port), "--workers", "1", "--default-artifact-root", str(place.root / "mlartifacts")]
    done = subprocess.run(argv, env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"})
    if done.returncode not in (0, -2, 130):
        raise ClusterError(f"mlflow server ended with {done.returncode}; is port {port} in use? try --port")


def _wanted(place: Workspace, name: str) -> dict[str, Any]:
    wanted = read_json(place.grid(name) / "grid.json")
    assert wanted is not None, "grid_names has just seen it"
    return wanted


def _find_run(place: Workspace, beginning: str) -> str:
    known = sorted(path.name for path in (place.root / "runs").glob("*") if path.is_dir())
    found = [run for run in known if run.startswith(beginning)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{beginning!r} begins {len(found)} run ids: {', '.join(found[:5])}; give more of it")
    raise UserError(f"no run {beginning!r} in {place.root}; zsg status shows the ids")


def _log_path(place: Workspace, run: str, rank: int) -> Path:
    last = Ledger(place).last(f"runs/{run}")
    job_id = last.job_id(f"runs/{run}") if last else None
    if last is None or job_id is None:
        raise UserError(f"run {run} was never submitted; it has no log")
    found = [local.log_path(place.run(run))] if last.scheduler == "local" else None
    found = found or arrays.log_files(place.submission(last.id), job_id)
    if rank >= len(found) or not found[rank].exists():
        raise UserError(f"run {run} has no log of rank {rank} yet ({len(found)} logs); it may not have started")
    return found[rank]


def _from_environment() -> Path | None:
    return Path(os.environ[VARIABLE]) if VARIABLE in os.environ else None


def _command() -> str:
    """How the user calls zsg: by its path where it is not on theirs."""
    called = Path(sys.argv[0])
    if called.suffix == ".py":
        return "python -m launcher.cli"
    return "zsg" if shutil.which("zsg") == sys.argv[0] else sys.argv[0]


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
