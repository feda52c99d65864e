"""Carries a plan out: intent on disk, held jobs to Slurm, ids on disk, then release. Killed anywhere, it resumes.

What a killed submit left behind is settled first by the next one: jobs that Slurm has under the intent's name
are adopted, intents that never reached it are given up. So there is one job per run, whatever died when.
"""

import fcntl
import os
import shutil
import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jobs.attempt import now_ms
from jobs.folder import Workspace, is_committed, read_json
from launcher import arrays, code_snapshot, failed_nodes, grid_record, job_files, local, retry, slurm
from launcher.grid import Grid
from launcher.ledger import Ledger, Submission
from launcher.plan import RETRY, Allow, Plan, TrainGroup, Unwanted, decide, make, run_item
from launcher.profiles import JobSize, Profile
from launcher.runs import Run
from launcher.status import collect
from zsg_core.errors import ClusterError

SETTLE_S = 30.0  # how long an sbatch started on another machine may still be on its way

Say = Callable[[str], None]


@dataclass(frozen=True)
class Site:
    """Where things happen: a workspace on a cluster."""

    workspace: Workspace
    profile: Profile


def plan(site: Site, grid: Grid, runs: Sequence[Run], ledger: Ledger, allow: Allow) -> Plan:
    """What a submit would do now."""
    former = grid_record.former(site.workspace, grid.name, {run.id for run in runs})
    before = {run_item(one) for run in runs for one in run.all_before}
    items = {*map(run_item, runs), *before, *(f"runs/{row['run']}" for row in former)}
    states = collect(site.workspace, items, ledger)
    is_made = lambda need: is_committed(site.workspace.root / need)  # noqa: E731
    makers = _makers(site.workspace, ledger, site.profile.kind, before)
    made = make(decide(runs, states, allow, lambda need: is_made(need) or need in makers), is_made, makers)
    unwanted = [Unwanted(row["run"], row["axes"], states[f"runs/{row['run']}"]) for row in former]
    failed = {run_item(a.run): states[run_item(a.run)] for a in made.actions if a.kind == RETRY}
    nodes = failed_nodes.of(site.workspace, ledger, failed) if site.profile.kind == "slurm" else {}
    failures = retry.rows(site.workspace, failed, nodes)
    exclude = failed_nodes.to_avoid(ledger, failures) if failed and site.profile.kind == "slurm" else {}
    return replace(made, unwanted=unwanted, failures=failures, exclude=exclude)


def refuse_without_slurm() -> None:
    """Raises ClusterError where Slurm's commands are not at hand."""
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise ClusterError("sbatch and srun are not on the PATH; submit from a login node of the cluster")


def record_grid(site: Site, grid: Grid, runs: Sequence[Run], asked: Mapping[str, Any]) -> None:
    """Keeps which runs the grid wants, for status, sync and whoever asks later.

    `asked`: the file and the profile by which `zsg retry` opens it again.
    """
    facts: dict[str, Any] = dict(asked)
    facts |= {"profile": site.profile.name, "tracking": site.profile.tracking.uri, "overrides": grid.overrides}
    facts |= {"submitted": now_ms(), "code": code_snapshot.take(site.workspace)}
    listed = {run.id for run in runs}
    before = {one.id: len(one.recipe["stages"]) for run in runs for one in run.all_before if one.id not in listed}
    facts["before"] = [{"run": run, "axes": {"stages": f"the first {count}"}} for run, count in before.items()]
    rows = [{"run": run.id, "axes": run.axes, "recipe": run.recipe, "model": _model(run)} for run in runs]
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
            ids = _adopt(site, submission, submission.name)
            if not ids:
                ledger.void(submission, "never reached Slurm")
                continue
            ledger.submitted(submission, ids)
        while len(submission.links) < submission.chain:
            ids = _adopt(site, submission, submission.link_name(len(submission.links) + 1))
            if not ids:
                break  # a chain of fewer links does with fewer
            ledger.linked(submission, ids)
        slurm.release(submission.all_ids)
        ledger.released(submission)


def submit_slurm(site: Site, grid: Grid, plan: Plan, ledger: Ledger, say: Say) -> None:
    """Submits prepare jobs, then train arrays that wait for them, then releases all.

    If one is refused, those accepted before it are released all the same: they are wanted and complete.
    """
    made: list[Submission] = []
    try:
        for prepare in plan.prepares:
            submission = ledger.intend(
                scheduler="slurm", kind="prepare", grid=grid.name, items=[prepare.item], exclude=list(plan.exclude)
            )
            job_files.write_prepare(site.workspace, prepare, site.profile, submission.id)
            made.append(_send(site, submission, site.profile.prepare, [], ledger, say))
        for group in plan.groups:
            made += _submit_group(site, grid, group, plan, ledger, say)
    finally:
        for submission in made:
            slurm.release(submission.all_ids)
            ledger.released(submission)


