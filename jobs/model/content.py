"""Digests folders of data and models by the content of the files that matter, and finds
what has changed."""

import contextlib
import fnmatch
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.files import ordinary_files
from jobs.files.model_file_names import (
    GENERATION,
    LEGACY_TEMPLATE,
    TEMPLATE_FOLDER,
    TEMPLATE_NAMES,
    TOKENIZER_NAMES,
)
from zsg_core.data import readers
from zsg_core.data.readers.format import root_folder
from zsg_core.errors import UserError
from zsg_core.metrics.metrics import REWARD
from zsg_core.side_by_side import map_side_by_side
from zsg_core.suites import BASELINE, PROMPTS

# What decides a digest: broader than what is copied (model_file_names), since the
# digests of known models rest on it.
TOKENIZER_FILES = (
    "tokenizer*",
    "*.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
)
WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin*")
MODEL_FILES = (
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "pytorch_model*.bin*",
    *TOKENIZER_FILES,
)
# What transformers puts on top of the weights by itself where it lies beside them.
ADAPTER = "adapter_config.json"
TEMPLATES = f"{TEMPLATE_FOLDER}/*.jinja"
MOST_TEMPLATES = 200

Files = Callable[[Path], Sequence[Path]]


def data_files(reader: str) -> Files:
    """What lists the files of a data set that are read."""
    return readers.FORMATS[reader].files


def suite_files(name: str) -> Files:
    """What lists the files that decide something which `zsg_core.suites.find_needed_files`
    names."""
    listed = {PROMPTS: one_file, BASELINE: one_file, REWARD: reward_files}
    return listed.get(name) or data_files(name)


def one_file(path: Path) -> list[Path]:
    """The file itself, for what is one."""
    return [path]


def model_files(folder: Path) -> list[Path]:
    """The files of a model that decide its weights and its tokens.

    UserError for links out of the folder and what is no ordinary file, among them and
    among all that is copied or that transformers reads by itself; and for an adapter,
    which it would put on top of the weights.
    """
    refuse_strange_model(folder)
    if os.path.lexists(folder / ADAPTER):
        raise UserError(
            f"{folder}: an adapter lies beside the weights ({ADAPTER}), which transformers would"
            " put on top of them; move it out of the folder, or merge it (peft: merge_and_unload,"
            " then save_pretrained)"
        )
    return _some(
        folder,
        {
            path
            for pattern in MODEL_FILES
            for path in folder.glob(pattern)
            if path.is_file()
        },
    )


def reward_files(folder: Path) -> list[Path]:
    """The files of a reward model: its chat templates decide what it reads, too, where
    they are files of their own."""
    templates = [path for path in templates_of(folder) if path.name != LEGACY_TEMPLATE]
    return sorted([*model_files(folder), *templates])


def count_loaded_bytes(folder: Path) -> float:
    """What the weights of a folder take on a GPU, in 16 bits an element: by the sizes
    of its files and the type that its config names, float32 where it names none.

    Of two forms of the same weights the safetensors count, as they are what is loaded.
    A folder that is not there takes nothing: whoever loads it says so.
    """
    files = list(folder.glob(WEIGHT_FILES[0])) or list(folder.glob(WEIGHT_FILES[1]))
    size = sum(path.stat().st_size for path in files if path.suffix != ".json")
    config: Any = None
    with contextlib.suppress(OSError, ValueError, RecursionError):
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    settings: dict[str, Any] = config if isinstance(config, dict) else {}
    dtype = settings.get("dtype") or settings.get("torch_dtype") or "float32"
    return size / (1 if str(dtype).endswith("16") else 2)


def embedding_files(folder: Path) -> list[Path]:
    """Every file of an embedding model: its pooling stands in a folder of its own.
    UserError as for `model_files`."""
    ordinary_files.refuse_strange_tree(folder)
    return _some(folder, {path for path in folder.rglob("*") if path.is_file()})


