"""The steps of `zsg plan` and `zsg submit`: resolve a grid, submit it, follow its local jobs."""

import contextlib
import itertools
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from jobs.contract import grid_record
from jobs.contract.causes import Cause
from jobs.contract.folder import Workspace
from jobs.contract.states import ACTIVE, State
from jobs.files import ownership, paths
from jobs.notices import receivers as notice_receivers
from launcher.clusters import profile_files, profiles
from launcher.clusters.cluster import Cluster
from launcher.clusters.in_background import EarlyAnswer
from launcher.clusters.profiles import Profile
from launcher.doctor import proofs
from launcher.evaluation import metric_versions
from launcher.grids import (
    average_notes,
    claim_deviations,
    input_checks,
    inputs,
    kept_summaries,
    older_runs,
)
from launcher.grids import grid as grids
from launcher.grids import runs as runs_of
from launcher.grids import smoke as smokes
from launcher.grids.grid import Draft, Grid
from launcher.grids.hub import Downloads
from launcher.grids.input_checks import Judged
from launcher.grids.runs import Run
from launcher.planning import (
    admission,
    costs,
    data_checks,
    effects,
    limits,
    model_proofs,
    outlook,
    target_notes,
)
from launcher.planning.accounting_limits import SubmitQuota
from launcher.planning.effects import Effect
from launcher.planning.estimates import Estimates
from launcher.planning.plan import NOT_SELECTED, Allow, Plan
from launcher.planning.site import Site
from launcher.status import data_notes, version_notes
from launcher.status import status_view as view
from launcher.status.status import collect_states
from launcher.status.status_view import ShownJob
from launcher.submission import job_files, local, plugin_consent, waves
from launcher.submission import submit as submits
from launcher.submission.submit_plan import SubmitPlanner
from launcher.views import plan_view, show
from launcher.workspace import (
    allowed_plugins,
    code_snapshot,
    linked_folders,
    recorded_grids,
    workspaces,
)
from launcher.workspace.faults import SeveralFaults
from launcher.workspace.ledger import Ledger
from launcher.workspace.scheduler_job import Job
from launcher.workspace.shipped import find_shipped
from launcher.workspace.submit_lock import find_submit_under_way, submit_lock
from launcher.workspace.yaml_file import LineError
from zsg_core.errors import ClusterError, UserError, ZsgError
from zsg_core.settings.run import Settings

logger = logging.getLogger(__name__)

# how the user calls zsg, for a process that zsg itself has started
CALLED = "ZSG_CALLED"
# by whether MLflow is a file here: a server may never answer
DELIVERY_S = {True: 300.0, False: 60.0}

Agreed = Callable[[str], bool]

MORE = "(more: --memory, --all, --json)"


@dataclass(frozen=True)
class PlanLook:
    """How a plan is looked at. `submit`: the words behind `zsg` that submit what is
    planned."""

    memory: bool = False
    whole: bool = False
    submit: str = ""


EVERY_DAY = PlanLook()
ONLY_LOOKS = (
    "--json",
    "--memory",
    "--all",
    "--dry-run",
    "--quiet",
    "--verbose",
    "-q",
    "-v",
)


def name_submit(words: Sequence[str]) -> str:
    """The command line that submits what `zsg plan` or a dry run with these words has
    shown; empty where they are not of such a command."""
    commands = [word for word in words if word in ("plan", "submit")]
    if not commands:
        return ""
    behind = words[words.index(commands[0]) + 1 :]
    options = [word for word in behind if word not in ONLY_LOOKS]
    return shlex.join(["submit", *options])


