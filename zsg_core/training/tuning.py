"""Counts the weights that a way of tuning trains (LoRA: Hu et al. 2021, arXiv 2106.09685)."""

from collections.abc import Iterable, Mapping
from typing import Any

from zsg_core.errors import UserError
from zsg_core.training.decoder import DecoderShape, LinearModules, Names, is_matrix
from zsg_core.training.decoder_layers import EXPERTS, LayerKind
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


# values of which LoRA's dropout chooses at once which are dropped, by kind of device:
# on a CPU what a cache holds, on a GPU what keeps it busy
MASKED_AT_ONCE = {"cpu": 2**17, "cuda": 2**22}
MASKED_BYTES = 16  # of each of them: its 64 bits, and what they are mixed with


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


def list_dropping(tuning: Mapping[str, Any]) -> tuple[str, ...]:
    """The targets of whose inputs LoRA's dropout sets some to 0; none without dropout."""
    return tuple(tuning["targets"]) if tuning.get("dropout") else ()


def count_dropping(kind: LayerKind, targets: Iterable[str]) -> int:
    """The elements of a token that dropout before the adapters of these targets makes
    once more, in a layer of a kind: what goes into each of its linear layers."""
    named = list(targets)
    return sum(
        weight.inputs
        for weight in filter(is_matrix, kind.weights)
        if any(_names(target, weight.part, weight.module) for target in named)
    )


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
    modules = list(modules)
    named = [module for module in modules if _names(target, module.part, module.name)]
    if named:
        return named
    for module in modules:
        if is_name_of(target, module.name):
            raise UserError(explain_by_role_alone(target, module.part))
    raise UserError(_explain_nothing(target, modules))


def _names(target: str, part: str, module: str) -> bool:
    """Whether a target names modules of a part of a layer, and of a name."""
    if target in ROLES:
        return part in ROLES[target]
    return part not in BY_ROLE_ALONE and is_name_of(target, module)


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
