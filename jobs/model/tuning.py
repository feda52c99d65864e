"""Chooses which weights of a model are trained: all, LoRA's, the norms', the biases'."""

from collections.abc import Collection, Mapping
from typing import Any

from jobs.model import architecture
from jobs.model.lora import add_adapters, is_of_adapter
from zsg_core.errors import UserError
from zsg_core.training.tuning import NOTHING


def apply_tuning(model: Any, tuning: Mapping[str, Any]) -> None:
    """Freezes what is not tuned; for LoRA puts the adapters in, A drawn from the
    tuning's seed and B zero. What a model's class freezes is never tuned.

    Raises UserError where nothing is left to train.
    """
    if tuning["method"] == "full":
        return
    if tuning["method"] == "lora":
        add_adapters(model, tuning)
    else:
        tuned = _list_tuned(model, tuning["method"])
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and name in tuned)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(NOTHING["bitfit"])


def list_trained(
    model: Any, tuning: Mapping[str, Any], trainable: Collection[str]
) -> list[str]:
    """The names of the parameters of a model that a tuning trains, in their order; of
    LoRA the adapters, which are in it. `trainable`: those that its class does not
    freeze."""
    method = tuning["method"]
    names = [name for name, _ in model.named_parameters() if name in trainable]
    if method == "lora":
        return [name for name in names if is_of_adapter(name)]
    if method == "full":
        return names
    tuned = _list_tuned(model, method)
    return [name for name in names if name in tuned]


def _list_tuned(model: Any, method: str) -> set[str]:
    """The names of the parameters that `ln` or `bitfit` trains. UserError for norms that
    have none (OLMo 1)."""
    if method == "ln":
        names = architecture.list_norm_parameters(model)
        if not names:
            raise UserError(NOTHING["ln"])
        return names
    names = {name for name, _parameter in model.named_parameters()}
    return set(filter(architecture.is_bias, names))
