"""Hands job folders to Slurm through submitit, as held arrays; the only module that
knows submitit."""

import re
import shlex
import shutil
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import DelayedSubmission, JobPaths

from jobs import entry
from launcher.clusters import setup_script
from launcher.clusters.profiles import WITH_GPUS, JobSize, Profile, gpus_per_node
from launcher.clusters.slurm import Runner
from zsg_core.errors import ClusterError


def make_parameters(
    profile: Profile, size: JobSize, name: str, dependency: str | None, kind: str
) -> dict[str, Any]:
    """submitit's parameters for a group of equal jobs; pure. `dependency` is as sbatch reads it.

    Held, because each job's pickle is put in place only after sbatch; `export`: all,
    since what sbatch is started with is what the profile hands on, and nothing else
    (`submit`); whole minutes and no wckey, since submitit trips over both.
    """
    slurm = profile.slurm
    more: dict[str, Any] = {"hold": True, "export": "ALL", "requeue": True}
    more |= {"reservation": slurm.reservation} if slurm.reservation else {}
    more |= {"kill-on-invalid-dep": "yes"} if dependency else {}
    more |= _gpus(profile, size, kind)
    wanted = {
        "job_name": name,
        "time": size.time_min,
        "nodes": size.nodes,
        "ntasks_per_node": size.ranks_per_node,
        "cpus_per_task": size.cpus_per_rank,
        "mem": f"{slurm.mem_gb}GB" if slurm.mem_gb else None,
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
        "additional_parameters": more | slurm.sbatch,
    }
    return {key: value for key, value in wanted.items() if value is not None}


def _gpus(profile: Profile, size: JobSize, kind: str) -> dict[str, str]:
    """How a job asks for its GPUs, as sbatch's option and its value: a train job for
    all, an evaluator for one."""
    slurm, each = profile.slurm, gpus_per_node(profile, kind)
    if slurm.gres:
        one = ",".join(
            re.sub(r"^(gpu(?::[^:]+)?):\d+$", r"\1:1", part)
            for part in slurm.gres.split(",")
        )
        return (
            {"gres": slurm.gres if kind == "train" else one}
            if kind in WITH_GPUS
            else {}
        )
    if not each:
        return {}
    of_type = f"{slurm.gpu_type}:" if slurm.gpu_type else ""
    count = {"gpus": each * size.nodes, "gpus-per-task": 1}.get(slurm.gpus_by, each)
    return {
        slurm.gpus_by: f"{'gpu:' if slurm.gpus_by == 'gres' else ''}{of_type}{count}"
    }


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
    wanted: dict[str, Any],
    python: str,
    env: Mapping[str, str],
    run: Runner = subprocess.run,
) -> SbatchAnswer:
    """Submits one held array of so many tasks, or one job, started by `python`; sbatch
    has `env` and nothing else.

    Each task still lacks the pickle that it will look for (`complete_submission`). Raises
    ClusterError if sbatch failed; whether it did submit must then be looked up by name.
    """
    sbatch = shutil.which("sbatch")
    if sbatch is None:
        raise ClusterError(
            "sbatch failed: it is not on the PATH; submit from a login node of the cluster"
        )
    draft = folder / f".submission_file_{uuid.uuid4().hex}.sh"
    draft.write_text(make_script(folder, count, wanted, python), encoding="utf-8")
    try:
        done = run(
            [sbatch, str(draft)],
            capture_output=True,
            text=True,
            errors="replace",
            env=dict(env),
        )
    except OSError as error:
        raise ClusterError(
            f"sbatch failed: it cannot be started here: {error}"
        ) from error
    if done.returncode:
        raise ClusterError(
            f"sbatch failed: {done.stderr.strip() or f'exit {done.returncode}'}"
        )
    return replace(parse_sbatch(done.stdout), script=draft)


def make_script(folder: Path, count: int, wanted: dict[str, Any], python: str) -> str:
    """The script of a submission, as submitit writes it."""
    executor = submitit.SlurmExecutor(folder=folder, python=python)
    executor.update_parameters(**wanted)
    if count > 1:
        executor.parameters["map_count"] = count
    return executor._make_submission_file_text(executor._submitit_command_str, "")


_LINE = re.compile(r"Submitted batch job (?P<id>\d+)(?: on cluster (?P<cluster>\S+))?")
_PARSABLE = re.compile(r"(?P<id>\d+)(?:;(?P<cluster>\S+))?")


def parse_sbatch(printed: str) -> SbatchAnswer:
    """Reads sbatch's own line, or that of its --parsable; a site's wrapper or plugin
    may print any other. Pure.

    What a wrapper says of jobs is no answer, and of several answers none is certain.
    """
    lines = [line.strip() for line in printed.split("\n")]
    for pattern in (_LINE, _PARSABLE):
        found = {match.groups() for line in lines if (match := pattern.fullmatch(line))}
        if len(found) == 1:
            [(job_id, cluster)] = found
            return SbatchAnswer(job_id, cluster)
        if found:
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
