"""Has a model's folder proven with torch, in a process of its own, and keeps for which
content that was done.

proven.json of a workspace: by the digest of a folder, the versions that it was proven
with. Another content or another version of transformers is not proven.
"""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

from jobs.contract.folder import Workspace, read_json, write_json
from jobs.model import content
from launcher.doctor.diagnosis import OK, PROBLEM, Diagnosis
from launcher.grids import model_folder
from launcher.grids.inputs import Inputs
from launcher.workspace import workspaces
from zsg_core.errors import UserError

DEPENDS_ON = ("torch", "transformers", "tokenizers")


def prove_model(folder: Path, place: Workspace) -> Diagnosis:
    """What files tell of a folder, and then what torch does; what is proven is kept in
    the workspace."""
    try:
        folder = folder.expanduser().resolve()
        model_folder.check_llama(folder)
    except (UserError, OSError) as error:
        return Diagnosis("model", PROBLEM, str(error), "nothing was loaded")
    command = [sys.executable, "-m", "jobs.preparing.proof", str(folder)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONSAFEPATH": "1"},
    )
    try:
        told = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[
            -1
        ][:300]
        return Diagnosis(
            "model",
            PROBLEM,
            f"{folder}: could not be tried: {said}",
            "has this machine the memory for it?",
        )
    if told["faults"]:
        return Diagnosis(
            "model",
            PROBLEM,
            f"{folder}: {'; '.join(told['faults'])}",
            "it cannot be trained as it is",
        )
    workspaces.create(place)
    write_json(
        _record(place), _kept(place) | {_digest(folder, place): told["versions"]}
    )
    shown = ", ".join(f"{name} {version}" for name, version in told["versions"].items())
    return Diagnosis(
        "model",
        OK,
        f"{folder}: its weights, a forward pass and its tokenizer are proven with {shown}",
    )


def is_proven(place: Workspace, digest: str) -> bool:
    """Whether a folder of this content was proven, with the versions that are installed."""
    installed = _versions()
    return installed is not None and _kept(place).get(digest) == installed


def _digest(folder: Path, place: Workspace) -> str:
    digests = Inputs(place.digest_cache)
    made = digests.digest_folder(folder, content.model_files)
    digests.save()
    return made


def _versions() -> dict[str, str] | None:
    try:
        return {name: importlib.metadata.version(name) for name in DEPENDS_ON}
    except importlib.metadata.PackageNotFoundError:
        return None


def _record(place: Workspace) -> Path:
    return place.root / "proven.json"


def _kept(place: Workspace) -> dict[str, dict[str, str]]:
    try:
        kept = read_json(_record(place))
    except ValueError:  # damaged: what was proven is proven again
        return {}
    return kept if isinstance(kept, dict) else {}
