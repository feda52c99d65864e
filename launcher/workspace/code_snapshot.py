"""Keeps the code that jobs run as it was when they were submitted: `code/<digest>/`
holds the packages nodes import.

The digest is over names and bytes, so jobs submitted from the same files share a
folder; what is changed in the checkout afterwards reaches only what is submitted
afterwards.

The folder's name says what it is to hold, and everybody can compute it. So before a
folder is used it is read again, and made anew where it holds anything else or where
others may write it; and a job's script looks once more, by programs of the system,
before it starts any Python (`guard_lines`).
"""

import compileall
import hashlib
import importlib.metadata
import logging
import os
import platform
import py_compile
import shlex
import subprocess
import sys
import uuid
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

import jobs
import zsg_core
from jobs.contract.folder import (
    COMMIT,
    Workspace,
    is_committed,
    name_file_in_errors,
    publish_folder,
    sync_to_disk,
    write_text,
)
from jobs.files import ownership
from jobs.runtime import installed_versions
from jobs.runtime.code_guard import VARIABLE
from launcher.workspace import allowed_plugins
from launcher.workspace.side_by_side import write_side_by_side
from zsg_core.errors import UserError
from zsg_core.plugins import loading
from zsg_core.plugins.declarations import PluginFile

logger = logging.getLogger(__name__)

PACKAGES = (jobs, zsg_core)
# what plugins import, and the copies of these
PUBLIC = "zsg"
NAMES = (*(package.__name__ for package in PACKAGES), PUBLIC, loading.PACKAGE)
DIGITS = 16
_CARRIED: ContextVar[tuple[PluginFile, ...]] = ContextVar("carried", default=())


def refuse_colon(workspace: Workspace) -> None:
    """UserError for a workspace whose name cannot stand in PYTHONPATH."""
    if ":" in str(workspace.root):
        raise UserError(
            f"workspace {workspace.root}: ':' parts the folders of PYTHONPATH; use another folder"
        )


def refuse_unallowed(plugins: tuple[PluginFile, ...]) -> None:
    """UserError for plugins that the user has not allowed."""
    if unallowed := allowed_plugins.find_unallowed(plugins):
        raise UserError(
            f"plugin {unallowed[0].name} is not allowed yet; zsg submit asks, or takes"
            " --allow-plugins"
        )


@contextmanager
def carrying(plugins: tuple[PluginFile, ...]) -> Generator[None]:
    """While it lasts, snapshots have these plugins beside zsg's own code. UserError for
    one that the user has not allowed."""
    refuse_unallowed(plugins)
    token = _CARRIED.set(plugins)
    try:
        yield
    finally:
        _CARRIED.reset(token)


def take_snapshot(workspace: Workspace) -> dict[str, Any]:
    """Keeps the code in the workspace; returns what job.json says of it: versions,
    commit, digest and folder.

    UserError for a workspace whose name cannot stand in PYTHONPATH.
    """
    refuse_colon(workspace)
    facts, files, patch = _now(_CARRIED.get())
    folder = locate_code(workspace, facts["digest"])
    if not is_committed(folder) or _FOUND_WELL.get(folder) != _stamp(folder):
        _make_sure(workspace, folder, files)
        _FOUND_WELL[folder] = _stamp(folder)
    facts = facts | {"folder": str(folder)}
    if patch:
        facts["patch"] = f"{facts['commit'][:12]}.patch"
        if not (folder / facts["patch"]).exists():
            write_text(folder / facts["patch"], patch)
            _FOUND_WELL[folder] = _stamp(folder)  # this was the change
    return facts


def locate_code(workspace: Workspace, digest: str) -> Path:
    """Where the code of a digest is kept for this user. In a group's workspace the name
    may be another member's, whose code is never run: then the user's own has the user's
    number behind it."""
    folder = workspace.code(digest)
    if not ownership.is_group_workspace(workspace.root):
        return folder
    try:
        is_own = folder.lstat().st_uid == os.geteuid()
    except FileNotFoundError:
        is_own = True
    return folder if is_own else workspace.code(f"{digest}-{os.geteuid()}")


def name_folder(code: Mapping[str, Any]) -> str:
    """The name of the folder of a job's code, by what its records say of the code."""
    return Path(code.get("folder") or str(code.get("digest"))).name


# by this process, which takes one for each job that it submits
_FOUND_WELL: dict[Path, tuple[int, int] | None] = {}


