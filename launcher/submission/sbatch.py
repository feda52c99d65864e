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
from jobs.runtime.slurm_calls import SUBMIT_S, NoAnswer
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


class SubmitRejected(ClusterError):
    """Slurm was asked and has none of the jobs."""


@dataclass(frozen=True)
class JobsInSlurm:
    """The ids of the jobs that Slurm has, and the cluster, where sbatch has named one."""

    ids: list[str]
    cluster: str | None = None


@dataclass(frozen=True)
class SbatchSubmitter:
    """Submits jobs of a workspace by sbatch, and records in its ledger what Slurm has taken."""

    workspace: Workspace
    ledger: Ledger
    sleep: Callable[[float], None] = time.sleep

    def send_submission(
        self, profile: Profile, submission: Submission, size: JobSize, after: str | None
    ) -> Submission:
        """Submits the jobs, held, with the links of their chain behind them, and
        records their ids.

        Raises ClusterError where Slurm refuses the jobs, or stays away: then the intent
        is left for the next submit to settle. A chain of fewer links does with fewer.
        """
        code = code_snapshot.take_snapshot(self.workspace)
        guard = code_snapshot.version_lines() + code_snapshot.guard_lines(
            code, self.workspace.submission(submission.id)
        )
        parameters = _guarded(
            build_parameters(profile, submission, size, after, code), guard
        )
        try:
            sent = self._send_array(profile, submission, submission.name, parameters)
        except SubmitRejected:
            self.ledger.void(submission, "sbatch failed")
            raise
        self.ledger.submitted(submission, sent.ids, sent.cluster)
        self._tell_submitted(submission, sent.ids)
        ids = sent.ids
        for number in range(1, submission.chain + 1):
            dependency = continuation.chain_dependency(ids)
            parameters = _guarded(
                build_parameters(profile, submission, size, dependency, code, number),
                guard,
            )
            name = submission.link_name(number)
            parameters["job_name"] = name
            try:
                ids = self._send_array(profile, submission, name, parameters).ids
            except ClusterError as error:
                logger.warning(
                    f"the chain has {number - 1} of {submission.chain} links: {error}"
                )
                break
            self.ledger.linked(submission, ids)
        return submission

    def _tell_submitted(self, submission: Submission, ids: Sequence[str]) -> None:
        """Logs what Slurm has taken. All of `ids` are tasks of one array or a single
        job, so that the number before the first underscore names them all."""
        cluster = f" on cluster {submission.cluster}" if submission.named else ""
        logger.info(
            f"Slurm job {ids[0].partition('_')[0]}{cluster}: {len(ids):,}"
            f" {submission.kind} job{'s' * (len(ids) > 1)}"
        )

    def _send_array(
        self,
        profile: Profile,
        submission: Submission,
        name: str,
        parameters: dict[str, Any],
    ) -> JobsInSlurm:
        """Submits one array of a submission's jobs under a name; retried only where
        Slurm was away and has none of it.

        What counts is what Slurm has under that name: what sbatch prints may be
        another's words, and speak of other jobs.
        """
        folder = self.workspace.submission(submission.id)
        python = submitit_backend.make_python_command(profile)
        # in a group's workspace, too: its pickles are run
        ownership.make_private_folder(folder)
        cluster = submission.cluster if submission.named else None
        env = slurm_environment.make_job_environment(profile.environment.keep, cluster)

        def submit() -> SbatchAnswer | JobsInSlurm:
            try:
                return submitit_backend.submit_held(
                    folder, len(submission.items), parameters, python, env
                )
            except ClusterError as error:
                return self._adopt_after_error(submission, name, error)

        answer = make_retry_policy(self.sleep).call(
            submit, _may_be_sent_again, tell=self._tell_retry
        )
        if isinstance(answer, JobsInSlurm):
            return answer
        ids = self._confirm_jobs(submission, name, answer)
        items = [self.workspace.root / item for item in submission.items]
        submitit_backend.complete_submission(
            folder, name, items, ids, parameters.get("time", 5), answer.script
        )
        return JobsInSlurm(ids, answer.cluster)

    def _adopt_after_error(
        self, submission: Submission, name: str, error: ClusterError
    ) -> JobsInSlurm:
        """The jobs that Slurm has though sbatch failed: "Socket timed out" may well
        have submitted. SubmitRejected where it has none.

        An sbatch that did not end in time may have asked just now: Slurm is given time.
        """
        pauses = CONFIRM_S if isinstance(error, NoAnswer) else ()
        ids = self._look_again(
            lambda: adopt_jobs(self.workspace, submission, name), pauses
        )
        if not ids:
            raise SubmitRejected(str(error)) from error
        return JobsInSlurm(ids)

    def _tell_retry(self, error: Exception, wait_s: float) -> None:
        logger.warning(
            f"sbatch said: {get_last_line(error)}; Slurm has nothing of it,"
            f" retrying in {wait_s:g} s"
        )

    def _ask_slurm(self, ask: Callable[[], list[str]]) -> list[str]:
        return retry_while_unreachable(ask, self.sleep)

    def _confirm_jobs(
        self, submission: Submission, name: str, answer: SbatchAnswer
    ) -> list[str]:
        """The ids of the jobs that sbatch has taken, as Slurm has them under our name
        and for our user.

        Raises ClusterError if it has none, though sbatch did not fail: the intent
        stays, for the next submit to settle.
        """
        cluster = answer.cluster or (submission.cluster if submission.named else None)
        ids = self._look_for_jobs(name, submission.sacct, cluster)
        if not ids:
            raise ClusterError(_explain_missing_jobs(name, answer, cluster))
        if answer.id and answer.id not in {id.partition("_")[0] for id in ids}:
            logger.warning(
                f"sbatch names job {answer.id}, but the jobs {name} are"
                f" {ids[0].partition('_')[0]}: these are taken"
            )
        return ids

    def _look_for_jobs(self, name: str, sacct: bool, cluster: str | None) -> list[str]:
        """The ids under a name, looked for more than once if there are none at first."""
        return self._look_again(
            lambda: slurm.find_job_ids(name, sacct=sacct, cluster=cluster), CONFIRM_S
        )

    def _look_again(
        self, look: Callable[[], list[str]], pauses: Sequence[float]
    ) -> list[str]:
        """What a look at Slurm finds; after each pause another, until one finds something."""
        ids = self._ask_slurm(look)
        for pause_s in pauses:
            if ids:
                break
            self.sleep(pause_s)
            ids = self._ask_slurm(look)
        return ids


