"""Digests folders of data and models by the content of the files that matter, and finds what has changed."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from zsg_core import readers
from zsg_core.errors import UserError
from zsg_core.readers.format import root
from zsg_core.scores.metrics import REWARD
from zsg_core.suites import PROMPTS

TOKENIZER_FILES = ("tokenizer*", "*.model", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt")
# A chat model's templates: they decide nothing here, but whoever serves a snapshot asks for them.
TEMPLATE_FILES = ("chat_template*", "additional_chat_templates/*.jinja")
MODEL_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin*", *TOKENIZER_FILES)

Files = Callable[[Path], Sequence[Path]]


def data_files(reader: str) -> Files:
    """What lists the files of a data set that are read."""
    return readers.FORMATS[reader].files


def suite_files(name: str) -> Files:
    """What lists the files that decide something which `zsg_core.suites.needs` names."""
    return {PROMPTS: one_file, REWARD: model_files}.get(name) or data_files(name)


def one_file(path: Path) -> list[Path]:
    """The file itself, for what is one."""
    return [path]


def model_files(folder: Path) -> list[Path]:
    """The files of a model that decide its weights and its tokens."""
    return _some(folder, {path for pattern in MODEL_FILES for path in folder.glob(pattern) if path.is_file()})


def embedding_files(folder: Path) -> list[Path]:
    """Every file of an embedding model: its pooling stands in a folder of its own."""
    return _some(folder, {path for path in folder.rglob("*") if path.is_file()})


def sha256_of(paths: Sequence[Path]) -> list[str]:
    """The SHA-256 of each file, several at a time."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(_sha256, paths))


def folder_digest(folder: Path, files: Sequence[Path], digests: Sequence[str]) -> str:
    """One digest of files, from their names within the folder and their own digests.

    `folder` may be a file or a pattern: then names are those within the folder above it.
    """
    rows = [[str(path.relative_to(root(folder))), digest] for path, digest in zip(files, digests, strict=True)]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def tiny_digest(folder: Path) -> str:
    """The digest of a tiny base: of its weights and its tokenizer."""
    names = ("model.safetensors", "tokenizer.json")
    return hashlib.sha256(b"".join(hashlib.sha256((folder / name).read_bytes()).digest() for name in names)).hexdigest()


def refuse_changed(folder: Path, list_files: Files, digest: str) -> None:
    """Raises UserError unless the folder still holds what was planned: days may lie between."""
    files = list_files(folder)
    if folder_digest(folder, files, sha256_of(files)) != digest:
        raise UserError(f"{folder} has changed since it was submitted; zsg submit again makes runs of what it is now")


def refuse_other_reading(reader: str, path: Path, source: Mapping[str, Any]) -> None:
    """Raises UserError where the files would be read otherwise than the recipe says, as one of an older zsg does."""
    if dict(readers.look(reader, path).marks) != source.get("read", {}):
        raise UserError(
            f"{path}: this version of zsg reads it otherwise than the one that planned this; zsg submit again makes "
            "runs of what is read now"
        )


def _some(folder: Path, files: set[Path]) -> list[Path]:
    if not files:
        raise UserError(f"{folder}: holds no model files; give a local Hugging Face folder")
    return sorted(files)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
