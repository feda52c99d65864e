"""Tasks of lm-evaluation-harness with what it finds of them by itself, on a small Llama
whose weights are made by a formula: `tests/golden/lm_eval.json` says how both were made."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

GOLDENS = Path(__file__).resolve().parents[1] / "golden/lm_eval.json"
SUBJECTS = ("birds", "rocks", "tools", "towns")


@cache
def read_goldens() -> dict[str, Any]:
    """All that stands in the file."""
    return json.loads(GOLDENS.read_text(encoding="utf-8"))


def write_tasks(folder: Path) -> Path:
    """The task files and their data, in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    goldens = read_goldens()
    for name, rows in goldens["data"].items():
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    tasks = {
        name: task
        for name, task in goldens["tasks"].items()
        if not name.startswith("_")
    }
    birds = json.dumps(tasks["tiny_mmlu_birds"])
    for subject in SUBJECTS[1:]:
        tasks[f"tiny_mmlu_{subject}"] = json.loads(birds.replace("birds", subject))
    for name, task in tasks.items():
        write_task(folder, name, task)
    return folder


def write_task(folder: Path, name: str, task: dict[str, Any]) -> Path:
    """A task's file."""
    path = folder / f"{name}.yaml"
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(task, file)
    return path


def make_tokenizer() -> Any:
    """One token for each byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = byte_letters()
    vocabulary = {"<s>": 0, "</s>": 1}
    vocabulary |= {letters[byte]: 2 + byte for byte in range(256)}
    made = Tokenizer(models.BPE(vocabulary, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=False
    )
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>"
    )


def byte_letters() -> dict[int, str]:
    """GPT-2's letter for each byte."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    letters = {byte: chr(byte) for byte in shown}
    return letters | {byte: chr(256 + place) for place, byte in enumerate(hidden)}


def make_model(attention: str) -> Any:
    """The model of 35,104 parameters, with an attention by its name."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=258,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=1,
        attn_implementation=attention,
    )
    model = LlamaForCausalLM(config)
    named = sorted(model.named_parameters(), key=lambda pair: pair[0])
    with torch.no_grad():
        for number, (_, parameter) in enumerate(named):
            if parameter.dim() == 1:
                parameter.fill_(1.0)
                continue
            places = np.arange(parameter.numel(), dtype=np.int64)
            turned = (7919 * places % 10007) * 0.37
            values = 0.35 * np.sin(1.0 + 0.61803 * number + turned)
            shaped = values.astype(np.float32).reshape(parameter.shape)
            parameter.copy_(torch.from_numpy(shaped))
    return model.eval()
