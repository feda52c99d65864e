"""Loads the folder of weights of a model of any family one tensor after the other, each
to where it is trained or asked.

The host never holds the whole model. Files are mapped: what the ranks of a node read is
there once, and the system may drop it. A tensor whose type is not that of the forward
pass is cast alone; transformers (5.23) holds all of them, in either type, in every rank.
Under ZeRO 3 no GPU holds the whole model, either: each module's weights are divided
among the ranks before the next are read, and only rank 0 reads them. DeepSpeed 0.19
would put the whole model on each GPU first (runtime/engine.py,
_configure_distributed_model).
"""

import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from jobs.contract.deepspeed_config import DeepSpeedJson
from jobs.model import architecture, published_names
from jobs.model.weight_files import Source, open_weights
from jobs.runtime.together import raise_first, share_errors
from zsg_core.errors import UserError

logger = logging.getLogger(__name__)

# of the parts of a model, by their names
DeviceMap = Mapping[str, str]
# Divides the weights of one module among the ranks; all ranks call it together.
Divide = Callable[[nn.Module], None]

# of safetensors, and as torch writes them
_FLOATS = ("F32", "F16", "BF16", torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Target:
    """A tensor of a model that files have: all its names, more than one where it is
    tied, where it stands under each, and its type. It is a parameter, which gradients
    train or its class freezes, or a buffer that is saved."""

    names: Sequence[str]
    places: Sequence[tuple[nn.Module, str]]
    shape: tuple[int, ...]
    dtype: torch.dtype
    is_buffer: bool = False
    is_trained: bool = True

    def put(self, tensor: torch.Tensor) -> None:
        """Puts a tensor in its places."""
        for module, name in self.places:
            setattr(module, name, tensor)


def load_weights(
    folder: Path,
    config: Any,
    dtype: torch.dtype,
    device: str | DeviceMap,
    deepspeed: DeepSpeedJson | None = None,
    attention: str | None = None,
) -> Any:
    """The model of a config with the weights of a folder, on a device or several.

    `attention`: the name that transformers knows it by, zsg's packed one if None. With
    the `deepspeed` JSON of ZeRO 3 the parameters are divided among the ranks as they
    are read; all ranks call it together. What would draw random numbers is set to 0,
    and said. UserError for weights that are not the config's, and for a config of no
    model that zsg trains.
    """
    from jobs.model import packed_attention

    divide = _make_divide(deepspeed) if deepspeed else None
    is_reading = divide is None or torch.distributed.get_rank() == 0

    def find_sources() -> _Found:
        model = _make_model(folder, config, dtype, attention or packed_attention.NAME)
        return _find(folder, model, dtype, opened, is_reading=is_reading)

    with ExitStack() as opened:
        found = share_errors(find_sources) if divide else find_sources()
        _load_all(found, device, divide)
    model = found.model
    for name, buffer in found.computed.items():
        owner, attribute = _split(model, name)
        setattr(owner, attribute, buffer.to(find_device(name, device)))
    _refuse_unfilled(folder, model)
    return model


@dataclass(frozen=True)
class _Found:
    """A model without weights, what it computes itself, its tensors, and which of files
    they are read from; nothing of the last on a rank that reads none."""

    model: Any
    computed: Mapping[str, torch.Tensor]
    targets: Mapping[nn.Module, Sequence[Target]]
    chosen: Mapping[str, Source]


def _find(
    folder: Path,
    model: Any,
    dtype: torch.dtype,
    opened: ExitStack,
    *,
    is_reading: bool,
) -> _Found:
    """Opens the files of a folder for a model. UserError for what is not the model's."""
    computed = _compute_buffers(model)
    targets = _list_targets(model, dtype)
    names = [target.names[0] for target in _each(targets)]
    published_names.refuse_unpublished(model, names)
    stored = open_weights(folder, opened, is_reading=is_reading)
    sources = published_names.translate_sources(folder, model, stored)
    chosen = choose_sources(folder, targets, sources)
    if not is_reading:
        return _Found(model, computed, targets, {})
    if problem := _find_untied(targets, sources):
        raise UserError(f"{folder}: {problem}")
    return _Found(model, computed, targets, chosen)


def _load_all(found: _Found, device: str | DeviceMap, divide: Divide | None) -> None:
    """Gives all modules their tensors, one module after the other.

    Where they are divided among ranks, rank 0 goes on without what it cannot read, so
    that no rank waits for another, and all raise its error in the end.
    """
    unread: list[Exception] = []
    for module, own_targets in found.targets.items():
        own_device = find_device(own_targets[0].names[0], device)
        try:
            _load_module(own_targets, found.chosen if not unread else {}, own_device)
        except Exception as error:
            if divide is None:
                raise
            unread.append(error)
            _load_module(own_targets, {}, own_device)
        if divide:
            divide(module)
            _share_buffers(own_targets)
    if divide:
        raise_first(next(iter(unread), None))


def _make_model(folder: Path, config: Any, dtype: torch.dtype, attention: str) -> Any:
    """The model of a folder's config, without memory, and without what would draw."""
    try:
        architecture.refuse_drawn_experts(config)
        model = architecture.make_skeleton(config, dtype, attention).eval()
        silenced = architecture.silence_dropouts(model)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error
    if silenced:
        logger.warning(
            f"{folder}: set to 0, as its draws would differ by rank: {', '.join(silenced)}"
        )
    if coefficient := architecture.find_router_loss(config):
        logger.warning(
            f"{folder}: trained without its routers' own loss (coefficient {coefficient:g}), which"
            " would depend on how examples meet"
        )
    if frozen := architecture.list_frozen(model):
        logger.warning(
            f"{folder}: {len(frozen)} tensors stay as they are, as no gradient trains them in their"
            f" class: {frozen[0]}{' and others' if frozen[1:] else ''}"
        )
    return model


def _load_module(
    targets: Sequence[Target],
    chosen: Mapping[str, Source],
    device: torch.device,
) -> None:
    """Gives a module its tensors; what is chosen for none is another rank's to read."""
    for target in targets:
        like = torch.empty(target.shape, dtype=target.dtype, device="meta")
        source = chosen.get(target.names[0])
        if not target.is_buffer:
            parameter = _make_parameter(like, source, device)
            target.put(parameter.requires_grad_(target.is_trained))
            continue
        buffer = torch.empty_like(like, device=device)
        if source is not None:
            buffer.copy_(source.read())
        target.put(buffer)


def _share_buffers(targets: Sequence[Target]) -> None:
    """Gives all ranks the buffers that rank 0 has read: ZeRO 3 divides parameters."""
    for target in targets:
        if target.is_buffer:
            module, name = target.places[0]
            torch.distributed.broadcast(getattr(module, name), src=0)


def find_device(name: str, device: str | DeviceMap) -> torch.device:
    """Where a tensor goes: to the one device, or where the map has what it is a part of.

    The map names every part of a model: see jobs.model.placement.
    """
    if isinstance(device, str):
        return torch.device(device)
    counts = range(name.count(".") + 1)
    parents = [name.rsplit(".", count)[0] for count in counts]
    nearest = next(parent for parent in parents if parent in device)
    return torch.device(device[nearest])


def choose_sources(
    folder: Path,
    targets: Mapping[nn.Module, Sequence[Target]],
    sources: Mapping[str, Source],
) -> dict[str, Source]:
    """By the first name of each tensor of a model, the one of files that it is read
    from.

    UserError for those that no file has, that have another shape there, or that are no
    floats: transformers would fill the first with random numbers.
    """
    chosen: dict[str, Source] = {}
    missing: list[str] = []
    for target in _each(targets):
        source = next(_find_all(target, sources), None)
        if source is None:
            missing.append(target.names[0])
            continue
        is_float = source.dtype in _FLOATS or not target.dtype.is_floating_point
        if source.shape != target.shape or not is_float:
            raise UserError(
                f"{folder}: {target.names[0]} is {source.dtype} of shape {source.shape}, by"
                f" config.json floats of shape {target.shape}; get the model anew"
            )
        chosen[target.names[0]] = source
    if missing:
        raise UserError(
            f"{folder}: the weights lack {len(missing)} tensors of the model that config.json"
            f" describes, the first {missing[0]}; get the model anew"
        )
    return chosen


def _find_untied(
    targets: Mapping[nn.Module, Sequence[Target]], sources: Mapping[str, Source]
) -> str | None:
    """What is wrong where files have several tensors for a parameter, which differ."""
    for target in _each(targets):
        first, *others = _find_all(target, sources)
        if any(not torch.equal(first.read(), other.read()) for other in others):
            return (
                f"config.json has tie_word_embeddings, but {' and '.join(target.names)}"
                f" differ; set it to false in a copy, or take {target.names[-1]} out"
            )
    return None


def _find_all(target: Target, sources: Mapping[str, Source]) -> Iterator[Source]:
    """The tensors of files for one of a model, more than one where it is tied and has
    several names."""
    for name in target.names:
        if name in sources:
            yield sources[name]


def _list_targets(
    model: nn.Module, dtype: torch.dtype
) -> dict[nn.Module, list[Target]]:
    """The parameters, each under the first module that it stands in, in their order;
    then the buffers that are saved. Parameters are all of one type, as DeepSpeed has
    them; buffers have their own."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    targets: dict[nn.Module, list[Target]] = {}
    for own_names in names.values():
        places = [_split(model, name) for name in own_names]
        parameter = model.get_parameter(own_names[0])
        target = Target(
            own_names,
            places,
            tuple(parameter.shape),
            dtype,
            is_trained=parameter.requires_grad,
        )
        first_module, _ = places[0]
        targets.setdefault(first_module, []).append(target)
    for name, buffer in architecture.list_saved_buffers(model).items():
        place = _split(model, name)
        own_dtype = _find_buffer_dtype(model, name, buffer, dtype)
        target = Target([name], [place], tuple(buffer.shape), own_dtype, is_buffer=True)
        targets.setdefault(place[0], []).append(target)
    return targets


def _find_buffer_dtype(
    model: Any, name: str, buffer: torch.Tensor, dtype: torch.dtype
) -> torch.dtype:
    """The type that transformers loads a buffer in: its own, or the one that its class
    keeps it in whatever the model's is."""
    from transformers.core_model_loading import build_glob_alternation

    plan = model._get_dtype_plan(dtype)
    if not plan:
        return buffer.dtype
    patterns, pattern_of_group, *_ = build_glob_alternation(list(plan))
    match = patterns.search(name)
    if match is None or match.lastgroup is None:
        return buffer.dtype
    return plan[pattern_of_group[match.lastgroup]]


def _each(targets: Mapping[nn.Module, Sequence[Target]]) -> Iterator[Target]:
    """The tensors of all modules, in their order."""
    for own_targets in targets.values():
        yield from own_targets


def _split(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that has a tensor of a dotted name, and its name there."""
    owner, _, attribute = name.rpartition(".")
    return model.get_submodule(owner), attribute


def _make_parameter(
    like: torch.Tensor, source: Source | None, device: torch.device
) -> nn.Parameter:
    """A parameter of the type and shape of `like`; without a source its values are
    another rank's to give."""
    if source is None:
        return nn.Parameter(torch.empty_like(like, device=device))
    read = source.read()
    if read.dtype == like.dtype and device.type == "cpu":
        return nn.Parameter(read)  # as it is mapped
    value = torch.empty_like(like, device=device)
    return nn.Parameter(value.copy_(read.to(device)))


def _compute_buffers(model: Any) -> dict[str, torch.Tensor]:
    """What a model's modules compute from its config, by name, as on a CPU: a GPU rounds
    powers otherwise, and a model begins there with the same positions.

    By the modules' own initialisation, as transformers does, of a model whose other
    tensors take no memory, and are left as they are.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        tensor._is_hf_initialized = True
    computed: dict[str, torch.Tensor] = {}
    for name, buffer in [*model.named_non_persistent_buffers()]:
        owner, attribute = _split(model, name)
        computed[name] = torch.empty_like(buffer, device="cpu")
        setattr(owner, attribute, computed[name])
    model.initialize_weights()
    return {name: model.get_buffer(name) for name in computed}


def _refuse_unfilled(folder: Path, model: nn.Module) -> None:
    """UserError for tensors that nobody has filled: what a module keeps beside its
    parameters and buffers, and computes when it is made."""
    unfilled = [
        f"{name}.{attribute}"
        for name, module in model.named_modules()
        for attribute, value in vars(module).items()
        if isinstance(value, torch.Tensor) and value.is_meta
    ]
    if unfilled:
        raise UserError(
            f"{folder}: a {type(model).__name__} keeps {len(unfilled)} tensors that are in no file"
            f" ({unfilled[0]}), which zsg does not load"
        )


def _make_divide(deepspeed: DeepSpeedJson) -> Divide:
    """What divides a module's weights as ZeRO 3 does when an engine takes a model over."""
    from deepspeed import zero

    divided: list[Any] = []

    def divide(module: nn.Module) -> None:
        parameters = list(module.parameters(recurse=False))
        if not parameters:
            return
        if divided:
            # as DeepSpeed itself divides what it finds whole beside what is divided
            divided[0].convert_to_zero_parameters(param_list=parameters)
        else:
            # the modules within this one are yet to be read
            alone = nn.ParameterList(parameters)
            zero.Init(module=alone, config_dict_or_path=copy.deepcopy(deepspeed))
            divided.append(parameters[0])

    return divide
