"""Hands job folders to Slurm through submitit, as held arrays; the only module that
knows submitit."""

import logging
import re
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import DelayedSubmission, JobPaths

from jobs import entry
from jobs.contract import node_check
from jobs.runtime.slurm_calls import SUBMIT_S, NoAnswer, Runner, run_program
from launcher.clusters import setup_script
from launcher.clusters.profiles import (
    LIKE_TRAIN,
    WITH_GPUS,
    JobSize,
    Profile,
    gpus_per_node,
    mem_gb,
)
from zsg_core.errors import ClusterError

logger = logging.getLogger(__name__)

# submitit always asks for a signal before the time limit. A check of nodes saves nothing,
# and would be ended by one; this one nobody minds.
UNHEEDED = "URG@1"


def make_parameters(
    profile: Profile, size: JobSize, name: str, dependency: str | None, kind: str
) -> dict[str, Any]:
    """submitit's parameters for a group of equal jobs; pure. `dependency` is as sbatch reads it.

    Held, because each job's pickle is put in place only after sbatch; `export`: all,
    since what sbatch is started with is what the profile hands on, and nothing else
    (`submit_held`); whole minutes and no wckey, since submitit trips over both.
    """
    slurm, memory_gb = profile.slurm, mem_gb(profile, kind)
    options: dict[str, Any] = {"hold": True, "export": "ALL", "requeue": True}
    if slurm.reservation:
        options["reservation"] = slurm.reservation
    if dependency:
        options["kill-on-invalid-dep"] = "yes"
    if kind == node_check.KIND:
        options["signal"] = UNHEEDED
    options |= _gpu_option(profile, size, kind)
    parameters = {
        "job_name": name,
        "time": size.time_min,
        "nodes": size.nodes,
        "ntasks_per_node": size.ranks_per_node,
        "cpus_per_task": size.cpus_per_rank,
        "mem": f"{memory_gb}GB" if memory_gb else None,
        "partition": slurm.partition,
        "account": slurm.account,
        "qos": slurm.qos,
        "constraint": slurm.constraint,
        "dependency": dependency,
        "array_parallelism": slurm.array_parallelism,
        "signal_delay_s": slurm.signal_before_end_s,
        "stderr_to_stdout": True,
        "wckey": "",
        "setup": setup_lines(profile, size),
        "srun_args": [
            "--export=ALL",
            f"--cpus-per-task={size.cpus_per_rank}",
            *slurm.srun_args,
        ],
        "additional_parameters": options | slurm.sbatch,
    }
    return {key: value for key, value in parameters.items() if value is not None}


def _gpu_option(profile: Profile, size: JobSize, kind: str) -> dict[str, str]:
    """How a job asks for its GPUs, as sbatch's option and its value: a train job for
    all, an evaluator for its own."""
    slurm = profile.slurm
    if slurm.gres:
        if kind not in WITH_GPUS:
            return {}
        few = _take_gpus(slurm.gres, profile.evaluate.gpus)
        return {"gres": slurm.gres if kind in LIKE_TRAIN else few}
    per_node = gpus_per_node(profile, kind)
    if not per_node:
        return {}
    per_task = 1 if kind in LIKE_TRAIN else per_node
    counts = {"gpus": per_node * size.nodes, "gpus-per-task": per_task}
    count = counts.get(slurm.gpus_by, per_node)
    prefix = "gpu:" if slurm.gpus_by == "gres" else ""
    gpu_type = f"{slurm.gpu_type}:" if slurm.gpu_type else ""
    return {slurm.gpus_by: f"{prefix}{gpu_type}{count}"}


def _take_gpus(gres: str, count: int) -> str:
    """`gpu:a800:8,nvme:1` as `gpu:a800:1,nvme:1`, for a count of 1."""
    return ",".join(
        re.sub(r"^(gpu(?::[^:]+)?):\d+$", rf"\g<1>:{count}", resource)
        for resource in gres.split(",")
    )


def setup_lines(profile: Profile, size: JobSize) -> list[str]:
    """What a job's script runs first: its variables, caches on the node's own disk, the
    profile's lines, each of which must succeed."""
    exports = [
        f"export {key}={value}"
        for key, value in sorted(profile.variables(size).items())
    ]
    disk = re.sub(r"^\$(\w+)", r"${\1:-/tmp}", profile.environment.cache)
    caches = [f'export TRITON_CACHE_DIR="{disk}/zsg-$UID/triton"']
    caches += [f'export TORCH_EXTENSIONS_DIR="{disk}/zsg-$UID/torch-extensions"']
    caches += [f'export TORCHINDUCTOR_CACHE_DIR="{disk}/zsg-$UID/inductor"']
    return [*exports, *caches, *setup_script.make_setup_lines(profile.setup)]


