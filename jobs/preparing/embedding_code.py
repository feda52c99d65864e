"""Finds in an embedding model's folder what would run code or load pickles: the folder
is from the internet.

sentence-transformers takes the classes of its modules from modules.json, and hands
arguments that stand in a module's config to transformers' from_pretrained. Before
version 6 it imports a class from a .py file of a local folder; in 6.2, `"model_args":
{"weights_only": false}` loads pickles as they are. So what may stand there is listed
here, and looked at by plan and before every loading.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from zsg_core.errors import UserError
from zsg_core.schema_errors import format_brief

MOST_BYTES = 10_000_000  # of a config; published ones have some hundred
MOST_MODULES = 100
# The modules of sentence-transformers 6.2 that load nothing but weights and settings.
MODULES = (
    "BoW",
    "CNN",
    "Dense",
    "Dropout",
    "LayerNorm",
    "LSTM",
    "Normalize",
    "Pooling",
    "StaticEmbedding",
    "Transformer",
    "WeightedLayerPooling",
    "WordEmbeddings",
    "WordWeights",
)
_MODULE = re.compile(rf"sentence_transformers(\.[a-z_]+)*\.({'|'.join(MODULES)})")
_PACKAGE = "sentence_transformers."
# The arguments that a module's config may hand to transformers: none of them loads,
# fetches or runs anything.
ARGUMENTS = (
    "model_args",
    "model_kwargs",
    "tokenizer_args",
    "processor_kwargs",
    "config_args",
    "config_kwargs",
)
HARMLESS = (
    "add_pooling_layer",
    "add_prefix_space",
    "attn_implementation",
    "clean_up_tokenization_spaces",
    "do_lower_case",
    "dtype",
    "max_length",
    "model_max_length",
    "output_attentions",
    "output_hidden_states",
    "padding_side",
    "reference_compile",
    "strip_accents",
    "torch_dtype",
    "truncation_side",
    "use_cache",
    "use_fast",
    "use_safetensors",
)
CLASSES = (
    "AutoConfig",
    "AutoModel",
    "AutoTokenizer",
    "AutoProcessor",
    "AutoImageProcessor",
    "AutoFeatureExtractor",
)


def refuse_own_code(folder: Path) -> None:
    """UserError, with the file, for a folder whose loading would run code of its own."""
    for fault in find_faults(folder):
        raise UserError(f"arrangement.embedding: {folder}: {fault}")


def find_faults(folder: Path) -> Iterator[str]:
    """Each as a sentence that begins with the file's name. UserError for a file that
    cannot be read."""
    listed = _read(folder / "modules.json")
    if not isinstance(listed, list) or not listed or len(listed) > MOST_MODULES:
        yield "modules.json: is no list of modules"
        listed = []
    folders = {folder}
    for row in listed:
        kind = row.get("type") if isinstance(row, dict) else None
        place = row.get("path") if isinstance(row, dict) else None
        if not isinstance(kind, str) or not isinstance(place, str):
            yield "modules.json: has a module without a type or a path"
        elif not _MODULE.fullmatch(kind):
            yield (
                f"modules.json: names a module of type {kind[:80]!r}, which zsg does not load: it"
                " runs no code of a model's folder; its modules must be sentence-transformers' own"
                f" ({', '.join(MODULES)})"
            )
        elif (
            PurePosixPath(place).is_absolute()
            or ".." in PurePosixPath(place).parts
            or "\0" in place
        ):
            yield f"modules.json: has a module outside of the folder, {place[:80]!r}"
        else:
            folders.add(folder / place)
    for path in sorted(
        path for one in folders if one.is_dir() for path in one.glob("*config*.json")
    ):
        told = _read(path)
        if isinstance(told, dict):
            for fault in _of_config(told):
                yield f"{path.relative_to(folder)}: {fault}"


def find_kernel_faults(told: dict[str, Any]) -> Iterator[str]:
    """The fault of a config that names an implementation of attention on the hub, which
    is code that is fetched."""
    for key in (
        "attn_implementation",
        "_attn_implementation",
        "_attn_implementation_internal",
    ):
        named = told.get(key)
        values = list(named.values()) if isinstance(named, dict) else [named]
        for value in values:
            if isinstance(value, str) and "/" in value:
                yield (
                    f"{key} names code of the hub ({value[:80]!r}), which zsg does not fetch or"
                    " run; take it out of a copy of the folder"
                )


def _of_config(told: dict[str, Any]) -> Iterator[str]:
    yield from find_kernel_faults(told)
    named = told.get("auto_map")
    if isinstance(named, list):  # as older files have it
        named = {"AutoTokenizer": named}
    if not isinstance(named, dict):
        named = {}
    for key in CLASSES:
        if named.get(key):
            yield (
                f"auto_map names code of its own ({format_brief(named[key])}), which zsg does not"
                " run; take another model"
            )
    for key in ARGUMENTS:
        given = told.get(key)
        if not given:
            continue
        if not isinstance(given, dict):
            yield f"{key} is no mapping"
            continue
        yield from find_kernel_faults(given)
        for name, value in given.items():
            if name not in HARMLESS or isinstance(value, dict | list):
                yield (
                    f"{key} sets {name[:80]!r}, which may load or run what else lies in the folder;"
                    f" zsg lets pass {', '.join(HARMLESS)}; take it out of a copy of the folder"
                )
    for name in _classes(told):
        if not name.startswith(_PACKAGE):
            yield f"names a class of other code, {name[:80]!r}, which zsg does not run"


def _classes(told: dict[str, Any]) -> Iterator[str]:
    """The classes that a config of sentence-transformers names by their modules."""
    types = told.get("types")
    named = [*types.values()] if isinstance(types, dict) else []
    named += [told.get("type"), told.get("tokenizer_class")]
    for name in named:
        if isinstance(name, str) and "." in name:
            yield name


def _read(path: Path) -> Any:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(
                f"{path} has more than {MOST_BYTES:,} bytes; it is no config of a model"
            )
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON: {str(error)[:200]}") from None
