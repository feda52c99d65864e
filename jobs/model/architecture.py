"""Finds what zsg needs of a causal language model of any family: its class, its body,
head, embedding, layers and norms, and what would draw random numbers.

Nothing here is a list of families. Everything is found by transformers' own accessors
and by the modules' own kinds, as transformers 5.23 has them; whether training is right
for a family is proven, not listed: see jobs.model.attention_proof.
"""

from collections.abc import Iterator, Mapping
from types import FunctionType
from typing import Any

import torch
from torch import nn

from zsg_core.errors import UserError

# of an attribute's or a module's name, that it sets what is drawn at random in training
_DRAWING = ("drop", "jitter")
# configs within others that are of a text model's own layers (MPT, DBRX)
_OF_LAYERS = frozenset(("attn_config", "ffn_config"))
# families whose routers draw experts at random in training, whatever their configs say
# (SparseMixer-v2 of Phi-3.5-MoE)
_DRAWN_EXPERTS = frozenset(("phimoe",))
# of a config, what a loss of the routers themselves is weighed by (Mixtral, JetMoE, Bamba)
_ROUTER_LOSSES = ("router_aux_loss_coef", "aux_loss_coef", "z_loss_coefficient")
# a model's own list of what was set to 0
_SILENCED = "_zsg_silenced"
# a model's own list of parameters that its class trains by no gradient
_FROZEN = "_zsg_frozen"


def find_class(config: Any) -> type[Any]:
    """The class of causal language model that transformers takes for a config.

    UserError for a config that has none, for one that nests the text model's in others,
    and for one whose model is no decoder: those are other architectures to train.
    """
    from transformers import AutoModelForCausalLM

    family = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise UserError(
            f"a {family!r} model has an encoder and a decoder; zsg trains decoders"
        )
    nested = sorted({*(getattr(config, "sub_configs", None) or ())} - _OF_LAYERS)
    if nested:
        raise UserError(
            f"the config of a {family!r} model has others within it ({', '.join(nested)}): it is"
            " more than a text model; take one of text alone"
        )
    mapping: Any = AutoModelForCausalLM._model_mapping
    if type(config) not in mapping:
        raise UserError(
            f"transformers has no causal language model for {family!r}; zsg trains those that"
            " AutoModelForCausalLM loads"
        )
    mapped = mapping[type(config)]
    classes = mapped if isinstance(mapped, (list, tuple)) else (mapped,)
    named = getattr(config, "architectures", None) or ()
    return next((each for each in classes if each.__name__ in named), classes[0])


def make_skeleton(config: Any, dtype: torch.dtype, attention: str) -> Any:
    """The model of a config, whose tensors have shapes, and no memory.

    `attention`: the name that transformers knows the attention by. UserError as for
    `find_class`.
    """
    model_class = find_class(config)
    with torch.device("meta"):
        model = model_class._from_config(
            config, dtype=dtype, attn_implementation=attention
        )
    frozen = [
        name
        for name, parameter in model.named_parameters()
        if not parameter.requires_grad
    ]
    setattr(model, _FROZEN, frozen)
    return model


def choose_attention(model_class: Any) -> str:
    """The attention of transformers' own for a class, by name, where examples do not
    meet in a row: the fused one, or the written-out one where the class has no other."""
    return "sdpa" if model_class._supports_sdpa else "eager"


def find_body(model: Any) -> Any:
    """What makes hidden states of tokens: the model without its head. UserError where
    the two cannot be told apart."""
    body = model.base_model
    if body is model:  # its class names a part that it has not, as Llama 4's does
        parts = [
            part for part in model.children() if hasattr(part, "get_input_embeddings")
        ]
        body = parts[0] if len(parts) == 1 else model
    if body is model:
        raise UserError(f"{type(model).__name__} has no body apart from its head")
    return body


def find_head(model: Any) -> Any:
    """The linear layer that makes logits of hidden states, of a weight (V, H). UserError
    where there is none."""
    head = model.get_output_embeddings()
    if head is None:
        raise UserError(f"{type(model).__name__} has no output layer")
    return head


def find_embedding(model: Any) -> Any:
    """The layer that makes vectors of tokens, of a weight (V, H)."""
    return model.get_input_embeddings()


def find_layers(model: nn.Module) -> list[nn.Module]:
    """The layers of a model, in their order: what transformers itself can compute a
    second time."""
    return [layer for _name, layer in name_layers(model)]


def name_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The layers of a model with their names in it, in their order."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, GradientCheckpointingLayer)
    ]


