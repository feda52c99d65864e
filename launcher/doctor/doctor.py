"""Says whether this machine, its Python and its Slurm are as zsg needs them, and what
to do where they are not."""

import importlib.metadata
import importlib.util
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import launcher
from jobs.contract.notices import Receiver, Way
from jobs.evaluating import sandbox
from jobs.evaluating.sandbox import Sandbox
from jobs.files import locks, ownership, paths
from jobs.files.ownership import Fault, OpenParent
from jobs.notices import receivers as notice_receivers
from jobs.runtime.slurm_calls import Runner, run_program
from launcher.clusters.profiles import Profile
from launcher.doctor import cluster_checks
from launcher.doctor.diagnosis import OK, PROBLEM, WARNING, Diagnosis
from launcher.workspace import extras, workspaces
from launcher.workspace.file_systems import SHARED, file_system
from zsg_core.errors import ClusterError

OURS = ("zsg", "launcher", "jobs", "zsg_core")
# what the extras are for that training can do without: of these doctor only warns
FOR = {
    "evaluate": "for metrics rouge1, rougeL, bleu, chrf and silhouettes",
    "harness": "for metrics lm_eval/NAME, tasks of lm-evaluation-harness",
    "track": "for zsg sync, zsg ui and zsg server",
    "report": "for zsg report, zsg arrange draw and DataFrames",
}
COMPILERS = ("cc", "gcc", "clang")
MOST_SHOWN = 20  # paths in one line


def run_checks(
    profile: Profile, workspace: Path, run: Runner = run_program
) -> list[Diagnosis]:
    """Every check, of this machine and, for a Slurm profile, of its cluster. Changes nothing."""
    folders = {name: _folder_of(name) for name in OURS}
    compilers = [path for name in COMPILERS if (path := shutil.which(name))]
    checks = [
        check_python(sys.version_info[:3]),
        check_package_owners(importlib.metadata.packages_distributions(), folders),
        check_faiss(_installed_distributions()),
        *(
            check_extra(name, extras.find_missing(modules))
            for name, modules in extras.MODULES.items()
        ),
        check_compiler(compilers, os.environ.get("CC")),
        check_encoding(sys.getfilesystemencoding(), os.environ),
        check_import_path(sys.path),
        *_check_workspace(profile, workspace),
        check_sandbox(profile.kind),
        *check_receivers(profile.receivers),
    ]
    if profile.kind == "local":
        return checks
    return [*checks, *_check_slurm(profile, run)]


def _installed_distributions() -> set[str]:
    names = (each.metadata["Name"] for each in importlib.metadata.distributions())
    return {name.lower() for name in names if name}


def check_python(version: Iterable[int]) -> Diagnosis:
    """Whether the interpreter is new enough: PYTHONSAFEPATH, which guards the nodes,
    came with 3.11."""
    numbers = tuple(version)
    version_text = ".".join(map(str, numbers))
    if numbers >= (3, 11):
        return Diagnosis("python", OK, f"{version_text} at {sys.executable}")
    return Diagnosis(
        "python",
        PROBLEM,
        version_text,
        "make a new environment with Python 3.11 or newer",
    )


