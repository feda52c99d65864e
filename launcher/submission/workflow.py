"""The steps of `zsg plan` and `zsg submit`: resolve a grid, submit it, follow its local jobs."""

import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jobs.contract.folder import Workspace
from jobs.contract.states import State
from jobs.files import ownership
from launcher.clusters import profile_files, profiles
from launcher.clusters.cluster import Cluster
from launcher.doctor import proofs
from launcher.evaluation import metric_versions
from launcher.grids import grid as grids
from launcher.grids import inputs, older_runs
from launcher.grids import runs as runs_of
from launcher.grids import smoke as smokes
from launcher.grids.grid import Grid
from launcher.grids.hub import Downloads
from launcher.grids.runs import Run
from launcher.planning import admission, effects, limits
from launcher.planning.effects import Effect
from launcher.planning.estimates import Estimates
from launcher.planning.plan import NOT_SELECTED, Allow, Plan
from launcher.planning.site import Site
from launcher.status import data_notes
from launcher.status import status_view as view
from launcher.status.status import collect_states
from launcher.status.status_view import ShownJob
from launcher.submission import job_files, local
from launcher.submission import submit as submits
from launcher.views import show
from launcher.workspace import code_snapshot, linked_folders, recorded_grids, workspaces
from launcher.workspace.ledger import Ledger, submit_lock
from launcher.workspace.shipped import find_shipped
from zsg_core.errors import ClusterError, UserError, ZsgError

logger = logging.getLogger(__name__)

# how the user calls zsg, for a process that zsg itself has started
CALLED = "ZSG_CALLED"
# by whether MLflow is a file here: a server may never answer
DELIVERY_S = {True: 300.0, False: 60.0}

Agreed = Callable[[str], bool]


@dataclass(frozen=True)
class ResolvedGrid:
    """A grid, resolved on its profile."""

    grid: Grid
    site: Site
    runs: list[Run]
    estimates: Estimates
    # how it was opened, for whoever opens it again: file, profile, smoke
    asked: dict[str, Any]
    read: inputs.Inputs  # what was read for it
    effects: Sequence[Effect] = ()  # what its files have run and sent


def open_grid(
    path: Path,
    profile_name: str | None,
    workspace_path: Path | None,
    smoke: bool = False,
    sets: Sequence[str] = (),
) -> ResolvedGrid:
    """A grid, resolved as by `resolve_grid`, whose workspace is there."""
    opened = resolve_grid(path, profile_name, workspace_path, smoke, sets)
    create_workspace(opened)
    return opened


def resolve_grid(
    path: Path,
    profile_name: str | None,
    workspace_path: Path | None,
    smoke: bool = False,
    sets: Sequence[str] = (),
    only_looks: bool = False,
) -> ResolvedGrid:
    """Reads the grid and its profile and resolves the runs; makes no workspace yet.
    UserError for whatever is wrong in them.

    `sets` are `key=value` texts laid over the grid's defaults. `only_looks`: nothing
    will be submitted, so a workspace that could not be made is no error; of one that is
    there only the cache of digests is kept up to date.
    """
    grid = grids.load_grid(path, sets)
    layers = profile_files.read_layers(
        profile_name or grid.profile or "local", path.resolve().parent
    )
    profile = profiles.make_profile(layers)
    if smoke:
        on_cpus = (
            profile.gpu is None
            and not profiles.gpus_per_node(profile, "train")
            and not profile.slurm.gres
        )
        is_local = profile.kind == "local"
        grid = smokes.shrink_grid(
            grid, profile.smoke, one_rank=is_local, on_cpus=on_cpus, size=profile.train
        )
    place = workspaces.find_to_read(workspace_path, profile.workspace)
    downloads = Downloads(place, profile.internet)
    stages = [own for point in grid.points for own in point.settings.by_stage()]
    inputs.check_inputs(stages, downloads)
    code_snapshot.refuse_colon(place)
    refusal = workspaces.find_refusal(place)
    if refusal and not only_looks:
        raise refusal
    known = inputs.Inputs(
        place.digest_cache,
        downloads,
        keeps=place.root.is_dir() and not refusal,
    )
    resolved, notes = runs_of.resolve_runs(grid, profile, known)
    resolved, named = metric_versions.name_older_metrics(place, resolved)
    notes = [*notes, *named, *older_runs.find_notes(place, resolved)]
    for run in resolved:
        for one in [*run.all_before, run]:
            job_files.check_run(one, profile)
    linked_folders.refuse_links(
        place, (one.id for run in resolved for one in [*run.all_before, run])
    )
    estimates = Estimates(place, profile, resolved)
    estimates.refuse_unfit()
    estimates.refuse_endless()
    logger.info(f"profile {profile.name}: {' inherits '.join(map(str, layers.files))}")
    for note in [*grid.notes, *notes, *inputs.find_model_notes(stages)]:
        logger.warning(f"note: {note}")
    own = layers.files[0].resolve()
    by = (
        own.stem
        if own.parent == find_shipped("cluster_profiles").resolve()
        else str(own)
    )
    asked = {"file": str(path.resolve()), "opened_with": by, "smoke": smoke}
    told = effects.list_effects(layers, profile, grid, resolved)
    return ResolvedGrid(
        grid, Site(place, profile), resolved, estimates, asked, known, told
    )


