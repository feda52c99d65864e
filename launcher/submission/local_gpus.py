"""Parts the GPUs of this machine among the jobs that run on it, so that each job
computes on GPUs of its own.

<tmp>/zsg-<uid>/gpus/<name>        locked by the job that has the GPU to itself; shared
                                   by those that share it
<tmp>/zsg-<uid>/gpus/<name>.<n>    locked by the nth of those that share it

A job holds its locks through descriptors that it inherits. So the jobs of other
submits of this user stay away from its GPUs, and a GPU is free again however its job
has ended.
"""

import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.contract.job_file import AnyJob, CanaryJob, EvaluateJob, SampleJob, ScoreJob
from jobs.files import locks, ownership
from jobs.runtime.slurm_calls import run_program
from launcher.clusters.profiles import Profile
from zsg_core.digest import content_id

logger = logging.getLogger(__name__)

VARIABLE = "CUDA_VISIBLE_DEVICES"
LOOK_S = 30.0  # how long a driver may take to list its GPUs


@dataclass(frozen=True)
class LocalGpu:
    """A GPU as CUDA_VISIBLE_DEVICES names it, and by its UUID where that is known."""

    name: str
    uuid: str


def list_gpus(
    environment: Mapping[str, str], run: Callable[..., Any] = run_program
) -> list[LocalGpu]:
    """The GPUs that jobs may use: those that CUDA_VISIBLE_DEVICES names, else all of
    the machine. None where nothing tells of any."""
    uuids = _query_uuids(run)
    names = environment.get(VARIABLE)
    if names is None:
        return [LocalGpu(uuid, uuid) for uuid in uuids.values()]
    return [LocalGpu(name, _find_uuid(name, uuids)) for name in _read_visible(names)]


def _query_uuids(run: Callable[..., Any]) -> dict[str, str]:
    """What the driver says of the machine's GPUs: the UUID of each by its number."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    try:
        completed = run(
            [program, "--query-gpu=index,uuid", "--format=csv,noheader"],
            env=os.environ,
            timeout=LOOK_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.warning(
            f"note: {program} does not list the GPUs ({error}): jobs run as on a machine without"
            " any; name them by CUDA_VISIBLE_DEVICES, or end this, and look at the driver"
        )
        return {}
    rows = [line.partition(",") for line in completed.stdout.splitlines()]
    return {
        index.strip(): uuid.strip()
        for index, _, uuid in rows
        if uuid.strip().startswith("GPU-")
    }


def _find_uuid(name: str, uuids: Mapping[str, str]) -> str:
    """The UUID that a name stands for: a number, or the beginning of one."""
    if name in uuids:
        return uuids[name]
    for uuid in uuids.values():
        if uuid.startswith(name):
            return uuid
    return name


def _read_visible(names: str) -> list[str]:
    """What CUDA reads: a list that ends at the first entry that is no GPU."""
    visible: list[str] = []
    for name in names.split(","):
        if not name.strip() or name.strip().startswith("-"):
            break
        visible.append(name.strip())
    return visible


def count_gpus(profile: Profile, job: AnyJob | None) -> int:
    """How many GPUs a job computes on, where there are any."""
    if job is None or isinstance(job, CanaryJob):
        return 0
    if isinstance(job, SampleJob) and all(each.server for each in job.samples):
        return 0
    if isinstance(job, EvaluateJob | SampleJob | ScoreJob):
        return profile.evaluate.gpus
    return 1


@dataclass(frozen=True)
class GpuShare:
    """The GPUs of one job, and the locks that it is to inherit."""

    names: tuple[str, ...] = ()
    locks: tuple[int, ...] = ()

    @property
    def variables(self) -> dict[str, str]:
        """What shows the job its GPUs and no others."""
        if not self.names:
            return {}
        return {VARIABLE: ",".join(self.names)}

    def close(self) -> None:
        """Closes the locks here: the job holds them, or nobody does."""
        for lock in self.locks:
            os.close(lock)


class GpuPool:
    """The GPUs of this machine, each for `jobs_per_gpu` jobs at a time."""

    def __init__(
        self,
        gpus: Sequence[LocalGpu],
        jobs_per_gpu: int = 1,
        folder: Path | None = None,
    ) -> None:
        """`folder`: of the locks, for the user alone."""
        self.gpus = tuple(gpus)
        self._jobs_per_gpu = jobs_per_gpu
        self._is_told = False
        common = Path(tempfile.gettempdir()) / f"zsg-{os.getuid()}" / "gpus"
        if gpus:
            self._folder = ownership.find_private_cache(folder or common)

    @property
    def jobs(self) -> int | None:
        """The most jobs of one GPU each at a time; None where there are no GPUs."""
        return len(self.gpus) * self._jobs_per_gpu or None

    def take(self, count: int) -> GpuShare | None:
        """So many GPUs for a job, or all there are; None while they are not free."""
        count = min(count, len(self.gpus))
        names: list[str] = []
        descriptors: list[int] = []
        for gpu in self.gpus:
            if len(names) == count:
                break
            if gpu_locks := self._lock(gpu):
                names.append(gpu.name)
                descriptors += gpu_locks
        share = GpuShare(tuple(names), tuple(descriptors))
        if len(names) == count:
            return share
        share.close()
        return None

    def tell_taken(self) -> None:
        """Says once that all GPUs are held by jobs that this process has not started."""
        if not self._is_told:
            self._is_told = True
            logger.info(
                "waiting for GPUs: jobs of other submits of yours have those of this machine"
            )

    def _lock(self, gpu: LocalGpu) -> list[int]:
        """The locks of a GPU, or of a place on it; none where it is taken."""
        path = self._folder / content_id(gpu.uuid)
        if self._jobs_per_gpu == 1:
            return _open_locked(path, locks.try_lock)
        shared = _open_locked(path, locks.try_shared_lock)
        for number in range(self._jobs_per_gpu if shared else 0):
            if seat := _open_locked(path.with_suffix(f".{number}"), locks.try_lock):
                return [*shared, *seat]
        for lock in shared:
            os.close(lock)
        return []


def _open_locked(path: Path, try_lock: Callable[[int, Path], bool]) -> list[int]:
    """The descriptor of a locked file; none where somebody else has it locked."""
    lock = ownership.open_lock(path)
    if try_lock(lock, path):
        return [lock]
    os.close(lock)
    return []
