"""Is a folder a Llama, or a reward model, that a node can load? Told from its files alone, without torch.

The nodes load with transformers' `from_pretrained`, which fills tensors that the files lack with random numbers
and a warning; so every tensor of the architecture is looked for here, by name, in the headers of the files.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from zsg_core.errors import UserError

ARCHITECTURE = "LlamaForCausalLM"
HEAD = "regression_head.weight"
SINGLE = ("model.safetensors", "pytorch_model.bin")
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
TOKENIZERS = ("tokenizer.json", "tokenizer.model")
LFS_POINTER = b"version https://git-lfs"
MAX_HEADER = 100_000_000  # safetensors' own limit
LAYER = (
    "input_layernorm", "mlp.down_proj", "mlp.gate_proj", "mlp.up_proj", "post_attention_layernorm",
    "self_attn.k_proj", "self_attn.o_proj", "self_attn.q_proj", "self_attn.v_proj",
)  # fmt: skip


def check(folder: Path) -> None:
    """Raises UserError unless the folder has a Llama's config, all its weights and a tokenizer."""
    _check("model.path", folder, _refuse_no_llama)


def check_reward(key: str, folder: Path) -> None:
    """Raises UserError unless the folder has a model with a head that gives one number, and a tokenizer."""
    _check(key, folder, _refuse_no_reward)


def _check(key: str, folder: Path, refuse: Callable[[Path], None]) -> None:
    try:
        refuse(folder)
        if not any((folder / name).is_file() for name in TOKENIZERS):
            raise UserError(f"{folder} has no tokenizer ({' or '.join(TOKENIZERS)})")
    except UserError as error:
        raise UserError(f"{key}: {error}") from None


def _refuse_no_llama(folder: Path) -> None:
    config = _config(folder)
    held = _tensors(folder)
    if held is not None:  # a single .bin does not tell what is in it
        lacking = [name for name in _wanted(folder, config) if name not in held]
        if lacking:
            raise UserError(f"{folder}: the weights lack {len(lacking)} tensors, the first {lacking[0]}")


def _refuse_no_reward(folder: Path) -> None:
    config, held = _read_config(folder), _tensors(folder)
    names = config.get("architectures") or []
    if any(str(name).endswith("ForSequenceClassification") for name in names):
        outputs = config.get("num_labels", len(config.get("id2label") or (0, 1)))
        if outputs != 1:
            raise UserError(f"{folder}: classifies into {outputs}; a reward model has one output")
    elif config.get("model_type") != "llama" or (held is not None and HEAD not in held):
        raise UserError(
            f"{folder} is no reward model: it must be one for sequence classification into one output, or a Llama with "
            f"a {HEAD} as UltraRM's"
        )


def _read_config(folder: Path) -> dict[str, Any]:
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} is not a Hugging Face model folder (no config.json)")
    return _json(folder / "config.json")


def _config(folder: Path) -> dict[str, Any]:
    config = _read_config(folder)
    kind, names = config.get("model_type"), config.get("architectures") or [ARCHITECTURE]
    if kind != "llama" or ARCHITECTURE not in names:
        found = kind if kind != "llama" else ", ".join(map(str, names))
        raise UserError(f"{folder} is a {str(found)[:80]!r} model; zsg trains {ARCHITECTURE}")
    if config.get("attention_dropout"):
        raise UserError(f"{folder}: attention_dropout is not 0; its draws would differ by rank")
    return config


def _wanted(folder: Path, config: dict[str, Any]) -> Iterator[str]:
    layers = config.get("num_hidden_layers")
    if type(layers) is not int or not 0 < layers < 10_000:
        raise UserError(f"{folder}/config.json: num_hidden_layers must be a number of layers")
    yield from ("model.embed_tokens.weight", "model.norm.weight")
    if not config.get("tie_word_embeddings", False):
        yield "lm_head.weight"
    for layer in range(layers):
        yield from (f"model.layers.{layer}.{part}.weight" for part in LAYER)


def _tensors(folder: Path) -> set[str] | None:
    """The names of all tensors, from the first form of weights that transformers would take."""
    for single, index in zip(SINGLE, INDEXES, strict=True):
        if (folder / single).is_file():
            return _held(folder / single)
        if (folder / index).is_file():
            return _sharded(folder, _json(folder / index))
    raise UserError(f"{folder} has no weights ({', '.join((*SINGLE, *INDEXES))})")


def _sharded(folder: Path, index: dict[str, Any]) -> set[str] | None:
    where = index.get("weight_map")
    if not isinstance(where, dict) or not where or not all(isinstance(shard, str) for shard in where.values()):
        raise UserError(f"{folder}: the index of the weights has no weight_map of names to files")
    shards = sorted(set(where.values()))
    missing = [name for name in shards if "/" in name or not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder} lacks {len(missing)} of {len(shards)} weight files, the first {missing[0][:80]!r}")
    held = [_held(folder / name) for name in shards]
    return set(where) if None in held else {name for names in held for name in names or ()}


def _held(path: Path) -> set[str] | None:
    """The tensors that a file holds, None if only torch can tell; UserError for a file that is cut or no weights."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(len(LFS_POINTER))
        if start == LFS_POINTER:
            raise UserError(f"{path} is a git-lfs pointer, not the weights; run git lfs pull")
        if size == 0:
            raise _cut(path, "empty")
        if path.suffix != ".safetensors":
            return None
        length = int.from_bytes(start[:8], "little")
        if len(start) < 8 or length > min(size - 8, MAX_HEADER):
            raise _cut(path, "cut short or no safetensors file")
        file.seek(8)
        return _header(path, file.read(length), size - 8 - length)


def _header(path: Path, text: bytes, size: int) -> set[str]:
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        end = max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError):
        raise _cut(path, "no safetensors file") from None
    if end != size:
        raise _cut(path, f"not whole: {size:,} bytes of tensors where its header tells of {end:,}")
    return set(header)


def _cut(path: Path, what: str) -> UserError:
    return UserError(f"{path} is {what}; fetch it again")


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: must be a JSON object, found {type(value).__name__}")
    return value