def create_workspace(opened: ResolvedGrid) -> None:
    """Makes the workspace, and keeps there what was read. UserError where it can be
    none of the user's."""
    site = opened.site
    workspaces.create_workspace(site.workspace, share=site.profile.share == "group")
    opened.read.keep()


def reopen_grid(place: Workspace, name: str) -> ResolvedGrid:
    """A recorded grid, by the file, settings and profile of its last submit.

    UserError where they are gone, and in a group's workspace, where others may have
    changed what is recorded.
    """
    if ownership.is_group_workspace(place.root):
        raise UserError(
            f"{place.root} is a group's workspace, where others can change by which file and"
            f" profile {name} is opened, and a profile runs code: zsg submit FILE --retry"
        )
    record = recorded_grids.read_grid(place, name)
    path = Path(record.file)
    if not path.is_file():
        copy = place.grid(name) / "grid.yaml"
        raise UserError(
            f"{name} was submitted as {path}, which is gone; put it back, or submit its copy,"
            f" {copy}"
        )
    return open_grid(
        path, record.opened_with, place.root, record.smoke, record.overrides
    )


def show_plan(opened: ResolvedGrid, allow: Allow, json: bool) -> ZsgError | None:
    """Prints what a submit would do now; returns the error with which it would refuse,
    if it would."""
    cluster = admission.cluster_of(opened.site.profile, must_answer=False)
    site, estimates = replace(opened.site, cluster=cluster), opened.estimates
    _tell_clusters(site, Ledger(site.workspace))
    space = limits.find_submit_quota(site.profile, cluster)
    plan = submits.plan_runs(
        site,
        opened.grid,
        opened.runs,
        Ledger(site.workspace),
        allow,
        space,
        estimates.need_gb,
    )
    refused: list[ZsgError] = [
        error for error in [workspaces.find_refusal(site.workspace)] if error
    ]
    refused += [
        *admission.find_objections(site, plan, cluster, estimates),
        *admission.without_room(plan),
    ]
    _say_unknown(opened, plan)
    if json:
        words = [str(why) for why in refused]
        known = {run.id: estimates.of(run).as_json for run in opened.runs}
        show.as_json(
            show.plan_rows(plan, known, words, effects.as_rows(opened.effects))
        )
        for why in refused:
            logger.warning(f"submit would refuse: {why}")
        return admission.join_objections(refused)
    show.plan_table(plan)
    show.job_graph(plan)
    show.estimates_table(*estimates.overview(plan))
    _tell_of_the_data(opened)
    for line in _unproven(opened):
        logger.info(line)
    show.print_effects(opened.effects)
    for why in refused:
        show.print_result(f"submit would refuse: {why}")
    show.print_result(f"{opened.grid.name}: {show.summarize_plan(plan)}")
    return admission.join_objections(refused)


def _say_unknown(opened: ResolvedGrid, plan: Plan) -> None:
    """What is missing here may be there for jobs that find their packages elsewhere:
    only they can tell."""
    if not admission.is_python_of_jobs(opened.site.profile):
        for why in admission.find_missing_packages(plan):
            logger.warning(
                f"note: {why}; not needed where setup, the container or PYTHONPATH bring it to the"
                " jobs"
            )


def _unproven(opened: ResolvedGrid) -> list[str]:
    """A line for each folder of a model of which only the files have been looked at."""
    digests = {
        run.base: run.recipe["base"]["digest"] for run in opened.runs if run.base
    }
    return [
        f"model.path {base}: its files fit one another; what only loading it tells is not proven"
        f" here: zsg doctor --model {shlex.quote(str(base))}"
        for base, digest in digests.items()
        if not proofs.is_proven(opened.site.workspace, digest)
    ]