@dataclass(frozen=True)
class ResolvedGrid:
    """A grid, resolved on its profile."""

    grid: Grid
    site: Site
    runs: list[Run]
    estimates: Estimates
    # by what a later command opens it: file, profile, smoke
    opened_by: dict[str, Any]
    read: inputs.Inputs  # what was read for it
    effects: Sequence[Effect] = ()  # what its files have run and sent
    notes: Sequence[str] = ()  # what works and is not as it seems
    profile_line: str = ""  # by which files the profile is what it is
    # what the cluster says of itself, asked while the runs were resolved
    early: EarlyAnswer[Cluster] | None = None

    def tell_notes(self) -> None:
        """Says what there is to know of the grid, on stderr: below the table of runs,
        where it is read."""
        for note in self.notes:
            logger.warning(f"note: {note}")

    def on_cluster(self, must_answer: bool) -> "ResolvedGrid":
        """The grid with what the profile's cluster says of itself."""
        cluster = admission.cluster_of(
            self.site.profile, must_answer=must_answer, early=self.early
        )
        return replace(self, site=replace(self.site, cluster=cluster))

    def plan_submit(
        self,
        allow: Allow,
        ledger: Ledger,
        quota: SubmitQuota | None,
        *,
        only_looks: bool = False,
    ) -> Plan:
        """What a submit would do now; of many runs the largest goes first."""
        return SubmitPlanner(
            self.site,
            self.grid,
            self.runs,
            ledger,
            allow,
            quota,
            self.estimates.need_gb,
            only_looks,
        ).plan_submit()


def open_grid(
    path: Path,
    profile_name: str | None,
    workspace_path: Path | None,
    smoke: bool = False,
    sets: Sequence[str] = (),
) -> ResolvedGrid:
    """A grid, resolved as by `resolve_grid`, whose workspace is there."""
    opened = resolve_grid(path, profile_name, workspace_path, smoke, sets)
    opened.tell_notes()
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
    """Reads the grid and its profile and resolves the runs; makes no workspace yet, and
    tells no notes yet. UserError for whatever is wrong in them.

    `sets` are `key=value` texts laid over the grid's defaults. `only_looks`: nothing
    will be submitted, so a workspace that could not be made is no error; of one that is
    there only the cache of digests is kept up to date.
    """
    draft = grids.draft_grid(path, sets)
    layers, profile = _read_profile(draft, profile_name)
    if layers is None or profile is None or draft.faults:
        _refuse(draft, reads_inputs=not smoke, only_looks=only_looks)
    grid = draft.grid
    early = admission.ask_early(profile)
    if smoke:
        grid = _shrink_grid(grid, profile)
    workspace = workspaces.find_to_read(workspace_path, profile.workspace)
    downloads = Downloads(workspace, profile.internet)
    stages = _judge_inputs(draft, grid, downloads, only_looks=only_looks)
    inputs_read = _open_inputs(workspace, downloads, grid, only_looks=only_looks)
    runs, notes = runs_of.resolve_runs(grid, profile, inputs_read)
    notes += average_notes.note_lacking_suites(grid.summaries.averages, runs)
    runs, metric_notes = metric_versions.name_older_metrics(workspace, runs)
    notes = [*notes, *metric_notes, *older_runs.find_notes(workspace, runs)]
    _check_runs(workspace, profile, runs)
    data_checks.refuse_unknown_tasks(runs)
    data_checks.refuse_idle_tags(runs)
    data_checks.refuse_few_examples(runs)
    estimates = Estimates(workspace, profile, runs)
    notes += _refuse_impossible(estimates)
    notes += target_notes.describe_targets(workspace, runs)
    profile_line = _name_files(layers, profile)
    # what only looks tells it below what it shows
    level = logging.DEBUG if only_looks else logging.INFO
    logger.log(level, profile_line)
    return ResolvedGrid(
        grid,
        Site(workspace, profile),
        runs,
        estimates,
        _name_opening(path, layers, smoke=smoke),
        inputs_read,
        effects.list_effects(layers, profile, grid, runs),
        notes=[
            *grid.notes,
            *notes,
            *inputs.find_model_notes(stages),
            *notice_receivers.explain_missing(profile.receivers),
            *(_explain_unallowed(grid) if only_looks else []),
        ],
        early=early,
        profile_line=profile_line,
    )


def _judge_inputs(
    draft: Draft, grid: Grid, downloads: Downloads, *, only_looks: bool
) -> list[Settings]:
    """The stages of a grid's points. UserError with all faults of what they read, and of
    weights that cannot be merged."""
    by_point = [point.settings.by_stage() for point in grid.points]
    stages = list(itertools.chain.from_iterable(by_point))
    judged = [Judged(stage) for stage in stages]
    faults = input_checks.find_input_faults(
        judged, downloads, only_looks=only_looks, task_code=grid.task_code
    )
    for fault in faults:
        draft.add_input_fault(fault)
    draft.faults.raise_any()
    inputs.check_merges(by_point)
    return stages


