"""Does what `plan` and `submit` ask: opens a grid, submits it, follows its local jobs."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher import grid as grids
from launcher import inputs, job_files, local, profiles, reading, show
from launcher import runs as runs_of
from launcher import submit as submits
from launcher.grid import Grid
from launcher.ledger import Ledger, submit_lock
from launcher.plan import Allow, Plan
from launcher.runs import Run
from launcher.status import collect
from launcher.submit import Site

DELIVERY_S = 60.0


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
    place = reading.workspace(workspace_path, profile.workspace)
    place.create()
    resolved, notes = runs_of.resolve(grid, profile, inputs.Inputs(place.digest_cache, show.say))
    for run in resolved:
        job_files.check(run, profile)
    for note in [*grid.notes, *notes]:
        show.say(f"note: {note}")
    return Opened(grid, Site(place, profile), resolved)


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
    place = "" if root == reading.workspace(None).root else f" --workspace {shlex.quote(_shown(root))}"
    return f"{what}: {_command()} {command} {opened.grid.name}{place}"


def _command() -> str:
    """How the user calls zsg: by its path where it is not on theirs."""
    called = Path(sys.argv[0])
    if called.suffix == ".py":
        return "python -m launcher.cli"
    return "zsg" if shutil.which("zsg") == sys.argv[0] else sys.argv[0]


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
