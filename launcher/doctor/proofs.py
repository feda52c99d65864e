"""Has a model's folder proven with torch, in a process of its own, and keeps for which
content that was done.

proven.json of a workspace: by the digest of a folder, the versions that it was proven
with. Another content or another version of transformers is not proven.
"""

import contextlib
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

from jobs.contract import model_proof
from jobs.contract.folder import Workspace, get_object, read_json, write_json
from jobs.contract.json_values import convert_json
from jobs.contract.model_proof import PADDED, AttentionProof
from jobs.files.paths import expand_home
from jobs.model import content
from launcher.doctor.diagnosis import OK, PROBLEM, Diagnosis
from launcher.grids import model_folder
from launcher.grids.inputs import Inputs
from launcher.workspace import workspaces
from zsg_core.errors import UserError
from zsg_core.training.attention_kernel import choose_kernel

DEPENDS_ON = ("torch", "transformers", "tokenizers")


def prove_model(folder: Path, workspace: Workspace) -> Diagnosis:
    """What files tell of a folder, and then what torch does; what is proven is kept in
    the workspace."""
    try:
        folder = expand_home(folder).resolve()
        model_folder.check_decoder(folder)
    except (UserError, OSError) as error:
        return Diagnosis("model", PROBLEM, str(error), "nothing was loaded")
    process = subprocess.run(
        [sys.executable, "-m", "jobs.preparing.proof", str(folder)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONSAFEPATH": "1"},
    )
    try:
        proof = json.loads(process.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return Diagnosis(
            "model",
            PROBLEM,
            f"{folder}: could not be tried: {_last_line(process)}",
            "has this machine the memory for it?",
        )
    attention = _keep_attention(folder, workspace, proof.get("attention"))
    if proof["faults"]:
        return Diagnosis(
            "model",
            PROBLEM,
            f"{folder}: {'; '.join(proof['faults'])}",
            "it cannot be trained as it is",
        )
    workspaces.create_workspace(workspace)
    proven = {_digest(folder, workspace): proof["versions"]}
    write_json(_record(workspace), _read_record(workspace) | proven)
    versions = ", ".join(
        f"{name} {version}" for name, version in proof["versions"].items()
    )
    return Diagnosis(
        "model",
        OK,
        f"{folder}: its weights, a forward pass and its tokenizer are proven with {versions}"
        + (f"; its examples are {attention.describe()}" if attention else "")
        + f"; on GPUs in half precision it attends by {_name_kernel(folder, attention)}",
    )


def _name_kernel(folder: Path, attention: AttentionProof | None) -> str:
    """By which kernel the model attends on a GPU, in words."""
    is_padded = attention is not None and attention.batching == PADDED
    shape = model_folder.read_shape(folder)
    return choose_kernel(shape, "bf16", is_padded).describe()


def _keep_attention(
    folder: Path, workspace: Workspace, told: object
) -> AttentionProof | None:
    """How examples of the model may meet, kept for plan and for the nodes; None of a
    Llama, of which nothing need be proven."""
    if told is None:
        return None
    attention = convert_json(told, AttentionProof)
    workspaces.create_workspace(workspace)
    config = get_object(read_json(folder / "config.json"))
    digest = model_proof.digest_config(config)
    # another member's of a group's workspace, who has proven the same
    with contextlib.suppress(PermissionError):
        model_proof.write_proof(workspace, digest, attention)
    return attention


def _last_line(process: subprocess.CompletedProcess[str]) -> str:
    """What a process that failed said last."""
    lines = process.stderr.strip().splitlines()
    return lines[-1][:300] if lines else f"exit code {process.returncode}"


def is_proven(workspace: Workspace, digest: str) -> bool:
    """Whether a folder of this content was proven, with the versions that are installed."""
    installed = _versions()
    return installed is not None and _read_record(workspace).get(digest) == installed


def _digest(folder: Path, workspace: Workspace) -> str:
    inputs = Inputs(workspace.digest_cache)
    digest = inputs.digest_folder(folder, content.model_files)
    inputs.save()
    return digest


def _versions() -> dict[str, str] | None:
    try:
        return {name: importlib.metadata.version(name) for name in DEPENDS_ON}
    except importlib.metadata.PackageNotFoundError:
        return None


def _record(workspace: Workspace) -> Path:
    return workspace.root / "proven.json"


def _read_record(workspace: Workspace) -> dict[str, dict[str, str]]:
    try:
        record = read_json(_record(workspace))
    except ValueError:  # damaged: what was proven is proven again
        return {}
    return get_object(record)
