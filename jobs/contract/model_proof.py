"""model-proofs/: how examples of a kind of model may meet in a batch, as it was proven
with one version of torch and transformers. See jobs.model.attention_proof.

A file is named by the config and by the versions: others are not proven. Of a config
only what can change attention counts, so a model whose vocabulary was extended, or one
of other special tokens, is proven with the first.
"""

import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from jobs.contract.folder import Damaged, Workspace, list_paths
from jobs.contract.records import read_record, write_record
from zsg_core.digest import content_id

PACKED = "packed"
PADDED = "padded"
REFUSED = "refused"

# raised where the same versions would prove in another way
WAY = 1
DEPENDS_ON = ("torch", "transformers")

# keys of a config that change nothing of who sees whom, and the end of the names of more
FREE_KEYS = {
    "_name_or_path",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "use_cache",
    "vocab_size",
}
FREE_END = "_token_id"


class AttentionProof(msgspec.Struct, frozen=True, kw_only=True):
    """How texts may meet in a batch, and by which numbers.

    `batching`: packed, padded or refused. `packed`, `padded`: the largest difference of
    a logit to each text alone, and the fault where it could not be tried;
    `largest_logit` is what they are measured by. `longest`: the tokens of the longest
    text for which it holds, None for all.
    """

    schema: int = 1
    model_type: str
    batching: str
    packed: float | None = None
    packed_fault: str | None = None
    padded: float | None = None
    padded_fault: str | None = None
    largest_logit: float
    longest: int | None = None
    seconds: float = 0.0
    versions: dict[str, str] = {}

    def describe(self) -> str:
        """The verdict and its numbers, in words."""
        tried = [
            _describe_one("packed", self.packed, self.packed_fault, self.largest_logit),
            _describe_one("padded", self.padded, self.padded_fault, self.largest_logit),
        ]
        return f"{self.batching} ({'; '.join(tried)})"


def _describe_one(
    how: str, difference: float | None, fault: str | None, largest: float
) -> str:
    if difference is None:
        return f"{how}: {fault}"
    return f"{how}: logits are {difference:.2g} of {largest:.3g} off each text alone"


def read_proof_versions() -> dict[str, str] | None:
    """The versions that a proof made here holds for, without the build; None where
    torch or transformers is not installed."""
    try:
        return {
            name: importlib.metadata.version(name).partition("+")[0]
            for name in DEPENDS_ON
        }
    except importlib.metadata.PackageNotFoundError:
        return None


def digest_config(config: Mapping[str, Any]) -> str:
    """One digest of all of a config.json that can change attention."""
    counted = {
        key: value
        for key, value in config.items()
        if key not in FREE_KEYS and not key.endswith(FREE_END)
    }
    # as a text: some hold an infinity, which is no JSON
    return content_id({"way": WAY, "config": json.dumps(counted, sort_keys=True)})


def locate_proof(
    workspace: Workspace, config: Mapping[str, Any], versions: Mapping[str, str]
) -> Path:
    """Where the proof of a config belongs."""
    marks = ".".join(f"{name}-{version}" for name, version in versions.items())
    return workspace.model_proofs / f"{digest_config(config)}.{marks}.json"


def read_proof(
    workspace: Workspace, config: Mapping[str, Any], versions: Mapping[str, str]
) -> AttentionProof | None:
    """The proof of a config with these versions; None where there is none, or none that
    can be read: it is made again."""
    return _read_if_sound(locate_proof(workspace, config, versions))


def find_any_proof(
    workspace: Workspace, config: Mapping[str, Any]
) -> AttentionProof | None:
    """A proof of a config with whatever versions, for machines that do not know those of
    the nodes; the last one by name."""
    paths = list_paths(workspace.model_proofs, f"{digest_config(config)}.*.json")
    proofs = [_read_if_sound(path) for path in paths]
    return next((proof for proof in reversed(proofs) if proof), None)


def write_proof(
    workspace: Workspace, config: Mapping[str, Any], proof: AttentionProof
) -> None:
    """Keeps a proof for all that ask for the same."""
    write_record(locate_proof(workspace, config, proof.versions), proof)


def _read_if_sound(path: Path) -> AttentionProof | None:
    try:
        return read_record(path, AttentionProof)
    except Damaged:
        return None
