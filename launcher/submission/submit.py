"""Carries a plan out: intent on disk, held jobs to Slurm, ids on disk, then release.
Killed anywhere, it resumes.

What a killed submit left behind is settled first by the next one: jobs that Slurm has
under the intent's name are adopted, intents that never reached it are given up. So
there is one job per run, whatever died when.
"""

import fcntl
import logging
import math
import shutil
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from typing import Any

from jobs.contract import exit_record, grid_record, job_file
from jobs.contract.attempt import now_ms
from jobs.contract.folder import Workspace, is_committed
from jobs.contract.grid_record import GridRecord, ListedRun
from jobs.contract.job_file import SubmittedCode
from jobs.contract.ledger_rows import Retried
from jobs.contract.states import Outcome, State
from jobs.files import ownership
from launcher.clusters import profiles, slurm, slurm_retry
from launcher.clusters.profiles import JobSize
from launcher.evaluation import evaluation_plan
from launcher.grids import grid_claims
from launcher.grids.grid import Grid
from launcher.grids.runs import Run
from launcher.lifecycle import failed_nodes, retry
from launcher.planning import limits
from launcher.planning.plan import (
    EVALUATE,
    RETRY,
    Action,
    Allow,
    Canary,
    Evaluation,
    Plan,
    Prepare,
    TrainGroup,
    Unwanted,
    choose_actions,
    evaluation_later,
    evaluation_of,
    make_plan,
    run_item,
)
from launcher.planning.site import Site
from launcher.status.status import collect_states
from launcher.submission import canary, job_files, local, sbatch
from launcher.workspace import code_snapshot, recorded_grids
from launcher.workspace.job_state import JobState
from launcher.workspace.ledger import Ledger, Submission
from zsg_core.errors import ClusterError
from zsg_core.suites import list_key_variables

logger = logging.getLogger(__name__)

# files are written side by side: each waits for a disk, or for the server that has it
WRITERS = 16


def plan_runs(
    site: Site,
    grid: Grid,
    runs: Sequence[Run],
    ledger: Ledger,
    allow: Allow,
    space: limits.SubmitQuota | None = None,
    need: Callable[[Run], float] = lambda run: 0.0,
) -> Plan:
    """What a submit would do now, with no more jobs than there is room for.

    `need`: the memory that a run takes; of many on Slurm the one that takes most goes first.
    """
    former = recorded_grids.find_former(
        site.workspace, grid.name, {run.id for run in runs}
    )
    before = {run_item(one) for run in runs for one in run.all_before}
    items = {*map(run_item, runs), *before, *(f"runs/{row.run}" for row in former)}
    states = collect_states(site.workspace, items, ledger)
    is_made = cache(lambda need: is_committed(site.workspace.root / need))
    makers = _makers(site.workspace, ledger, site.profile.kind, before)

    def remake(actions: list[Action]) -> Plan:
        made = make_plan(actions, is_made, makers)
        if site.profile.kind == "local" or not allow.canary:
            return made
        return canary.with_first(
            made, need, [a.run for a in actions if _has_shown(states[run_item(a.run)])]
        )

    decided = choose_actions(
        runs, states, allow, lambda need: is_made(need) or need in makers
    )
    made = remake(_with_evaluations(site, ledger, decided, states, allow))
    made = limits.cut_to_quota(made, space, site.profile.slurm.chain_length, remake)
    unwanted = [
        Unwanted(row.run, row.axes, states[f"runs/{row.run}"]) for row in former
    ]
    failed = {
        run_item(a.run): states[run_item(a.run)]
        for a in made.actions
        if a.kind == RETRY
    }
    nodes = (
        failed_nodes.find_failed_nodes(site.workspace, ledger, failed)
        if site.profile.kind == "slurm"
        else {}
    )
    failures = retry.make_retry_rows(site.workspace, failed, nodes)
    exclude = (
        failed_nodes.to_avoid(ledger, failures)
        if failed and site.profile.kind == "slurm"
        else {}
    )
    stuck = {
        item: state.slurm
        for item in items
        if (state := states[item]).reason == slurm.LAUNCH_FAILED
    }
    held = [
        job
        for item, job_id in stuck.items()
        for job in ledger.jobs_of(item)
        if job.id == job_id
    ]
    is_local = site.profile.kind == "local"
    made = replace(
        made,
        unwanted=unwanted,
        failures=failures,
        exclude=exclude,
        held=held,
        is_local=is_local,
    )
    return (
        made
        if is_local
        else replace(made, elsewhere=_elsewhere(site, ledger, made, states))
    )