def submit_grid(opened: ResolvedGrid, allow: Allow, agreed: Agreed) -> bool:
    """Submits what the plan says; on a local profile runs it to its end. Returns
    whether a local run failed.

    `agreed` is asked before anything is handed to Slurm.
    """
    site, grid = opened.site, opened.grid
    if site.profile.kind == "slurm":
        submits.refuse_without_slurm()
    cluster = admission.cluster_of(site.profile, must_answer=True)
    site = replace(site, cluster=cluster)
    _tell_clusters(site, Ledger(site.workspace))
    space, asked, need = (
        limits.find_submit_quota(site.profile, cluster),
        None,
        opened.estimates.need_gb,
    )
    if site.profile.kind == "slurm":
        asked = submits.plan_runs(
            site, grid, opened.runs, Ledger(site.workspace), allow, space, need
        )
        admission.raise_objections(
            admission.find_objections(site, asked, cluster, opened.estimates)
        )
        show.plan_table(asked)
        if asked.acting:
            show.print_effects(opened.effects)
        if asked.acting and not agreed(f"{show.summarize_plan(asked)}: submit?"):
            logger.info("nothing was submitted")
            return False
    create_workspace(opened)
    ownership.make_files_private(site.workspace.root)
    with submit_lock(site.workspace):
        ledger = Ledger(site.workspace)
        submits.settle_submissions(site, ledger)
        plan = submits.plan_runs(site, grid, opened.runs, ledger, allow, space, need)
        if asked is None:
            admission.raise_objections(
                admission.find_objections(site, plan, cluster, opened.estimates)
            )
            show.plan_table(plan)
            if plan.acting:
                show.print_effects(opened.effects)
        elif [action.kind for action in plan.actions] != [
            action.kind for action in asked.actions
        ]:
            show.plan_table(plan)
            logger.info("the states changed meanwhile: this is what is done now")
        submits.record_grid(site, grid, opened.runs, opened.asked)
        submits.release_held_jobs(plan)
        admission.raise_objections(admission.without_room(plan))
        if not plan.acting:
            _tell_of_the_data(opened)
            show.print_result(
                f"{grid.name}: nothing to submit ({show.summarize_plan(plan)});"
                f" {_hint('ui', opened)}"
            )
            return False
        if site.profile.kind == "slurm":
            most = limits.array_size(site.profile, cluster.config)
            submits.submit_slurm(site, grid, plan, ledger, most)
            if plan.left:
                show.print_result(f"{plan.left}; zsg submit again once jobs have ended")
            show.print_result(
                f"{grid.name}: {show.summarize_plan(plan)}; {_hint('status', opened)} --watch"
            )
            return False
        jobs, locks = submits.submit_local(site, grid, plan, ledger)
    try:
        _run_here(opened, jobs)
    finally:
        for lock in locks:
            os.close(lock)
    rows = _look(opened, [])[1]
    show.print_status(rows)
    _tell_of_the_data(opened)
    show.print_result(_hint("ui", opened))
    left_out = {
        action.run.id for action in plan.actions if action.reason == NOT_SELECTED
    }
    return not _evaluated(opened, jobs) or any(
        row["state"] != State.DONE for row in rows if row["run"] not in left_out
    )


def _tell_clusters(site: Site, ledger: Ledger) -> None:
    """Tells where jobs of the workspace are that were submitted to another cluster than
    now is asked for."""
    here = site.cluster.name
    others = {
        one.cluster
        for one in ledger.submissions.values()
        if one.void is None and one.cluster and one.jobs
    }
    if here and others - {here}:
        names = ", ".join(sorted(others - {here}))
        logger.warning(
            f"note: jobs go to cluster {here}; this workspace also has jobs on {names}, which are"
            " asked for there (SLURM_CLUSTERS or the profile said otherwise when they were"
            " submitted)"
        )


def _tell_of_the_data(opened: ResolvedGrid) -> None:
    """Says what prepare jobs found in the data, as far as they have been prepared."""
    corpora = [one.corpus_id for run in opened.runs for one in [*run.all_before, run]]
    show.data_notes(data_notes.of_corpora(opened.site.workspace, corpora))


def _evaluated(opened: ResolvedGrid, jobs: Sequence[local.LocalJob]) -> bool:
    """Whether the evaluate jobs have ended well; says why not."""
    items = [job.item for job in jobs if job.item.startswith("evaluate/")]
    states = collect_states(opened.site.workspace, items, Ledger(opened.site.workspace))
    bad = {item: state for item, state in states.items() if state.state != State.DONE}
    for item, state in bad.items():
        why = ": ".join(
            str(part) for part in (state.state, state.cause, state.evidence) if part
        )
        logger.error(f"{item} {why}; zsg submit again evaluates what is left")
    return not bad