def _stamp(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_ctime_ns


def _make_sure(workspace: Workspace, folder: Path, files: Mapping[str, bytes]) -> None:
    """Has the folder hold these files and no others, written by nobody but the user."""
    why = _unsound(workspace.root, folder, files) if is_committed(folder) else ""
    if why is None:
        return
    if why:
        logger.warning(
            f"note: {folder} is not used as it is: {why}; the code of this zsg is put in its place"
        )
    if folder.exists() or folder.is_symlink():
        _put_away(folder)
    with publish_folder(folder, sync=_sync_side_by_side) as draft:
        draft.chmod(ownership.PRIVATE)  # in a group's workspace, too: it is run
        for name, content in files.items():
            path = draft / name
            ownership.make_private_folder(path.parent)
            with name_file_in_errors(path):
                path.write_bytes(content)
        _compile(draft, folder)
        _close(draft)


def _sync_side_by_side(paths: Iterable[Path]) -> None:
    """Hundreds of small files wait for the disk together."""
    write_side_by_side(sync_to_disk, paths)


def _put_away(folder: Path) -> None:
    """Takes its name from a folder of code that is not to be run, so that it can be
    made anew; it is not removed."""
    try:
        folder.rename(folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.gone"))
    except PermissionError as error:  # in a group's workspace that another has made
        raise UserError(
            f"{folder} is not yours, and is not run; have its owner remove it"
        ) from error


def _close(draft: Path) -> None:
    """Has what was made be the owner's alone, whatever the umask: Python makes folders
    for what it compiles."""
    for path in draft.rglob("*"):
        path.chmod(
            ownership.PRIVATE
            if path.is_dir()
            else path.stat().st_mode & ~ownership.NO_WRITE_BY_OTHERS
        )


def _unsound(root: Path, folder: Path, files: Mapping[str, bytes]) -> str | None:
    """Why a folder of code must not be run; None if it may."""
    fault = ownership.find_fault_on_path(root, folder) or ownership.find_fault_within(
        folder
    )
    if fault:
        return str(fault)
    packages = {name.partition("/")[0] for name in files}
    strange = _find_strange_names(folder, packages)
    if strange:
        return f"{min(strange)} has been put there"
    kept_files = read_packages([folder / package for package in sorted(packages)])
    if compute_digest(kept_files) != compute_digest(files):
        return "it holds other code than its name says"
    return None


def _find_strange_names(folder: Path, packages: Collection[str]) -> list[str]:
    """What lies in a folder of code besides its packages, its mark and its patches."""
    names = [path.name for path in folder.iterdir() if path.suffix != ".patch"]
    return [name for name in names if name not in {*packages, COMMIT}]


def refuse_strange(workspace: Workspace, folder: Path) -> None:
    """UserError for kept code that others may have written. What it holds was read when
    it was taken."""
    if fault := ownership.find_fault_on_path(workspace.root, folder):
        raise UserError(
            f"{fault}: code that others may write is not run as yours. Mend it, then zsg submit"
            " again"
        )


def guard_lines(code: Mapping[str, Any], submission: Path) -> list[str]:
    """What a job's script looks at before it starts Python: is its code what was
    submitted, and nobody else's to write?

    By `find` and `sha256sum`, since Python would run what it is to look at.
    `submission`: the folder of the pickles that the job loads. The script itself lies
    with Slurm.
    """
    folder = Path(code["folder"])
    root = folder.parent.parent
    group = ownership.find_own_group()
    closed = (
        [folder, submission]
        if ownership.is_group_workspace(root)
        else [root, folder.parent, submission.parent, submission]
    )
    by_group = "-perm -020" if group is None else f"-perm -020 ! -gid {group}"
    others = f"'(' ! -uid $EUID ! -uid 0 -o -perm -002 -o {by_group} ')'"
    return [
        f"zsg_odd=$(find -H {_words(closed)} -maxdepth 0 {others}",
        f"find -H {_words([folder])} '(' -type l -o {others} ')')",
        'if [[ -n "$zsg_odd" ]]; then',
        (
            "  echo \"zsg: others may write ${zsg_odd%%$'\\n'*}, and nothing from there is run; see"
            ' zsg doctor"'
        ),
        "  exit 1",
        "fi",
        (
            f"zsg_sum=$(cd {_words([folder])} && {_LISTED} | LC_ALL=C sort -z | xargs -0 sha256sum"
            " | sha256sum)"
        ),
        f'if [[ "${{zsg_sum%% *}}" != {_sum(folder, _stamp(folder))} ]]; then',
        (
            f"  echo zsg: {_words([folder])} holds other code than was submitted, and it is not"
            " run: zsg submit again"
        ),
        "  exit 1",
        "fi",
        "unset zsg_odd zsg_sum",
    ]


# Another Python, as in a container, compiles for itself beside what this one has compiled.
_TAG = f"*.{sys.implementation.cache_tag}.pyc"
_LISTED = f"find . -type f ! -name '*.patch' '(' ! -name '*.pyc' -o -name '{_TAG}' ')' -print0"


@cache
def _sum(folder: Path, stamp: tuple[int, int] | None) -> str:
    """What `_LISTED | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum` says in a folder."""
    listed = [
        path for path in folder.rglob("*") if path.is_file() and path.suffix != ".patch"
    ]
    names = [
        f"./{path.relative_to(folder)}"
        for path in listed
        if path.suffix != ".pyc" or path.match(_TAG)
    ]
    lines = [
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n"
        for name in sorted(names)
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _words(paths: Sequence[Path]) -> str:
    return " ".join(shlex.quote(str(path)) for path in paths)


def make_environment(code: Mapping[str, Any], path: str = "") -> dict[str, str]:
    """The variables by which a job finds its code, before what `path`, a PYTHONPATH,
    names already."""
    folder = code.get("folder")
    if not folder:
        return {}
    # An empty part would be the folder in which a job is started.
    parts = [folder, *(part for part in path.split(":") if part)]
    return {"PYTHONPATH": ":".join(parts), VARIABLE: folder, **_versions_to_compare()}


def version_lines() -> list[str]:
    """The same for a job's script."""
    variables = _versions_to_compare()
    return [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]


def _versions_to_compare() -> dict[str, str]:
    """The variable by which a job knows the versions of the submit."""
    versions = installed_versions.read_versions()
    return {installed_versions.VARIABLE: installed_versions.spell_versions(versions)}


def script_lines(code: Mapping[str, Any]) -> list[str]:
    """The same for a job's script, after whatever its other lines have done to the path."""
    folder = shlex.quote(code["folder"])
    return [
        # An empty part would be the folder in which the job was submitted.
        (
            'zsg_path=":${PYTHONPATH:-}:"; while [[ $zsg_path == *::* ]]; do'
            " zsg_path=${zsg_path//::/:}; done"
        ),
        f"export PYTHONPATH={folder}${{zsg_path%:}}; unset zsg_path",
        f"export {VARIABLE}={folder}",
    ]


def _compile(draft: Path, folder: Path) -> None:
    """Compiles the files for the folder they are going to lie in: a thousand jobs need
    not, all at once."""
    compileall.compile_dir(
        draft,
        quiet=2,
        stripdir=str(draft),
        prependdir=str(folder),
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )


@cache
def _now(
    plugins: tuple[PluginFile, ...],
) -> tuple[dict[str, Any], dict[str, bytes], str | None]:
    """What the code is at this moment, with these plugins: facts, files by their name,
    and what a checkout has not committed."""
    folders = [Path(str(package.__file__)).resolve().parent for package in PACKAGES]
    folders.append(folders[0].parent / PUBLIC)
    files = read_packages(folders)
    for plugin in plugins:
        files[loading.name_copy(plugin)] = plugin.content
    facts: dict[str, Any] = {
        "zsg": importlib.metadata.version("zsg"),
        "python": platform.python_version(),
    }
    facts["digest"] = compute_digest(files)
    patch = None
    here = Path(str(PACKAGES[0].__file__)).resolve().parent.parent
    if (here / ".git").exists():
        facts["commit"] = _git(here, "rev-parse", "HEAD")
        facts["dirty"] = bool(
            _git(here, "status", "--porcelain", "--untracked-files=no")
        )
        patch = (
            _git(here, "diff", "HEAD") if facts["dirty"] and facts["commit"] else None
        )
    return facts, files, patch


def read_packages(packages: list[Path]) -> dict[str, bytes]:
    """The files of packages, by their name from where the package lies; nothing
    compiled, nothing hidden."""
    found = dict[str, bytes]()
    for package in packages:
        for path in sorted(package.rglob("*")):
            name = path.relative_to(package.parent)
            hidden = any(part.startswith((".", "__pycache__")) for part in name.parts)
            if path.is_file() and path.suffix != ".pyc" and not hidden:
                found[str(name)] = path.read_bytes()
    return found


def compute_digest(files: Mapping[str, bytes]) -> str:
    """A short digest over names and bytes."""
    whole = hashlib.sha256()
    for name, content in sorted(files.items()):
        whole.update(f"{name}\0{len(content)}\0".encode() + content)
    return whole.hexdigest()[:DIGITS]


def _git(folder: Path, *argv: str) -> str | None:
    try:
        # Without its optional lock: a status that is killed would leave the user's checkout locked.
        argv = ("git", "--no-optional-locks", "-C", str(folder), *argv)
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace")
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
