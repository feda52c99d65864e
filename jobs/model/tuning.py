"""Chooses which weights of a Llama are trained: all, LoRA's, the norms', the biases'."""

from collections.abc import Mapping
from typing import Any

import torch

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
        _add_lora(llama, tuning)
    else:
        mark = {"ln": "norm.weight", "bitfit": ".bias"}[tuning["method"]]
        for name, parameter in llama.named_parameters():
            parameter.requires_grad_(name.endswith(mark))
    if not any(parameter.requires_grad for parameter in llama.parameters()):
        raise UserError(NO_BIASES)


def _add_lora(llama: Any, tuning: Mapping[str, Any]) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    # No dropout: its draws would depend on ranks and micro-batches.
    config = LoraConfig(
        r=tuning["r"],
        lora_alpha=tuning["alpha"],
        target_modules=list(tuning["targets"]),
        lora_dropout=0.0,
        bias="none",
    )
    torch.manual_seed(tuning["seed"])
    inject_adapter_in_model(config, llama)
