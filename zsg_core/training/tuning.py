"""Counts the weights that a way of tuning trains (LoRA: Hu et al. 2021, arXiv 2106.09685)."""

from collections.abc import Iterable, Mapping
from typing import Any

from zsg_core.errors import UserError
from zsg_core.training.decoder import DecoderShape, LinearModules, Names
from zsg_core.training.decoder_layers import EXPERTS
from zsg_core.training.lora_roles import (
    BY_ROLE_ALONE,
    ROLES,
    explain_by_role_alone,
    is_name_of,
)

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


def count_trained_parameters(shape: DecoderShape, tuning: Mapping[str, Any]) -> int:
    """Trained parameters: all that its class trains; LoRA's Σ r·(d_in + d_out) over its
    targets; the norms'; the biases'. UserError for a target that the model does not
    have."""
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
            return shape.parameters - shape.frozen


def list_lora_modules(
    shape: DecoderShape, targets: Iterable[str]
) -> list[LinearModules]:
    """The linear layers of a model that LoRA's targets name, each once; the embedding and
    the output layer where they are named.

    UserError for a target that names none: adapters that are nowhere train nothing.
    """
    modules = (*shape.linear_modules, *shape.table_modules)
    chosen: dict[LinearModules, None] = {}
    for target in targets:
        chosen.update(dict.fromkeys(_find_target(target, modules)))
    return list(chosen)


def _find_target(target: str, modules: Iterable[LinearModules]) -> list[LinearModules]:
    """What one target names. UserError where that is nothing, or routers or experts by
    another name than their role."""
    if target in ROLES:
        named = [module for module in modules if module.part in ROLES[target]]
    else:
        called = [module for module in modules if is_name_of(target, module.name)]
        named = [module for module in called if module.part not in BY_ROLE_ALONE]
        if called and not named:
            raise UserError(explain_by_role_alone(target, called[0].part))
    if not named:
        raise UserError(_explain_nothing(target, modules))
    return named


def find_adapted_table(names: Names, targets: Iterable[str]) -> str | None:
    """Which of the embedding and the output layer LoRA's targets name, by the last part
    of its name; None where they name neither."""
    for table in names.tables:
        if any(target not in ROLES and is_name_of(target, table) for target in targets):
            return table.rpartition(".")[2]
    return None


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
        if module.part not in BY_ROLE_ALONE
    )
    return (
        f"train.tuning.targets: {target!r} is nothing that this model has; name roles"
        f" ({', '.join(ROLES)}) or modules ({', '.join(names)})"
    )
