"""Submits one submission to Slurm by sbatch and finds it again, whatever sbatch said
and whoever was killed meanwhile."""

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.contract import continuation
from jobs.contract.folder import Workspace
from jobs.files import ownership
from jobs.runtime import slurm_environment
from launcher.clusters import slurm, submitit_backend
from launcher.clusters.profiles import JobSize, Profile
from launcher.clusters.slurm_retry import (
    get_last_line,
    is_unreachable,
    make_retry_policy,
    retry_while_unreachable,
)
from launcher.clusters.submitit_backend import SbatchAnswer
from launcher.workspace import code_snapshot
from launcher.workspace.ledger import Ledger, Submission
from zsg_core.errors import ClusterError

logger = logging.getLogger(__name__)

SETTLE_S = 30.0  # how long an sbatch started on another machine may still be on its way
# between looks for what sbatch has taken: a site's squeue may answer from a moment ago
CONFIRM_S = (1.0, 3.0)


def build_dependency(
    ids: Sequence[str], whatever_they_made: bool = False, well: str | None = None
) -> str | None:
    """What sbatch is to wait for: that all ended well, or only that all of their arrays
    ended, and `well` did well."""
    if not ids:
        return None
    if whatever_they_made:
        arrays_of = dict.fromkeys(
            job_id.partition("_")[0] for job_id in ids if job_id != well
        )
        return f"afterany:{':'.join(arrays_of)}" + (f",afterok:{well}" if well else "")
    return f"afterok:{':'.join(ids)}"


def send_submission(
    workspace: Workspace,
    profile: Profile,
    submission: Submission,
    size: JobSize,
    after: str | None,
    ledger: Ledger,
    sleep: Callable[[float], None] = time.sleep,
) -> Submission:
    """Submits the jobs, held, with the links of their chain behind them, and records their ids.

    Raises ClusterError where Slurm refuses the jobs, or stays away: then the intent is
    left for the next submit to settle. A chain of fewer links does with fewer.
    """
    code = code_snapshot.take_snapshot(workspace)
    guard = code_snapshot.guard_lines(code, workspace.submission(submission.id))
    wanted = _guarded(build_parameters(profile, submission, size, after, code), guard)
    try:
        taken = _sbatch(workspace, profile, submission, submission.name, wanted, sleep)
    except SubmitRejected:
        ledger.void(submission, "sbatch failed")
        raise
    ids = taken.ids
    ledger.submitted(submission, ids, taken.cluster)
    where = f" on cluster {submission.cluster}" if submission.named else ""
    logger.info(
        f"submitted {len(ids)} {submission.kind} job{'s' * (len(ids) > 1)} as"
        f" {ids[0].partition('_')[0]}{where}"
    )
    for number in range(1, submission.chain + 1):
        name, behind = submission.link_name(number), continuation.chain_dependency(ids)
        wanted = _guarded(
            build_parameters(profile, submission, size, behind, code, number), guard
        ) | {"job_name": name}
        try:
            ids = _sbatch(workspace, profile, submission, name, wanted, sleep).ids
        except ClusterError as error:
            logger.warning(
                f"the chain has {number - 1} of {submission.chain} links: {error}"
            )
            break
        ledger.linked(submission, ids)
    return submission


def build_parameters(
    profile: Profile,
    submission: Submission,
    size: JobSize,
    after: str | None,
    code: Mapping[str, Any],
    link: int = 0,
) -> dict[str, Any]:
    """All that submitit is told of a submission's jobs, or of a link of their chain. Pure."""
    wanted = submitit_backend.make_parameters(
        profile, size, submission.name, after, submission.kind
    )
    wanted |= {"exclude": ",".join(submission.exclude)} if submission.exclude else {}
    lines = code_snapshot.script_lines(code) + continuation.script_exports(
        submission.id, submission.chain - link
    )
    return wanted | {"setup": wanted["setup"] + lines}


def _guarded(wanted: dict[str, Any], guard: Sequence[str]) -> dict[str, Any]:
    """The parameters, by which the script looks last of all whether what it is to run
    is the user's own."""
    return wanted | {"setup": [*wanted["setup"], *guard]}


class SubmitRejected(ClusterError):
    """Slurm was asked and has none of the jobs."""


@dataclass(frozen=True)
class JobsInSlurm:
    """The ids of the jobs that Slurm has, and the cluster, where sbatch has named one."""

    ids: list[str]
    cluster: str | None = None


