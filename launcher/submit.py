"""Carries a plan out: intent on disk, held jobs to Slurm, ids on disk, then release. Killed anywhere, it resumes.

What a killed submit left behind is settled first by the next one: jobs that Slurm has under the intent's name
are adopted, intents that never reached it are given up. So there is one job per run, whatever died when.
"""

import fcntl
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from jobs.attempt import now_ms
from jobs.folder import Workspace, is_committed, read_json
from launcher import arrays, grid_record, handover, job_files, limits, local, slurm
from launcher.grid import Grid
from launcher.handover import Say
from launcher.ledger import Ledger, Submission
from launcher.plan import Allow, Plan, TrainGroup, Unwanted, decide, make, run_item
from launcher.profiles import Profile
from launcher.runs import Run
from launcher.status import collect
from zsg_core.errors import ClusterError

WRITERS = 16  # files are written side by side: each waits for a disk, or for the server that has it


@dataclass(frozen=True)
class Site:
    """Where things happen: a workspace on a cluster."""

    workspace: Workspace
    profile: Profile


def plan(
    site: Site, grid: Grid, runs: Sequence[Run], ledger: Ledger, allow: Allow, space: limits.Room | None = None
) -> Plan:
    """What a submit would do now, with no more jobs than there is room for."""
    former = grid_record.former(site.workspace, grid.name, {run.id for run in runs})
    before = {run_item(one) for run in runs for one in run.all_before}
    items = {*map(run_item, runs), *before, *(f"runs/{row['run']}" for row in former)}
    states = collect(site.workspace, items, ledger)
    is_made = cache(lambda need: is_committed(site.workspace.root / need))
    makers = _makers(site.workspace, ledger, site.profile.kind, before)
    remake = lambda actions: make(actions, is_made, makers)  # noqa: E731
    made = remake(decide(runs, states, allow, lambda need: is_made(need) or need in makers))
    made = limits.within(made, space, remake)
    unwanted = [Unwanted(row["run"], row["axes"], states[f"runs/{row['run']}"]) for row in former]
    return replace(made, unwanted=unwanted)


def refuse_without_slurm() -> None:
    """Raises ClusterError where Slurm's commands are not at hand."""
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise ClusterError("sbatch and srun are not on the PATH; submit from a login node of the cluster")


def record_grid(site: Site, grid: Grid, runs: Sequence[Run]) -> None:
    """Keeps which runs the grid wants, for status, sync and whoever asks later."""
    facts = {"profile": site.profile.name, "tracking": site.profile.tracking.uri, "overrides": grid.overrides}
    facts |= {"submitted": now_ms(), "code": job_files.code()}
    listed = {run.id for run in runs}
    before = {one.id: len(one.recipe["stages"]) for run in runs for one in run.all_before if one.id not in listed}
    facts["before"] = [{"run": run, "axes": {"stages": f"the first {count}"}} for run, count in before.items()]
    rows = [
        {"run": run.id, "axes": run.axes, "recipe": run.recipe, "model": _model(run), "strategy": run.strategy}
        for run in runs
    ]
    grid_record.write(site.workspace, grid.name, grid.path, facts, rows)


def settle(site: Site, ledger: Ledger, say: Say) -> None:
    """Finishes or gives up what an earlier submit left unfinished on Slurm; local jobs need no settling."""
    for submission in ledger.unfinished():
        if submission.scheduler == "local":
            continue
        if site.profile.kind == "local":
            say(f"{submission.name} was cut short; a submit with its Slurm profile settles it")
            continue
        say(f"an earlier submit was cut short; looking for {submission.name}")
        if not submission.ids:
            ids = handover.find(submission)
            if not ids:
                ledger.void(submission, "never reached Slurm")
                continue
            folders = [site.workspace.root / item for item in submission.items]
            arrays.adopt(site.workspace.submission(submission.id), submission, folders, ids)
            ledger.submitted(submission, ids)
        slurm.release(submission.ids)
        ledger.released(submission)