def _open_inputs(
    workspace: Workspace, downloads: Downloads, grid: Grid, *, only_looks: bool
) -> inputs.Inputs:
    """What reads the files of runs, by the workspace's cache of digests. UserError for a
    workspace that cannot be made, where something is to be submitted."""
    code_snapshot.refuse_colon(workspace)
    refusal = workspaces.find_refusal(workspace)
    if refusal and not only_looks:
        raise refusal
    keeps = workspace.root.is_dir() and not refusal
    return inputs.Inputs(
        workspace.digest_cache, downloads, keeps=keeps, task_code=grid.task_code
    )


def _refuse_impossible(estimates: Estimates) -> list[str]:
    """UserError for orders, runs and evaluators that cannot be made, fit or end; what is
    to be told of the others."""
    estimates.refuse_impossible_orders()
    list_notes = estimates.judge_order_files()
    estimates.refuse_unfit()
    estimates.refuse_unfit_evaluators()
    notes = [
        *list_notes,
        *estimates.refuse_short_hosts(),
        *estimates.describe_repeats(),
    ]
    estimates.refuse_endless()
    return notes


def _name_files(layers: profile_files.Layers, profile: Profile) -> str:
    """By which files a profile is what it is, in a line."""
    files = " inherits ".join(map(str, layers.files))
    return f"profile {profile.name}: {files}"


def _name_opening(
    path: Path, layers: profile_files.Layers, *, smoke: bool
) -> dict[str, Any]:
    """By what a later command opens the grid again."""
    return {
        "file": str(paths.make_absolute(path)),
        "opened_with": _name_profile(layers),
        "smoke": smoke,
    }


def _explain_unallowed(grid: Grid) -> list[str]:
    """What a submit asks before it lets jobs run the grid's plugins. UserError for what
    it would refuse."""
    unallowed = allowed_plugins.find_unallowed(grid.plugins)
    plugin_consent.refuse_written_by_others(grid, unallowed)
    return [
        f"plugin {plugin.name} is not allowed yet, and nothing of it was run: read it;"
        " submit asks, or takes --allow-plugins"
        for plugin in unallowed
    ]


def _read_profile(
    draft: Draft, profile_name: str | None
) -> tuple[profile_files.Layers | None, Profile | None]:
    """A profile and its files; None for what has faults, which are added to the draft's."""
    name = profile_name or draft.grid.profile or "local"
    beside = draft.grid.path.resolve().parent
    layers, profile = None, None
    with draft.faults.collecting():
        try:
            layers = profile_files.read_layers(name, beside)
            profile = profiles.make_profile(layers)
        except UserError as error:
            is_in_file = isinstance(error, LineError | SeveralFaults)
            if is_in_file or name != draft.grid.profile:
                raise
            raise draft.document.error(("profile",), str(error)) from None
    return layers, profile


def _refuse(draft: Draft, *, reads_inputs: bool, only_looks: bool) -> NoReturn:
    """Raises the faults of grid and profile with those of the inputs, as far as these can
    be judged beside them."""
    if reads_inputs:
        faults = input_checks.find_input_faults(
            draft.list_judged(),
            only_looks=only_looks,
            is_whole=draft.is_whole,
            fetches=False,
            task_code=draft.grid.task_code,
        )
        for fault in faults:
            draft.add_input_fault(fault)
    draft.faults.raise_any()
    raise AssertionError("what has no fault is not refused")


def _shrink_grid(grid: Grid, profile: Profile) -> Grid:
    """The grid as `--smoke` runs it on the profile."""
    on_cpus = (
        profile.gpu is None
        and not profiles.gpus_per_node(profile, "train")
        and not profile.slurm.gres
    )
    return smokes.shrink_grid(
        grid,
        profile.smoke,
        one_rank=profile.kind == "local",
        on_cpus=on_cpus,
        size=profile.train,
    )


def _check_runs(workspace: Workspace, profile: Profile, runs: Sequence[Run]) -> None:
    """Refuses runs, and those that they start from, that the profile cannot train or
    whose folders are links."""
    stages = [stage for run in runs for stage in [*run.all_before, run]]
    for stage in stages:
        job_files.check_run(stage, profile)
    linked_folders.refuse_links(workspace, (stage.id for stage in stages))