def _submit_group(
    site: Site, grid: Grid, group: TrainGroup, plan: Plan, ledger: Ledger, say: Say
) -> Iterator[Submission]:
    after = [job_id for item in group.after if (job_id := _job_id(ledger, item))]
    for start in range(0, len(group.runs), site.profile.slurm.max_array_size):
        runs = group.runs[start : start + site.profile.slurm.max_array_size]
        items = [run_item(run) for run in runs]
        chain = site.profile.slurm.links
        submission = ledger.intend(
            scheduler="slurm", kind="train", grid=grid.name, items=items, chain=chain,
            retries=_of(items, plan.failures), exclude=list(plan.exclude),
        )  # fmt: skip
        for run in runs:
            job_files.write_train(site.workspace, run, site.profile, submission.id, group.after, run.id in plan.starts)
        yield _send(site, submission, group.size, after, ledger, say)


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
    runs = {run_item(run): (run, group.after) for group in plan.groups for run in group.runs}
    if runs:
        retries = _of(runs, plan.failures)
        submission = ledger.intend(scheduler="local", kind="train", grid=grid.name, items=list(runs), retries=retries)
        locks.append(_hold(site, submission))
        for item, (run, after) in runs.items():
            job_files.write_train(site.workspace, run, site.profile, submission.id, after, run.id in plan.starts)
            jobs.append(local.LocalJob(item, run.needs, after))
        ledger.submitted(submission, ["local"] * len(runs))
        ledger.released(submission)
    return jobs, locks


def _of(items: Iterable[str], failures: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {item: failures[item] for item in items if item in failures}


def _hold(site: Site, submission: Submission) -> int:
    folder = _submission_folder(site, submission)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def _send(
    site: Site, submission: Submission, size: JobSize, after: Sequence[str], ledger: Ledger, say: Say
) -> Submission:
    wanted = arrays.parameters(site.profile, size, submission.name, after, submission.kind == "train")
    wanted |= {"exclude": ",".join(submission.exclude)} if submission.exclude else {}
    setup = wanted["setup"] + code_snapshot.script_lines(code_snapshot.take(site.workspace))
    wanted["setup"] = setup + arrays.job_lines(submission.id, submission.chain)
    try:
        ids = _sbatch(site, submission, submission.name, wanted)
    except ClusterError:
        ledger.void(submission, "sbatch failed")
        raise
    ledger.submitted(submission, ids)
    say(f"submitted {len(ids)} {submission.kind} job{'s' * (len(ids) > 1)} as {ids[0].partition('_')[0]}")
    for number in range(1, submission.chain + 1):
        name = submission.link_name(number)
        lines = arrays.job_lines(submission.id, submission.chain - number)
        wanted = arrays.behind(wanted, ids) | {"job_name": name, "setup": setup + lines}
        try:
            ids = _sbatch(site, submission, name, wanted)
        except ClusterError as error:
            say(f"the chain has {number - 1} of {submission.chain} links: {error}")
            break
        ledger.linked(submission, ids)
    return submission


def _sbatch(site: Site, submission: Submission, name: str, wanted: dict[str, Any]) -> list[str]:
    """Submits one array of a submission's jobs under a name. ClusterError if Slurm did not take it."""
    folders = [site.workspace.root / item for item in submission.items]
    folder = _submission_folder(site, submission)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        return arrays.submit(folder, folders, wanted)
    except ClusterError:
        # "Socket timed out" may well have submitted: look before saying so.
        if ids := _adopt(site, submission, name):
            return ids
        raise


def _adopt(site: Site, submission: Submission, name: str) -> list[str]:
    """The ids that Slurm has under a name of a submission, made ready to start; none if it has none."""
    ids = _find(submission, name)
    if ids:
        folders = [site.workspace.root / item for item in submission.items]
        arrays.adopt(_submission_folder(site, submission), name, folders, ids)
    return ids


def _find(submission: Submission, name: str) -> list[str]:
    """The ids that Slurm has under a name, once no sbatch of the submission can be on its way any more."""
    here = submission.host == socket.gethostname()
    until = submission.created / 1000 + SETTLE_S
    while _sbatch_lives(submission) if here else time.time() < until:
        time.sleep(0.2)
    return slurm.find(name)


def _sbatch_lives(submission: Submission) -> bool:
    """Whether an sbatch that outlived its zsg is still at work: its argument lies in the submission's folder."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            # A site's sbatch may be a script: its interpreter comes first.
            if any(w.endswith(b"sbatch") for w in words[:3]) and any(
                f"/submissions/{submission.id}/".encode() in w for w in words
            ):
                return True
    return False


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


def _job_id(ledger: Ledger, item: str) -> str | None:
    """The job for which what needs a folder's work has to wait: the last link of its chain."""
    submission = ledger.last(item)
    ids = submission.job_ids(item) if submission else []
    return ids[-1] if ids else None


def _submission_folder(site: Site, submission: Submission) -> Path:
    return site.workspace.submission(submission.id)


def _model(run: Run) -> str:
    return run.base.name if run.base else "tiny"
