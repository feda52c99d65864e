"""Model folders without torch: a config, weights of zeros in the safetensors format, a
small byte-level tokenizer."""

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launcher.grids.model_files import read_tensors
from zsg_core.families.registry import FAMILIES, shape_of_config

BYTES = {
    "F64": 8,
    "F32": 4,
    "BF16": 2,
    "F16": 2,
    "F8_E4M3": 1,
    "U8": 1,
    "I8": 1,
    "I32": 4,
    "I64": 8,
}
SMALL = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 1,
    "vocab_size": 300,
}
SMALL |= {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
ENDS = {"bos_token": "<s>", "eos_token": "</s>"}


def shapes(config: Mapping[str, Any]) -> dict[str, list[int]]:
    """The tensors of a Llama without biases, as its config says."""
    hidden, inner, rows = (
        config[key] for key in ("hidden_size", "intermediate_size", "vocab_size")
    )
    keys = (
        hidden
        // config["num_attention_heads"]
        * config.get("num_key_value_heads", config["num_attention_heads"])
    )
    layer = {
        "input_layernorm": [hidden],
        "post_attention_layernorm": [hidden],
        "mlp.gate_proj": [inner, hidden],
        "mlp.up_proj": [inner, hidden],
        "mlp.down_proj": [hidden, inner],
        "self_attn.q_proj": [hidden, hidden],
        "self_attn.k_proj": [keys, hidden],
        "self_attn.v_proj": [keys, hidden],
        "self_attn.o_proj": [hidden, hidden],
    }
    made = {
        "lm_head": [rows, hidden],
        "model.embed_tokens": [rows, hidden],
        "model.norm": [hidden],
    }
    for number in range(config["num_hidden_layers"]):
        made |= {
            f"model.layers.{number}.{part}": shape for part, shape in layer.items()
        }
    return {f"{name}.weight": shape for name, shape in made.items()}


def write_tensors(
    path: Path, shaped: Mapping[str, list[int]], dtype: str = "BF16", **other: str
) -> None:
    """A safetensors file of zeros, which takes no room on a disk; `other`: the dtype of
    single tensors."""
    header, end = {}, 0
    for name, shape in shaped.items():
        own = other.get(name, dtype)
        begin, end = end, end + math.prod(shape) * BYTES[own]
        header[name] = {"dtype": own, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header | {"__metadata__": {"format": "pt"}}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with path.open("r+b") as file:
        file.truncate(8 + len(text) + end)


def write_tokenizer(
    folder: Path, added: Mapping[str, int] | None = None, **told: Any
) -> None:
    """A tokenizer of 258 tokens, <s> and </s> the first; `added` beside them; `told` in
    tokenizer_config.json."""
    letters = [
        chr(number)
        for number in (
            *range(33, 127),
            *range(161, 173),
            *range(174, 256),
            *range(256, 324),
        )
    ]
    vocab = {token: place for place, token in enumerate(["<s>", "</s>", *letters])}
    level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    rows = [
        {"id": place, "content": token, "special": True}
        for place, token in enumerate(("<s>", "</s>"))
    ]
    rows += [
        {"id": place, "content": token, "special": False}
        for token, place in (added or {}).items()
    ]
    plain = {
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
    }
    made = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [row | plain for row in rows],
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    }
    (folder / "tokenizer.json").write_text(json.dumps(made))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **ENDS} | told
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def write_llama(folder: Path, **config: Any) -> Path:
    """A folder with a Llama of one layer, whole; with `tie_word_embeddings` without an
    output layer."""
    folder.mkdir(parents=True, exist_ok=True)
    held = SMALL | config
    shaped = shapes(held)
    if held.get("tie_word_embeddings") is True:
        del shaped["lm_head.weight"]
    (folder / "config.json").write_text(json.dumps(held))
    write_tensors(folder / "model.safetensors", shaped)
    write_tokenizer(folder)
    return folder


def write_decoder(folder: Path, config: Mapping[str, Any], **told: Any) -> Path:
    """A folder with a decoder of a family that is known by heart, whole; `told`: other
    values in its config.json, the weights as they were."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = shape_of_config(config)
    shaped = {name: list(weight.shape) for name, weight in shape.list_tensors()}
    table = [shape.vocab, shape.hidden]
    shaped[shape.names.embedding] = table
    if not shape.tied:
        shaped[shape.names.head] = table
    held = {"architectures": [FAMILIES[shape.family].architecture], **config, **told}
    (folder / "config.json").write_text(json.dumps(held))
    write_tensors(folder / "model.safetensors", shaped)
    write_tokenizer(folder)
    return folder


def list_tensors(folder: Path) -> dict[str, list[int]]:
    """The shapes of a folder's tensors."""
    tensors = read_tensors(folder / "model.safetensors") or {}
    return {name: list(tensor.shape) for name, tensor in tensors.items()}


def change(path: Path, **told: Any) -> None:
    """Other values in a JSON file."""
    path.write_text(
        json.dumps((json.loads(path.read_text()) if path.exists() else {}) | told)
    )
