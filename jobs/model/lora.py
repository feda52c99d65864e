"""Puts LoRA's adapters into a model of any family (Hu et al. 2021, arXiv 2106.09685)."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from jobs.model.lora_targets import find_targets, has_transposed, shorten_names
from zsg_core.errors import UserError

# PEFT's name for the one adapter of a model; its files leave it out
ADAPTER = "default"


def add_adapters(model: Any, tuning: Mapping[str, Any]) -> dict[str, int]:
    """Puts adapters beside what the tuning names, A drawn from its seed and B zero;
    everything else is frozen.

    Returns how many modules of each name got one. UserError for targets that name
    nothing, and for modules that PEFT does not adapt.
    """
    from peft import LoraConfig, inject_adapter_in_model

    targets = find_targets(model, tuning["targets"])
    # Dropout is not PEFT's: its draws would depend on ranks and micro-batches.
    config = LoraConfig(
        r=tuning["r"],
        lora_alpha=tuning["alpha"],
        target_modules=shorten_names(model, targets.modules),
        target_parameters=targets.tensors or None,
        fan_in_fan_out=has_transposed(model, targets.modules),
        lora_dropout=0.0,
        bias="none",
    )
    torch.manual_seed(tuning["seed"])
    bare = _WithoutConfig(model)
    try:
        inject_adapter_in_model(config, bare)
    except ValueError as error:
        raise UserError(f"train.tuning.targets: {error}") from error
    model.peft_config = bare.peft_config
    return targets.counts


class _WithoutConfig(nn.Module):
    """A model whose family PEFT cannot see: of mixtures of experts PEFT 0.21 takes
    gate_proj, up_proj and down_proj for the experts', though shared experts and dense
    layers have modules of these names."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


def count_adapted(model: nn.Module) -> dict[str, int]:
    """By the last part of a module's name, or of that of an expert's tensor, how many of
    it have adapters; empty without any."""
    counts = Counter(
        _find_own_name(name, module)
        for name, module in model.named_modules()
        if hasattr(module, "lora_A")
    )
    return dict(sorted(counts.items()))


def _find_own_name(name: str, module: nn.Module) -> str:
    """The last part of what is adapted: PEFT wraps a tensor's module, once for each
    tensor."""
    tensor = getattr(module, "parameter_name", "weight")
    if tensor != "weight":
        return tensor
    return name.replace(".base_layer", "").rpartition(".")[2]
