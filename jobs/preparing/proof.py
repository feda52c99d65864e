"""Proves of a model's folder what its files cannot tell: `python -m jobs.preparing.proof FOLDER`.

It is loaded as the nodes load it, on the CPU in its own precision: nothing made up or
left out, no weight that is no number, a forward pass of finite logits, and a tokenizer
that gives text back. The last line on stdout is JSON: `faults`, each a sentence, and
the `versions` that it was proven with.
"""

import importlib.metadata
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobs.model.vocabulary import load_vocabulary, refuse_lossy
from zsg_core.errors import UserError

VERSIONS = ("torch", "transformers", "tokenizers")
TEXTS = (
    "Hello, big world!\n Is it 12.5 or 13?",
    "def f(x):\n    return x + 1\n\nf(2)",
    "a  b\tc",
)


def find_faults(folder: Path) -> Iterator[str]:
    """Each as a sentence; none where all is proven."""
    import torch
    from transformers import AutoConfig

    from jobs.model.architecture import find_class

    config = AutoConfig.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    try:
        model_class = find_class(config)
        vocabulary = load_vocabulary(folder)
        refuse_lossy(folder, vocabulary, TEXTS)
        ids = [*vocabulary.beginning, *vocabulary.tokenize(TEXTS[0])]
    except UserError as error:
        yield str(error)
        return
    loaded: Any = model_class.from_pretrained(
        folder, local_files_only=True, dtype="auto", output_loading_info=True
    )
    model, told = loaded
    for what, key in (
        ("made up", "missing_keys"),
        ("left out", "unexpected_keys"),
        ("misshapen", "mismatched_keys"),
    ):
        names = sorted(map(str, told.get(key) or ()))
        if names:
            yield f"{len(names)} tensors were {what}, the first {names[0][:120]}"
    bad = [
        name
        for name, weight in model.named_parameters()
        if not torch.isfinite(weight).all()
    ]
    if bad:
        yield f"{len(bad)} tensors hold NaN or infinity, the first {bad[0]}"
        return
    with torch.no_grad():
        logits = model.eval()(input_ids=torch.tensor([ids]), use_cache=False).logits
    if not torch.isfinite(logits).all():
        yield (
            f"a forward pass in {str(model.dtype).removeprefix('torch.')} gives logits that are NaN"
            " or infinity"
        )


def main() -> None:
    """The command: prints what was found; whatever transformers raises is a fault, too."""
    try:
        found = [*find_faults(Path(sys.argv[1]))]
    except (
        Exception
    ) as error:  # of every kind: that the folder does not load is the answer
        lines = str(error).strip().splitlines() or [type(error).__name__]
        found = [f"it does not load: {type(error).__name__}: {lines[0][:300]}"]
    print(json.dumps({"faults": found, "versions": read_versions()}))  # noqa: T201


def read_versions() -> dict[str, str]:
    """What a proof holds for."""
    return {name: importlib.metadata.version(name) for name in VERSIONS}


if __name__ == "__main__":
    main()
