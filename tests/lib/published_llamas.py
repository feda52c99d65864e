"""Folders of published Llamas, as far as a plan looks into them: configs, headers of
weights, a small tokenizer."""

import json
from collections.abc import Sequence
from pathlib import Path

from tests.lib.model_folders import shapes, write_tensors, write_tokenizer

CONFIGS = {
    "7B": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    "13B": {
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
    },
    "33B": {
        "hidden_size": 6656,
        "intermediate_size": 17920,
        "num_hidden_layers": 60,
        "num_attention_heads": 52,
    },
    # SmolLM2, which is a Llama
    "135M": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
    },
}


def write_model(folder: Path, name: str, heads: Sequence[str] = ("lm_head",)) -> Path:
    """A folder with the config of a published Llama; its weights are a hole of their
    size, which takes no room."""
    folder.mkdir()
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 32000,
        **CONFIGS[name],
    }
    shaped = shapes(config)
    del shaped["lm_head.weight"]
    for head in heads:
        shaped[f"{head}.weight"] = [
            32000 if head == "lm_head" else 1,
            config["hidden_size"],
        ]
    write_tensors(folder / "model.safetensors", shaped)
    (folder / "config.json").write_text(json.dumps(config))
    write_tokenizer(folder)
    return folder


def remember(workspace: Path, *folders: Path) -> None:
    """Has a workspace take the weights for read: the digest of a hole of gigabytes
    takes half a minute."""
    kept = {}
    for path in (folder.resolve() / "model.safetensors" for folder in folders):
        stat = path.stat()
        kept[str(path)] = [stat.st_size, stat.st_mtime_ns, f"{stat.st_size:064x}"]
    workspace.mkdir(parents=True, exist_ok=True)
    (workspace / "digests.json").write_text(json.dumps(kept))
