"""Puts LoRA's adapters into a model of any family, loads them, and adds them to the
weights (Hu et al. 2021, arXiv 2106.09685; rsLoRA: Kalajdzievski 2023, arXiv 2312.03732).
"""

import contextlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from jobs.contract.folder import META, read_json
from jobs.model.adapter_masks import KeyedMask, MaskKeys
from jobs.model.architecture import find_embedding, find_head, free_parameters
from jobs.model.lora_targets import find_targets, has_transposed, shorten_names
from zsg_core.errors import ClusterError, UserError
from zsg_core.training.lora_roles import TIED_MERGE

# PEFT's name for the one adapter of a model; its files leave it out
ADAPTER = "default"
SETTINGS_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
# in the names of adapters' tensors, of embeddings, too
_MARK = ".lora_"


def add_adapters(model: Any, tuning: Mapping[str, Any]) -> dict[str, int]:
    """Puts adapters beside what the tuning names, A drawn from its seed and B zero;
    everything else is frozen.

    Returns how many modules of each name got one. UserError for targets that name
    nothing, and for modules that PEFT does not adapt.
    """
    from peft import LoraConfig

    targets, dropout = find_targets(model, tuning["targets"]), tuning.get("dropout")
    if dropout and targets.tensors:
        raise UserError(
            "train.tuning.dropout: what goes into routers and experts cannot be dropped, which"
            " tokens reach them is chosen on the way; take it out, or these targets"
        )
    # Dropout is not PEFT's: its draws would depend on ranks and micro-batches.
    config = LoraConfig(
        r=tuning["r"],
        lora_alpha=tuning["alpha"],
        target_modules=shorten_names(model, targets.modules),
        target_parameters=targets.tensors or None,
        fan_in_fan_out=has_transposed(model, targets.modules),
        use_rslora=tuning.get("rslora", False),
        lora_dropout=0.0,
        bias="none",
    )
    torch.manual_seed(tuning["seed"])
    try:
        _inject(model, config)
    except ValueError as error:
        raise UserError(f"train.tuning.targets: {error}") from error
    if dropout:
        config.lora_dropout = dropout  # as its file tells it
        _put_masks(model, MaskKeys(tuning["seed"]), dropout)
    return targets.counts


def _put_masks(model: Any, keys: MaskKeys, share: float) -> None:
    """Puts masks before the adapters of linear layers. PEFT drops nothing of embeddings,
    and the output layer is given states that are learnt from alone, whose tokens are
    not told."""
    head = find_head(model)
    for name, module in list_adapted(model):
        if not module.lora_embedding_A and module is not head:
            module.lora_dropout[ADAPTER] = KeyedMask(keys, name, share)


def list_adapted(model: nn.Module) -> list[tuple[str, Any]]:
    """PEFT's modules around what has adapters, with their names."""
    return [
        (name, module)
        for name, module in model.named_modules()
        if hasattr(module, "lora_A")
    ]


def name_in_file(name: str) -> str:
    """What PEFT's files call a tensor of an adapter."""
    return f"base_model.model.{name}".replace(f".{ADAPTER}", "")


def is_of_adapter(name: str) -> bool:
    """Whether a tensor of a model is an adapter's, by its name."""
    return _MARK in name


