"""Runs job folders on this machine, side by side up to a limit, each when what it needs
is there, and GPUs of its own where the machine has any.

A running job holds a lock on its folder through a descriptor that it inherits, so
whether it lives is known exactly, also after this process was killed.
"""

import logging
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jobs.contract import cancellation, exit_record, job_file
from jobs.contract.exit_record import replace_unset
from jobs.contract.folder import Workspace
from jobs.contract.job_file import AnyJob, EvaluateJob, SampleJob
from jobs.contract.states import Outcome
from jobs.files import locks, ownership
from jobs.runtime import code_guard
from launcher.clusters.profiles import Profile
from launcher.planning import model_proofs
from launcher.planning.site import Site
from launcher.status import logs
from launcher.status.status import collect_states
from launcher.submission import local_gpus
from launcher.submission.local_gpus import GpuPool, GpuShare
from launcher.workspace import code_snapshot
from launcher.workspace.ledger import Ledger

logger = logging.getLogger(__name__)

POLL_S = 0.3
STOP_S = 30  # as Slurm's KillWait: what a job may take to save its state


@dataclass
class LocalJob:
    """A job folder to run: after the jobs of `after` have ended, if all of `needs` are there.

    Where these are there already, it does not wait for ends, unless it `waits`.
    `well`: those of `after` that must have ended well. `max_length`: of the examples
    that it trains on.
    """

    item: str
    needs: frozenset[str] = frozenset()
    after: tuple[str, ...] = ()
    waits: bool = False
    well: tuple[str, ...] = ()
    max_length: int | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    ended: bool = False
    gpus: int | None = None  # None until its file was read

    @property
    def is_waiting(self) -> bool:
        """Whether it neither runs nor has ended."""
        return self.process is None and not self.ended


class Needs:
    """What jobs need, as far as it is there whole. Each thing is looked through once,
    and again for a job that begins: many jobs wait for the same, and are asked for a
    few times a second."""

    def __init__(self, workspace: Workspace, profile: Profile) -> None:
        self._site = Site(workspace, profile)
        # each with the length of examples for which it is asked
        self._whole = set[tuple[str, int | None]]()

    def are_there(self, job: LocalJob) -> bool:
        """Whether a job's needs are all there, or were when they were looked through."""
        return all(self._is_there(need, job.max_length) for need in job.needs)

    def have_ended_well(self, job: LocalJob) -> bool:
        """Whether the jobs that must have ended well did so, as their records say."""
        return all(map(self._has_ended_well, job.well))

    def _has_ended_well(self, item: str) -> bool:
        end = exit_record.read_if_sound(self._site.workspace.root / item)
        return end is not None and end.outcome == Outcome.DONE

    def are_still_there(self, job: LocalJob) -> bool:
        """Whether a job's needs are all there at this moment."""
        self._whole -= {(need, job.max_length) for need in job.needs}
        return self.are_there(job)

    def _is_there(self, need: str, max_length: int | None) -> bool:
        key = need, max_length
        if key in self._whole:
            return True
        if not model_proofs.lets_start(self._site, need, max_length):
            return False
        self._whole.add(key)
        return True


def run_all(
    workspace: Workspace,
    profile: Profile,
    jobs: Sequence[LocalJob],
    tick: Callable[[], None],
) -> None:
    """Runs every job to its end. `tick` is called a few times a second, for a display.

    A KeyboardInterrupt ends the jobs that run, lets them write how they ended, and is raised again.
    """
    pool, needs = make_pool(profile), Needs(workspace, profile)
    try:
        while not all(job.ended for job in jobs):
            for job in jobs:
                _reap(job)
            _give_up(workspace, jobs, needs)
            _start_ready(workspace, profile, jobs, pool, needs)
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
    workspace: Workspace,
    profile: Profile,
    jobs: Sequence[LocalJob],
    pool: GpuPool,
    needs: Needs | None = None,
) -> None:
    """Starts what can start now, in the order of the jobs, on GPUs that are free."""
    needs = needs or Needs(workspace, profile)
    # so many GPUs were refused a job: those after it get no more
    too_many = math.inf
    running = sum(job.process is not None for job in jobs)
    for job in jobs:
        _end_if_cancelled(workspace, job)
        if running >= profile.max_parallel:
            return
        if not job.is_waiting or not _is_ready(job, jobs, needs):
            continue
        gpus = _count_gpus(workspace, profile, job)
        share = pool.take(gpus) if gpus < too_many else None
        if share is None:
            too_many = min(gpus, too_many)
            continue
        _start_if_needs_stay(workspace, profile, job, share, needs)
        running += job.process is not None
    if running == 0 and too_many < math.inf:
        pool.tell_taken()


def _end_if_cancelled(workspace: Workspace, job: LocalJob) -> None:
    """Has a job never start that was cancelled while it waited."""
    if job.is_waiting and cancellation.is_asked(workspace.root / job.item):
        job.ended = True


def _start_if_needs_stay(
    workspace: Workspace,
    profile: Profile,
    job: LocalJob,
    share: GpuShare,
    needs: Needs,
) -> None:
    """Starts a job on its share of the GPUs; gives the share back where something that
    the job needs is gone since it was looked through."""
    if needs.are_still_there(job):
        _start(workspace.root / job.item, profile, job, share)
    else:
        share.close()


def _is_ready(job: LocalJob, jobs: Sequence[LocalJob], needs: Needs) -> bool:
    if job.waits:
        awaited = (before for before in jobs if before.item in job.after)
        if not all(before.ended for before in awaited):
            return False
    return needs.are_there(job) and needs.have_ended_well(job)


def _count_gpus(workspace: Workspace, profile: Profile, job: LocalJob) -> int:
    """How many GPUs a job computes on; its file is read once."""
    if job.gpus is None:
        record = job_file.read_job(workspace.root / job.item)
        job.gpus = local_gpus.count_gpus(profile, record)
    return job.gpus


def _give_up(workspace: Workspace, jobs: Sequence[LocalJob], needs: Needs) -> None:
    """A job will never start whose prepare jobs have all ended without making what it
    needs, or behind one that should have ended well and did not."""
    # as it was at the beginning: a job that gives up here ends others the next time
    has_ended = {job.item: job.ended for job in jobs}

    def is_over(item: str) -> bool:
        if item in has_ended:
            return has_ended[item]
        return _has_ended(workspace, item)

    for job in jobs:
        # also where nobody is to make what has gone or was refused since the plan
        if job.is_waiting and all(map(is_over, job.after)):
            can_start = needs.are_there(job) and needs.have_ended_well(job)
            job.ended = not can_start


def _has_ended(workspace: Workspace, item: str) -> bool:
    state = collect_states(workspace, [item], Ledger(workspace))[item]
    return not state.is_active or state.stopped


def _start(folder: Path, profile: Profile, job: LocalJob, share: GpuShare) -> None:
    """Starts a job on its share of the GPUs, unless somebody has its folder."""
    lock = ownership.open_lock(folder / "lock")
    # if not: somebody looks, or the job of an earlier submit still lives: next time
    if locks.try_lock(lock, folder / "lock"):
        record = job_file.read_job(folder)
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
    and the keys of judges and other servers; what the profile sets; where its code
    lies."""
    variables: list[str] = []
    if isinstance(job, EvaluateJob | SampleJob):
        variables = replace_unset(job.key_variables) or []
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