def _elsewhere(
    site: Site, ledger: Ledger, made: Plan, states: Mapping[str, JobState]
) -> list[str]:
    """What new jobs would have to wait for and cannot: no job waits for one on another cluster."""
    new = {
        *(prepare.item for prepare in made.prepares),
        *(run_item(run) for group in made.groups for run in group.runs),
    }
    awaited = {
        item for one in (*made.prepares, *made.groups) for item in one.after
    } - new
    later = [run_item(action.run) for action in made.actions if action.kind == EVALUATE]
    awaited |= {item for item in later if states[item].is_active}
    found, last = [], ledger.by_item()
    for item in sorted(awaited & last.keys()):
        where = last[item].cluster
        if where and site.cluster.name and where != site.cluster.name:
            found.append(
                f"{item} is under way on cluster {where}, and a job on cluster {site.cluster.name}"
                f" cannot wait for it: submit to {where} (SLURM_CLUSTERS, slurm.sbatch.clusters),"
                " or submit again when it has ended"
            )
    return found


def _with_evaluations(
    site: Site,
    ledger: Ledger,
    actions: list[Action],
    states: Mapping[str, JobState],
    allow: Allow,
) -> list[Action]:
    """The actions, with runs evaluated that lack metrics of answers; reads the folders
    of runs that want any."""
    found = {
        a.run.id: evaluation_plan.read_evaluation_state(site.workspace, a.run)
        for a in actions
        if a.run.checkpoints.scored
    }
    if not found:
        return actions
    items = [item for item, last in ledger.by_item().items() if last.kind == "evaluate"]
    found_states = collect_states(site.workspace, items, ledger)
    active = [
        item
        for item, state in found_states.items()
        if state.is_active and not state.stopped
    ]
    return evaluation_plan.add_evaluations(
        actions,
        states,
        allow,
        found,
        evaluation_plan.keys_under_evaluation(site.workspace, active),
    )


def _has_shown(state: JobState) -> bool:
    """Whether a run has trained to a finite loss."""
    has_stepped = state.state == State.DONE or (
        state.state == State.RUNNING and bool(state.step)
    )
    return has_stepped and state.loss is not None and math.isfinite(float(state.loss))


def refuse_without_slurm() -> None:
    """Raises ClusterError where Slurm's commands are not at hand."""
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise ClusterError(
            "sbatch and srun are not on the PATH; submit from a login node of the cluster"
        )


def record_grid(
    site: Site, grid: Grid, runs: Sequence[Run], asked: Mapping[str, Any]
) -> None:
    """Keeps which runs the grid wants, for status, sync and whoever asks later.

    `asked`: the file and the profile by which `zsg retry` opens it again.
    """
    listed = {run.id for run in runs}
    stages_before = {
        stage.id: len(stage.recipe["stages"])
        for run in runs
        for stage in run.all_before
        if stage.id not in listed
    }
    corpora = [stage.corpus_id for run in runs for stage in [*run.all_before, run]]
    earlier = grid_record.read_grid_record(site.workspace, grid.name)
    claims = grid_claims.date_claims(
        grid.claims,
        (earlier.claims if earlier else None) or [],
        now_ms(),
        lambda: sum(_is_done(site, run) for run in runs),
    )
    record = GridRecord(
        name=grid.name,
        **asked,
        profile=site.profile.name,
        tracking=site.profile.tracking.uri,
        overrides=list(grid.overrides),
        submitted=now_ms(),
        code=SubmittedCode(**code_snapshot.take_snapshot(site.workspace)),
        corpora=list(dict.fromkeys(corpora)),
        before=[
            ListedRun(run=run, axes={"stages": f"the first {count}"})
            for run, count in stages_before.items()
        ],
        claims=claims,
        runs=[_make_listed_run(run) for run in runs],
    )
    recorded_grids.write_grid(site.workspace, grid.path, record)


def _make_listed_run(run: Run) -> ListedRun:
    """What a grid's record says of a run."""
    return ListedRun(
        run=run.id,
        axes=run.axes,
        recipe=run.recipe,
        model=_model(run),
        strategy=run.strategy,
    )


def _is_done(site: Site, run: Run) -> bool:
    record = exit_record.read_if_sound(site.workspace.run(run.id))
    return record is not None and record.outcome == Outcome.DONE


