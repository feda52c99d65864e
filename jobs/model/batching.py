"""Decides how the examples of a base meet in a batch, by the proof that a workspace
keeps; where it keeps none, it is made.

Prepare jobs make it before anything is trained. It holds for all bases of the same
config with the same versions.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.contract import model_proof
from jobs.contract.folder import Damaged, Workspace, get_object, read_json
from jobs.contract.model_proof import PACKED, REFUSED, AttentionProof
from jobs.files.file_errors import describe_error
from jobs.model import architecture
from jobs.model.attention_proof import prove_attention
from jobs.model.base_model import read_config
from jobs.model.small_config import find_longest
from jobs.runtime.together import share_first
from zsg_core.errors import UserError

logger = logging.getLogger(__name__)

# Packed since zsg began, as all of its recorded runs were; the check for leaks that
# every training starts with is of its attention.
ALWAYS_PACKED = "llama"


def agree_on_attention(
    folder: Path, workspace: Workspace, max_length: int
) -> str | None:
    """The attention to load a base with for training, None for zsg's own; all ranks call
    it together. Rank 0 decides, so that none is of another opinion.

    UserError, on all ranks, where its examples can meet in no way, or are longer than
    it was proven for.
    """
    return share_first(lambda: choose_attention(folder, workspace, max_length))


def choose_attention(
    folder: Path, workspace: Workspace, max_length: int | None = None
) -> str | None:
    """The attention to load a base with, by transformers' name; None for zsg's own, in
    which examples are packed.

    UserError as for agree_on_attention; without `max_length` for no length.
    """
    config = read_config(folder)
    if config.model_type == ALWAYS_PACKED:
        _refuse_longer(folder, max_length, find_longest(config))
        return None
    proof = find_or_make_proof(folder, workspace, config)
    if proof.batching == REFUSED:
        raise UserError(
            f"{folder}: in no way do examples of this {proof.model_type!r} model stand in a batch"
            f" and give what each gives alone: {proof.describe()}; zsg does not train it"
        )
    _refuse_longer(folder, max_length, proof.longest)
    if proof.batching == PACKED:
        return None
    return architecture.choose_attention(architecture.find_class(config))


def find_or_make_proof(
    folder: Path, workspace: Workspace, config: Any = None
) -> AttentionProof:
    """The proof of a folder's config with the versions that are installed. UserError for
    a config that zsg does not train by its kind."""
    as_written = read_config_file(folder)
    versions = model_proof.read_proof_versions() or {}
    proof = model_proof.read_proof(workspace, as_written, versions)
    if proof is None:
        try:
            proof = prove_attention(config or read_config(folder))
        except UserError as error:
            raise UserError(f"{folder}: {error}") from error
        logger.info(f"{folder}: examples are {proof.describe()}")
        _keep(workspace, as_written, proof)
    return proof


def read_config_file(folder: Path) -> dict[str, Any]:
    """A folder's config.json as it is written; empty where it is no object."""
    return get_object(read_json(folder / "config.json"))


def _keep(
    workspace: Workspace, config: Mapping[str, Any], proof: AttentionProof
) -> None:
    """Keeps a proof. It saves seconds: nothing ends because it cannot be kept."""
    try:
        model_proof.write_proof(workspace, config, proof)
    except (OSError, Damaged) as error:
        text = describe_error(error) if isinstance(error, OSError) else error
        logger.warning(f"{text}; the proof of this model is made again each time")


def _refuse_longer(folder: Path, max_length: int | None, longest: int | None) -> None:
    """UserError for texts so long that rotations would depend on the texts around."""
    if longest is not None and max_length is not None and max_length > longest:
        raise UserError(
            f"{folder}: its positions are rotated otherwise in a batch that holds a text of more"
            f" than {longest} tokens, so an example's loss would depend on those beside it;"
            f" train.max_length is {max_length}, set it to at most {longest}"
        )