def _sbatch(
    workspace: Workspace,
    profile: Profile,
    submission: Submission,
    name: str,
    wanted: dict[str, Any],
    sleep: Callable[[float], None],
) -> JobsInSlurm:
    """Submits one array of a submission's jobs under a name; again only where Slurm was
    away and has none of it.

    What counts is what Slurm has under that name: what sbatch prints may be another's
    words, and speak of other jobs.
    """
    folder, python = (
        workspace.submission(submission.id),
        submitit_backend.make_python_command(profile),
    )
    # in a group's workspace, too: its pickles are run
    ownership.make_private_folder(folder)
    cluster = submission.cluster if submission.named else None
    env = slurm_environment.make_job_environment(profile.environment.keep, cluster)

    def submit() -> SbatchAnswer | JobsInSlurm:
        try:
            return submitit_backend.submit_held(
                folder, len(submission.items), wanted, python, env
            )
        except ClusterError as error:
            # "Socket timed out" may well have submitted: look before saying so.
            ids = retry_while_unreachable(
                lambda: adopt_jobs(workspace, submission, name), sleep
            )
            if ids:
                return JobsInSlurm(ids)
            raise SubmitRejected(str(error)) from error

    def tell(error: Exception, wait_s: float) -> None:
        logger.warning(
            f"sbatch said: {get_last_line(error)}; Slurm has nothing of it,"
            f" trying again in {wait_s:g} s"
        )

    answer = make_retry_policy(sleep).call(submit, _may_be_sent_again, tell=tell)
    if isinstance(answer, JobsInSlurm):
        return answer
    ids = _confirmed(submission, name, answer, sleep)
    items = [workspace.root / item for item in submission.items]
    submitit_backend.complete_submission(
        folder, name, items, ids, wanted.get("time", 5), answer.script
    )
    return JobsInSlurm(ids, answer.cluster)


def _may_be_sent_again(error: Exception) -> bool:
    """Whether Slurm has nothing of the jobs, and only since it was away."""
    return isinstance(error, SubmitRejected) and is_unreachable(error)


def _confirmed(
    submission: Submission,
    name: str,
    told: SbatchAnswer,
    sleep: Callable[[float], None],
) -> list[str]:
    """The ids of the jobs that sbatch has taken, as Slurm has them under our name and for our user.

    Raises ClusterError if it has none, though sbatch did not fail: the intent stays,
    for the next submit to settle.
    """
    cluster = told.cluster or (submission.cluster if submission.named else None)
    ids: list[str] = []
    for pause in (*CONFIRM_S, None):
        ids = retry_while_unreachable(
            lambda: slurm.find_job_ids(name, sacct=submission.sacct, cluster=cluster),
            sleep,
        )
        if ids or pause is None:
            break
        sleep(pause)
    where = f" on cluster {cluster}" if cluster else ""
    if not ids:
        said = f"names job {told.id}" if told.id else "names no job for certain"
        raise ClusterError(
            f"sbatch did not fail and {said}, but Slurm has no job {name} of yours{where}: nothing"
            " was taken for it. Look at squeue --me; does a wrapper of sbatch, or a plugin of the"
            " site, rename jobs? Then zsg submit again"
        )
    if told.id and told.id not in {job_id.partition("_")[0] for job_id in ids}:
        logger.warning(
            f"sbatch names job {told.id}, but the jobs {name} are {ids[0].partition('_')[0]}: these"
            " are taken"
        )
    return ids


def adopt_jobs(workspace: Workspace, submission: Submission, name: str) -> list[str]:
    """The ids that Slurm has under a name of a submission, made ready to start; none if
    it has none."""
    ids = find_jobs(submission, name)
    if ids:
        folders = [workspace.root / item for item in submission.items]
        submitit_backend.complete_submission(
            workspace.submission(submission.id), name, folders, ids
        )
    return ids


def find_jobs(submission: Submission, name: str) -> list[str]:
    """The ids that Slurm has under a name of a submission, once no sbatch of it can be
    on its way any more."""
    here = submission.host == socket.gethostname()
    until = submission.created / 1000 + SETTLE_S
    while _sbatch_lives(submission) if here else time.time() < until:
        time.sleep(0.2)
    return slurm.find_job_ids(
        name,
        sacct=submission.sacct,
        cluster=submission.cluster if submission.named else None,
    )


def _sbatch_lives(submission: Submission) -> bool:
    """Whether an sbatch that outlived its zsg is still at work: its argument lies in
    the submission's folder."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                if process.stat().st_uid != os.getuid():
                    continue  # anybody may give a process such words
                words = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            # A site's sbatch may be a script: its interpreter comes first.
            if any(w.endswith(b"sbatch") for w in words[:3]) and any(
                f"/submissions/{submission.id}/".encode() in w for w in words
            ):
                return True
    return False