def _name_profile(layers: profile_files.Layers) -> str:
    """A profile as `zsg retry` finds it: a shipped one by its name, another by its file."""
    file = paths.make_absolute(layers.files[0])
    is_shipped = file.resolve().parent == find_shipped("cluster_profiles").resolve()
    return file.stem if is_shipped else str(file)


def create_workspace(opened: ResolvedGrid) -> None:
    """Makes the workspace, and keeps there what was read. UserError where it can be
    none of the user's."""
    site = opened.site
    workspaces.create_workspace(site.workspace, share=site.profile.share == "group")
    opened.read.keep()


def reopen_grid(workspace: Workspace, name: str) -> ResolvedGrid:
    """A recorded grid, by the file, settings and profile of its last submit.

    UserError where they are gone, and in a group's workspace, where others may have
    changed what is recorded.
    """
    if ownership.is_group_workspace(workspace.root):
        raise UserError(
            f"{workspace.root} is a group's workspace, where others can change by which file and"
            f" profile {name} is opened, and a profile runs code: zsg submit FILE --retry"
        )
    record = recorded_grids.read_grid(workspace, name)
    path = Path(record.file)
    if not path.is_file():
        copy = workspace.grid(name) / "grid.yaml"
        raise UserError(
            f"{name} was submitted as {path}, which is gone; put it back, or submit its copy,"
            f" {copy}"
        )
    return open_grid(
        path,
        record.opened_with,
        workspace.root,
        record.smoke,
        record.overrides,
    )


@dataclass(frozen=True)
class SubmitPreview:
    """What a submit would do now, and why it would refuse to."""

    opened: ResolvedGrid
    plan: Plan
    refusals: list[ZsgError]


def preview_submit(opened: ResolvedGrid, allow: Allow) -> SubmitPreview:
    """What a submit would do now. Submits and makes nothing."""
    opened = opened.on_cluster(must_answer=False)
    site = opened.site
    ledger = Ledger(site.workspace)
    _tell_clusters(site, ledger)
    quota = admission.find_submit_quota(site, allow)
    plan = opened.plan_submit(allow, ledger, quota, only_looks=True)
    refusals: list[ZsgError] = [
        error
        for error in [workspaces.find_refusal(site.workspace), ledger.find_refusal()]
        if error
    ]
    refusals += [*_list_objections(opened, plan, allow), *admission.without_room(plan)]
    return SubmitPreview(opened, plan, refusals)


def _list_objections(opened: ResolvedGrid, plan: Plan, allow: Allow) -> list[ZsgError]:
    """Why a submit of this plan would be refused, whatever the ledger says."""
    objections = admission.find_objections(opened.site, plan, allow, opened.estimates)
    grid = opened.grid
    earlier = grid_record.read_grid_record(opened.site.workspace, grid.name)
    points = [run.axes for run in opened.runs]
    locked = claim_deviations.find_refusal(earlier, grid, allow.because, points)
    changed = kept_summaries.find_refusal(earlier, grid)
    return [*objections, *filter(None, (locked, changed))]


def show_plan(
    opened: ResolvedGrid,
    allow: Allow,
    json: bool,
    look: PlanLook = EVERY_DAY,
) -> ZsgError | None:
    """Prints what a submit would do now; returns the error with which it would refuse,
    if it would."""
    preview = preview_submit(opened, allow)
    opened, plan, refused = preview.opened, preview.plan, preview.refusals
    if json:
        _print_rows(opened, plan, refused)
    else:
        _print_plan(opened, plan, refused, look)
    return admission.join_objections(refused)


def _print_rows(opened: ResolvedGrid, plan: Plan, refused: Sequence[ZsgError]) -> None:
    """A plan for scripts; what is to be said beside it goes to stderr."""
    logger.info(opened.profile_line)
    opened.tell_notes()
    _say_unknown(opened, plan)
    _tell_of_the_data(opened)
    takes = describe_runs(opened)
    words = [str(why) for why in refused]
    effect_rows = effects.as_rows(opened.effects)
    design = outlook.make_design_row(_foresee_design(opened))
    show.as_json(plan_view.plan_rows(plan, takes, words, effect_rows, design))
    for why in refused:
        logger.warning(f"submit would refuse: {why}")


