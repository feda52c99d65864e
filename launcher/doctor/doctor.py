"""Says whether this machine, its Python and its Slurm are as zsg needs them, and what
to do where they are not."""

import importlib.metadata
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import launcher
from jobs.evaluating import sandbox
from jobs.evaluating.sandbox import Sandbox
from jobs.files import ownership
from jobs.files.ownership import Fault, OpenParent
from launcher.clusters import slurm
from launcher.clusters.profiles import Profile
from launcher.doctor import cluster_checks
from launcher.doctor.diagnosis import OK, PROBLEM, WARNING, Diagnosis
from launcher.workspace import extras, workspaces
from launcher.workspace.file_systems import SHARED, file_system
from zsg_core.errors import ClusterError

OURS = ("zsg", "launcher", "jobs", "zsg_core")
# Of the extras that training can do without, what is for: doctor warns.
FOR = {
    "evaluate": "for metrics rouge1, rougeL and silhouettes",
    "track": "for zsg sync, zsg ui and zsg server",
    "report": "for zsg report, zsg arrange draw and DataFrames",
}
COMPILERS = ("cc", "gcc", "clang")
# sqlite locks with fcntl, which these keep badly or not at all (sqlite.org, "How To
# Corrupt An SQLite Database File").
MOST_SHOWN = 20  # paths in one line


def run_checks(
    profile: Profile, workspace: Path, run: slurm.Runner = subprocess.run
) -> list[Diagnosis]:
    """Every check, of this machine and, for a Slurm profile, of its cluster. Changes nothing."""
    checks = [
        check_python(sys.version_info[:3]),
        check_package_owners(
            importlib.metadata.packages_distributions(),
            {name: _folder_of(name) for name in OURS},
        ),
        check_faiss(
            {
                name.lower()
                for d in importlib.metadata.distributions()
                if (name := d.metadata["Name"])
            }
        ),
        *(
            check_extra(name, extras.missing(modules))
            for name, modules in extras.MODULES.items()
        ),
        check_compiler(
            [path for name in COMPILERS if (path := shutil.which(name))],
            os.environ.get("CC"),
        ),
        check_encoding(sys.getfilesystemencoding(), os.environ),
        check_import_path(sys.path),
        *_workspace(profile, workspace),
        check_sandbox(profile.kind),
    ]
    return checks if profile.kind == "local" else [*checks, *_slurm(profile, run)]


def check_python(version: Iterable[int]) -> Diagnosis:
    """Whether the interpreter is new enough: PYTHONSAFEPATH, which guards the nodes,
    came with 3.11."""
    found = tuple(version)
    shown = ".".join(map(str, found))
    if found >= (3, 11):
        return Diagnosis("python", OK, f"{shown} at {sys.executable}")
    return Diagnosis(
        "python", PROBLEM, shown, "make a new environment with Python 3.11 or newer"
    )


def check_package_owners(
    packages: Mapping[str, Collection[str]], folders: Mapping[str, Path | None]
) -> Diagnosis:
    """Whether our top-level names are ours alone: pip lets another distribution own
    `jobs` without a word."""
    others = {name: sorted(set(packages.get(name, ())) - {"zsg"}) for name in OURS}
    strangers = [
        f"{name} also belongs to {', '.join(found)}"
        for name, found in others.items()
        if found
    ]
    if strangers:
        return Diagnosis(
            "package",
            PROBLEM,
            "; ".join(strangers),
            "install zsg in an environment of its own",
        )
    if len({folder and folder.parent for folder in folders.values()}) > 1:
        found = ", ".join(f"{name} from {folder}" for name, folder in folders.items())
        return Diagnosis(
            "package",
            PROBLEM,
            found,
            "another folder shadows ours: call zsg elsewhere, or unset PYTHONPATH",
        )
    return Diagnosis(
        "package",
        OK,
        f"launcher, jobs and zsg_core are zsg's own, in {_parent(folders)}",
    )


def check_faiss(distributions: Collection[str]) -> Diagnosis:
    """Whether at most one distribution owns the module `faiss`: of two, the later has
    overwritten the earlier."""
    found = sorted(name for name in distributions if name.startswith("faiss"))
    if len(found) < 2:
        return Diagnosis(
            "faiss",
            OK,
            found[0] if found else "not installed; orders are computed by numpy",
        )
    advice = (
        f"pip uninstall {' '.join(found)}, then install one of zsg[cpu] and zsg[gpu]"
    )
    return Diagnosis(
        "faiss", PROBLEM, f"{' and '.join(found)} own the same module", advice
    )


