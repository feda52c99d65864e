"""Says how the examples of a grid's models are to meet in a batch: what a proof in the
workspace tells, or that a job will make it. Neither torch nor transformers is imported.
"""

import shlex
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from jobs.contract import model_proof
from jobs.contract.folder import is_whole
from jobs.contract.model_proof import PACKED, PADDED, REFUSED, AttentionProof
from launcher.clusters import profiles
from launcher.grids.runs import Run
from launcher.planning.memory_fit import Load
from launcher.planning.site import Site
from zsg_core.training.attention_kernel import FLASH, AttentionKernel, choose_kernel

PROOFS = f"{model_proof.FOLDER}/"
_MEANS = {
    PACKED: "one after the other, without padding",
    PADDED: "each in a row of its own, filled up to the longest",
    REFUSED: "in no way: zsg does not train it",
}


def describe_models(site: Site, runs: Sequence[Run]) -> list[str]:
    """A line for each model of the runs whose examples may meet in more than one way."""
    models = {run.base: run.proof for run in runs if run.base}
    return [
        describe_model(folder, find_proof(site, digest))
        for folder, digest in models.items()
        if digest
    ]


def describe_model(folder: Path, proof: AttentionProof | None) -> str:
    """How examples of a model meet, by its proof; or that there is none yet."""
    if proof is None:
        return (
            f"model.path {folder}: how its examples may meet in a batch is not yet proven: prepare"
            f" proves it; {_name_doctor(folder)} does at once"
        )
    means = _MEANS.get(proof.batching, proof.batching)
    return f"model.path {folder}: its examples stand in a batch {means}: {proof.describe()}"


def find_padded(site: Site, runs: Sequence[Run]) -> set[str]:
    """By which digests the models of the runs are proven whose examples are padded."""
    digests = {run.proof for run in runs if run.proof}
    padded: set[str] = set()
    for digest in digests:
        proof = find_proof(site, digest)
        if proof is not None and proof.batching == PADDED:
            padded.add(digest)
    return padded


def choose_run_kernel(run: Run, load: Load, padded: Collection[str]) -> AttentionKernel:
    """By which kernel a run attends on GPUs. `load`: what it is estimated by; `padded`:
    see find_padded."""
    return choose_kernel(load.shape, load.precision, run.proof in padded)


def describe_kernels(
    site: Site, runs: Sequence[Run], load_of: Callable[[Run], Load]
) -> list[str]:
    """A line for each model of the user's that is to attend on GPUs by another kernel
    than torch's flash kernel: which, and why."""
    padded = find_padded(site, runs)
    lines: dict[str, None] = {}
    for run in runs:
        load = load_of(run)
        if run.base is None or load.device != "cuda":
            continue
        kernel = choose_run_kernel(run, load, padded)
        if kernel.kernel != FLASH:
            lines[f"model.path {run.base}: attention by {kernel.describe()}"] = None
    return list(lines)


def list_refusals(site: Site, runs: Sequence[Run]) -> list[str]:
    """Why a submit would be refused: models whose examples can meet in no way, and
    examples longer than was proven."""
    facts = [
        (run.base, run.proof, run.stage["train"]["max_length"])
        for run in runs
        if run.base and run.proof
    ]
    refusals = [
        _find_refusal(folder, find_proof(site, digest), max_length)
        for folder, digest, max_length in dict.fromkeys(facts)
    ]
    return list(dict.fromkeys(filter(None, refusals)))


def _find_refusal(
    folder: Path, proof: AttentionProof | None, max_length: int
) -> str | None:
    why = proof.find_refusal(max_length) if proof else None
    if why is None:
        return None
    return f"model.path {folder}: {why} ({_name_doctor(folder)} proves it anew)"


def _name_doctor(folder: Path) -> str:
    return f"zsg doctor --model {shlex.quote(str(folder))}"


def is_made(site: Site, need: str) -> bool:
    """Whether what a run needs, as `kind/id` in the workspace, was made: mostly a folder
    that is whole, of a model a proof."""
    if need.startswith(PROOFS):
        return find_proof(site, need.removeprefix(PROOFS)) is not None
    return is_whole(site.workspace.root / need)


def lets_start(site: Site, need: str, max_length: int | None) -> bool:
    """The same for a run that is to start: a model that its proof refuses is not trained.
    `max_length`: of the run's examples, None for a job that trains on none."""
    if not need.startswith(PROOFS):
        return is_made(site, need)
    proof = find_proof(site, need.removeprefix(PROOFS))
    return proof is not None and proof.find_refusal(max_length) is None


def find_proof(site: Site, digest: str) -> AttentionProof | None:
    """The proof of a model with the versions that jobs have: those that are installed
    here. Where jobs may have others, and here is none with these, it is of any."""
    versions = model_proof.read_proof_versions()
    proof = None
    if versions is not None:
        proof = model_proof.read_proof(site.workspace, digest, versions)
    is_certain = versions is not None and profiles.is_python_of_jobs(site.profile)
    if proof is None and not is_certain:
        proof = model_proof.read_proof(site.workspace, digest, None)
    return proof
