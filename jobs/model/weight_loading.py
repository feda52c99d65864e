"""Loads a Llama's folder of weights one tensor after the other, each to where it is
trained or asked.

The host never holds the whole model. Files are mapped: what the ranks of a node read is
there once, and the system may drop it. A tensor whose type is not that of the forward
pass is cast alone; transformers (5.23) holds all of them, in either type, in every rank.
Under ZeRO 3 no GPU holds the whole model, either: each module's weights are divided
among the ranks before the next are read, and only rank 0 reads them. DeepSpeed 0.19
would put the whole model on each GPU first (runtime/engine.py,
_configure_distributed_model).
"""

import copy
import json
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from jobs.contract.deepspeed_config import DeepSpeedJson
from jobs.contract.folder import get_object
from jobs.files.model_file_names import SINGLE_WEIGHTS, WEIGHT_INDEXES
from zsg_core.errors import UserError

# of the parts of a model, by their names
DeviceMap = Mapping[str, str]
# Divides the weights of one module among the ranks; all ranks call it together.
Divide = Callable[[nn.Module], None]

# of safetensors, and as torch writes them
_FLOATS = ("F32", "F16", "BF16", torch.float32, torch.float16, torch.bfloat16)
# what torch raises for a file that is none of its own
_UNREADABLE = (RuntimeError, ValueError, EOFError, KeyError, pickle.PickleError)
# of a model's own, when its files leave it out (transformers: base_model_prefix)
_PREFIX = "model."


@dataclass(frozen=True)
class Source:
    """A tensor of a file: what is known of it before it is read."""

    file: Path
    shape: tuple[int, ...]
    dtype: Any
    read: Callable[[], torch.Tensor]


@dataclass(frozen=True)
class Target:
    """A parameter of a model: all its names, more than one where it is tied, and where
    it stands under each."""

    names: Sequence[str]
    places: Sequence[tuple[nn.Module, str]]
    shape: tuple[int, ...]

    def put_parameter(self, parameter: nn.Parameter) -> None:
        """Puts a parameter in its places."""
        for module, name in self.places:
            setattr(module, name, parameter)


def load_weights(
    folder: Path,
    config: Any,
    dtype: torch.dtype,
    device: str | DeviceMap,
    deepspeed: DeepSpeedJson | None = None,
) -> Any:
    """The Llama of a config with the weights of a folder, on a device or several.

    With the `deepspeed` JSON of ZeRO 3 they are divided among the ranks as they are
    read; all ranks call it together. UserError for weights that are not the config's.
    """
    from jobs.model import packed_attention

    llama = make_skeleton(config, dtype, packed_attention.NAME).eval()
    divide = _make_divide(deepspeed) if deepspeed else None
    is_reading = divide is None or torch.distributed.get_rank() == 0
    targets = _list_targets(llama)
    with ExitStack() as opened:
        sources = open_weights(folder, opened, is_reading=is_reading)
        chosen = choose_sources(folder, targets, sources)
        problem = _find_untied(targets, sources) if is_reading else None
        if divide:
            problem = _tell_ranks(problem)
        if problem:
            raise UserError(f"{folder}: {problem}")
        for module, own_targets in targets.items():
            own_device = find_device(own_targets[0].names[0], device)
            _load_module(own_targets, chosen if is_reading else {}, dtype, own_device)
            if divide:
                divide(module)
    _put_buffers(llama, device)
    return llama