def find_norms(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules that normalise, of whatever kind, with their names; those without
    weights, too."""
    return [
        (name, module)
        for name, module in model.named_modules()
        if "Norm" in type(module).__name__
    ]


def list_norm_parameters(model: nn.Module) -> set[str]:
    """The names of the norms' own weights and biases."""
    return {
        f"{name}.{attribute}"
        for name, module in find_norms(model)
        for attribute, _parameter in module.named_parameters(recurse=False)
    }


def list_saved_buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    """The buffers that are weights, too, by name: what a model's files have beside its
    parameters, and what shares no memory with one of these."""
    parameters = {id(parameter) for parameter in model.parameters()}
    saved = model.state_dict(keep_vars=True).keys()
    return {
        name: buffer
        for name, buffer in model.named_buffers()
        if name in saved and id(buffer) not in parameters
    }


def list_frozen(model: nn.Module) -> list[str]:
    """The names of a loaded model's parameters that its class freezes when it is made:
    what is adjusted by other rules than a gradient's, such as what AfMoE adds to its
    routers' scores. They are weights that nothing trains."""
    return getattr(model, _FROZEN, [])


def free_parameters(model: nn.Module) -> None:
    """Lets everything be trained that its class trains."""
    frozen = frozenset(list_frozen(model))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)


def is_bias(name: str) -> bool:
    """Whether a parameter adds to what a module makes, by its name: those of fused
    experts are called after what they belong to (`down_proj_bias`)."""
    attribute = name.rpartition(".")[2]
    return attribute == "bias" or attribute.endswith("_bias")


def refuse_drawn_experts(config: Any) -> None:
    """UserError for a family that draws at random in training all the same."""
    if config.model_type in _DRAWN_EXPERTS:
        raise UserError(
            f"a {config.model_type!r} model draws its experts at random while it trains, so that no"
            " run would be the same again; take a model of another family"
        )


def find_router_loss(config: Any) -> float | None:
    """What transformers would weigh the routers' own loss by, which zsg leaves out; None
    where there is none. DBRX has it in the config of its experts."""
    values = [getattr(config, key, None) for key in _ROUTER_LOSSES]
    of_experts = getattr(config, "ffn_config", None)
    values.append(getattr(of_experts, "moe_loss_weight", None))
    rates = [value for value in values if isinstance(value, (int, float)) and value]
    return next(iter(rates), None)


def silence_dropouts(model: nn.Module) -> list[str]:
    """Sets everything to 0 that would draw random numbers while the model trains, as
    draws would depend on how examples meet and on ranks: what layers keep, and what they
    read from their config each time.

    Returns what was set, each once, as "attention_dropout 0.1".
    """
    silenced: dict[str, None] = {}
    for name, module in model.named_modules():
        for attribute, rate in _find_drawing(vars(module), type(module)):
            setattr(module, attribute, 0.0)
            told_name = name.rpartition(".")[2] if attribute == "p" else attribute
            silenced[f"{told_name} {rate:g}"] = None
    for config, classes in _list_configs(model):
        for key, rate in _find_drawing(vars(config)):
            setattr(config, key, 0.0)
            if any(_reads_config(module_class, key) for module_class in classes):
                silenced[f"{key} {rate:g}"] = None
    setattr(model, _SILENCED, list_silenced(model) + list(silenced))
    return list(silenced)


def list_silenced(model: nn.Module) -> list[str]:
    """What was set to 0 in a model; nothing where nothing was."""
    return getattr(model, _SILENCED, [])


def _find_drawing(
    attributes: Mapping[str, Any], owner: type | None = None
) -> Iterator[tuple[str, float]]:
    """What sets how much is drawn, of a module's or a config's attributes, with its
    value. `owner`: the class of a module."""
    is_dropout = owner is not None and "drop" in owner.__name__.lower()
    for attribute, value in list(attributes.items()):
        is_rate = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_rate or value <= 0:
            continue
        is_named_so = any(mark in attribute.lower() for mark in _DRAWING)
        if is_named_so or (is_dropout and attribute == "p"):
            yield attribute, value


def _list_configs(model: nn.Module) -> list[tuple[Any, set[type]]]:
    """The configs that modules keep, each once, with the classes of those that keep it."""
    configs: dict[int, tuple[Any, set[type]]] = {}
    for module in model.modules():
        config = getattr(module, "config", None)
        if config is not None and hasattr(config, "__dict__"):
            _config, classes = configs.setdefault(id(config), (config, set()))
            classes.add(type(module))
    return list(configs.values())


def _reads_config(module_class: type, key: str) -> bool:
    """Whether a class reads a key from its config after it is made, by the names in its
    methods' code: Falcon's layers do."""
    return any(
        "config" in function.__code__.co_names and key in function.__code__.co_names
        for name, function in vars(module_class).items()
        if isinstance(function, FunctionType) and name != "__init__"
    )
