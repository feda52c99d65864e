"""model-proofs/: how examples of a kind of model may meet in a batch, as it was proven
with one version of torch and transformers. See jobs.model.attention_proof.

A file is named by the config and by the versions: others are not proven. Of a config
only what can change attention counts, so a model whose vocabulary was extended, or one
of other special tokens, is proven with the first. What zsg makes of a model, as a base
with more tokens or the weights of a stage, has that model's proof: its config.json may
be written in another way.
"""

import functools
import importlib.metadata
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from jobs.contract.folder import Damaged, Workspace, list_paths
from jobs.contract.records import read_record, write_record
from zsg_core.digest import content_id

FOLDER = "model-proofs"
# how a file of it is called: digest, versions
NAME = re.compile(r"(?P<digest>[0-9a-f]{12})\.[\w.-]+\.json")
PACKED = "packed"
PADDED = "padded"
REFUSED = "refused"
# Packed since zsg began, as all of its recorded runs were; the check for leaks that
# every training starts with is of its attention.
ALWAYS_PACKED = "llama"

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
    `largest_logit` is what they are measured by. `fault`: why nothing could be tried.
    `longest`: the tokens of the longest text for which it holds, None for all.
    """

    schema: int = 1
    model_type: str
    batching: str
    packed: float | None = None
    packed_fault: str | None = None
    padded: float | None = None
    padded_fault: str | None = None
    largest_logit: float
    fault: str | None = None
    longest: int | None = None
    seconds: float = 0.0
    versions: dict[str, str] = {}

    def describe(self) -> str:
        """The verdict and its numbers, in words."""
        if self.fault is not None:
            return f"{self.batching} ({self.fault})"
        tried = [
            _describe_one("packed", self.packed, self.packed_fault, self.largest_logit),
            _describe_one("padded", self.padded, self.padded_fault, self.largest_logit),
        ]
        return f"{self.batching} ({'; '.join(tried)})"

    def find_refusal(self, max_length: int | None) -> str | None:
        """Why examples of such a model cannot be trained on, with both numbers; None
        where they can. `max_length`: the tokens of the longest, None for any."""
        if self.fault is not None:
            return self.fault
        if self.batching == REFUSED:
            return (
                f"in no way do examples of this {self.model_type!r} model stand in a batch and give"
                f" what each gives alone: {self.describe()}; zsg does not train it"
            )
        return explain_too_long(max_length, self.longest)


def _describe_one(
    how: str, difference: float | None, fault: str | None, largest: float
) -> str:
    if difference is None:
        return f"{how}: {fault}"
    return f"{how}: logits are {difference:.2g} of {largest:.3g} off each text alone"


def explain_too_long(max_length: int | None, longest: int | None) -> str | None:
    """Why texts of `max_length` tokens cannot be trained on where rotations hold for
    texts of at most `longest`; None where they can."""
    if longest is None or max_length is None or max_length <= longest:
        return None
    return (
        "its positions are rotated otherwise in a batch that holds a text of more than"
        f" {longest} tokens, so an example's loss would depend on those beside it;"
        f" train.max_length is {max_length}, set it to at most {longest}"
    )


@functools.cache
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


def needs_proof(config: Mapping[str, Any]) -> bool:
    """Whether it must be proven how examples of a model of this config.json may meet."""
    # older configs of Llamas do not say what they are
    return config.get("model_type", ALWAYS_PACKED) != ALWAYS_PACKED


def digest_config(config: Mapping[str, Any]) -> str:
    """One digest of all of a config.json that can change attention."""
    counted = {
        key: value
        for key, value in config.items()
        if key not in FREE_KEYS and not key.endswith(FREE_END)
    }
    # as a text: some hold an infinity, which is no JSON
    return content_id({"way": WAY, "config": json.dumps(counted, sort_keys=True)})


def name_proof(digest: str) -> str:
    """The proof of a config as something that runs need, by its digest."""
    return f"{FOLDER}/{digest}"


def locate_proof(
    workspace: Workspace, digest: str, versions: Mapping[str, str]
) -> Path:
    """Where the proof of a config belongs, by its digest."""
    marks = ".".join(f"{name}-{version}" for name, version in versions.items())
    return workspace.model_proofs / f"{digest}.{marks}.json"


def read_proof(
    workspace: Workspace, digest: str, versions: Mapping[str, str] | None
) -> AttentionProof | None:
    """The proof of a config with these versions; with `versions` None, for machines that
    do not know those of the nodes, of any, the last one by name.

    None where there is none, or none that can be read: it is made again.
    """
    if versions is not None:
        return _read_if_sound(locate_proof(workspace, digest, versions))
    paths = list_paths(workspace.model_proofs, f"{digest}.*.json")
    proofs = [_read_if_sound(path) for path in paths]
    return next((proof for proof in reversed(proofs) if proof), None)


def write_proof(workspace: Workspace, digest: str, proof: AttentionProof) -> None:
    """Keeps a proof for all that ask for the same."""
    write_record(locate_proof(workspace, digest, proof.versions), proof)


def _read_if_sound(path: Path) -> AttentionProof | None:
    try:
        return read_record(path, AttentionProof)
    except Damaged:
        return None