def make_python_command(profile: Profile) -> str:
    """The shell words that start Python in each srun step."""
    return shlex.join(
        [*profile.container.prefix, profile.container.python or sys.executable]
    )


@dataclass(frozen=True)
class SbatchAnswer:
    """What sbatch says of what it has submitted. `id`: None where it is not certain
    which job that is."""

    id: str | None
    cluster: str | None = None
    script: Path | None = None


def submit_held(
    folder: Path,
    count: int,
    parameters: dict[str, Any],
    python: str,
    env: Mapping[str, str],
    run: Runner = run_program,
) -> SbatchAnswer:
    """Submits one held array of so many tasks, or one job, started by `python`; sbatch
    has `env` and nothing else.

    Each task still lacks the pickle that it will look for (`complete_submission`). Raises
    ClusterError if sbatch failed, NoAnswer if it did not end in time; whether it did
    submit must then be looked up by name.
    """
    sbatch = shutil.which("sbatch")
    if sbatch is None:
        raise ClusterError(
            "sbatch failed: it is not on the PATH; submit from a login node of the cluster"
        )
    draft = folder / f".submission_file_{uuid.uuid4().hex}.sh"
    draft.write_text(make_script(folder, count, parameters, python), encoding="utf-8")
    began = time.monotonic()
    try:
        process = run([sbatch, str(draft)], env=dict(env), timeout=SUBMIT_S)
    except OSError as error:
        raise ClusterError(
            f"sbatch failed: it cannot be started here: {error}"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise NoAnswer(
            f"sbatch failed: it did not answer within {SUBMIT_S:g} s"
        ) from error
    seconds = time.monotonic() - began
    logger.debug(f"{sbatch} {draft}: exit {process.returncode} in {seconds:.2f} s")
    if process.returncode:
        complaint = process.stderr.strip() or f"exit {process.returncode}"
        raise ClusterError(f"sbatch failed: {complaint}")
    return replace(parse_sbatch(process.stdout), script=draft)


def make_script(
    folder: Path, count: int, parameters: dict[str, Any], python: str
) -> str:
    """The script of a submission, as submitit writes it."""
    executor = submitit.SlurmExecutor(folder=folder, python=python)
    executor.update_parameters(**parameters)
    if count > 1:
        executor.parameters["map_count"] = count
    # submitit has no other way to a script that it does not submit
    command = executor._submitit_command_str  # pyright: ignore[reportPrivateUsage]
    return executor._make_submission_file_text(command, "")  # pyright: ignore[reportPrivateUsage]


_LINE = re.compile(r"Submitted batch job (?P<id>\d+)(?: on cluster (?P<cluster>\S+))?")
_PARSABLE = re.compile(r"(?P<id>\d+)(?:;(?P<cluster>\S+))?")


def parse_sbatch(output: str) -> SbatchAnswer:
    """Reads sbatch's own line, or that of its --parsable; a site's wrapper or plugin
    may print any other. Pure.

    What a wrapper says of jobs is no answer, and of several answers none is certain.
    """
    lines = [line.strip() for line in output.split("\n")]
    for pattern in (_LINE, _PARSABLE):
        answers = {
            match.groups() for line in lines if (match := pattern.fullmatch(line))
        }
        if len(answers) == 1:
            [(job_id, cluster)] = answers
            return SbatchAnswer(job_id, cluster)
        if answers:
            break
    return SbatchAnswer(None)


def complete_submission(
    folder: Path,
    name: str,
    job_folders: Sequence[Path],
    ids: Sequence[str],
    minutes: int = 5,
    script: Path | None = None,
) -> None:
    """Completes a submission: writes the pickle that each held task will look for, and
    keeps its script by its id."""
    if len(ids) != len(job_folders):
        raise ClusterError(
            f"{name}: Slurm has {len(ids)} jobs of that name, the ledger {len(job_folders)}; "
            f"cancel them (scancel --me --name={name}) and submit again"
        )
    for path, job_id in zip(job_folders, ids, strict=True):
        call = DelayedSubmission(entry.run, str(path))
        # submitit wants a number; our handler takes its signal over
        call.set_timeout(minutes, 0)
        draft = folder / f".{job_id}.pkl"
        call.dump(draft)
        draft.rename(JobPaths(folder, job_id).submitted_pickle)
    if script:
        JobPaths(folder, ids[0]).move_temporary_file(
            script, "submission_file", keep_as_symlink=True
        )