def check_package_owners(
    packages: Mapping[str, Collection[str]], folders: Mapping[str, Path | None]
) -> Diagnosis:
    """Whether our top-level names are ours alone: pip lets another distribution own
    `jobs` without a word."""
    strangers = [
        f"{name} also belongs to {', '.join(distributions)}"
        for name in OURS
        if (distributions := sorted(set(packages.get(name, ())) - {"zsg"}))
    ]
    if strangers:
        return Diagnosis(
            "package",
            PROBLEM,
            "; ".join(strangers),
            "install zsg in an environment of its own",
        )
    if len({folder and folder.parent for folder in folders.values()}) > 1:
        origins = ", ".join(f"{name} from {folder}" for name, folder in folders.items())
        return Diagnosis(
            "package",
            PROBLEM,
            origins,
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
    owners = sorted(name for name in distributions if name.startswith("faiss"))
    if len(owners) < 2:
        none = "not installed; orders are computed by numpy"
        return Diagnosis("faiss", OK, owners[0] if owners else none)
    advice = (
        f"pip uninstall {' '.join(owners)}, then install one of zsg[cpu] and zsg[gpu]"
    )
    finding = f"{' and '.join(owners)} own the same module"
    return Diagnosis("faiss", PROBLEM, finding, advice)


def check_extra(name: str, missing: Collection[str]) -> Diagnosis:
    """Whether an extra is installed. Jobs run in the Python that submits them, so training
    needs its extra here too."""
    if not missing:
        return Diagnosis(f"zsg[{name}]", OK, "installed")
    finding, advice = f"{', '.join(missing)} missing", extras.install_command(name)
    if name in FOR:
        return Diagnosis(f"zsg[{name}]", WARNING, finding, f"{FOR[name]}: {advice}")
    return Diagnosis(
        f"zsg[{name}]", PROBLEM, finding, f"jobs would fail at once: {advice}"
    )


def check_compiler(compilers: Collection[str], named: str | None) -> Diagnosis:
    """Whether there is a C compiler; `named` is the variable CC. On CPUs nothing is
    compiled, on GPUs Triton does."""
    if named:
        return Diagnosis("compiler", OK, f"{named}, which CC names")
    if compilers:
        return Diagnosis("compiler", OK, next(iter(compilers)))
    advice = (
        "not needed on CPUs; on GPUs, and for trainer.compile, have gcc on the nodes: in setup,"
        " module load gcc"
    )
    finding = f"none of {', '.join(COMPILERS)} is on the PATH"
    return Diagnosis("compiler", WARNING, finding, advice)


def check_encoding(file_system: str, variables: Mapping[str, str]) -> Diagnosis:
    """Whether names and texts beyond ASCII pass. Python reads the C locale as UTF-8
    unless it is told not to."""
    deciding = [
        f"{key}={variables[key]}"
        for key in ("LC_ALL", "LC_CTYPE", "LANG")
        if variables.get(key)
    ]
    locale = deciding[0] if deciding else "no locale"
    if file_system.replace("-", "").lower() == "utf8":
        return Diagnosis("locale", OK, f"UTF-8 ({locale})")
    advice = "export LC_ALL=C.UTF-8"
    return Diagnosis("locale", WARNING, f"{file_system} ({locale})", advice)


def check_sandbox(
    kind: str, find: Callable[..., Sandbox] = sandbox.find_sandbox
) -> Diagnosis:
    """Whether HumanEval's programs could be run here; on a cluster each evaluate job
    tries its own node first."""
    scope = "" if kind == "local" else " on this machine; evaluate jobs try their nodes"
    try:
        return Diagnosis("sandbox", OK, f"{find(allowed=True).name}{scope}")
    except ClusterError as error:
        advice = f"only for metric humaneval/…: {error}"
        return Diagnosis("sandbox", WARNING, f"none{scope}", advice)


def check_receivers(
    receivers: Sequence[Receiver], environment: Mapping[str, str] = os.environ
) -> list[Diagnosis]:
    """Whether those that the profile's `notify` names can be told from here. Sends
    nothing."""
    return [_check_receiver(receiver, environment) for receiver in receivers]


def _check_receiver(receiver: Receiver, environment: Mapping[str, str]) -> Diagnosis:
    why = notice_receivers.explain_unusable(receiver, environment)
    if why is not None:
        advice = f"nobody is told there: export {receiver.variable}=… before you submit"
        return Diagnosis("notify", WARNING, why, advice)
    if receiver.way == Way.COMMAND:
        program = receiver.command[0]
        if shutil.which(program) is None:
            advice = "nobody is told by it: give its whole path"
            return Diagnosis("notify", WARNING, f"{program} is no program here", advice)
    events = ", ".join(receiver.on)
    return Diagnosis("notify", OK, f"{receiver.name} is told of {events}")


def check_import_path(folders: Sequence[str]) -> Diagnosis:
    """Whether somebody else could have Python import their code: by a folder on its
    path that others may write."""
    faults = [
        fault
        for folder in dict.fromkeys(folders)
        if (fault := ownership.find_fault(Path(folder or ".").resolve()))
    ]
    if launcher.CURRENT_FOLDER_WAS_ON_PATH:
        return Diagnosis(
            "python path",
            PROBLEM,
            "PYTHONPATH has an empty part, which is the folder you are in, whosesoever that is",
            "export PYTHONPATH=${PYTHONPATH:+$PYTHONPATH:}FOLDER leaves none",
        )
    open_to_others = [fault for fault in faults if fault.mend]
    if open_to_others:
        advice = open_to_others[0].mend or ""
        return Diagnosis("python path", PROBLEM, _summarize(open_to_others), advice)
    if faults:
        advice = "what they put there runs as yours: do you trust them?"
        return Diagnosis("python path", WARNING, _summarize(faults), advice)
    return Diagnosis(
        "python path", OK, "nobody else may write the folders that Python imports from"
    )


def check_workspace_owner(workspace: Path) -> Diagnosis:
    """Whether nobody but the user may write what is run from a workspace, nor put
    another in its place."""
    above = ownership.find_open_parent(workspace)
    if above and above.by_all:
        finding = f"{above}: others can put another workspace in its place"
        advice = above.mend or "use a workspace in a folder of your own"
        return Diagnosis("owner", PROBLEM, finding, advice)
    if not workspace.is_dir():
        if above:
            return _warn_of_replacement(above)
        return Diagnosis("owner", OK, "the workspace will be made for you alone")
    if ownership.is_group_workspace(workspace):
        return _check_group(workspace)
    return _check_own(workspace, above)


def _check_own(workspace: Path, above: OpenParent | None) -> Diagnosis:
    fault = ownership.find_fault(workspace)
    if fault and not fault.mend:
        advice = "use a workspace of your own: what lies in one is run as yours"
        return Diagnosis("owner", PROBLEM, str(fault), advice)
    faults = [*([fault] if fault else []), *workspaces.list_faults(workspace)]
    if faults:
        return _diagnose_faults(faults)
    if above:
        return _warn_of_replacement(above)
    return Diagnosis(
        "owner", OK, "nobody else may write what is run from the workspace"
    )


def _diagnose_faults(faults: Sequence[Fault]) -> Diagnosis:
    """What is a stranger's is told first: no change of its rights would mend it."""
    strange = [fault for fault in faults if not fault.mend]
    if strange:
        advice = f"look at it, then rm -r {_quote_paths(strange)}"
        return Diagnosis("owner", PROBLEM, _summarize(strange), advice)
    finding = f"{_summarize(faults)}; what lies there is run as yours"
    return Diagnosis("owner", PROBLEM, finding, f"chmod go-w {_quote_paths(faults)}")


def _warn_of_replacement(above: OpenParent) -> Diagnosis:
    finding = f"{above}: who may write there can put another workspace in its place"
    advice = "zsg refuses what is not yours, whenever it looks"
    return Diagnosis("owner", WARNING, finding, advice)


def _check_group(workspace: Path) -> Diagnosis:
    group = ownership.find_group_name(workspace)
    if not ownership.is_member(workspace):
        finding = f"{workspace} is of group {group}, and you are not in it"
        return Diagnosis("owner", PROBLEM, finding, "another --workspace")
    owner = ownership.find_user_name(workspace.stat().st_uid)
    finding = f"of group {group}, made by {owner}; each runs only their own code"
    return Diagnosis("owner", OK, finding)


def _summarize(faults: Sequence[Fault]) -> str:
    """The first fault, and how many more there are."""
    if len(faults) == 1:
        return f"{faults[0]}"
    return f"{faults[0]}, and {len(faults) - 1} more"


def _quote(path: Path) -> str:
    return shlex.quote(str(path))


def _quote_paths(faults: Sequence[Fault]) -> str:
    return " ".join(_quote(fault.path) for fault in faults[:MOST_SHOWN])


def check_locks(folder: Path, kind: str) -> Diagnosis:
    """Whether files can be locked in a folder, on a file system of that kind."""
    missing = locks.find_missing_locks(folder)
    if missing is None:
        return Diagnosis("locks", OK, f"files can be locked, on {kind}")
    finding = (
        f"{folder}, on {kind}, has no locks (flock: {missing.finding}), so that nothing can"
        " be submitted there"
    )
    return Diagnosis("locks", PROBLEM, finding, locks.ADVICE)


def check_tracking_store(kind: str, uri: str | None) -> Diagnosis:
    """Whether MLflow's own store can live on the workspace's file system."""
    if uri is not None:
        return Diagnosis("tracking", OK, uri)
    # sqlite locks with fcntl, which these keep badly or not at all (sqlite.org, "How To
    # Corrupt An SQLite Database File").
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


def _check_slurm(profile: Profile, run: Runner) -> list[Diagnosis]:
    programs = check_slurm_programs(
        [
            name
            for name in ("sbatch", "srun", "squeue", "scontrol", "sacct")
            if not shutil.which(name)
        ]
    )
    if programs.verdict == PROBLEM:
        return [programs]
    try:
        return [programs, *cluster_checks.check_cluster(profile, run)]
    except ClusterError as error:
        finding = " ".join(str(error).split())
        advice = "is the controller up? scontrol ping"
        return [programs, Diagnosis("slurm", PROBLEM, finding, advice)]


def _check_workspace(profile: Profile, folder: Path) -> Iterator[Diagnosis]:
    typed, target = paths.make_absolute(folder), folder.resolve()
    link = f", a link to {target}" if folder.is_symlink() else ""
    try:
        existing = next(path for path in (target, *target.parents) if path.exists())
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
        kind = file_system(mounts, existing)
        with tempfile.TemporaryFile(dir=existing):
            free = shutil.disk_usage(existing).free / 1e9
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
    yield check_locks(existing, kind)
    yield check_workspace_owner(typed)
    yield check_tracking_store(kind, profile.tracking.uri)


def _folder_of(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def _parent(folders: Mapping[str, Path | None]) -> Path | None:
    folder = folders.get("launcher")
    return folder and folder.parent