def load_adapters(model: Any, folder: Path) -> None:
    """Copies the adapters of a folder into those of a model. ClusterError where the two
    are not the same, or the file cannot be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / WEIGHTS_FILE
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ClusterError(f"{path}: cannot be read: {error}") from error
    adapters = {
        name_in_file(name): parameter
        for name, parameter in model.named_parameters()
        if is_of_adapter(name)
    }
    differing = tensors.keys() ^ adapters.keys() or {
        name for name, value in tensors.items() if value.shape != adapters[name].shape
    }
    if differing:
        raise ClusterError(
            f"{path}: its adapters are not those of the model; the first that differs is"
            f" {min(differing)}"
        )
    for name, value in tensors.items():
        adapters[name].data.copy_(value)


def find_adapted_base(folder: Path) -> Path | None:
    """The folder of the weights that adapters were put on, of a folder of zsg's that
    holds adapters; None for one of whole weights.

    ClusterError where these weights are gone.
    """
    if not (folder / SETTINGS_FILE).is_file() or not (folder / META).is_file():
        return None
    base = Path((read_json(folder / META) or {}).get("base", {}).get("path", ""))
    if not (base / "config.json").is_file():
        raise ClusterError(
            f"{folder}: its adapters were put on the weights in {base}, which are not there any"
            " more"
        )
    return base


def merge_folder(model: Any, folder: Path) -> None:
    """Adds the adapters of a folder to the weights of the model that they were put on.
    UserError where they cannot be added to a tied weight."""
    add_folder(model, folder)
    merge_added(model)


def add_folder(model: Any, folder: Path) -> None:
    """Puts the adapters of a folder into a model, where and as its settings say."""
    from peft import LoraConfig

    settings = read_json(folder / SETTINGS_FILE) or {}
    _inject(model, LoraConfig(**_read_settings(settings)))
    load_adapters(model, folder)


def merge_added(model: Any, *, unties: bool = False) -> None:
    """Adds a model's adapters to its weights, and takes them out.

    What is added is computed in float32 on a CPU, so that it is the same everywhere. Of
    weights that are divided among ranks (ZeRO 3) all call it together. `unties`: gives
    a head that is the embedding a weight of its own where adapters need that; UserError
    without it.
    """
    _settle_ties(model, unties=unties)
    adapted = list_adapted(model)
    for _name, module in adapted:
        _add_delta(module)
    for name, module in adapted:
        # PEFT wraps the tensors of a module one around the other
        if not name.endswith(".base_layer"):
            owner, _, own = name.rpartition(".")
            setattr(model.get_submodule(owner), own, module.get_base_layer())
    del model.peft_config
    free_parameters(model)


# of adapter_config.json, what decides where adapters stand and what they add
_OF_SETTINGS = (
    "r",
    "lora_alpha",
    "target_modules",
    "target_parameters",
    "fan_in_fan_out",
    "use_rslora",
)


def _read_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: settings[key] for key in _OF_SETTINGS if key in settings}


def find_adapted_table(model: Any) -> str | None:
    """Which of embedding and output layer has adapters, by the last part of its name,
    where both are one table; None where none has, or each has a weight of its own."""
    tables = (find_embedding(model), find_head(model))
    weights = [getattr(table, "base_layer", table).weight for table in tables]
    if weights[0] is not weights[1]:
        return None
    for name, module in list_adapted(model):
        if any(module is table for table in tables):
            return name.rpartition(".")[2]
    return None


def _settle_ties(model: Any, *, unties: bool) -> None:
    """Sees that no adapter is added to a weight that two layers share."""
    if find_adapted_table(model) is None:
        return
    if not unties:
        raise UserError(TIED_MERGE)
    head = find_head(model)
    bare = getattr(head, "base_layer", head)
    bare.weight = nn.Parameter(bare.weight.detach().clone())
    model.config.tie_word_embeddings = False


def _add_delta(module: Any) -> None:
    """Adds what an adapter does to the weight that it stands beside."""
    for factors in (module.lora_A, module.lora_B):
        factors.to("cpu", torch.float32)
    for factors in (module.lora_embedding_A, module.lora_embedding_B):
        for name, factor in factors.items():
            factors[name] = nn.Parameter(factor.detach().to("cpu", torch.float32))
    base = module.get_base_layer()
    weight = getattr(base, getattr(module, "parameter_name", "weight"))
    with torch.no_grad():
        delta = module.get_delta_weight(ADAPTER)
        with _gathered(weight):
            whole = weight.data.to("cpu", torch.float32)
            weight.data.copy_(whole + delta.view(whole.shape))


@contextlib.contextmanager
def _gathered(weight: nn.Parameter) -> Iterator[None]:
    """A weight that is divided among ranks, whole; what rank 0 makes of it counts."""
    if not hasattr(weight, "ds_id"):
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters([weight], modifier_rank=0):
        yield


def _inject(model: Any, config: Any) -> None:
    from peft import inject_adapter_in_model

    bare = _WithoutConfig(model)
    inject_adapter_in_model(config, bare)
    model.peft_config = bare.peft_config


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
    counts = Counter(_find_own_name(*named) for named in list_adapted(model))
    return dict(sorted(counts.items()))


def _find_own_name(name: str, module: nn.Module) -> str:
    """The last part of what is adapted: PEFT wraps a tensor's module, once for each
    tensor."""
    tensor = getattr(module, "parameter_name", "weight")
    if tensor != "weight":
        return tensor
    return name.replace(".base_layer", "").rpartition(".")[2]


@torch.no_grad()
def measure_added(model: Any) -> float:
    """The Frobenius norm of all that adapters add to the weights they are put on: of
    each scale · B · A, which is not made whole."""
    squares = 0.0
    for module in model.modules():
        for first, second in (
            ("lora_A", "lora_B"),
            ("lora_embedding_A", "lora_embedding_B"),
        ):
            for name, factor in getattr(module, first, {}).items():
                scale = float(module.scaling[name])
                a = getattr(factor, "weight", factor).double()
                b = getattr(module, second)[name]
                b = getattr(b, "weight", b).double()
                # the trace of (BA)ᵀ(BA), in products of r × r
                squares += scale**2 * float(((b.T @ b) * (a @ a.T)).sum())
    return math.sqrt(squares)