def _foresee_design(opened: ResolvedGrid) -> outlook.Design | None:
    """What the looks of a grid can find, and what they take."""
    return outlook.foresee_design(
        opened.site.workspace, opened.grid, opened.runs, opened.estimates.of
    )


def describe_runs(opened: ResolvedGrid) -> dict[str, dict[str, Any]]:
    """What each run takes, and by which kernel it attends where it trains on GPUs."""
    padded = model_proofs.find_padded(opened.site, opened.runs)
    takes: dict[str, dict[str, Any]] = {}
    for run in opened.runs:
        load = opened.estimates.of(run).load
        kernel = model_proofs.choose_run_kernel(run, load, padded)
        estimate = opened.estimates.describe_run(run)
        takes[run.id] = {**estimate, "attention_on_gpus": asdict(kernel)}
    return takes


def _print_plan(
    opened: ResolvedGrid,
    plan: Plan,
    refused: Sequence[ZsgError],
    look: PlanLook,
) -> None:
    """A plan for people: the runs, their jobs, what they take, and what comes next."""
    beside = _choose_shown(opened, look.whole)
    if look.memory:
        beside = replace(beside, memory=opened.estimates.overview(plan))
    models = model_proofs.describe_models(opened.site, opened.runs)
    models += model_proofs.describe_kernels(
        opened.site, opened.runs, lambda run: opened.estimates.of(run).load
    )
    gpu = opened.site.profile.gpu
    scorings = opened.estimates.list_scorings(plan)
    scores = [costs.describe_scoring(scoring, gpu) for scoring in scorings]
    beside = replace(beside, scores=scores)
    design = outlook.describe_design(_foresee_design(opened))
    shown = replace(beside, effects=opened.effects, models=models, design=design)
    plan_view.print_plan(plan, shown)
    logger.info(opened.profile_line)
    opened.tell_notes()
    _say_unknown(opened, plan)
    _tell_of_the_data(opened)
    for line in _unproven(opened):
        logger.warning(line)
    for why in refused:
        show.print_result(f"submit would refuse: {why}")
    plan_view.print_next(_name_next(opened, plan, refused, look), MORE)


def _choose_shown(opened: ResolvedGrid, whole: bool = False) -> plan_view.PlanShown:
    """What of a grid is shown beside its plan."""
    return plan_view.PlanShown(
        opened.grid.name, opened.site.profile, opened.estimates.of, is_whole=whole
    )


def _name_next(
    opened: ResolvedGrid, plan: Plan, refused: Sequence[ZsgError], look: PlanLook
) -> str:
    """The command that comes next, and how more of the plan is seen."""
    if refused:
        return "change what stands above, then plan again"
    if plan.changes_queue:
        command = look.submit or f"submit {shlex.quote(_shown(opened.grid.path))}"
        return f"{_command()} {command}"
    # to one that a look has spared nothing has happened
    open_actions = itertools.filterfalse(waves.is_spared, plan.actions)
    states = {action.state for action in open_actions}
    if states.intersection(ACTIVE):
        return f"{_name_command('status', opened)} --watch"
    if states & {State.FAILED, State.UNKNOWN, State.CANCELLED}:
        return _name_command("why", opened)
    return _name_command("report", opened)