def _may_be_sent_again(error: Exception) -> bool:
    """Whether Slurm has nothing of the jobs, and only since it was away."""
    return isinstance(error, SubmitRejected) and is_unreachable(error)


def _explain_missing_jobs(name: str, answer: SbatchAnswer, cluster: str | None) -> str:
    on_cluster = f" on cluster {cluster}" if cluster else ""
    number = f"names job {answer.id}" if answer.id else "names no job for certain"
    return (
        f"sbatch did not fail and {number}, but Slurm has no job {name} of yours{on_cluster}:"
        " nothing was taken for it. Look at squeue --me; does a wrapper of sbatch, or a plugin of"
        " the site, rename jobs? Then zsg submit again"
    )


def build_parameters(
    profile: Profile,
    submission: Submission,
    size: JobSize,
    after: str | None,
    code: Mapping[str, Any],
    link: int = 0,
) -> dict[str, Any]:
    """All that submitit is told of a submission's jobs, or of a link of their chain. Pure."""
    parameters = submitit_backend.make_parameters(
        profile, size, submission.name, after, submission.kind
    )
    if submission.exclude:
        options = parameters["additional_parameters"]
        excluded = [options.pop("exclude", ""), *submission.exclude]
        parameters["exclude"] = ",".join(filter(None, excluded))
    lines = code_snapshot.script_lines(code) + continuation.script_exports(
        submission.id, submission.chain - link
    )
    return parameters | {"setup": parameters["setup"] + lines}


def _guarded(parameters: dict[str, Any], guard: Sequence[str]) -> dict[str, Any]:
    """The parameters, by which the script looks last of all whether what it is to run
    is the user's own."""
    return parameters | {"setup": [*parameters["setup"], *guard]}


def adopt_jobs(workspace: Workspace, submission: Submission, name: str) -> list[str]:
    """The ids that Slurm has under a name of a submission, made ready to start; none if
    it has none, or only what was sent twice and cancelled since.

    ClusterError where it has too many in its queue.
    """
    ids = find_jobs(submission, name)
    if len(ids) > len(submission.items) and not _are_queued(submission, name):
        # they were held until their ids were known: none of them has begun
        return []
    if ids:
        folders = [workspace.root / item for item in submission.items]
        submitit_backend.complete_submission(
            workspace.submission(submission.id), name, folders, ids
        )
    return ids


def find_jobs(submission: Submission, name: str) -> list[str]:
    """The ids that Slurm has under a name of a submission, once no sbatch of it can be
    on its way any more."""
    _await_sbatch(submission)
    return slurm.find_job_ids(
        name,
        sacct=submission.sacct,
        cluster=submission.cluster if submission.named else None,
    )


def _are_queued(submission: Submission, name: str) -> bool:
    """Whether Slurm's queue has any jobs of a name; accounting tells of those that were
    cancelled for days."""
    cluster = submission.cluster if submission.named else None
    return bool(slurm.find_job_ids(name, sacct=False, cluster=cluster))


def _await_sbatch(submission: Submission) -> None:
    """Returns once no sbatch of a submission can be on its way any more. ClusterError
    where one does not end."""
    if submission.host != socket.gethostname():
        until = submission.created / 1000 + SETTLE_S
        while time.time() < until:
            time.sleep(0.2)
        return
    deadline = time.monotonic() + SUBMIT_S
    while _sbatch_lives(submission):
        if time.monotonic() > deadline:
            raise ClusterError(
                f"an sbatch of {submission.name} is still at work after {SUBMIT_S:g} s (see ps"
                " -u $USER): end it, then zsg submit again"
            )
        time.sleep(0.2)


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
