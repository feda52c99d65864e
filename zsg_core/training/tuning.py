"""Counts the weights that a way of tuning trains (LoRA: Hu et al. 2021, arXiv 2106.09685)."""

from collections.abc import Iterable, Mapping
from typing import Any

from zsg_core.errors import UserError
from zsg_core.training.decoder import DecoderShape, LinearModules
from zsg_core.training.decoder_layers import ATTENTION, EXPERTS, MLP, ROUTER

# of a method that would train nothing, why
NOTHING = {
    "bitfit": (
        "train.tuning: bitfit trains biases, and this model has none (as LLaMA and LLaMA-2):"
        " nothing would be trained; ln trains the norms, lora adapters"
    ),
    "ln": (
        "train.tuning: ln trains the weights of norms, and this model's have none (as OLMo's):"
        " nothing would be trained; lora trains adapters"
    ),
}
# what a target that is no module's name stands for
ROLES = {
    "attention": (ATTENTION,),
    "mlp": (MLP,),
    "all": (ATTENTION, MLP),
    "routers": (ROUTER,),
    "experts": (EXPERTS,),
}


def count_trained_parameters(shape: DecoderShape, tuning: Mapping[str, Any]) -> int:
    """Trained parameters: all; LoRA's Σ r·(d_in + d_out) over its targets; the norms';
    the biases'. UserError for a target that the model does not have."""
    match tuning["method"]:
        case "lora":
            modules = list_lora_modules(shape, tuning["targets"])
            ends = sum(_count_ends(module) for module in modules)
            return tuning["r"] * (ends - _count_shared_ends(modules))
        case "ln":
            return shape.norms
        case "bitfit":
            return shape.biases
        case _:
            return shape.parameters


def list_lora_modules(
    shape: DecoderShape, targets: Iterable[str]
) -> list[LinearModules]:
    """The linear layers of a model that LoRA's targets name, each once.

    UserError for a target that names none: adapters that are nowhere train nothing.
    """
    modules = (*shape.linear_modules, shape.embedding_module)
    chosen: dict[LinearModules, None] = {}
    for target in targets:
        if target in ROLES:
            named = [module for module in modules if module.part in ROLES[target]]
        else:
            named = [module for module in modules if module.is_called(target)]
        if not named:
            raise UserError(_explain_nothing(target, modules))
        chosen.update(dict.fromkeys(named))
    return list(chosen)


def _count_ends(module: LinearModules) -> int:
    """What goes in and what comes out, of all modules of that name."""
    return module.count * (module.inputs + module.outputs)


def _count_shared_ends(modules: Iterable[LinearModules]) -> int:
    """What experts' gate and up take in a second time: files have two matrices, which are
    one in memory, where they share an adapter's first factor."""
    of_shape: dict[tuple[int, int], list[LinearModules]] = {}
    for module in modules:
        if module.part == EXPERTS:
            of_shape.setdefault((module.inputs, module.outputs), []).append(module)
    return sum(
        (len(alike) - 1) * alike[0].count * inputs
        for (inputs, _outputs), alike in of_shape.items()
    )


def _explain_nothing(target: str, known: Iterable[LinearModules]) -> str:
    names = dict.fromkeys(
        module.name.rpartition(".")[2]
        for module in known
        if module.part not in (ROUTER, EXPERTS)
    )
    return (
        f"train.tuning.targets: {target!r} is nothing that this model has; name roles"
        f" ({', '.join(ROLES)}) or modules ({', '.join(names)})"
    )
