"""Finds what of a model LoRA's adapters go beside: by the role that a module plays in
its layer, or by name.

Roles are read off the tree of modules, so that one word means the same in every family:
`attention` is q_proj, k_proj, v_proj, o_proj of a Llama, c_attn and c_proj of a GPT-2,
query_key_value and dense of a GPT-NeoX. Routers and experts have roles of their own:
who says `all` does not mean them, and PEFT's `all-linear` would take them along.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from jobs.model.architecture import find_head, name_layers
from zsg_core.errors import UserError

ATTENTION, MLP, MIXER, ROUTERS, EXPERTS = (
    "attention",
    "mlp",
    "mixer",
    "routers",
    "experts",
)
# of a model's own roles, which a target stands for
OF_TARGET = {
    ATTENTION: (ATTENTION,),
    MLP: (MLP,),
    "all": (ATTENTION, MLP, MIXER),
    ROUTERS: (ROUTERS,),
    EXPERTS: (EXPERTS,),
}
# in the class of what mixes tokens without attention
_MIXERS = ("mixer", "mamba", "shortconv", "recurrent", "rwkv")


@dataclass(frozen=True)
class Adaptable:
    """A linear layer, or a tensor that is multiplied as one (`is_tensor`), its name in
    the model, and its role in its layer."""

    name: str
    role: str
    is_tensor: bool = False

    @property
    def own_name(self) -> str:
        """The last part of its name, which all layers have in common."""
        return self.name.rpartition(".")[2]


@dataclass(frozen=True)
class LoraTargets:
    """What gets adapters, by names in the model: `modules`, and `tensors` of routers or
    of experts that are no modules of their own."""

    modules: list[str] = field(default_factory=list)
    tensors: list[str] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """How many of each name: the part of it that all layers have in common."""
        names = [*self.modules, *(_drop_weight(name) for name in self.tensors)]
        return dict(sorted(Counter(name.rpartition(".")[2] for name in names).items()))


def find_targets(model: Any, targets: Sequence[str]) -> LoraTargets:
    """What of a model the targets name, in the model's order.

    UserError for a target that names nothing, or what LoRA cannot adapt.
    """
    adaptable = list(list_adaptable(model))
    modules: set[str] = set()
    tensors: dict[str, None] = {}
    for target in targets:
        found = _find_target(model, adaptable, target)
        if found == LoraTargets():
            raise UserError(_explain_nothing(target, adaptable))
        modules.update(found.modules)
        tensors.update(dict.fromkeys(found.tensors))
    ordered = [name for name, _module in model.named_modules() if name in modules]
    return LoraTargets(ordered, list(tensors))


def _find_target(
    model: nn.Module, adaptable: Iterable[Adaptable], target: str
) -> LoraTargets:
    """What one target names; empty where that is nothing."""
    if target not in OF_TARGET:
        return LoraTargets(_find_named(model, target))
    having = [layer for layer in adaptable if layer.role in OF_TARGET[target]]
    return LoraTargets(
        [layer.name for layer in having if not layer.is_tensor],
        [layer.name for layer in having if layer.is_tensor],
    )


def list_adaptable(model: Any) -> Iterator[Adaptable]:
    """All linear layers within a model's layers, and the tensors of routers and experts
    that are none, with their roles."""
    for layer_name, layer in name_layers(model):
        for name, module in layer.named_modules():
            whole_name = f"{layer_name}.{name}"
            if is_linear(module):
                yield Adaptable(whole_name, _find_role(layer, name))
            else:
                yield from _list_tensors(layer, name, whole_name)


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer; GPT-2's are written the other way round."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, nn.Linear | Conv1D)


def has_transposed(model: nn.Module, names: Iterable[str]) -> bool:
    """Whether some of the modules have weights of (in, out), as GPT-2's."""
    from transformers.pytorch_utils import Conv1D

    return any(isinstance(model.get_submodule(name), Conv1D) for name in names)


