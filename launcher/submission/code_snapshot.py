"""Keeps the code that jobs run as it was when they were submitted: `code/<digest>/` holds the packages nodes import.

The digest is over names and bytes, so jobs submitted from the same files share a folder; what is changed in the
checkout afterwards reaches only what is submitted afterwards.
"""

import compileall
import hashlib
import importlib.metadata
import platform
import py_compile
import shlex
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jobs
import zsg_core
from jobs.folder import Workspace, is_committed, naming, publish, write_text
from jobs.own_code import VARIABLE
from zsg_core.errors import UserError

PACKAGES = (jobs, zsg_core)
DIGITS = 16


def refuse_colon(workspace: Workspace) -> None:
    """UserError for a workspace whose name cannot stand in PYTHONPATH."""
    if ":" in str(workspace.root):
        raise UserError(f"workspace {workspace.root}: ':' parts the folders of PYTHONPATH; use another folder")


def take(workspace: Workspace) -> dict[str, Any]:
    """Keeps the code in the workspace; returns what job.json says of it: versions, commit, digest and folder.

    UserError for a workspace whose name cannot stand in PYTHONPATH.
    """
    refuse_colon(workspace)
    facts, files, patch = _now()
    folder = workspace.code(facts["digest"])
    if not is_committed(folder):
        with publish(folder) as draft:
            for name, content in files.items():
                path = draft / name
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                with naming(path):
                    path.write_bytes(content)
            _compile(draft, folder)
    facts = facts | {"folder": str(folder)}
    if patch:
        facts["patch"] = f"{facts['commit'][:12]}.patch"
        if not (folder / facts["patch"]).exists():
            write_text(folder / facts["patch"], patch)
    return facts


def environment(code: Mapping[str, Any], path: str = "") -> dict[str, str]:
    """The variables by which a job finds its code, before what `path`, a PYTHONPATH, names already."""
    folder = code.get("folder")
    if not folder:
        return {}
    return {"PYTHONPATH": f"{folder}:{path}" if path else folder, VARIABLE: folder}


def script_lines(code: Mapping[str, Any]) -> list[str]:
    """The same for a job's script, after whatever its other lines have done to the path."""
    folder = shlex.quote(code["folder"])
    return [f"export PYTHONPATH={folder}${{PYTHONPATH:+:$PYTHONPATH}}", f"export {VARIABLE}={folder}"]


def _compile(draft: Path, folder: Path) -> None:
    """Compiles the files for the folder they are going to lie in: a thousand jobs need not, all at once."""
    compileall.compile_dir(
        draft, quiet=2, stripdir=str(draft), prependdir=str(folder),
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )  # fmt: skip


@cache
def _now() -> tuple[dict[str, Any], dict[str, bytes], str | None]:
    """What the code is at this moment: facts, files by their name, and what a checkout has not committed."""
    files = contents([Path(str(package.__file__)).resolve().parent for package in PACKAGES])
    facts: dict[str, Any] = {"zsg": importlib.metadata.version("zsg"), "python": platform.python_version()}
    facts["digest"] = digest(files)
    patch = None
    here = Path(str(PACKAGES[0].__file__)).resolve().parent.parent
    if (here / ".git").exists():
        facts["commit"] = _git(here, "rev-parse", "HEAD")
        facts["dirty"] = bool(_git(here, "status", "--porcelain", "--untracked-files=no"))
        patch = _git(here, "diff", "HEAD") if facts["dirty"] and facts["commit"] else None
    return facts, files, patch


def contents(packages: list[Path]) -> dict[str, bytes]:
    """The files of packages, by their name from where the package lies; nothing compiled, nothing hidden."""
    found = {}
    for package in packages:
        for path in sorted(package.rglob("*")):
            name = path.relative_to(package.parent)
            hidden = any(part.startswith((".", "__pycache__")) for part in name.parts)
            if path.is_file() and path.suffix != ".pyc" and not hidden:
                found[str(name)] = path.read_bytes()
    return found


def digest(files: Mapping[str, bytes]) -> str:
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