def check_extra(name: str, missing: Collection[str]) -> Diagnosis:
    """Whether an extra is there. Jobs run in the Python that submits them, so training
    needs its extra here too."""
    if not missing:
        return Diagnosis(f"zsg[{name}]", OK, "installed")
    found, advice = f"{', '.join(missing)} missing", extras.command(name)
    if name in FOR:
        return Diagnosis(f"zsg[{name}]", WARNING, found, f"{FOR[name]}: {advice}")
    return Diagnosis(
        f"zsg[{name}]", PROBLEM, found, f"jobs would fail at once: {advice}"
    )


def check_compiler(found: Collection[str], named: str | None) -> Diagnosis:
    """Whether there is a C compiler; `named` is the variable CC. On CPUs nothing is
    compiled, on GPUs Triton does."""
    if named:
        return Diagnosis("compiler", OK, f"{named}, which CC names")
    if found:
        return Diagnosis("compiler", OK, next(iter(found)))
    advice = (
        "not needed on CPUs; on GPUs, and for trainer.compile, have gcc on the nodes: in setup,"
        " module load gcc"
    )
    return Diagnosis(
        "compiler", WARNING, f"none of {', '.join(COMPILERS)} is on the PATH", advice
    )


def check_encoding(file_system: str, variables: Mapping[str, str]) -> Diagnosis:
    """Whether names and texts beyond ASCII pass. Python reads the C locale as UTF-8
    unless it is told not to."""
    said = next(
        (
            f"{key}={variables[key]}"
            for key in ("LC_ALL", "LC_CTYPE", "LANG")
            if variables.get(key)
        ),
        "no locale",
    )
    if file_system.replace("-", "").lower() == "utf8":
        return Diagnosis("locale", OK, f"UTF-8 ({said})")
    return Diagnosis(
        "locale", WARNING, f"{file_system} ({said})", "export LC_ALL=C.UTF-8"
    )


def check_sandbox(kind: str, find: Callable[..., Sandbox] = sandbox.find) -> Diagnosis:
    """Whether HumanEval's programs could be run here; on a cluster each evaluate job
    tries its own node first."""
    where = "" if kind == "local" else " on this machine; evaluate jobs try their nodes"
    try:
        return Diagnosis("sandbox", OK, f"{find(allowed=True).name}{where}")
    except ClusterError as error:
        return Diagnosis(
            "sandbox", WARNING, f"none{where}", f"only for metric humaneval/…: {error}"
        )


def check_import_path(folders: Sequence[str]) -> Diagnosis:
    """Whether somebody else could have Python import their code: by a folder on its
    path that others may write."""
    faults = [
        fault
        for folder in dict.fromkeys(folders)
        if (fault := ownership.find_fault(Path(folder or ".").resolve()))
    ]
    if launcher.CURRENT_FOLDER_WAS_ON_PATH:
        found = "PYTHONPATH has an empty part, which is the folder you are in, whosesoever that is"
        return Diagnosis(
            "python path",
            PROBLEM,
            found,
            "export PYTHONPATH=${PYTHONPATH:+$PYTHONPATH:}FOLDER leaves none",
        )
    open_to_others = [fault for fault in faults if fault.mend]
    if open_to_others:
        return Diagnosis(
            "python path", PROBLEM, _all(open_to_others), open_to_others[0].mend or ""
        )
    if faults:
        return Diagnosis(
            "python path",
            WARNING,
            _all(faults),
            "what they put there runs as yours: do you trust them?",
        )
    return Diagnosis(
        "python path", OK, "nobody else may write the folders that Python imports from"
    )


def check_workspace_owner(workspace: Path) -> Diagnosis:
    """Whether nobody but the user may write what is run from a workspace, nor put
    another in its place."""
    above = ownership.find_open_parent(workspace)
    if above and above.by_all:
        found, mend = (
            f"{above}: anybody can put another workspace in its place",
            f"chmod o-w {_word(above.path)}",
        )
        return Diagnosis("owner", PROBLEM, found, mend)
    if not workspace.is_dir():
        return (
            _replaceable(above)
            if above
            else Diagnosis("owner", OK, "the workspace will be made for you alone")
        )
    if ownership.is_group_workspace(workspace):
        return _of_group(workspace)
    if (fault := ownership.find_fault(workspace)) and not fault.mend:
        return Diagnosis(
            "owner",
            PROBLEM,
            str(fault),
            "use a workspace of your own: what lies in one is run as yours",
        )
    faults = [*([fault] if fault else []), *workspaces.faults(workspace)]
    if strange := [one for one in faults if not one.mend]:
        paths = " ".join(_word(one.path) for one in strange[:MOST_SHOWN])
        return Diagnosis(
            "owner", PROBLEM, _all(strange), f"look at it, then rm -r {paths}"
        )
    if faults:
        paths = " ".join(_word(one.path) for one in faults[:MOST_SHOWN])
        return Diagnosis(
            "owner",
            PROBLEM,
            f"{_all(faults)}; what lies there is run as yours",
            f"chmod go-w {paths}",
        )
    if above:
        return _replaceable(above)
    return Diagnosis(
        "owner", OK, "nobody else may write what is run from the workspace"
    )


