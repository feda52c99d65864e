"""Says whether this machine, its Python and its Slurm are as zsg needs them, and what to do where they are not."""

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path

from jobs.evaluating import sandbox
from jobs.evaluating.sandbox import Sandbox
from launcher import extras
from launcher.clusters import cluster_checks, slurm
from launcher.clusters.check import OK, PROBLEM, WARNING, Check
from launcher.clusters.profiles import Profile
from zsg_core.errors import ClusterError

OURS = ("launcher", "jobs", "zsg_core")
# Of the extras that training can do without, what is for: doctor warns.
FOR = {
    "evaluate": "for metrics rouge1, rougeL and silhouettes",
    "track": "for zsg sync, zsg ui and zsg server",
    "report": "for zsg report, zsg arrange draw and DataFrames",
}
COMPILERS = ("cc", "gcc", "clang")
# sqlite locks with fcntl, which these keep badly or not at all (sqlite.org, "How To Corrupt An SQLite Database File").
SHARED = ("nfs", "nfs4", "lustre", "beegfs", "gpfs", "ceph", "cifs", "smb3", "fuse", "glusterfs", "wekafs")


def examine(profile: Profile, workspace: Path, run: slurm.Run = subprocess.run) -> list[Check]:
    """Every check, of this machine and, for a Slurm profile, of its cluster. Changes nothing."""
    checks = [
        python(sys.version_info[:3]),
        owners(importlib.metadata.packages_distributions(), {name: _folder_of(name) for name in OURS}),
        faiss({name.lower() for d in importlib.metadata.distributions() if (name := d.metadata["Name"])}),
        *(extra(name, extras.missing(modules)) for name, modules in extras.MODULES.items()),
        compiler([path for name in COMPILERS if (path := shutil.which(name))], os.environ.get("CC")),
        encoding(sys.getfilesystemencoding(), os.environ),
        *_workspace(profile, workspace),
        code_runs(profile.kind),
    ]
    return checks if profile.kind == "local" else [*checks, *_slurm(profile, run)]


def python(version: Iterable[int]) -> Check:
    """Whether the interpreter is new enough: PYTHONSAFEPATH, which guards the nodes, came with 3.11."""
    found = tuple(version)
    shown = ".".join(map(str, found))
    if found >= (3, 11):
        return Check("python", OK, f"{shown} at {sys.executable}")
    return Check("python", PROBLEM, shown, "make a new environment with Python 3.11 or newer")


def owners(packages: Mapping[str, Collection[str]], folders: Mapping[str, Path | None]) -> Check:
    """Whether our top-level names are ours alone: pip lets another distribution own `jobs` without a word."""
    others = {name: sorted(set(packages.get(name, ())) - {"zsg"}) for name in OURS}
    strangers = [f"{name} also belongs to {', '.join(found)}" for name, found in others.items() if found]
    if strangers:
        return Check("package", PROBLEM, "; ".join(strangers), "install zsg in an environment of its own")
    if len({folder and folder.parent for folder in folders.values()}) > 1:
        found = ", ".join(f"{name} from {folder}" for name, folder in folders.items())
        return Check("package", PROBLEM, found, "another folder shadows ours: call zsg elsewhere, or unset PYTHONPATH")
    return Check("package", OK, f"launcher, jobs and zsg_core are zsg's own, in {_parent(folders)}")


def faiss(distributions: Collection[str]) -> Check:
    """Whether at most one distribution owns the module `faiss`: of two, the later has overwritten the earlier."""
    found = sorted(name for name in distributions if name.startswith("faiss"))
    if len(found) < 2:
        return Check("faiss", OK, found[0] if found else "not installed; orders are computed by numpy")
    advice = f"pip uninstall {' '.join(found)}, then install one of zsg[cpu] and zsg[gpu]"
    return Check("faiss", PROBLEM, f"{' and '.join(found)} own the same module", advice)


def extra(name: str, missing: Collection[str]) -> Check:
    """Whether an extra is there. Jobs run in the Python that submits them, so training needs its extra here too."""
    if not missing:
        return Check(f"zsg[{name}]", OK, "installed")
    found, advice = f"{', '.join(missing)} missing", extras.command(name)
    if name in FOR:
        return Check(f"zsg[{name}]", WARNING, found, f"{FOR[name]}: {advice}")
    return Check(f"zsg[{name}]", PROBLEM, found, f"jobs would fail at once: {advice}")