def settle_submissions(site: Site, ledger: Ledger) -> None:
    """Finishes or gives up what an earlier submit left unfinished on Slurm; local jobs
    need no settling."""
    for submission in ledger.unfinished():
        if submission.scheduler == "local":
            continue
        if site.profile.kind == "local":
            logger.info(
                f"{submission.name} was cut short; a submit with its Slurm profile settles it"
            )
            continue
        logger.info(
            f"an earlier submit was cut short; looking for {submission.name}{_on(submission)}"
        )
        if not submission.ids:
            ids = sbatch.adopt_jobs(site.workspace, submission, submission.name)
            if not ids:
                ledger.void(submission, "never reached Slurm")
                continue
            ledger.submitted(submission, ids)
        while len(submission.links) < submission.chain:
            ids = sbatch.adopt_jobs(
                site.workspace,
                submission,
                submission.link_name(len(submission.links) + 1),
            )
            if not ids:
                break  # a chain of fewer links does with fewer
            ledger.linked(submission, ids)
        for strange in slurm.release_jobs(submission.jobs):
            logger.warning(f"{strange}; it was not touched")
        ledger.released(submission)


def _on(submission: Submission) -> str:
    return f" on cluster {submission.cluster}" if submission.named else ""


def end_replaced(plan: Plan, ledger: Ledger) -> None:
    """Ends what earlier submissions of the plan's jobs may still have in the queue, or
    a run would have two jobs.

    Nobody knows what became of an `unknown` run; where Slurm has its job after all, the
    new one takes its place.
    """
    items = [prepare.item for prepare in plan.prepares]
    items += [run_item(run) for group in plan.groups for run in group.runs]
    jobs = [job for item in items for job in ledger.jobs_of(item)]
    if not jobs:
        return
    queue = slurm_retry.retry_while_unreachable(lambda: slurm.query_queue(jobs))
    left = [job for job, state in queue.active.items() if not state.is_leaving]
    if left:
        ids = ", ".join(slurm.compact_ids(job.id for job in left))
        logger.info(
            f"Slurm still has {ids} of earlier submissions of these jobs: cancelled, as new ones"
            " take their place"
        )
        slurm_retry.retry_while_unreachable(lambda: slurm.cancel_jobs(left))
    for job, why in queue.away.items():
        logger.warning(
            f"job {job.id} of an earlier submission is {why}; it was not cancelled"
        )


def submit_slurm(site: Site, grid: Grid, plan: Plan, ledger: Ledger, most: int) -> None:
    """Submits prepare jobs, then train jobs that wait for them, in arrays of at most
    `most`, then releases all.

    If one is refused, those accepted before it are released all the same: they are
    wanted and complete.
    """
    end_replaced(plan, ledger)
    made = list[Submission]()
    try:
        for alike in _alike(plan.prepares):
            for prepares in _parts(alike, most):
                made.append(_submit_prepares(site, grid, plan, prepares, ledger))
        for group in plan.groups:
            for runs in _parts(group.runs, most):
                trained = _submit_runs(
                    site, grid, plan, replace(group, runs=runs), ledger
                )
                made.append(trained)
                for one in _submit_evaluators(
                    site, grid, evaluation_of(runs), trained, ledger
                ):
                    # one by one: what is in Slurm is released even if the next is refused
                    made.append(one)
                if plan.canary and runs == [plan.canary.run]:
                    made.append(
                        _submit_canary(site, grid, plan.canary, trained, ledger)
                    )
        later = [action.run for action in plan.actions if action.kind == EVALUATE]
        for one in (
            _submit_later(site, grid, evaluation_later(later), ledger) if later else ()
        ):
            made.append(one)
    finally:
        if made:
            jobs = [job for submission in made for job in submission.jobs]
            for strange in slurm_retry.retry_while_unreachable(
                lambda: slurm.release_jobs(jobs)
            ):
                logger.warning(f"{strange}; it was not touched")
            for submission in made:
                ledger.released(submission)


def release_held_jobs(plan: Plan) -> None:
    """Lets jobs start that Slurm has put back and holds, since a node could not launch
    them: it never would itself."""
    if plan.held:
        for strange in slurm_retry.retry_while_unreachable(
            lambda: slurm.release_jobs(plan.held, whole_arrays=False)
        ):
            logger.warning(f"{strange}; it was not touched")
        logger.info(
            f"Slurm held {', '.join(job.id for job in plan.held)} after a failed launch: released"
        )


def _alike(prepares: Iterable[Prepare]) -> list[list[Prepare]]:
    """Prepare jobs that are one array: of one kind, and waiting for the same jobs,
    which come before them."""
    groups: dict[tuple[bool, frozenset[str]], list[Prepare]] = {}
    for prepare in prepares:
        groups.setdefault((not prepare.samples, frozenset(prepare.after)), []).append(
            prepare
        )
    return [
        groups[key] for key in sorted(groups, key=lambda key: (key[0], sorted(key[1])))
    ]