def _say_unknown(opened: ResolvedGrid, plan: Plan) -> None:
    """What is missing here may be there for jobs that find their packages elsewhere:
    only they can tell."""
    if not profiles.is_python_of_jobs(opened.site.profile):
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

    `agreed` is asked before anything is handed to Slurm. UserError for plugins that the
    user has not allowed (plugin_consent).
    """
    with code_snapshot.carrying(opened.grid.plugins):
        return _submit(opened, allow, agreed)


def _submit(opened: ResolvedGrid, allow: Allow, agreed: Agreed) -> bool:
    is_slurm = opened.site.profile.kind == "slurm"
    if is_slurm:
        submits.refuse_without_slurm()
    opened = opened.on_cluster(must_answer=True)
    site = opened.site
    _tell_clusters(site, Ledger(site.workspace))
    quota = admission.find_submit_quota(site, allow)
    agreed_plan: Plan | None = None
    if is_slurm:
        agreed_plan = opened.plan_submit(allow, Ledger(site.workspace), quota)
        _check_and_show(opened, agreed_plan, allow)
        question = _word_question(opened, agreed_plan)
        if agreed_plan.changes_queue and not agreed(question):
            logger.info("nothing was submitted")
            return False
    create_workspace(opened)
    ownership.make_files_private(site.workspace.root)
    with submit_lock(site.workspace, opened.grid.name):
        ledger = Ledger(site.workspace)
        if refusal := ledger.find_refusal():
            raise refusal
        submits.settle_submissions(site, ledger)
        quota = admission.renew_quota(site, quota)
        plan = opened.plan_submit(allow, ledger, quota)
        if agreed_plan is None:
            _check_and_show(opened, plan, allow)
        else:
            _tell_changes(opened, agreed_plan, plan)
            plan = replace(plan, held=_keep_agreed(plan.held, agreed_plan))
        submits.record_grid(
            site, opened.grid, opened.runs, opened.opened_by, allow.because
        )
        submits.release_held_jobs(plan)
        admission.raise_objections(admission.without_room(plan))
        if not plan.acting:
            _tell_of_the_data(opened)
            _tell_nothing_to_submit(opened, plan)
            return False
        if is_slurm:
            _submit_to_slurm(opened, plan, ledger)
            return False
        jobs, locks = submits.submit_local(site, opened.grid, plan, ledger)
    try:
        _run_here(opened, plan, jobs)
    finally:
        for lock in locks:
            os.close(lock)
    return _has_failed(opened, plan, jobs)


def _word_question(opened: ResolvedGrid, plan: Plan) -> str:
    """What is asked before anything is handed to Slurm: how many, for how long, on how
    many GPUs, where."""
    profile = opened.site.profile
    longest_array = limits.array_size(profile, opened.site.cluster.config)
    gpus = limits.count_gpus_at_once(profile, plan, longest_array)
    estimates = plan_view.list_estimates(plan, opened.estimates.of)
    words = list[str]()
    if gpus.all:
        if estimates:
            words.append(costs.sum_hours(estimates).words)
        words.append(f"at most {gpus.all:,} GPUs at once")
    about = f" ({', '.join(words)})" if words else ""
    partition = profile.slurm.partition
    target = f"partition {partition}" if partition else "Slurm"
    return f"{plan_view.name_deeds(plan)}{about} to {target}?"


def _check_and_show(opened: ResolvedGrid, plan: Plan, allow: Allow) -> None:
    """Shows a plan and what its files run and send; raises why it would be refused."""
    opened.tell_notes()
    admission.raise_objections(_list_objections(opened, plan, allow))
    plan_view.print_runs(plan, _choose_shown(opened))
    if plan.acting:
        plan_view.print_effects(opened.effects)


def _keep_agreed(held_jobs: Sequence[Job], agreed_plan: Plan) -> list[Job]:
    """Of jobs that would be released those of the plan that was agreed to: what was put on
    hold since then stays so."""
    return [job for job in held_jobs if job in agreed_plan.held]


def _tell_changes(opened: ResolvedGrid, agreed_plan: Plan, plan: Plan) -> None:
    """Shows the plan if it is another than the one that was agreed to."""
    agreed_kinds = [action.kind for action in agreed_plan.actions]
    if [action.kind for action in plan.actions] != agreed_kinds:
        plan_view.print_runs(plan, _choose_shown(opened))
        logger.warning("the states changed meanwhile: this is what is done now")


def _tell_nothing_to_submit(opened: ResolvedGrid, plan: Plan) -> None:
    show.print_result(
        f"{opened.grid.name}: nothing to submit ({plan_view.count_left(plan)});"
        f" {_hint('ui', opened)}"
    )


def _submit_to_slurm(opened: ResolvedGrid, plan: Plan, ledger: Ledger) -> None:
    site, grid = opened.site, opened.grid
    longest_array = limits.array_size(site.profile, site.cluster.config)
    submits.SlurmSubmitter(site, grid, plan, ledger, longest_array).submit_plan()
    if plan.left:
        show.print_result(f"{plan.left}; zsg submit again once jobs have ended")
    show.print_result(
        f"{grid.name}: {plan_view.count_submitted(plan)}; {_hint('status', opened)}"
    )
    _tell_of_the_data(opened)


def _has_failed(
    opened: ResolvedGrid, plan: Plan, jobs: Sequence[local.LocalJob]
) -> bool:
    """Whether a run or an evaluate job did not end well; shows how all ended."""
    rows = _look(opened, [])[1]
    show.print_status(rows)
    _tell_of_the_data(opened, rows)
    show.print_result(_hint("ui", opened))
    counting = [
        row for row in _leave_out_others(rows, plan) if row.get("cause") != Cause.SPARED
    ]
    return not _evaluated(opened, jobs) or any(
        row["state"] != State.DONE for row in counting
    )


def _tell_clusters(site: Site, ledger: Ledger) -> None:
    """Tells where jobs of the workspace are that were submitted to another cluster than
    now is asked for."""
    cluster = site.cluster.name
    used = {
        submission.cluster
        for submission in ledger.submissions.values()
        if submission.void is None and submission.cluster and submission.jobs
    }
    if cluster and used - {cluster}:
        names = ", ".join(sorted(used - {cluster}))
        logger.warning(
            f"note: jobs go to cluster {cluster}; this workspace also has jobs on {names}, which"
            " are asked for there (SLURM_CLUSTERS or the profile said otherwise when they were"
            " submitted)"
        )


def _tell_of_the_data(opened: ResolvedGrid, rows: Sequence[view.Row] = ()) -> None:
    """Says what prepare jobs found in the data, as far as they have been prepared, and
    what the runs of these rows of status made of them."""
    corpora = [
        stage.corpus_id for run in opened.runs for stage in [*run.all_before, run]
    ]
    of_runs = data_notes.of_rows(rows)
    show.data_notes(data_notes.of_corpora(opened.site.workspace, corpora, of_runs))
    show.version_notes(version_notes.of_rows(rows))


def _evaluated(opened: ResolvedGrid, jobs: Sequence[local.LocalJob]) -> bool:
    """Whether the evaluate jobs have ended well; says why not."""
    items = [job.item for job in jobs if job.item.startswith("evaluate/")]
    states = collect_states(opened.site.workspace, items, Ledger(opened.site.workspace))
    bad = {item: state for item, state in states.items() if state.state != State.DONE}
    for item, state in bad.items():
        words = (state.state, state.cause, state.evidence)
        why = ": ".join(str(word) for word in words if word)
        logger.error(f"{item} {why}; zsg submit again evaluates what is left")
    return not bad


def submit_detached(opened: ResolvedGrid, allow: Allow, argv: Sequence[str]) -> None:
    """Starts `zsg <argv>` apart from this terminal and returns once it has taken the jobs on.

    Raises ClusterError with the end of its log if it ends before.
    """
    site, name = opened.site, opened.grid.name
    code_snapshot.refuse_unallowed(opened.grid.plugins)
    plan = SubmitPlanner(
        site, opened.grid, opened.runs, Ledger(site.workspace), allow
    ).plan_submit()
    admission.raise_objections(_list_objections(opened, plan, allow))
    opened.tell_notes()
    plan_view.print_runs(plan, _choose_shown(opened))
    if not plan.acting:
        _tell_nothing_to_submit(opened, plan)
        return
    plan_view.print_effects(opened.effects)
    create_workspace(opened)
    ownership.make_files_private(site.workspace.root)
    folder = site.workspace.grid(name)
    ownership.make_folder(folder)
    earlier = set(Ledger(site.workspace).submissions)
    words = plugin_consent.drop_word(argv, opened.grid.plugins)
    with (folder / "submit.log").open("ab") as log:
        start = log.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "launcher.cli", *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=os.environ | {"PYTHONSAFEPATH": "1", CALLED: _command()},
        )
    try:
        is_told = False
        while process.poll() is None and not _is_submitted(
            site.workspace, name, earlier
        ):
            time.sleep(0.1)
            is_told = is_told or _tell_other_submit(site.workspace, process.pid)
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        raise
    if process.returncode:
        output = (folder / "submit.log").read_bytes()[start:]
        complaint = output.decode("utf-8", "replace").strip()[-500:]
        raise ClusterError(
            f"the detached submit ended with {process.returncode}: {complaint}"
        )
    show.print_result(
        f"{name}: running on as process {process.pid} (kill -INT {process.pid} stops it and its"
        f" jobs); its log: {_shown(folder / 'submit.log')}; {_hint('status', opened)}"
    )


def _tell_other_submit(workspace: Workspace, own_pid: int) -> bool:
    """Says for which other submit a detached one waits; whether there is one."""
    submit = find_submit_under_way(workspace)
    if submit is None or submit.holder is None or submit.holder.pid == own_pid:
        return False
    logger.warning(f"waiting for another {submit.words} to finish")
    return True


def _is_submitted(workspace: Workspace, name: str, earlier: set[str]) -> bool:
    """Whether there is a submission of the grid that was not there before."""
    return any(
        submission.grid == name
        for key, submission in Ledger(workspace).submissions.items()
        if key not in earlier
    )


def _leave_out_others(rows: Sequence[view.Row], plan: Plan) -> list[view.Row]:
    """The rows of status without those of runs that were not selected: of these nothing
    is awaited, and nobody looks what becomes of them."""
    not_selected = {
        action.run.id for action in plan.actions if action.reason == NOT_SELECTED
    }
    return [row for row in rows if row["run"] not in not_selected]


def _run_here(opened: ResolvedGrid, plan: Plan, jobs: Sequence[local.LocalJob]) -> None:
    site, name = opened.site, opened.grid.name
    helpers = [job.item for job in jobs if not job.item.startswith("runs/")]

    def show_progress(progress: show.Progress) -> None:
        """Draws how far the selected runs are, where it is time."""
        if progress.due():
            note, rows = _look(opened, helpers)
            progress.show(note, _leave_out_others(rows, plan))

    with _hear_interrupts():
        delivery = start_delivery(site.workspace, name)
        try:
            with show.Progress() as progress:
                tick = partial(show_progress, progress)
                local.run_all(site.workspace, site.profile, jobs, tick)
        finally:
            delivery.terminate()
            patience_s = DELIVERY_S[site.profile.tracking.uri is None]
            _await_delivery(delivery, name, patience_s)


@contextlib.contextmanager
def _hear_interrupts() -> Generator[None]:
    """While it lasts, Ctrl-C is heard: a script's background jobs begin by ignoring it.
    Only a program's first thread can be told of it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)


