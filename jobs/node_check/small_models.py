"""Makes the models and examples that a node is tried with: Llamas with random weights,
and examples of made-up tokens, whose lengths are like real ones.

What is measured does not depend on what weights or tokens say.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from jobs.model import packed_attention
from jobs.training.batches import TokenizedSet
from zsg_core.data.prompts import EncodedExample
from zsg_core.training.decoder import DecoderShape

BOS, EOS = 0, 1
FIRST_WORD = 2
TASK = "made up"
# Tokens of instructions and of their answers: deciles of a training set of Natural
# Instructions V2 with two positive examples, at most 1,024 tokens.
LENGTHS = (123, 147, 170, 199, 225, 253, 283, 347, 440, 1024)
ANSWER_SHARE = 0.04
POSITIONS = 2048

# For steps that a CPU does as well, in float32, within seconds.
SMALL = DecoderShape(
    hidden=64,
    intermediate=176,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=16,
    vocab=600,
    tied=True,
)


def make_llama(shape: DecoderShape, dtype: torch.dtype, device: str) -> Any:
    """A Llama with packed attention and random weights, the same on a device each time,
    made where it is to be."""
    from transformers import LlamaForCausalLM

    usual = torch.get_default_dtype()
    torch.manual_seed(0)
    try:
        torch.set_default_dtype(dtype)
        with torch.device(device):
            return LlamaForCausalLM(make_config(shape))
    finally:
        torch.set_default_dtype(usual)


def make_config(shape: DecoderShape) -> Any:
    """The config of a Llama of a shape."""
    from transformers import LlamaConfig

    make: Any = LlamaConfig
    return make(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=shape.tied,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=None,
        attn_implementation=packed_attention.NAME,
    )


def make_examples(
    lengths: Sequence[int], vocab: int, answer_share: float = ANSWER_SHARE
) -> TokenizedSet:
    """An example of each length; of each the last tokens, such a share, are learnt."""
    draw = np.random.default_rng(0)
    examples: list[EncodedExample] = []
    for length in lengths:
        words = draw.integers(FIRST_WORD, vocab, length - 2)
        answer = min(length - 1, max(2, round(answer_share * length)))
        span = (length - answer, length)
        examples.append(EncodedExample([BOS, *words.tolist(), EOS], (span,)))
    names = [f"made:{number}" for number in range(len(examples))]
    return TokenizedSet(names, examples, [TASK] * len(examples))


def draw_lengths(count: int, longest: int) -> list[int]:
    """So many lengths of at most `longest` tokens, spread as those of real examples; the
    same each time."""
    usual = [max(4, length * longest // LENGTHS[-1]) for length in LENGTHS]
    draw = np.random.default_rng(1)
    return draw.choice(usual, count).tolist()