def _list_tensors(layer: nn.Module, name: str, whole_name: str) -> Iterator[Adaptable]:
    """The tensors of a module that is a router, or that holds all experts in one."""
    role = _find_role(layer, name)
    if role not in (ROUTERS, EXPERTS):
        return
    for own, parameter in layer.get_submodule(name).named_parameters(recurse=False):
        # a bias of experts is (experts, width), the router's weight (experts, width), too
        shape = getattr(parameter, "ds_shape", parameter.shape)
        is_weight = len(shape) == 3 or (role == ROUTERS and own == "weight")
        if is_weight:
            yield Adaptable(f"{whole_name}.{own}", role, is_tensor=True)


def _find_role(layer: nn.Module, name: str) -> str:
    """What a module does in its layer, by the names and classes on the way to it."""
    parts = name.split(".")
    classes = _list_classes(layer, parts)
    if _is_router(layer, parts, classes):
        return ROUTERS
    if EXPERTS in parts:
        return EXPERTS
    path = " ".join([*parts, *classes]).lower()
    if "attention" in path or "attn" in path:
        return ATTENTION
    return MIXER if any(mark in path for mark in _MIXERS) else MLP


def _list_classes(layer: nn.Module, parts: Sequence[str]) -> list[str]:
    """The classes of the modules on the way from a layer to one of its modules, in small
    letters."""
    module, classes = layer, list[str]()
    for part in parts:
        module = module.get_submodule(part)
        classes.append(type(module).__name__.lower())
    return classes


def _is_router(layer: nn.Module, parts: Sequence[str], classes: Sequence[str]) -> bool:
    """Whether a module chooses among experts, or weighs the shared ones."""
    if any("router" in word for word in (*parts, *classes)):
        return True
    *before, last = parts
    has_experts = hasattr(layer.get_submodule(".".join(before)), EXPERTS)
    return has_experts and last in ("gate", "shared_expert_gate")


def _find_named(model: Any, target: str) -> list[str]:
    """The modules of a name, or of the end of one. UserError for modules that LoRA
    cannot adapt."""
    found = [
        (name, module)
        for name, module in model.named_modules()
        if name == target or name.endswith(f".{target}")
    ]
    for name, module in found:
        if not is_linear(module) and not isinstance(module, nn.Embedding):
            raise UserError(
                f"train.tuning.targets: {name} is a {type(module).__name__}; LoRA adapts linear"
                " layers and embeddings: name one of its parts, or a role:"
                f" {', '.join(OF_TARGET)}"
            )
    return [name for name, _module in found]


def _explain_nothing(target: str, adaptable: Iterable[Adaptable]) -> str:
    """What to name in place of a target that names nothing."""
    by_role: dict[str, dict[str, None]] = {}
    for one in adaptable:
        name = _drop_weight(one.name) if one.is_tensor else one.name
        by_role.setdefault(one.role, {})[name.rpartition(".")[2]] = None
        if target in OF_TARGET or not one.is_tensor or one.own_name != target:
            continue
        return (
            f"train.tuning.targets: {target!r} is no module of its own: all {one.role} of a layer"
            f" have it in common; name the role {one.role}"
        )
    has = "; ".join(f"{role}: {', '.join(names)}" for role, names in by_role.items())
    return (
        f"train.tuning.targets: {target!r} is nothing that this model has, so it would train"
        f" nothing. Its layers have {has}"
    )


def shorten_names(model: Any, modules: Sequence[str]) -> list[str]:
    """The ends of names by which PEFT finds just these modules: the last parts where no
    others have them, else the whole names."""
    ends = {name.rpartition(".")[2] for name in modules}
    same = {
        name
        for name, _module in model.named_modules()
        if name.rpartition(".")[2] in ends
    }
    return sorted(ends) if same == set(modules) else list(modules)


def adapts_head(model: Any, targets: LoraTargets) -> bool:
    """Whether the output layer gets an adapter."""
    head = find_head(model)
    return any(model.get_submodule(name) is head for name in targets.modules)


def _drop_weight(name: str) -> str:
    """A tensor is called as its module is, where it is that module's one weight."""
    return name.removesuffix(".weight")
