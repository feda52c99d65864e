"""Finds what of a model LoRA's adapters go beside: by the role that a module plays in
its layer, or by name.

Parts are read off the tree of modules, so that one word means the same in every family:
`attention` is q_proj, k_proj, v_proj, o_proj of a Llama, c_attn and c_proj of a GPT-2,
query_key_value and dense of a GPT-NeoX. Which parts a target stands for is
`zsg_core.training.lora_roles`' to say, which plan counts by. Routers and experts have
roles of their own: who says `all` does not mean them, and PEFT's `all-linear` would
take them along.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from jobs.model.architecture import find_embedding, find_head, name_layers
from zsg_core.errors import UserError
from zsg_core.training.decoder_layers import ATTENTION, EXPERTS, MIXER, MLP, ROUTER
from zsg_core.training.lora_roles import (
    BY_ROLE_ALONE,
    ROLES,
    explain_by_role_alone,
    find_role,
    is_name_of,
)

# in the name or the class of an MLP, and of what mixes tokens without attention
_MLPS = ("mlp", "feed_forward", "feedforward", "ffn")
_MIXERS = ("mixer", "mamba", "shortconv", "recurrent", "rwkv")


@dataclass(frozen=True)
class Adaptable:
    """A linear layer, or a tensor that is multiplied as one (`is_tensor`), its name in
    the model, and what part of its layer it is."""

    name: str
    part: str
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
    if target not in ROLES:
        return LoraTargets(_find_named(model, adaptable, target))
    having = [layer for layer in adaptable if layer.part in ROLES[target]]
    return LoraTargets(
        [layer.name for layer in having if not layer.is_tensor],
        [layer.name for layer in having if layer.is_tensor],
    )


def list_adaptable(model: Any) -> Iterator[Adaptable]:
    """All linear layers within a model's layers, and the tensors of routers and experts
    that are none, with what they are."""
    for layer_name, layer in name_layers(model) or _name_stacked(model):
        for name, module in layer.named_modules():
            whole_name = f"{layer_name}.{name}"
            if is_linear(module):
                yield Adaptable(whole_name, _find_part(layer, name))
            else:
                yield from _list_tensors(layer, name, whole_name)


def _name_stacked(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The layers of a class that transformers cannot compute a second time: of the lists
    of modules that of the most parameters."""
    counts = {
        name: sum(parameter.numel() for parameter in module.parameters())
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
    }
    if not counts:
        return []
    stack = max(counts, key=counts.__getitem__)
    return [
        (f"{stack}.{number}", layer)
        for number, layer in model.get_submodule(stack).named_children()
    ]


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
    part = _find_part(layer, name)
    if part not in BY_ROLE_ALONE:
        return
    for own, parameter in layer.get_submodule(name).named_parameters(recurse=False):
        # a bias of experts is (experts, width), the router's weight (experts, width), too
        shape = getattr(parameter, "ds_shape", parameter.shape)
        is_weight = len(shape) == 3 or (part == ROUTER and own == "weight")
        if is_weight:
            yield Adaptable(f"{whole_name}.{own}", part, is_tensor=True)


def _find_part(layer: nn.Module, name: str) -> str:
    """What a module is of its layer, by the names and classes on the way to it."""
    parts = name.split(".")
    classes = _list_classes(layer, parts)
    if _is_router(layer, parts, classes):
        return ROUTER
    if EXPERTS in parts:
        return EXPERTS
    path = " ".join([*parts, *classes]).lower()
    if "attention" in path or "attn" in path:
        return ATTENTION
    # a class may be called after its family: RecurrentGemmaMlp mixes nothing
    is_mlp = any(mark in path for mark in _MLPS)
    is_mixer = not is_mlp and any(mark in path for mark in _MIXERS)
    return MIXER if is_mixer else MLP


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
    for place, part in enumerate(parts):
        holder = layer.get_submodule(".".join(parts[:place]))
        if part in ("gate", "shared_expert_gate") and hasattr(holder, EXPERTS):
            return True
    return False


def _find_named(model: Any, adaptable: Iterable[Adaptable], target: str) -> list[str]:
    """The modules of a name, or of the end of one. UserError for modules that LoRA
    cannot adapt, and for those that only a role names."""
    part_of = {one.name: one.part for one in adaptable}
    found = {
        name: module
        for name, module in model.named_modules()
        if is_name_of(target, name)
    }
    named = [name for name in found if part_of.get(name) not in BY_ROLE_ALONE]
    if found and not named:
        raise UserError(explain_by_role_alone(target, part_of[next(iter(found))]))
    embedding = find_embedding(model)
    for name in named:
        if not is_linear(found[name]) and found[name] is not embedding:
            raise UserError(
                f"train.tuning.targets: {name} is a {type(found[name]).__name__}; LoRA adapts"
                " linear layers and the embedding of tokens: name one of its parts, or a role:"
                f" {', '.join(ROLES)}"
            )
    return named


def _explain_nothing(target: str, adaptable: Iterable[Adaptable]) -> str:
    """What to name in place of a target that names nothing."""
    by_part: dict[str, dict[str, None]] = {}
    for one in adaptable:
        name = _drop_weight(one.name) if one.is_tensor else one.name
        by_part.setdefault(one.part, {})[name.rpartition(".")[2]] = None
        if target in ROLES or not one.is_tensor or one.own_name != target:
            continue
        role = find_role(one.part)
        return (
            f"train.tuning.targets: {target!r} is no module of its own: all {role} of a layer"
            f" have it in common; name the role {role}"
        )
    has = "; ".join(
        f"{find_role(part)}: {', '.join(names)}" for part, names in by_part.items()
    )
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