def _load_module(
    targets: Sequence[Target],
    chosen: Mapping[str, Source],
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    """Gives a module its parameters; what is chosen for none is another rank's to read."""
    for target in targets:
        like = torch.empty(target.shape, dtype=dtype, device="meta")
        source = chosen.get(target.names[0])
        target.put_parameter(_make_parameter(like, source, device))


def _put_buffers(llama: Any, device: str | DeviceMap) -> None:
    """Puts what a model computes from its config on its device."""
    for name, buffer in _make_buffers(llama).items():
        owner, attribute = _split(llama, name)
        setattr(owner, attribute, buffer.to(find_device(name, device)))


def find_device(name: str, device: str | DeviceMap) -> torch.device:
    """Where a tensor goes: to the one device, or where the map has what it is a part of.

    The map names every part of a Llama: see jobs.model.placement.
    """
    if isinstance(device, str):
        return torch.device(device)
    counts = range(1, name.count(".") + 1)
    parents = [name.rsplit(".", count)[0] for count in counts]
    nearest = next(parent for parent in parents if parent in device)
    return torch.device(device[nearest])


def make_skeleton(config: Any, dtype: torch.dtype, attention: str) -> Any:
    """A Llama whose tensors have shapes, and no memory."""
    from transformers import LlamaForCausalLM

    with torch.device("meta"):
        return LlamaForCausalLM._from_config(
            config, dtype=dtype, attn_implementation=attention
        )


def open_weights(
    folder: Path, opened: ExitStack, *, is_reading: bool = True
) -> dict[str, Source]:
    """All tensors of a folder by their names, of the files that transformers would take.

    Not `is_reading`: only what is known of them. UserError for files that are none.
    """
    from safetensors import SafetensorError

    sources: dict[str, Source] = {}
    for path in list_weight_files(folder):
        try:
            if path.suffix == ".safetensors":
                sources |= _open_safetensors(path, opened)
            else:
                sources |= _open_pickled(path, is_reading)
        except (SafetensorError, *_UNREADABLE) as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise UserError(
                f"{path} cannot be read as weights ({reason}); get the model anew"
            ) from error
    return sources


def list_weight_files(folder: Path) -> list[Path]:
    """The files of weights in the first form that transformers would take."""
    for single, index in zip(SINGLE_WEIGHTS, WEIGHT_INDEXES, strict=True):
        if (folder / single).is_file():
            return [folder / single]
        if (folder / index).is_file():
            return _list_shards(folder / index)
    raise UserError(
        f"{folder} has no weights ({', '.join((*SINGLE_WEIGHTS, *WEIGHT_INDEXES))})"
    )


def _list_shards(index: Path) -> list[Path]:
    """The files that an index names, which must lie beside it."""
    try:
        content = get_object(json.loads(index.read_text()))
        file_by_tensor = get_object(content["weight_map"])
    except (ValueError, KeyError) as error:
        raise UserError(f"{index} has no weight_map of names to files") from error
    names = set(map(str, file_by_tensor.values()))
    for name in names:
        if Path(name).name != name:
            raise UserError(f"{index} names {name[:80]!r}, which lies elsewhere")
    return sorted(map(index.with_name, names))


def _open_safetensors(path: Path, opened: ExitStack) -> dict[str, Source]:
    from safetensors import safe_open

    file = opened.enter_context(safe_open(path, framework="pt"))
    sources: dict[str, Source] = {}
    for name in file.keys():
        header = file.get_slice(name)
        read = partial(file.get_tensor, name)
        shape = tuple(header.get_shape())
        sources[name] = Source(path, shape, header.get_dtype(), read)
    return sources


def _open_pickled(path: Path, is_reading: bool) -> dict[str, Source]:
    tensors = _load_pickled(path, "cpu" if is_reading else "meta")
    return {
        name: Source(path, tuple(tensor.shape), tensor.dtype, partial(_itself, tensor))
        for name, tensor in tensors.items()
    }


def _load_pickled(path: Path, device: str) -> Mapping[str, torch.Tensor]:
    load = partial(torch.load, path, map_location=device, weights_only=True)
    try:
        loaded = load(mmap=True)
    except RuntimeError:  # files of torch before 1.6 cannot be mapped
        loaded = load(mmap=False)
    if not isinstance(loaded, Mapping):
        raise ValueError(f"a {type(loaded).__name__}, no table of tensors")
    table = cast("Mapping[str, Any]", loaded)
    return {name: value for name, value in table.items() if torch.is_tensor(value)}


def _itself(tensor: torch.Tensor) -> torch.Tensor:
    """What is read of a file that is there whole."""
    return tensor


def choose_sources(
    folder: Path,
    targets: Mapping[nn.Module, Sequence[Target]],
    sources: Mapping[str, Source],
) -> dict[str, Source]:
    """By the first name of each parameter, the tensor that it is read from.

    UserError for parameters that no file has, that have another shape there, or that
    are no floats: transformers would fill the first with random numbers.
    """
    chosen: dict[str, Source] = {}
    missing: list[str] = []
    for target in _each(targets):
        source = next(_find_all(target, sources), None)
        if source is None:
            missing.append(target.names[0])
            continue
        if source.shape != target.shape or source.dtype not in _FLOATS:
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


def _tell_ranks(problem: str | None) -> str | None:
    """What rank 0 has found, on all ranks: the others must not wait for it."""
    box = [problem]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]


