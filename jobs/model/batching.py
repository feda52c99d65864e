"""Decides how the examples of a base meet in a batch, by the proof that a workspace
keeps; where it keeps none, it is made.

Prepare jobs make it before anything is trained. It holds for all bases of the same
config with the same versions, and for what zsg makes of them: whoever knows from which
model a base was made says by which `digest` it is known.
"""

import logging
from pathlib import Path
from typing import Any

from jobs.contract import model_proof
from jobs.contract.folder import Damaged, Workspace, get_object, read_json
from jobs.contract.model_proof import (
    ALWAYS_PACKED,
    PACKED,
    AttentionProof,
    explain_too_long,
)
from jobs.files.file_errors import describe_error
from jobs.model import architecture
from jobs.model.attention_proof import try_to_prove
from jobs.model.base_model import read_config
from jobs.model.small_config import find_longest
from jobs.runtime.together import share_first
from zsg_core.errors import UserError

logger = logging.getLogger(__name__)


def agree_on_attention(
    folder: Path,
    workspace: Workspace,
    max_length: int,
    digest: str | None = None,
) -> str | None:
    """The attention to load a base with for training, None for zsg's own; all ranks call
    it together. Rank 0 decides, so that none is of another opinion.

    `digest`: see find_or_make_proof. UserError, on all ranks, where its examples can
    meet in no way, or are longer than it was proven for.
    """
    return share_first(lambda: choose_attention(folder, workspace, max_length, digest))


def choose_attention(
    folder: Path,
    workspace: Workspace,
    max_length: int | None = None,
    digest: str | None = None,
) -> str | None:
    """The attention to load a base with, by transformers' name; None for zsg's own, in
    which examples are packed.

    UserError as for agree_on_attention; without `max_length` for no length.
    """
    config = read_config(folder)
    if config.model_type == ALWAYS_PACKED:
        _refuse(folder, explain_too_long(max_length, find_longest(config)))
        return None
    proof = find_or_make_proof(folder, workspace, config, digest)
    _refuse(folder, proof.find_refusal(max_length))
    if proof.batching == PACKED:
        return None
    return architecture.choose_attention(architecture.find_class(config))


def find_or_make_proof(
    folder: Path,
    workspace: Workspace,
    config: Any = None,
    digest: str | None = None,
    *,
    must_keep: bool = False,
) -> AttentionProof:
    """The proof of a folder's model with the versions that are installed.

    `digest`: of the config by which it is known, where the folder was made of another
    model's. `must_keep`: a proof that cannot be kept is an error, OSError or Damaged.
    """
    digest = digest or model_proof.digest_config(read_config_file(folder))
    versions = model_proof.read_proof_versions()
    proof = None
    if versions is not None:
        proof = model_proof.read_proof(workspace, digest, versions)
    if proof is None:
        proof = try_to_prove(config or read_config(folder))
        logger.info(f"{folder}: examples are {proof.describe()}")
        _keep(workspace, digest, proof, must_keep)
    return proof


def read_config_file(folder: Path) -> dict[str, Any]:
    """A folder's config.json as it is written; empty where it is no object."""
    return get_object(read_json(folder / "config.json"))


def _keep(
    workspace: Workspace, digest: str, proof: AttentionProof, must_keep: bool
) -> None:
    """Keeps a proof. For those who need it now it saves seconds: nothing of theirs ends
    because it cannot be kept."""
    try:
        model_proof.write_proof(workspace, digest, proof)
    except (OSError, Damaged) as error:
        if must_keep:
            raise
        text = describe_error(error) if isinstance(error, OSError) else error
        logger.warning(f"{text}; the proof of this model is made again each time")


def _refuse(folder: Path, why: str | None) -> None:
    """UserError where there is a reason not to train a folder's model."""
    if why is not None:
        raise UserError(f"{folder}: {why}")
