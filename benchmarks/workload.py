"""What the trainers of a benchmark are given: a model with random weights, a Llama or
what its shape's family says, and examples as long as real ones.

`niv2_lengths.json` holds the tokens of 400 training examples of Natural Instructions
V2, drawn at random, and of their answers: template `zsg` with two positive examples, at
most 1,024 tokens, byte-level BPE of 32,000 tokens; and of five test examples of each of
24 held-out tasks also how many first tokens the five have in common. The ids themselves
are made up; speed does not depend on them.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zsg_core.training.decoder import DecoderShape

BOS, EOS, LONGEST = 0, 1, 1024


@dataclass(frozen=True)
class Item:
    """Token ids of an example, the last `answer` of which are learnt."""

    ids: list[int]
    answer: int


# Llama-3.2's 1B and 3B and LLaMA-2's 7B with its vocabulary, so that one set of lengths
# serves all; the small Qwen3 has the proportions of the 0.6B.
SHAPES = {
    "25M": DecoderShape(
        hidden=512,
        intermediate=1376,
        layers=4,
        heads=8,
        kv_heads=8,
        head_dim=64,
        vocab=32_000,
        tied=True,
    ),
    "25M-qwen3": DecoderShape(
        hidden=384,
        intermediate=1152,
        layers=6,
        heads=6,
        kv_heads=3,
        head_dim=128,
        vocab=32_000,
        tied=True,
        family="qwen3",
    ),
    "toy": DecoderShape(
        hidden=64,
        intermediate=128,
        layers=2,
        heads=4,
        kv_heads=2,
        head_dim=16,
        vocab=600,
        tied=True,
    ),
    "1B": DecoderShape(
        hidden=2048,
        intermediate=8192,
        layers=16,
        heads=32,
        kv_heads=8,
        head_dim=64,
        vocab=32_000,
        tied=True,
    ),
    "3B": DecoderShape(
        hidden=3072,
        intermediate=8192,
        layers=28,
        heads=24,
        kv_heads=8,
        head_dim=128,
        vocab=32_000,
        tied=True,
    ),
    "7B": DecoderShape(
        hidden=4096,
        intermediate=11_008,
        layers=32,
        heads=32,
        kv_heads=32,
        head_dim=128,
        vocab=32_000,
        tied=False,
    ),
}


def items(shape: DecoderShape, count: int) -> list[Item]:
    """So many examples, the same for the same vocabulary; beyond 400 the lengths begin again."""
    lengths = _lengths()
    pairs = list(zip(lengths["tokens"], lengths["answer"], strict=True))
    draw = np.random.default_rng(0)
    made = []
    for number in range(count):
        tokens, answer = pairs[number % len(pairs)]
        drawn = draw.integers(2, shape.vocab, tokens - 2).tolist()
        made.append(Item([BOS, *drawn, EOS], answer))
    return made


def test_items(shape: DecoderShape, tasks: int) -> list[Item]:
    """Five test examples of so many tasks, which begin alike as the real ones do."""
    lengths = _lengths()
    draw = np.random.default_rng(1)
    made = []
    for place in range(5 * tasks):
        tokens, answer, prefix = (
            lengths[f"test_{key}"][place] for key in ("tokens", "answer", "prefix")
        )
        if place % 5 == 0:
            begin = [BOS, *draw.integers(2, shape.vocab, prefix - 1).tolist()]
        made.append(
            Item(
                [
                    *begin,
                    *draw.integers(2, shape.vocab, tokens - prefix - 1).tolist(),
                    EOS,
                ],
                answer,
            )
        )
    return made


def _lengths() -> dict[str, list[int]]:
    return json.loads(
        Path(__file__).with_name("niv2_lengths.json").read_text(encoding="utf-8")
    )


def make_model(shape: DecoderShape, attention: str, dtype: Any, device: str) -> Any:
    """A model of a shape with random weights, the same for all who train it, made where
    it is to be; a Llama, unless its shape is another family's."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    config = CONFIG_MAPPING[shape.family](
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=2048,
        tie_word_embeddings=shape.tied,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=None,
    )
    usual = torch.get_default_dtype()
    torch.manual_seed(0)
    try:
        torch.set_default_dtype(dtype)
        with torch.device(device):
            return AutoModelForCausalLM.from_config(
                config, attn_implementation=attention
            )
    finally:
        torch.set_default_dtype(usual)