def start_delivery(workspace: Workspace, name: str) -> subprocess.Popen[bytes]:
    """Starts what brings a grid's journals to MLflow until it is told to end, by SIGTERM.

    The signal is blocked until its handler is there: MLflow takes seconds to import, and
    jobs may be done before.
    """
    argv = [
        "jobs.tracking.mlflow_sync",
        str(workspace.root),
        name,
        "--follow",
        str(os.getpid()),
    ]
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        with (workspace.grid(name) / "delivery.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


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
    """The commands that come next: to follow runs, or to compare them."""
    report = _name_command("report", opened)
    if command == "status":
        return f"next: {_name_command(command, opened)} --watch; figures: {report}"
    return f"figures: {report}; in MLflow: {_name_command(command, opened)}"


def _name_command(command: str, opened: ResolvedGrid) -> str:
    """A command on the grid, with the workspace unless it is the one that zsg looks in
    anyway."""
    root = opened.site.workspace.root
    option = f" --workspace {shlex.quote(_shown(root))}"
    if root == workspaces.find_workspace(workspaces.choose_folder(None)).root:
        option = ""
    return f"{_command()} {command} {opened.grid.name}{option}"


def _command() -> str:
    """How the user calls zsg: by its path where it is not on theirs."""
    if caller := os.environ.get(CALLED):
        return caller  # what a detached submit was started by
    called = Path(sys.argv[0])
    if called.suffix == ".py":
        return "zsg" if shutil.which("zsg") else "python -m launcher.cli"
    return "zsg" if shutil.which("zsg") == sys.argv[0] else sys.argv[0]


def _shown(path: Path) -> str:
    current = paths.get_current_folder()
    return str(path.relative_to(current)) if path.is_relative_to(current) else str(path)
