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
from launcher.doctor.check import OK, PROBLEM, WARNING, Check
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


def examine(
    profile: Profile, workspace: Path, run: slurm.Run = subprocess.run
) -> list[Check]:
    """Every check, of this machine and, for a Slurm profile, of its cluster. Changes nothing."""
    checks = [
        python(sys.version_info[:3]),
        owners(
            importlib.metadata.packages_distributions(),
            {name: _folder_of(name) for name in OURS},
        ),
        faiss(
            {
                name.lower()
                for d in importlib.metadata.distributions()
                if (name := d.metadata["Name"])
            }
        ),
        *(
            extra(name, extras.missing(modules))
            for name, modules in extras.MODULES.items()
        ),
        compiler(
            [path for name in COMPILERS if (path := shutil.which(name))],
            os.environ.get("CC"),
        ),
        encoding(sys.getfilesystemencoding(), os.environ),
        import_path(sys.path),
        *_workspace(profile, workspace),
        code_runs(profile.kind),
    ]
    return checks if profile.kind == "local" else [*checks, *_slurm(profile, run)]


def python(version: Iterable[int]) -> Check:
    """Whether the interpreter is new enough: PYTHONSAFEPATH, which guards the nodes,
    came with 3.11."""
    found = tuple(version)
    shown = ".".join(map(str, found))
    if found >= (3, 11):
        return Check("python", OK, f"{shown} at {sys.executable}")
    return Check(
        "python", PROBLEM, shown, "make a new environment with Python 3.11 or newer"
    )


def owners(
    packages: Mapping[str, Collection[str]], folders: Mapping[str, Path | None]
) -> Check:
    """Whether our top-level names are ours alone: pip lets another distribution own
    `jobs` without a word."""
    others = {name: sorted(set(packages.get(name, ())) - {"zsg"}) for name in OURS}
    strangers = [
        f"{name} also belongs to {', '.join(found)}"
        for name, found in others.items()
        if found
    ]
    if strangers:
        return Check(
            "package",
            PROBLEM,
            "; ".join(strangers),
            "install zsg in an environment of its own",
        )
    if len({folder and folder.parent for folder in folders.values()}) > 1:
        found = ", ".join(f"{name} from {folder}" for name, folder in folders.items())
        return Check(
            "package",
            PROBLEM,
            found,
            "another folder shadows ours: call zsg elsewhere, or unset PYTHONPATH",
        )
    return Check(
        "package",
        OK,
        f"launcher, jobs and zsg_core are zsg's own, in {_parent(folders)}",
    )


def faiss(distributions: Collection[str]) -> Check:
    """Whether at most one distribution owns the module `faiss`: of two, the later has
    overwritten the earlier."""
    found = sorted(name for name in distributions if name.startswith("faiss"))
    if len(found) < 2:
        return Check(
            "faiss",
            OK,
            found[0] if found else "not installed; orders are computed by numpy",
        )
    advice = (
        f"pip uninstall {' '.join(found)}, then install one of zsg[cpu] and zsg[gpu]"
    )
    return Check("faiss", PROBLEM, f"{' and '.join(found)} own the same module", advice)


def extra(name: str, missing: Collection[str]) -> Check:
    """Whether an extra is there. Jobs run in the Python that submits them, so training
    needs its extra here too."""
    if not missing:
        return Check(f"zsg[{name}]", OK, "installed")
    found, advice = f"{', '.join(missing)} missing", extras.command(name)
    if name in FOR:
        return Check(f"zsg[{name}]", WARNING, found, f"{FOR[name]}: {advice}")
    return Check(f"zsg[{name}]", PROBLEM, found, f"jobs would fail at once: {advice}")


def compiler(found: Collection[str], named: str | None) -> Check:
    """Whether there is a C compiler; `named` is the variable CC. On CPUs nothing is
    compiled, on GPUs Triton does."""
    if named:
        return Check("compiler", OK, f"{named}, which CC names")
    if found:
        return Check("compiler", OK, next(iter(found)))
    advice = (
        "not needed on CPUs; on GPUs, and for trainer.compile, have gcc on the nodes: in setup,"
        " module load gcc"
    )
    return Check(
        "compiler", WARNING, f"none of {', '.join(COMPILERS)} is on the PATH", advice
    )


def encoding(file_system: str, variables: Mapping[str, str]) -> Check:
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
        return Check("locale", OK, f"UTF-8 ({said})")
    return Check("locale", WARNING, f"{file_system} ({said})", "export LC_ALL=C.UTF-8")


def code_runs(kind: str, find: Callable[..., Sandbox] = sandbox.find) -> Check:
    """Whether HumanEval's programs could be run here; on a cluster each evaluate job
    tries its own node first."""
    where = "" if kind == "local" else " on this machine; evaluate jobs try their nodes"
    try:
        return Check("sandbox", OK, f"{find(allowed=True).name}{where}")
    except ClusterError as error:
        return Check(
            "sandbox", WARNING, f"none{where}", f"only for metric humaneval/…: {error}"
        )