def refuse_strange_model(folder: Path) -> None:
    """UserError for a link out of the folder, or what is no ordinary file, among all
    that is read of it."""
    names = (*MODEL_FILES, *TOKENIZER_NAMES, *TEMPLATE_NAMES, GENERATION, "adapter_*")
    files = [path for path in _there(folder) if _has_name(path, names)]
    weights = [path for path in files if _has_name(path, WEIGHT_FILES)]
    ordinary_files.refuse_strange_files(folder, weights, are_weights=True)
    ordinary_files.refuse_strange_files(
        folder, [path for path in files if path not in weights]
    )
    _refuse_strange_templates(folder)


def _refuse_strange_templates(folder: Path) -> None:
    templates = folder / TEMPLATE_FOLDER
    if templates.is_symlink():
        raise UserError(
            f"{templates} is a link to a folder, which zsg does not follow; copy the folder"
        )
    if templates.is_dir():
        ordinary_files.refuse_strange_files(
            folder, [path for path in _there(templates) if path.suffix == ".jinja"]
        )


def copied_files(folder: Path, *extra_names: str) -> list[Path]:
    """What of a model's folder goes into a folder that is made of it: tokenizer,
    templates, and other names."""
    named = [folder / name for name in (*TOKENIZER_NAMES, *extra_names)]
    return [*(path for path in named if path.is_file()), *templates_of(folder)]


def templates_of(folder: Path) -> list[Path]:
    """The chat templates of a folder that are files of their own. UserError for more
    than any model has."""
    named = [path for name in TEMPLATE_NAMES if (path := folder / name).is_file()]
    in_folder = sorted(path for path in folder.glob(TEMPLATES) if path.is_file())
    if len(in_folder) > MOST_TEMPLATES:
        raise UserError(
            f"{folder / TEMPLATE_FOLDER}: {len(in_folder)} templates; zsg copies up to"
            f" {MOST_TEMPLATES}"
        )
    return [*named, *in_folder]


def _there(folder: Path) -> list[Path]:
    """What lies in a folder, but for folders: links that lead nowhere and pipes, too."""
    return sorted(
        path for path in folder.iterdir() if path.is_symlink() or not path.is_dir()
    )


def _has_name(path: Path, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(path.name, pattern) for pattern in patterns)


def sha256_of(paths: Sequence[Path]) -> list[str]:
    """The SHA-256 of each file, several at a time."""
    return map_side_by_side(_sha256, paths, 8)


def folder_digest(folder: Path, files: Sequence[Path], digests: Sequence[str]) -> str:
    """One digest of files, from their names within the folder and their own digests.

    `folder` may be a file or a pattern: then names are those within the folder above it.
    """
    rows = [
        [str(path.relative_to(root_folder(folder))), digest]
        for path, digest in zip(files, digests, strict=True)
    ]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def tiny_digest(folder: Path) -> str:
    """The digest of a tiny base: of its weights and its tokenizer."""
    names = ("model.safetensors", "tokenizer.json")
    return hashlib.sha256(
        b"".join(
            hashlib.sha256((folder / name).read_bytes()).digest() for name in names
        )
    ).hexdigest()


def refuse_changed(folder: Path, list_files: Files, digest: str) -> None:
    """Raises UserError unless the folder still holds what was planned: days may lie between."""
    files = list_files(folder)
    if folder_digest(folder, files, sha256_of(files)) != digest:
        raise UserError(
            f"{folder} has changed since it was submitted; zsg submit again makes runs of what it"
            " is now"
        )


def refuse_other_reading(reader: str, path: Path, source: Mapping[str, Any]) -> None:
    """Raises UserError where the files would be read otherwise than the recipe says, as
    one of an older zsg does."""
    looked = readers.inspect_files(reader, path, fields=source.get("fields"))
    if dict(looked.marks) != source.get("read", {}):
        raise UserError(
            f"{path}: this version of zsg reads it otherwise than the one that planned this; zsg"
            " submit again makes runs of what is read now"
        )


def _some(folder: Path, files: set[Path]) -> list[Path]:
    if not files:
        raise UserError(
            f"{folder}: holds no model files; give a local Hugging Face folder"
        )
    return sorted(files)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