def submit_slurm(site: Site, grid: Grid, plan: Plan, ledger: Ledger, most: int, say: Say) -> None:
    """Submits prepare jobs, then train jobs that wait for them, in arrays of at most `most`, then releases all.

    If one is refused, those accepted before it are released all the same: they are wanted and complete.
    """
    made, sacct = list[Submission](), site.profile.slurm.sacct
    try:
        for prepares in _parts(plan.prepares, most):
            items = [prepare.item for prepare in prepares]
            submission = ledger.intend(scheduler="slurm", kind="prepare", grid=grid.name, items=items, sacct=sacct)
            for prepare in prepares:
                job_files.write_prepare(site.workspace, prepare, site.profile, submission.id)
            size = site.profile.prepare
            made.append(handover.send(site.workspace, site.profile, submission, size, None, ledger, say))
        for group in plan.groups:
            for runs in _parts(group.runs, most):
                made.append(_submit_runs(site, grid, plan, replace(group, runs=runs), ledger, say))
    finally:
        if made:
            ids = [job_id for submission in made for job_id in submission.ids]
            handover.patiently(lambda: slurm.release(ids), say)
            for submission in made:
                ledger.released(submission)


def _submit_runs(site: Site, grid: Grid, plan: Plan, group: TrainGroup, ledger: Ledger, say: Say) -> Submission:
    items = [run_item(run) for run in group.runs]
    known = ledger.by_item()
    after = [job_id for item in group.after if item in known and (job_id := known[item].job_id(item))]
    sacct = site.profile.slurm.sacct
    submission = ledger.intend(scheduler="slurm", kind="train", grid=grid.name, items=items, sacct=sacct)
    starts, profile = plan.starts, site.profile

    def write(run: Run) -> None:
        job_files.write_train(site.workspace, run, profile, submission.id, plan.needed[run.id], run.id in starts)

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write, group.runs))
    dependency = handover.dependency(after, group.whatever_they_made)
    return handover.send(site.workspace, site.profile, submission, group.size, dependency, ledger, say)


def _parts(things: Sequence[Any], most: int) -> Iterator[list[Any]]:
    for start in range(0, len(things), most):
        yield list(things[start : start + most])


def submit_local(site: Site, grid: Grid, plan: Plan, ledger: Ledger) -> tuple[list[local.LocalJob], list[int]]:
    """Records the plan's jobs for this machine; returns them, and locks that say that this process runs them.

    The locks are descriptors; they must stay open for as long as the caller runs the jobs.
    """
    jobs: list[local.LocalJob] = []
    locks: list[int] = []
    if plan.prepares:
        submission = ledger.intend(
            scheduler="local", kind="prepare", grid=grid.name, items=[prepare.item for prepare in plan.prepares]
        )
        locks.append(_hold(site, submission))
        for prepare in plan.prepares:
            job_files.write_prepare(site.workspace, prepare, site.profile, submission.id)
            jobs.append(local.LocalJob(prepare.item))
        ledger.submitted(submission, ["local"] * len(plan.prepares))
        ledger.released(submission)
    runs = {run_item(run): run for group in plan.groups for run in group.runs}
    if runs:
        submission = ledger.intend(scheduler="local", kind="train", grid=grid.name, items=list(runs))
        locks.append(_hold(site, submission))
        starts = plan.starts
        for item, run in runs.items():
            needed = plan.needed[run.id]
            job_files.write_train(site.workspace, run, site.profile, submission.id, needed, run.id in starts)
            jobs.append(local.LocalJob(item, run.needs, needed))
        ledger.submitted(submission, ["local"] * len(runs))
        ledger.released(submission)
    return jobs, locks


def _hold(site: Site, submission: Submission) -> int:
    folder = site.workspace.submission(submission.id)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def _makers(workspace: Workspace, ledger: Ledger, scheduler: str, before: Collection[str]) -> dict[str, str]:
    """What active prepare jobs, and the runs of `before`, are going to make, and in which folder."""
    of_kind = {item: last for item, last in ledger.by_item().items() if item.startswith("prepare/") or item in before}
    # A job on this machine cannot wait for one on Slurm, nor the other way round.
    items = [item for item, last in of_kind.items() if last.scheduler == scheduler]
    open_items = [item for item in items if not _all_made(workspace, item)]
    states = collect(workspace, open_items, ledger)
    active = [item for item in open_items if states[item].is_active and not states[item].stopped]
    return {need: item for item in active for need in _makes(workspace, item)}


def _makes(workspace: Workspace, item: str) -> list[str]:
    return (read_json(workspace.root / item / "job.json") or {}).get("makes", [])


def _all_made(workspace: Workspace, item: str) -> bool:
    return all(is_committed(workspace.root / need) for need in _makes(workspace, item))


def _model(run: Run) -> str:
    return run.base.name if run.base else "tiny"