def _submit_prepares(
    site: Site,
    grid: Grid,
    plan: Plan,
    prepares: Sequence[Prepare],
    ledger: Ledger,
) -> Submission:
    first, items, known = (
        prepares[0],
        [prepare.item for prepare in prepares],
        ledger.by_item(),
    )
    kind, size = (
        ("sample", site.profile.evaluate)
        if first.samples
        else ("prepare", site.profile.prepare)
    )
    submission = ledger.intend(
        kind=kind,
        grid=grid.name,
        items=items,
        exclude=list(plan.exclude),
        **site.scheduling,
    )
    for prepare in prepares:
        job_files.write_prepare(site.workspace, prepare, site.profile, submission.id)
    after = sbatch.build_dependency(
        [ids[-1] for item in sorted(first.after) if (ids := known[item].job_ids(item))]
    )
    return sbatch.send_submission(
        site.workspace, site.profile, submission, size, after, ledger
    )


def _submit_runs(
    site: Site, grid: Grid, plan: Plan, group: TrainGroup, ledger: Ledger
) -> Submission:
    items = [run_item(run) for run in group.runs]
    known = ledger.by_item()
    # the last link
    after = [
        ids[-1]
        for item in group.after
        if item in known and (ids := known[item].job_ids(item))
    ]
    first = after[-1] if plan.canary and plan.canary.item in group.after else None
    submission = ledger.intend(
        kind="train",
        grid=grid.name,
        items=items,
        chain=site.profile.slurm.chain_length,
        retries=_of(items, plan.failures),
        exclude=list(plan.exclude),
        **site.scheduling,
    )
    starts, profile = plan.starts, site.profile

    def write(run: Run) -> None:
        job_files.write_train(
            site.workspace,
            run,
            profile,
            submission.id,
            plan.needed[run.id],
            run.id in starts,
        )

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write, group.runs))
    dependency = sbatch.build_dependency(after, group.whatever_they_made, first)
    return sbatch.send_submission(
        site.workspace, site.profile, submission, group.size, dependency, ledger
    )


def _submit_canary(
    site: Site,
    grid: Grid,
    first: Canary,
    submission: Submission,
    ledger: Ledger,
) -> Submission:
    """Submits the job that watches the first run, once that has begun; it takes one CPU."""
    size = JobSize(time_min=first.run.size.time_min)
    watch = ledger.intend(
        kind="canary", grid=grid.name, items=[first.item], **site.scheduling
    )
    job_files.write_canary(
        site.workspace, first, site.profile, watch.id, submission, size
    )
    after = f"after:{submission.ids[0]}"
    made = sbatch.send_submission(
        site.workspace, site.profile, watch, size, after, ledger
    )
    logger.info(
        f"run {first.run.id} goes first: {first.waiting} others wait for its first checkpoint"
        " (--no-canary: none does)"
    )
    return made


