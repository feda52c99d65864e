"""Says how the examples of a grid's models are to meet in a batch: what a proof in the
workspace tells, or that a job will make it. Neither torch nor transformers is imported.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from jobs.contract import model_proof
from jobs.contract.folder import Workspace, get_object, read_json
from jobs.contract.model_proof import PACKED, PADDED, REFUSED, AttentionProof
from launcher.grids.runs import Run

# whose examples are packed without a proof: see jobs.model.batching
ALWAYS_PACKED = "llama"

_MEANS = {
    PACKED: "one after the other, without padding",
    PADDED: "each in a row of its own, filled up to the longest",
    REFUSED: "in no way: zsg does not train it",
}


def needs_proof(folder: Path) -> bool:
    """Whether a node must prove the attention of a model before it trains."""
    return _read_config(folder).get("model_type") != ALWAYS_PACKED


def describe_models(workspace: Workspace, runs: Sequence[Run]) -> list[str]:
    """A line for each model of the runs whose examples may meet in more than one way."""
    return [
        describe_model(workspace, folder)
        for folder in _list_models(runs)
        if needs_proof(folder)
    ]


def describe_model(workspace: Workspace, folder: Path) -> str:
    """How examples of a model meet, by its proof; or that there is none yet."""
    proof = find_proof(workspace, folder)
    if proof is None:
        return (
            f"model.path {folder}: how its examples may meet in a batch is not yet proven: prepare"
            f" proves it; zsg doctor --model {shlex.quote(str(folder))} does at once"
        )
    means = _MEANS.get(proof.batching, proof.batching)
    return f"model.path {folder}: its examples stand in a batch {means}: {proof.describe()}"


def list_refusals(workspace: Workspace, runs: Sequence[Run]) -> list[str]:
    """Why a submit would be refused: models whose examples can meet in no way, and
    examples longer than was proven."""
    lengths = [(run.base, run.stage["train"]["max_length"]) for run in runs if run.base]
    return [
        refusal
        for folder, max_length in dict.fromkeys(lengths)
        if (refusal := _find_refusal(workspace, folder, max_length))
    ]


def _find_refusal(workspace: Workspace, folder: Path, max_length: int) -> str | None:
    proof = find_proof(workspace, folder) if needs_proof(folder) else None
    if proof is None:
        return None
    if proof.batching == REFUSED:
        return describe_model(workspace, folder)
    if proof.longest is None or max_length <= proof.longest:
        return None
    return (
        f"train.max_length {max_length}: {folder} rotates positions otherwise beside a text of"
        f" more than {proof.longest} tokens; lower it to {proof.longest}"
    )


def find_proof(workspace: Workspace, folder: Path) -> AttentionProof | None:
    """The proof of a model with the versions that are installed here; on a machine
    without them, of any."""
    config = _read_config(folder)
    versions = model_proof.read_proof_versions()
    if versions is None:
        return model_proof.find_any_proof(workspace, config)
    return model_proof.read_proof(workspace, config, versions)


def _list_models(runs: Sequence[Run]) -> list[Path]:
    return list(dict.fromkeys(run.base for run in runs if run.base))


def _read_config(folder: Path) -> dict[str, object]:
    return get_object(read_json(folder / "config.json"))
