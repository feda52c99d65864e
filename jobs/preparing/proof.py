"""Proves of a model's folder what its files cannot tell: `python -m jobs.preparing.proof FOLDER`.

It is loaded as the nodes load it, on the CPU in its own precision: nothing made up or
left out, no weight that is no number, a forward pass of finite logits, and a tokenizer
that gives text back. And a small model of its config shows how examples may meet in a
batch. The last line on stdout is JSON: `faults`, each a sentence, the `versions` that
it was proven with, and `attention`, a proof of jobs.contract.model_proof.
"""

import importlib.metadata
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from jobs.contract.model_proof import ALWAYS_PACKED, REFUSED, AttentionProof
from jobs.model.architecture import find_class
from jobs.model.base_model import read_config
from jobs.model.vocabulary import load_vocabulary, refuse_lossy
from zsg_core.errors import UserError

VERSIONS = ("torch", "transformers", "tokenizers")
TEXTS = (
    "Hello, big world!\n Is it 12.5 or 13?",
    "def f(x):\n    return x + 1\n\nf(2)",
    "a  b\tc",
)


def prove_attention(folder: Path) -> AttentionProof | None:
    """How examples of the folder's model may meet; None for a Llama, whose are packed."""
    from jobs.model import attention_proof

    config = read_config(folder)
    if config.model_type == ALWAYS_PACKED:
        return None
    return attention_proof.try_to_prove(config)


def _find_faults_of(attention: AttentionProof | None) -> list[str]:
    """Why a model is refused by the proof of its attention."""
    if attention is None or attention.batching != REFUSED:
        return []
    if attention.fault is not None:
        return [attention.fault]
    return [f"its examples cannot meet in a batch: {attention.describe()}"]


def find_faults(folder: Path) -> Iterator[str]:
    """Each as a sentence; none where all is proven."""
    import torch

    try:
        vocabulary = load_vocabulary(folder)
        refuse_lossy(folder, vocabulary, TEXTS)
        ids = vocabulary.tokenize(TEXTS[0])
        model_class = find_class(read_config(folder))
    except UserError as error:
        yield str(error)
        return
    loaded: Any = model_class.from_pretrained(
        folder, local_files_only=True, dtype="auto", output_loading_info=True
    )
    model, report = loaded
    for trouble, key in (
        ("made up", "missing_keys"),
        ("left out", "unexpected_keys"),
        ("misshapen", "mismatched_keys"),
    ):
        names = sorted(map(str, report.get(key) or ()))
        if names:
            yield f"{len(names)} tensors were {trouble}, the first {names[0][:120]}"
    bad = [
        name
        for name, weight in model.named_parameters()
        if not torch.isfinite(weight).all()
    ]
    if bad:
        yield f"{len(bad)} tensors hold NaN or infinity, the first {bad[0]}"
        return
    if vocabulary.bos is not None:
        ids = [vocabulary.bos, *ids]
    with torch.no_grad():
        logits = model.eval()(input_ids=torch.tensor([ids]), use_cache=False).logits
    if not torch.isfinite(logits).all():
        yield (
            f"a forward pass in {str(model.dtype).removeprefix('torch.')} gives logits that are NaN"
            " or infinity"
        )


def main() -> None:
    """The command: prints what was found; whatever transformers raises is a fault, too."""
    folder = Path(sys.argv[1])
    attention: AttentionProof | None = None
    try:
        attention = prove_attention(folder)
        faults = _find_faults_of(attention)
        if attention is None or attention.fault is None:
            faults += find_faults(folder)
    except UserError as error:
        faults = [str(error)]
    except (
        Exception
    ) as error:  # of every kind: that the folder does not load is the answer
        lines = str(error).strip().splitlines() or [type(error).__name__]
        faults = [f"it does not load: {type(error).__name__}: {lines[0][:300]}"]
    proof = {
        "faults": faults,
        "versions": read_versions(),
        "attention": msgspec.to_builtins(attention),
    }
    print(json.dumps(proof))  # noqa: T201


def read_versions() -> dict[str, str]:
    """What a proof holds for."""
    return {name: importlib.metadata.version(name) for name in VERSIONS}


if __name__ == "__main__":
    main()