def _submit_evaluators(
    site: Site,
    grid: Grid,
    wanted: Evaluation,
    trained: Submission,
    ledger: Ledger,
) -> Iterator[Submission]:
    """Submits the evaluate jobs of an array of runs: some that start once runs of it
    have, one after all have ended."""
    if not wanted.runs:
        return
    for number in range(wanted.beside):
        # they begin as the array's tasks do
        first = trained.ids[number * len(trained.ids) // wanted.beside]
        yield _submit_evaluate(
            site, grid, wanted.runs, f"after:{first}", ledger, drains=False
        )
    ends = sbatch.build_dependency(
        [trained.job_ids(item)[-1] for item in trained.items], whatever_they_made=True
    )
    yield _submit_evaluate(site, grid, wanted.runs, ends, ledger, drains=True)


def _submit_later(
    site: Site, grid: Grid, wanted: Evaluation, ledger: Ledger
) -> Iterator[Submission]:
    """Submits the evaluate jobs of runs that were submitted before; where some still
    train, after their ends."""
    known = ledger.by_item()
    states = collect_states(
        site.workspace, [run_item(run) for run in wanted.runs], ledger
    )
    ids = [
        known[item].job_ids(item)[-1]
        for item, state in states.items()
        if state.is_active and item in known
    ]
    ends = sbatch.build_dependency(ids, whatever_they_made=True)
    for _ in range(wanted.after):
        yield _submit_evaluate(site, grid, wanted.runs, ends, ledger, drains=True)


def _submit_evaluate(
    site: Site,
    grid: Grid,
    runs: Sequence[Run],
    after: str | None,
    ledger: Ledger,
    drains: bool,
) -> Submission:
    item, profile = _evaluate_item(runs), site.profile
    intent = ledger.intend(
        kind="evaluate", grid=grid.name, items=[item], **site.scheduling
    )
    job_files.write_evaluate(site.workspace, item, runs, profile, intent.id, drains)
    profile = profiles.keep_variables(
        profile, list_key_variables(suite for run in runs for suite in run.suites)
    )
    return sbatch.send_submission(
        site.workspace, profile, intent, profile.evaluate, after, ledger
    )


def _evaluate_item(runs: Sequence[Run]) -> str:
    """A folder that no evaluate job had: several serve the same runs."""
    return f"evaluate/{runs[0].id}-{uuid.uuid4().hex[:4]}"


def _parts(things: Sequence[Any], most: int) -> Iterator[list[Any]]:
    for start in range(0, len(things), most):
        yield list(things[start : start + most])


def submit_local(
    site: Site, grid: Grid, plan: Plan, ledger: Ledger
) -> tuple[list[local.LocalJob], list[int]]:
    """Records the plan's jobs for this machine; returns them, and locks that say that
    this process runs them.

    The locks are descriptors; they must stay open for as long as the caller runs the jobs.
    """
    jobs: list[local.LocalJob] = []
    locks: list[int] = []
    if plan.prepares:
        submission = ledger.intend(
            scheduler="local",
            kind="prepare",
            grid=grid.name,
            items=[prepare.item for prepare in plan.prepares],
        )
        locks.append(_hold(site, submission))
        for prepare in plan.prepares:
            job_files.write_prepare(
                site.workspace, prepare, site.profile, submission.id
            )
            jobs.append(
                local.LocalJob(
                    prepare.item, frozenset(prepare.needs), tuple(sorted(prepare.after))
                )
            )
        ledger.submitted(submission, ["local"] * len(plan.prepares))
        ledger.released(submission)
    runs = {run_item(run): run for group in plan.groups for run in group.runs}
    if runs:
        retries = _of(runs, plan.failures)
        submission = ledger.intend(
            scheduler="local",
            kind="train",
            grid=grid.name,
            items=list(runs),
            retries=retries,
        )
        locks.append(_hold(site, submission))
        starts = plan.starts
        for item, run in runs.items():
            needed = plan.needed[run.id]
            job_files.write_train(
                site.workspace,
                run,
                site.profile,
                submission.id,
                needed,
                run.id in starts,
            )
            jobs.append(local.LocalJob(item, run.needs, needed))
        ledger.submitted(submission, ["local"] * len(runs))
        ledger.released(submission)
    scored = [run for one in plan.evaluations for run in one.runs]
    if scored:
        item = _evaluate_item(scored)
        submission = ledger.intend(
            scheduler="local", kind="evaluate", grid=grid.name, items=[item]
        )
        locks.append(_hold(site, submission))
        job_files.write_evaluate(
            site.workspace, item, scored, site.profile, submission.id, drains=True
        )
        jobs.append(local.LocalJob(item, after=tuple(runs), waits=True))
        ledger.submitted(submission, ["local"])
        ledger.released(submission)
    return jobs, locks


def _of(items: Iterable[str], failures: Mapping[str, Retried]) -> dict[str, Retried]:
    return {item: failures[item] for item in items if item in failures}


def _hold(site: Site, submission: Submission) -> int:
    folder = site.workspace.submission(submission.id)
    ownership.make_private_folder(folder)
    lock = ownership.open_lock(folder / "lock")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def _makers(
    workspace: Workspace, ledger: Ledger, scheduler: str, before: Collection[str]
) -> dict[str, str]:
    """What active prepare jobs, and the runs of `before`, are going to make, and in
    which folder."""
    of_kind = {
        item: last
        for item, last in ledger.by_item().items()
        if item.startswith("prepare/") or item in before
    }
    # A job on this machine cannot wait for one on Slurm, nor the other way round.
    items = [item for item, last in of_kind.items() if last.scheduler == scheduler]
    open_items = [item for item in items if not _all_made(workspace, item)]
    states = collect_states(workspace, open_items, ledger)
    active = [
        item
        for item in open_items
        if states[item].is_active and not states[item].stopped
    ]
    return {need: item for item in active for need in _makes(workspace, item)}


def _makes(workspace: Workspace, item: str) -> list[str]:
    job = job_file.read_job_if_sound(workspace.root / item)
    return job.makes if job else []


def _all_made(workspace: Workspace, item: str) -> bool:
    return all(is_committed(workspace.root / need) for need in _makes(workspace, item))


def _model(run: Run) -> str:
    return run.base.name if run.base else "tiny"