def compiler(found: Collection[str], named: str | None) -> Check:
    """Whether there is a C compiler; `named` is the variable CC. On CPUs nothing is compiled, on GPUs Triton does."""
    if named:
        return Check("compiler", OK, f"{named}, which CC names")
    if found:
        return Check("compiler", OK, next(iter(found)))
    advice = "not needed on CPUs; on GPUs, and for trainer.compile, have gcc on the nodes: in setup, module load gcc"
    return Check("compiler", WARNING, f"none of {', '.join(COMPILERS)} is on the PATH", advice)


def encoding(file_system: str, variables: Mapping[str, str]) -> Check:
    """Whether names and texts beyond ASCII pass. Python reads the C locale as UTF-8 unless it is told not to."""
    said = next(
        (f"{key}={variables[key]}" for key in ("LC_ALL", "LC_CTYPE", "LANG") if variables.get(key)), "no locale"
    )
    if file_system.replace("-", "").lower() == "utf8":
        return Check("locale", OK, f"UTF-8 ({said})")
    return Check("locale", WARNING, f"{file_system} ({said})", "export LC_ALL=C.UTF-8")


def code_runs(kind: str, find: Callable[..., Sandbox] = sandbox.find) -> Check:
    """Whether HumanEval's programs could be run here; on a cluster each evaluate job tries its own node first."""
    where = "" if kind == "local" else " on this machine; evaluate jobs try their nodes"
    try:
        return Check("sandbox", OK, f"{find(allowed=True).name}{where}")
    except ClusterError as error:
        return Check("sandbox", WARNING, f"none{where}", f"only for metric humaneval/…: {error}")


def store(kind: str, uri: str | None) -> Check:
    """Whether MLflow's own store can live on the workspace's file system."""
    if uri is not None:
        return Check("tracking", OK, uri)
    if kind.split(".")[0] in SHARED:
        advice = "if it locks up or is called corrupt: tracking.uri in the profile, a server or a file on a local disk"
        return Check("tracking", WARNING, f"MLflow's sqlite file would lie on {kind}, which locks files badly", advice)
    return Check("tracking", OK, f"sqlite in the workspace, on {kind}")


def file_system(mountinfo: str, path: Path) -> str:
    """The type of the file system that holds a path, from /proc/self/mountinfo (man proc_pid_mountinfo)."""
    best, kind = "", "an unknown file system"
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        point = before.split(" ")[4].encode().decode("unicode_escape")  # a blank is written \040
        if path.is_relative_to(point) and len(point) >= len(best):  # of two on one point, the later lies on top
            best, kind = point, after.split(" ")[0]
    return kind


def programs(missing: Collection[str]) -> Check:
    """Whether Slurm's commands are on the PATH; all but sacct are needed."""
    if not missing:
        return Check("slurm", OK, "sbatch, srun, squeue, scontrol and sacct are on the PATH")
    if set(missing) == {"sacct"}:
        return Check("slurm", WARNING, "sacct is not on the PATH", "a job that died without a word stays `unknown`")
    return Check("slurm", PROBLEM, f"not on the PATH: {', '.join(missing)}", "call zsg on a login node of the cluster")


def _slurm(profile: Profile, run: slurm.Run) -> list[Check]:
    found = programs([name for name in ("sbatch", "srun", "squeue", "scontrol", "sacct") if not shutil.which(name)])
    if found.verdict == PROBLEM:
        return [found]
    try:
        return [found, *cluster_checks.examine(profile, run)]
    except ClusterError as error:
        return [found, Check("slurm", PROBLEM, " ".join(str(error).split()), "is the controller up? scontrol ping")]


def _workspace(profile: Profile, folder: Path) -> Iterator[Check]:
    real = folder.resolve()
    link = f", a link to {real}" if folder.is_symlink() else ""
    try:
        there = next(path for path in (real, *real.parents) if path.exists())
        kind = file_system(Path("/proc/self/mountinfo").read_text(encoding="utf-8"), there)
        with tempfile.TemporaryFile(dir=there):
            free = shutil.disk_usage(there).free / 1e9
    except OSError as error:
        yield Check(
            "workspace", PROBLEM, f"{folder}{link}: {error}", "another --workspace, or workspace in the profile"
        )
        return
    yield Check("workspace", OK, f"{folder}{link}, writable, {free:.0f} GB free on {kind}")
    yield store(kind, profile.tracking.uri)


def _folder_of(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def _parent(folders: Mapping[str, Path | None]) -> Path | None:
    folder = folders.get("launcher")
    return folder and folder.parent
