"""The steps of `zsg doctor --on-node`: open the profile, send the job, wait for it, put
together what was found and keep it."""

import contextlib
import importlib.metadata
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.contract import folder as folders
from jobs.contract import job_file, node_check
from jobs.contract.attempt import now_ms
from jobs.contract.job_file import NodeCheckJob
from jobs.contract.node_check import NodeCheckReport
from jobs.files import paths
from launcher.clusters import profile_files, profile_mfu, profiles
from launcher.clusters.profile_files import Layers
from launcher.clusters.profiles import JobSize
from launcher.doctor import node_report, node_report_text, node_request
from launcher.planning import admission
from launcher.planning.site import Site
from launcher.submission import node_check as sending
from launcher.submission.node_check import Check, Waiter
from launcher.workspace import code_snapshot, workspaces, yaml_file
from launcher.workspace.job_state import JobState
from zsg_core.errors import ClusterError, UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """What is asked for. `nodes`: None for those of a train job of the profile;
    `minutes`: the job's time limit; `wait_min`: how long it may wait to start."""

    profile: str
    workspace: Path | None
    nodes: int | None
    minutes: int
    wait_min: float
    writes_mfu: bool


@dataclass(frozen=True)
class Checked:
    """A check that has ended, and the files that hold what it found."""

    report: NodeCheckReport
    text: str
    folder: Path
    layers: Layers

    @property
    def files(self) -> Sequence[Path]:
        """For people, and for programs."""
        return self.folder / node_check.TEXT, self.folder / node_check.REPORT


def check_nodes(wanted: Wanted) -> Checked:
    """Sends the check, or takes up one that was sent, and returns once it has ended.

    KeyboardInterrupt ends its job; ClusterError where it is not waited for any longer.
    """
    layers = profile_files.read_layers(wanted.profile, Path())
    profile = profiles.make_profile(layers)
    if wanted.writes_mfu:
        profile_mfu.refuse_without_gpu(profile)
        profile_mfu.refuse_shipped(layers)
    workspace = workspaces.find_to_read(wanted.workspace, profile.workspace)
    code_snapshot.refuse_colon(workspace)
    site = Site(workspace, profile)
    size = sending.choose_size(site, wanted.nodes, wanted.minutes)
    site = Site(workspace, profile, admission.cluster_of(profile, must_answer=True))
    workspaces.create_workspace(workspace, share=profile.share == "group")
    check = send_check(site, size)
    state = _await_end(check, 60.0 * wanted.wait_min)
    report = _put_together(check, state)
    text = node_report_text.format_report(report)
    folders.write_text(check.folder / node_check.TEXT, text)
    node_check.write_report(check.folder, report)
    return Checked(report, text, check.folder, layers)


def send_check(site: Site, size: JobSize) -> Check:
    """The check, once its job is in the queue; what an interrupt finds there is ended."""
    since = now_ms()
    request = node_request.make_request(site.profile, size)
    try:
        return sending.send_check(site, size, request)
    except KeyboardInterrupt:
        _end_interrupted(site, since)
        raise


def _end_interrupted(site: Site, since: int) -> None:
    """Ends what was sent since a moment, in ms since the epoch: nobody waits for it."""
    try:
        for check in sending.end_interrupted(site, since):
            _cancel(check)
    except (ClusterError, UserError) as error:
        logger.error(
            f"what was being sent could not be looked for: {error}. The next zsg submit, or the"
            " same command, ends it"
        )


def write_mfu(checked: Checked) -> None:
    """Writes what was measured into the profile's file, and tells what stood there.
    UserError where that cannot be; ClusterError where nothing was measured."""
    mfu = checked.report.mfu
    if mfu is None:
        raise ClusterError(
            "gpu.mfu was not measured, so the profile stays as it is; the report says why"
        )
    change = profile_mfu.plan_mfu(checked.layers, mfu)
    path = yaml_file.format_path(change.path)
    old = f"{change.old} there" if change.old else "not written there"
    if change.old == change.new:
        logger.info(f"{path}: {change.key} is {change.new} already")
        return
    logger.info(f"{path}: {change.key} is {old}, {change.new} was measured")
    change.write()
    logger.info(f"{path}: {change.key} is {change.new} now; all else is as it was")


def _await_end(check: Check, wait_s: float) -> JobState:
    """The state in which the job has ended; an interrupt ends it."""
    try:
        if check.job_id is None:
            logger.info("the check runs on this machine; Ctrl-C ends it")
            return sending.run_here(check)
        logger.info(
            f"job {check.job_id} is waited for, {wait_s / 60:g} min at most until it starts;"
            " Ctrl-C cancels it"
        )
        return Waiter(check, wait_s).wait()
    except KeyboardInterrupt:
        _cancel(check)
        raise


def _cancel(check: Check) -> None:
    """Ends the job of a check that nobody waits for any more, and says so."""
    name = f"job {check.job_id}" if check.job_id else "the check"
    try:
        troubles = sending.cancel_check(check)
    except (ClusterError, UserError) as error:
        troubles = [str(error)]
    if troubles:
        logger.error(f"{name} could not be cancelled: {'; '.join(troubles)}")
    else:
        logger.warning(f"{name} was cancelled")


def _put_together(check: Check, state: JobState) -> NodeCheckReport:
    """What the ranks have written and what became of the job, as one report."""
    job = job_file.read_job(check.folder)
    if not isinstance(job, NodeCheckJob):
        raise ClusterError(
            f"{job_file.job_path(check.folder)} is not what zsg wrote there; look at the disk"
        )
    records, troubles = node_report.read_records(check.folder, job.request.world)
    return node_report.make_report(
        node_report.CheckedJob(
            id=check.id,
            zsg=importlib.metadata.version("zsg"),
            profile=check.site.profile.name,
            kind=check.site.profile.kind,
            job=check.job_id,
            created=job.created,
            request=job.request,
            state=state,
            records=records,
            troubles=troubles,
            private=_list_private_paths(check),
        )
    )


def _list_private_paths(check: Check) -> dict[str, str]:
    """The user's own folders, the longest first, and what a report says in their place."""
    root = check.site.workspace.root
    words = {str(root): "WORKSPACE", str(root.resolve()): "WORKSPACE"}
    with contextlib.suppress(UserError, OSError):  # nobody need have a home
        home = paths.expand_home(Path("~"))
        words |= {str(home): "~", str(home.resolve()): "~"}
    useful = [path for path in words if path.count("/") > 1]
    return {path: words[path] for path in sorted(useful, key=len, reverse=True)}