def _replaceable(above: OpenParent) -> Diagnosis:
    found = f"{above}: who may write there can put another workspace in its place"
    return Diagnosis(
        "owner", WARNING, found, "zsg refuses what is not yours, whenever it looks"
    )


def _of_group(workspace: Path) -> Diagnosis:
    group = ownership.find_group_name(workspace)
    if not ownership.is_member(workspace):
        return Diagnosis(
            "owner",
            PROBLEM,
            f"{workspace} is of group {group}, and you are not in it",
            "another --workspace",
        )
    return Diagnosis(
        "owner",
        OK,
        f"of group {group}, made by {ownership.find_user_name(workspace.stat().st_uid)}; each runs"
        " only their own code",
    )


def _all(faults: Sequence[Fault]) -> str:
    more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
    return f"{faults[0]}{more}"


def _word(path: Path) -> str:
    return shlex.quote(str(path))


def check_tracking_store(kind: str, uri: str | None) -> Diagnosis:
    """Whether MLflow's own store can live on the workspace's file system."""
    if uri is not None:
        return Diagnosis("tracking", OK, uri)
    if kind.split(".")[0] in SHARED:
        advice = (
            "if it locks up or is called corrupt: tracking.uri in the profile, a server or a file"
            " on a local disk"
        )
        return Diagnosis(
            "tracking",
            WARNING,
            f"MLflow's sqlite file would lie on {kind}, which locks files badly",
            advice,
        )
    return Diagnosis("tracking", OK, f"sqlite in the workspace, on {kind}")


def check_slurm_programs(missing: Collection[str]) -> Diagnosis:
    """Whether Slurm's commands are on the PATH; all but sacct are needed."""
    if not missing:
        return Diagnosis(
            "slurm", OK, "sbatch, srun, squeue, scontrol and sacct are on the PATH"
        )
    if set(missing) == {"sacct"}:
        return Diagnosis(
            "slurm",
            WARNING,
            "sacct is not on the PATH",
            "a job that died without a word stays `unknown`",
        )
    return Diagnosis(
        "slurm",
        PROBLEM,
        f"not on the PATH: {', '.join(missing)}",
        "call zsg on a login node of the cluster",
    )


def _slurm(profile: Profile, run: slurm.Runner) -> list[Diagnosis]:
    found = check_slurm_programs(
        [
            name
            for name in ("sbatch", "srun", "squeue", "scontrol", "sacct")
            if not shutil.which(name)
        ]
    )
    if found.verdict == PROBLEM:
        return [found]
    try:
        return [found, *cluster_checks.check_cluster(profile, run)]
    except ClusterError as error:
        return [
            found,
            Diagnosis(
                "slurm",
                PROBLEM,
                " ".join(str(error).split()),
                "is the controller up? scontrol ping",
            ),
        ]


def _workspace(profile: Profile, folder: Path) -> Iterator[Diagnosis]:
    real = folder.resolve()
    link = f", a link to {real}" if folder.is_symlink() else ""
    try:
        there = next(path for path in (real, *real.parents) if path.exists())
        kind = file_system(
            Path("/proc/self/mountinfo").read_text(encoding="utf-8"), there
        )
        with tempfile.TemporaryFile(dir=there):
            free = shutil.disk_usage(there).free / 1e9
    except OSError as error:
        yield Diagnosis(
            "workspace",
            PROBLEM,
            f"{folder}{link}: {error}",
            "another --workspace, or workspace in the profile",
        )
        return
    yield Diagnosis(
        "workspace", OK, f"{folder}{link}, writable, {free:.0f} GB free on {kind}"
    )
    yield check_workspace_owner(real)
    yield check_tracking_store(kind, profile.tracking.uri)


def _folder_of(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def _parent(folders: Mapping[str, Path | None]) -> Path | None:
    folder = folders.get("launcher")
    return folder and folder.parent