def import_path(folders: Sequence[str]) -> Check:
    """Whether somebody else could have Python import their code: by a folder on its
    path that others may write."""
    faults = [
        fault
        for folder in dict.fromkeys(folders)
        if (fault := ownership.find_fault(Path(folder or ".").resolve()))
    ]
    if launcher.CURRENT_FOLDER_WAS_ON_PATH:
        found = "PYTHONPATH has an empty part, which is the folder you are in, whosesoever that is"
        return Check(
            "python path",
            PROBLEM,
            found,
            "export PYTHONPATH=${PYTHONPATH:+$PYTHONPATH:}FOLDER leaves none",
        )
    open_to_others = [fault for fault in faults if fault.mend]
    if open_to_others:
        return Check(
            "python path", PROBLEM, _all(open_to_others), open_to_others[0].mend or ""
        )
    if faults:
        return Check(
            "python path",
            WARNING,
            _all(faults),
            "what they put there runs as yours: do you trust them?",
        )
    return Check(
        "python path", OK, "nobody else may write the folders that Python imports from"
    )


def owner(workspace: Path) -> Check:
    """Whether nobody but the user may write what is run from a workspace, nor put
    another in its place."""
    above = ownership.find_open_parent(workspace)
    if above and above.by_all:
        found, mend = (
            f"{above}: anybody can put another workspace in its place",
            f"chmod o-w {_word(above.path)}",
        )
        return Check("owner", PROBLEM, found, mend)
    if not workspace.is_dir():
        return (
            _replaceable(above)
            if above
            else Check("owner", OK, "the workspace will be made for you alone")
        )
    if ownership.is_group_workspace(workspace):
        return _of_group(workspace)
    if (fault := ownership.find_fault(workspace)) and not fault.mend:
        return Check(
            "owner",
            PROBLEM,
            str(fault),
            "use a workspace of your own: what lies in one is run as yours",
        )
    faults = [*([fault] if fault else []), *workspaces.faults(workspace)]
    if strange := [one for one in faults if not one.mend]:
        paths = " ".join(_word(one.path) for one in strange[:MOST_SHOWN])
        return Check("owner", PROBLEM, _all(strange), f"look at it, then rm -r {paths}")
    if faults:
        paths = " ".join(_word(one.path) for one in faults[:MOST_SHOWN])
        return Check(
            "owner",
            PROBLEM,
            f"{_all(faults)}; what lies there is run as yours",
            f"chmod go-w {paths}",
        )
    if above:
        return _replaceable(above)
    return Check("owner", OK, "nobody else may write what is run from the workspace")


def _replaceable(above: OpenParent) -> Check:
    found = f"{above}: who may write there can put another workspace in its place"
    return Check(
        "owner", WARNING, found, "zsg refuses what is not yours, whenever it looks"
    )


def _of_group(workspace: Path) -> Check:
    group = ownership.find_group_name(workspace)
    if not ownership.is_member(workspace):
        return Check(
            "owner",
            PROBLEM,
            f"{workspace} is of group {group}, and you are not in it",
            "another --workspace",
        )
    return Check(
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


def store(kind: str, uri: str | None) -> Check:
    """Whether MLflow's own store can live on the workspace's file system."""
    if uri is not None:
        return Check("tracking", OK, uri)
    if kind.split(".")[0] in SHARED:
        advice = (
            "if it locks up or is called corrupt: tracking.uri in the profile, a server or a file"
            " on a local disk"
        )
        return Check(
            "tracking",
            WARNING,
            f"MLflow's sqlite file would lie on {kind}, which locks files badly",
            advice,
        )
    return Check("tracking", OK, f"sqlite in the workspace, on {kind}")


def programs(missing: Collection[str]) -> Check:
    """Whether Slurm's commands are on the PATH; all but sacct are needed."""
    if not missing:
        return Check(
            "slurm", OK, "sbatch, srun, squeue, scontrol and sacct are on the PATH"
        )
    if set(missing) == {"sacct"}:
        return Check(
            "slurm",
            WARNING,
            "sacct is not on the PATH",
            "a job that died without a word stays `unknown`",
        )
    return Check(
        "slurm",
        PROBLEM,
        f"not on the PATH: {', '.join(missing)}",
        "call zsg on a login node of the cluster",
    )


def _slurm(profile: Profile, run: slurm.Run) -> list[Check]:
    found = programs(
        [
            name
            for name in ("sbatch", "srun", "squeue", "scontrol", "sacct")
            if not shutil.which(name)
        ]
    )
    if found.verdict == PROBLEM:
        return [found]
    try:
        return [found, *cluster_checks.examine(profile, run)]
    except ClusterError as error:
        return [
            found,
            Check(
                "slurm",
                PROBLEM,
                " ".join(str(error).split()),
                "is the controller up? scontrol ping",
            ),
        ]


def _workspace(profile: Profile, folder: Path) -> Iterator[Check]:
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
        yield Check(
            "workspace",
            PROBLEM,
            f"{folder}{link}: {error}",
            "another --workspace, or workspace in the profile",
        )
        return
    yield Check(
        "workspace", OK, f"{folder}{link}, writable, {free:.0f} GB free on {kind}"
    )
    yield owner(real)
    yield store(kind, profile.tracking.uri)


def _folder_of(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def _parent(folders: Mapping[str, Path | None]) -> Path | None:
    folder = folders.get("launcher")
    return folder and folder.parent
