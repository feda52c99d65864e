"""Folders of published Llamas, as far as a plan looks into them: their configs, and hardly any weights."""

import json
import struct
from collections.abc import Sequence
from pathlib import Path

CONFIGS = {
    "7B": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
    "13B": {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40},
    "33B": {"hidden_size": 6656, "intermediate_size": 17920, "num_hidden_layers": 60, "num_attention_heads": 52},
}


def write_model(folder: Path, name: str, heads: Sequence[str] = ("lm_head",)) -> Path:
    """A folder with the config of a published Llama, and weights of two bytes each in its names."""
    layer = ["input_layernorm", "post_attention_layernorm", *(f"self_attn.{p}_proj" for p in "qkvo")]
    layer += [f"mlp.{part}_proj" for part in ("gate", "up", "down")]
    layers = range(CONFIGS[name]["num_hidden_layers"])
    names = [*heads, "model.embed_tokens", "model.norm", *(f"model.layers.{n}.{p}" for n in layers for p in layer)]
    header = {
        f"{tensor}.weight": {"dtype": "BF16", "shape": [1], "data_offsets": [2 * n, 2 * n + 2]}
        for n, tensor in enumerate(names)
    }
    text = json.dumps(header).encode()
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(2 * len(names)))
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 32000, **CONFIGS[name]}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    return folder
