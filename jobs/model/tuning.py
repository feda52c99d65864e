"""Chooses which weights of a Llama are trained: all, LoRA's, the norms', the biases'."""

from collections.abc import Mapping
from typing import Any

from jobs.model.lora import add_adapters
from zsg_core.errors import UserError
from zsg_core.training.tuning import NO_BIASES


def apply_tuning(llama: Any, tuning: Mapping[str, Any]) -> None:
    """Freezes what is not tuned; for LoRA puts the adapters in, A drawn from the
    tuning's seed and B zero.

    Raises UserError where nothing is left to train.
    """
    if tuning["method"] == "full":
        return
    if tuning["method"] == "lora":
        add_adapters(llama, tuning)
    else:
        mark = {"ln": "norm.weight", "bitfit": ".bias"}[tuning["method"]]
        for name, parameter in llama.named_parameters():
            parameter.requires_grad_(name.endswith(mark))
    if not any(parameter.requires_grad for parameter in llama.parameters()):
        raise UserError(NO_BIASES)