def _find_untied(
    targets: Mapping[nn.Module, Sequence[Target]], sources: Mapping[str, Source]
) -> str | None:
    """What is wrong where files have two tensors for a parameter, which differ."""
    for target in _each(targets):
        candidates = list(_find_all(target, sources))
        if len(candidates) == 1:
            continue
        first, second = candidates
        if not torch.equal(first.read(), second.read()):
            return (
                f"config.json has tie_word_embeddings, but {' and '.join(target.names)}"
                f" differ; set it to false in a copy, or take {target.names[-1]} out"
            )
    return None


def _find_all(target: Target, sources: Mapping[str, Source]) -> Iterator[Source]:
    """The tensors of files for a parameter, two at most: a tied one has two names."""
    for name in target.names:
        source = sources.get(name) or sources.get(name.removeprefix(_PREFIX))
        if source:
            yield source


def _list_targets(llama: nn.Module) -> dict[nn.Module, list[Target]]:
    """The parameters, each under the first module that it stands in, in their order."""
    names: dict[int, list[str]] = {}
    for name, parameter in llama.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    targets: dict[nn.Module, list[Target]] = {}
    for own_names in names.values():
        owners = [_split(llama, name) for name in own_names]
        shape = llama.get_parameter(own_names[0]).shape
        target = Target(own_names, owners, tuple(shape))
        first_module, _ = owners[0]
        targets.setdefault(first_module, []).append(target)
    return targets


def _each(targets: Mapping[nn.Module, Sequence[Target]]) -> Iterator[Target]:
    """The parameters of all modules, in their order."""
    for own_targets in targets.values():
        yield from own_targets


def _split(llama: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that has a tensor of a dotted name, and its name there."""
    owner, _, attribute = name.rpartition(".")
    return llama.get_submodule(owner), attribute


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


def _make_buffers(llama: Any) -> dict[str, torch.Tensor]:
    """What a Llama's modules compute from its config, as on a CPU: a GPU rounds powers
    otherwise, and a model begins there with the same positions."""
    rotary = type(llama.model.rotary_emb)(llama.config)
    buffers = {f"model.rotary_emb.{name}": b for name, b in rotary.named_buffers()}
    unknown = [name for name, _ in llama.named_buffers() if name not in buffers]
    assert not unknown, f"nobody computes {unknown}"
    return buffers


def _make_divide(deepspeed: DeepSpeedJson) -> Divide:
    """What divides a module's weights as ZeRO 3 does when an engine takes a model over."""
    from deepspeed import zero

    divided: list[Any] = []

    def divide(module: nn.Module) -> None:
        parameters = list(module.parameters(recurse=False))
        if divided:
            # as DeepSpeed itself divides what it finds whole beside what is divided
            divided[0].convert_to_zero_parameters(param_list=parameters)
        else:
            zero.Init(module=module, config_dict_or_path=copy.deepcopy(deepspeed))
            divided.append(parameters[0])

    return divide
