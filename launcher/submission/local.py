"""Runs job folders on this machine, side by side up to a limit, each when what it needs
is there, and GPUs of its own where the machine has any.

A running job holds a lock on its folder through a descriptor that it inherits, so
whether it lives is known exactly, also after this process was killed.
"""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jobs.contract import cancellation, job_file
from jobs.contract.folder import Workspace, is_whole
from jobs.contract.job_file import AnyJob, EvaluateJob
from jobs.files import locks, ownership
from jobs.runtime import code_guard
from launcher.clusters.profiles import Profile
from launcher.status import logs
from launcher.status.status import collect_states
from launcher.submission import local_gpus
from launcher.submission.local_gpus import GpuPool
from launcher.workspace import code_snapshot
from launcher.workspace.ledger import Ledger

logger = logging.getLogger(__name__)

POLL_S = 0.3
STOP_S = 30  # as Slurm's KillWait: what a job may take to save its state


@dataclass
class LocalJob:
    """A job folder to run: after the jobs of `after` have ended, if all of `needs` are there.

    Where these are there already, it does not wait for ends, unless it `waits`.
    """

    item: str
    needs: frozenset[str] = frozenset()
    after: tuple[str, ...] = ()
    waits: bool = False
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    ended: bool = False

    @property
    def is_waiting(self) -> bool:
        """Whether it neither runs nor has ended."""
        return self.process is None and not self.ended


def run_all(
    workspace: Workspace,
    profile: Profile,
    jobs: Sequence[LocalJob],
    tick: Callable[[], None],
) -> None:
    """Runs every job to its end. `tick` is called a few times a second, for a display.

    A KeyboardInterrupt ends the jobs that run, lets them write how they ended, and is raised again.
    """
    pool = make_pool(profile)
    try:
        while not all(job.ended for job in jobs):
            for job in jobs:
                _reap(job)
            _give_up(workspace, jobs)
            _start_ready(workspace, profile, jobs, pool)
            tick()
            time.sleep(POLL_S)
        tick()
    except KeyboardInterrupt:
        _stop(jobs)
        raise


def make_pool(profile: Profile) -> GpuPool:
    """The GPUs of this machine that the profile's jobs part; says so where they are
    fewer than the jobs that could run side by side."""
    variables = {**os.environ, **profile.environment.set}
    pool = GpuPool(local_gpus.list_gpus(variables), profile.jobs_per_gpu)
    if pool.jobs and pool.jobs < profile.max_parallel:
        count = len(pool.gpus)
        logger.info(
            f"this machine has {count} GPU{'s' * (count > 1)} for jobs, so {pool.jobs} of"
            f" max_parallel {profile.max_parallel} run side by side; jobs_per_gpu in the profile"
            " has several share one"
        )
    return pool


def _start_ready(
    workspace: Workspace, profile: Profile, jobs: Sequence[LocalJob], pool: GpuPool
) -> None:
    for job in jobs:
        if job.is_waiting and cancellation.is_asked(workspace.root / job.item):
            job.ended = True
        running = sum(started.process is not None for started in jobs)
        if running >= profile.max_parallel:
            return
        if job.is_waiting and _is_ready(workspace, job, jobs):
            _start(workspace.root / job.item, profile, job, pool)


def _is_ready(workspace: Workspace, job: LocalJob, jobs: Sequence[LocalJob]) -> bool:
    if job.waits:
        awaited = (before for before in jobs if before.item in job.after)
        if not all(before.ended for before in awaited):
            return False
    return _has_needs(workspace, job)


def _has_needs(workspace: Workspace, job: LocalJob) -> bool:
    return all(is_whole(workspace.root / need) for need in job.needs)


def _give_up(workspace: Workspace, jobs: Sequence[LocalJob]) -> None:
    """A job whose prepare jobs have all ended without making what it needs will never start."""
    # as it was at the beginning: a job that gives up here ends others the next time
    has_ended = {job.item: job.ended for job in jobs}

    def is_over(item: str) -> bool:
        if item in has_ended:
            return has_ended[item]
        return _has_ended(workspace, item)

    for job in jobs:
        if job.is_waiting and job.after and all(map(is_over, job.after)):
            job.ended = not _has_needs(workspace, job)


def _has_ended(workspace: Workspace, item: str) -> bool:
    state = collect_states(workspace, [item], Ledger(workspace))[item]
    return not state.is_active or state.stopped


def _start(folder: Path, profile: Profile, job: LocalJob, pool: GpuPool) -> None:
    lock = ownership.open_lock(folder / "lock")
    if not locks.try_lock(lock, folder / "lock"):
        # somebody looks, or the job of an earlier submit still lives: next time
        os.close(lock)
        return
    record = job_file.read_job(folder)
    share = pool.take(local_gpus.count_gpus(profile, record))
    if share is not None:
        env = _environment(profile, job.item, record) | share.variables
        if code := env.get(code_guard.VARIABLE):
            code_snapshot.refuse_strange(Workspace(folder.parent.parent), Path(code))
        with logs.local_log(folder).open("ab") as log:
            job.process = subprocess.Popen(
                [sys.executable, "-u", "-m", "jobs.entry", str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env,
                pass_fds=[lock, *share.locks],
                start_new_session=True,
            )
        share.close()
    os.close(lock)


def _environment(profile: Profile, item: str, job: AnyJob | None) -> dict[str, str]:
    """What a job sees: of the shell what the profile keeps, which GPUs the user shows,
    and the keys of judges; what the profile sets; where its code lies."""
    variables = job.key_variables if isinstance(job, EvaluateJob) else []
    names = [
        *profile.environment.keep,
        local_gpus.VARIABLE,
        *variables,
    ]
    environment = {key: os.environ[key] for key in names if key in os.environ}
    sizes = {"prepare": profile.prepare, "evaluate": profile.evaluate}
    environment |= profile.environment.make_variables(
        sizes.get(item.partition("/")[0], profile.train)
    )
    return environment | code_snapshot.make_environment(
        job.code.facts if job else {}, environment.get("PYTHONPATH", "")
    )


def _reap(job: LocalJob) -> None:
    if job.process is not None and job.process.poll() is not None:
        job.process, job.ended = None, True


def _stop(jobs: Sequence[LocalJob]) -> None:
    running = [job.process for job in jobs if job.process is not None]
    for process in running:
        process.terminate()
    for process in running:
        try:
            process.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