def submit_detached(opened: ResolvedGrid, allow: Allow, argv: Sequence[str]) -> None:
    """Starts `zsg <argv>` apart from this terminal and returns once it has taken the jobs on.

    Raises ClusterError with the end of its log if it ends before.
    """
    site, name = opened.site, opened.grid.name
    plan = submits.plan_runs(
        site, opened.grid, opened.runs, Ledger(site.workspace), allow
    )
    admission.raise_objections(
        admission.find_objections(site, plan, Cluster(), opened.estimates)
    )
    show.plan_table(plan)
    if not plan.acting:
        show.print_result(
            f"{name}: nothing to submit ({show.summarize_plan(plan)});"
            f" {_hint('ui', opened)}"
        )
        return
    show.print_effects(opened.effects)
    create_workspace(opened)
    ownership.make_files_private(site.workspace.root)
    folder = site.workspace.grid(name)
    ownership.make_folder(folder)
    known = set(Ledger(site.workspace).submissions)
    with (folder / "submit.log").open("ab") as log:
        start = log.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "launcher.cli", *argv],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=os.environ | {"PYTHONSAFEPATH": "1", CALLED: _command()},
        )
    try:
        while process.poll() is None and not _taken_on(site.workspace, name, known):
            time.sleep(0.1)
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        raise
    if process.returncode:
        said = (
            (folder / "submit.log")
            .read_bytes()[start:]
            .decode("utf-8", "replace")
            .strip()
        )
        raise ClusterError(
            f"the detached submit ended with {process.returncode}: {said[-500:]}"
        )
    show.print_result(
        f"{name}: running on as process {process.pid} (kill -INT {process.pid} stops it and its"
        f" jobs); its log: {_shown(folder / 'submit.log')}; {_hint('status', opened)} --watch"
    )


def _taken_on(place: Workspace, name: str, known: set[str]) -> bool:
    """Whether there is a submission of the grid that was not there before."""
    return any(
        one.grid == name
        for key, one in Ledger(place).submissions.items()
        if key not in known
    )


def _run_here(opened: ResolvedGrid, jobs: Sequence[local.LocalJob]) -> None:
    site, name = opened.site, opened.grid.name
    helpers = [job.item for job in jobs if not job.item.startswith("runs/")]
    # a script's background jobs begin by ignoring it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with (site.workspace.grid(name) / "delivery.log").open("ab") as log:
        argv = [
            "jobs.tracking.mlflow_sync",
            str(site.workspace.root),
            name,
            "--follow",
            str(os.getpid()),
        ]
        delivery = subprocess.Popen(
            [sys.executable, "-m", *argv],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        with show.Progress() as progress:
            tick = lambda: (  # noqa: E731
                progress.show(*_look(opened, helpers)) if progress.due() else None
            )
            local.run_all(site.workspace, site.profile, jobs, tick)
    finally:
        delivery.terminate()
        _await_delivery(delivery, name, DELIVERY_S[site.profile.tracking.uri is None])


def _await_delivery(
    delivery: subprocess.Popen[bytes], name: str, patience_s: float
) -> None:
    """A server that does not answer must not hold the terminal; the journals keep everything."""
    try:
        code = delivery.wait(patience_s)
    except subprocess.TimeoutExpired:
        delivery.kill()
        code = delivery.wait()
    if code:
        logger.warning(
            f"MLflow did not get everything; see delivery.log in the workspace's grids/{name},"
            f" then: zsg sync {name}"
        )


def _look(
    opened: ResolvedGrid, helpers: Sequence[str]
) -> tuple[str, list[dict[str, Any]]]:
    runs = [ShownJob(run.id, f"runs/{run.id}", run.axes) for run in opened.runs]
    items = [run.item for run in runs]
    states = collect_states(
        opened.site.workspace, [*helpers, *items], Ledger(opened.site.workspace)
    )
    rows = view.rows_of(opened.grid.name, runs, states)
    return show.prepare_note({item: states[item] for item in helpers}), rows


def _hint(command: str, opened: ResolvedGrid) -> str:
    """The command that goes on from here, with the workspace unless it is the one that
    zsg looks in anyway."""
    root = opened.site.workspace.root
    place = (
        ""
        if root == workspaces.find_workspace(workspaces.choose_folder(None)).root
        else f" --workspace {shlex.quote(_shown(root))}"
    )
    words = f"{_command()} {command} {opened.grid.name}{place}"
    if command == "status":
        return f"follow them: {words}"
    return f"compare the runs: {_command()} report {opened.grid.name}{place}; in MLflow: {words}"


def _command() -> str:
    """How the user calls zsg: by its path where it is not on theirs."""
    if told := os.environ.get(CALLED):
        return told  # what a detached submit was started by
    called = Path(sys.argv[0])
    if called.suffix == ".py":
        return "zsg" if shutil.which("zsg") else "python -m launcher.cli"
    return "zsg" if shutil.which("zsg") == sys.argv[0] else sys.argv[0]


def _shown(path: Path) -> str:
    return (
        str(path.relative_to(Path.cwd()))
        if path.is_relative_to(Path.cwd())
        else str(path)
    )
