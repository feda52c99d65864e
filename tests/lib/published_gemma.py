"""A folder of gemma-7b-it as far as a plan looks into it: its config, headers of its
weights, a small tokenizer with its chat template."""

import json
from pathlib import Path

from tests.lib.model_folders import shapes, write_tensors, write_tokenizer
from tests.lib.published_decoders import PUBLISHED

NAME = "gemma-7b-it"
TEMPLATE = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role"
    " not supported') }}{% endif %}{% for message in messages %}{% if message['role'] =="
    " 'assistant' %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}"
    "{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim +"
    " '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<start_of_turn>model\n' }}{% endif %}"
)


def write_gemma(folder: Path) -> Path:
    """The folder; its weights are a hole of their size, which takes no room."""
    folder.mkdir()
    config = PUBLISHED[NAME].config
    shaped = shapes(config)
    del shaped["lm_head.weight"]  # tied
    width = config["num_attention_heads"] * config["head_dim"]
    for number in range(config["num_hidden_layers"]):
        attention = f"model.layers.{number}.self_attn"
        for part in ("q_proj", "k_proj", "v_proj"):
            shaped[f"{attention}.{part}.weight"] = [width, config["hidden_size"]]
        shaped[f"{attention}.o_proj.weight"] = [config["hidden_size"], width]
    write_tensors(folder / "model.safetensors", shaped)
    (folder / "config.json").write_text(json.dumps(config))
    turns = {"<start_of_turn>": 258, "<end_of_turn>": 259}
    marked = {
        str(place): {"content": token, "special": True}
        for token, place in turns.items()
    }
    write_tokenizer(folder, turns, chat_template=TEMPLATE, added_tokens_decoder=marked)
    return folder
