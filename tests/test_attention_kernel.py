"""Is it told before anything is loaded by which kernel a model attends on a GPU?"""

from dataclasses import replace
from typing import Any

import pytest

from zsg_core.families.registry import shape_of_config
from zsg_core.training.attention_kernel import (
    CLASS,
    FLASH,
    PRODUCTS,
    SDPA,
    UNKNOWN,
    choose_kernel,
    find_largest_head,
)
from zsg_core.training.decoder import BOUND

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
}


@pytest.mark.parametrize(
    ("told", "precision", "kernel", "why"),
    [
        ({"model_type": "llama"}, "bf16", FLASH, "heads of 16 in bf16"),
        ({"model_type": "llama"}, "fp32", SDPA, "train.precision is fp32"),
        ({"model_type": "qwen3", "head_dim": 256}, "fp16", FLASH, "heads of 256"),
        ({"model_type": "qwen3", "head_dim": 264}, "bf16", SDPA, "heads of 264"),
        ({"model_type": "gemma2"}, "bf16", PRODUCTS, "4 of 4 layers cap scores"),
        (
            {"model_type": "gemma2", "attn_logit_softcapping": None, "head_dim": 16},
            "bf16",
            FLASH,
            "heads of 16",
        ),
    ],
)
def test_the_kernel_follows_from_sizes_and_precision(
    told: dict[str, Any], precision: str, kernel: str, why: str
) -> None:
    """With the reason; a cap of scores counts before the precision."""
    chosen = choose_kernel(shape_of_config({**SIZES, **told}), precision)

    assert chosen.kernel == kernel
    assert why in chosen.why
    assert chosen.why in chosen.describe()


def test_padded_examples_and_unknown_layers_have_no_kernel_of_zsgs() -> None:
    """The one is done by the class, of the other it is not known."""
    shape = shape_of_config({**SIZES, "model_type": "llama"})

    assert choose_kernel(shape, "bf16", is_padded=True).kernel == CLASS
    assert choose_kernel(replace(shape, known=BOUND), "bf16").kernel == UNKNOWN
    assert find_largest_head(shape) == 16
