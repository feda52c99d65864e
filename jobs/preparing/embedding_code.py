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
from collections.abc import Iterable, Iterator
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
    modules = _read(folder / "modules.json")
    if not _is_module_list(modules):
        yield "modules.json: is no list of modules"
        modules = []
    folders = {folder}
    for module in modules:
        fault = _find_module_fault(module)
        if fault:
            yield f"modules.json: {fault}"
        else:
            folders.add(folder / module["path"])
    for path in _list_configs(folders):
        config = _read(path)
        if isinstance(config, dict):
            for fault in _find_config_faults(config):
                yield f"{path.relative_to(folder)}: {fault}"


def _is_module_list(modules: Any) -> bool:
    """Whether it is a list of modules that is not empty, nor too long to be one."""
    return isinstance(modules, list) and 0 < len(modules) <= MOST_MODULES


def _find_module_fault(module: Any) -> str:
    """Why a module of modules.json is not loaded; "" if it may be."""
    fields = module if isinstance(module, dict) else {}
    kind, path = fields.get("type"), fields.get("path")
    if not isinstance(kind, str) or not isinstance(path, str):
        return "has a module without a type or a path"
    if not _MODULE.fullmatch(kind):
        return (
            f"names a module of type {kind[:80]!r}, which zsg does not load: it"
            " runs no code of a model's folder; its modules must be sentence-transformers' own"
            f" ({', '.join(MODULES)})"
        )
    if not _is_within(path):
        return f"has a module outside of the folder, {path[:80]!r}"
    return ""


def _is_within(path: str) -> bool:
    """Whether a path cannot lead out of the folder that it is relative to."""
    pure_path = PurePosixPath(path)
    if pure_path.is_absolute() or ".." in pure_path.parts:
        return False
    return "\0" not in path


def _list_configs(folders: Iterable[Path]) -> list[Path]:
    """The configs that lie in the folders, those that there are."""
    return sorted(
        path
        for folder in folders
        if folder.is_dir()
        for path in folder.glob("*config*.json")
    )


def find_kernel_faults(config: dict[str, Any]) -> Iterator[str]:
    """The fault of a config that names an implementation of attention on the hub, which
    is code that is fetched."""
    for key in (
        "attn_implementation",
        "_attn_implementation",
        "_attn_implementation_internal",
    ):
        named = config.get(key)
        values = list(named.values()) if isinstance(named, dict) else [named]
        for value in values:
            if isinstance(value, str) and "/" in value:
                yield (
                    f"{key} names code of the hub ({value[:80]!r}), which zsg does not fetch or"
                    " run; take it out of a copy of the folder"
                )


def _find_config_faults(config: dict[str, Any]) -> Iterator[str]:
    yield from find_kernel_faults(config)
    yield from _find_auto_map_faults(config)
    for key in ARGUMENTS:
        if config.get(key):
            yield from _find_argument_faults(key, config[key])
    for name in _classes(config):
        if not name.startswith(_PACKAGE):
            yield f"names a class of other code, {name[:80]!r}, which zsg does not run"


def _find_auto_map_faults(config: dict[str, Any]) -> Iterator[str]:
    """The classes of a model's own code that transformers would import."""
    auto_map = config.get("auto_map")
    if isinstance(auto_map, list):  # as older files have it
        auto_map = {"AutoTokenizer": auto_map}
    if not isinstance(auto_map, dict):
        return
    for key in CLASSES:
        if auto_map.get(key):
            yield (
                f"auto_map names code of its own ({format_brief(auto_map[key])}), which zsg does"
                " not run; take another model"
            )


def _find_argument_faults(key: str, arguments: Any) -> Iterator[str]:
    """The arguments for transformers that are not known to be harmless."""
    if not isinstance(arguments, dict):
        yield f"{key} is no mapping"
        return
    yield from find_kernel_faults(arguments)
    for name, value in arguments.items():
        if name not in HARMLESS or isinstance(value, dict | list):
            yield (
                f"{key} sets {name[:80]!r}, which may load or run what else lies in the folder;"
                f" zsg lets pass {', '.join(HARMLESS)}; take it out of a copy of the folder"
            )


def _classes(config: dict[str, Any]) -> Iterator[str]:
    """The classes that a config of sentence-transformers names by their modules."""
    types = config.get("types")
    named = [*types.values()] if isinstance(types, dict) else []
    named += [config.get("type"), config.get("tokenizer_class")]
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
