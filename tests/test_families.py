"""What a config.json of each family says of its model, against the model that transformers makes of
it."""

import pytest

from tests.lib.decoder_configs import COMMON, list_configs
from zsg_core.errors import UserError
from zsg_core.families.headers import shape_of_tensors
from zsg_core.families.registry import FAMILIES, shape_of_config
from zsg_core.training.lora_roles import ROLES
from zsg_core.training.tuning import count_trained_parameters

LORA = {"method": "lora", "r": 4, "alpha": 16.0, "seed": 0}

# what transformers gives other names in memory than in the files: experts are one tensor there
FILES_DIFFER = (
    "mixtral",
    "qwen2_moe",
    "qwen3_moe",
    "olmoe",
    "deepseek_v2",
    "deepseek_v3",
    "glm4_moe",
    "granitemoe",
    "gpt_neox",
)


def make_skeleton(config):
    """The model of a config, without memory for its weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    values = dict(config)
    made = AutoConfig.for_model(values.pop("model_type"), **values)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(made)


def list_stored(model):
    """The tensors that a folder of the model has, by name: parameters and stored buffers."""
    stored = model.state_dict()
    if model.config.tie_word_embeddings:
        head = model.get_output_embeddings().weight
        stored = {
            name: tensor
            for name, tensor in stored.items()
            if tensor.shape != head.shape
            or not name.startswith(("lm_head", "embed_out"))
        }
    return {name: tuple(tensor.shape) for name, tensor in stored.items()}


def list_expected(shape):
    """The same by the family's module."""
    table = (shape.vocab, shape.hidden)
    expected = {name: weight.shape for name, weight in shape.list_tensors()}
    expected[shape.names.embedding] = table
    if not shape.tied:
        expected[shape.names.head] = table
    return expected


@pytest.mark.engine
@pytest.mark.parametrize(("name", "config"), list_configs())
def test_parameters_are_counted_as_the_model_has_them(name, config):
    """Each family's count is numel, and its names and shapes those of its files."""
    model = make_skeleton(config)
    shape = shape_of_config(config)

    assert type(model).__name__ == FAMILIES[name].architecture
    assert shape.parameters == sum(weight.numel() for weight in model.parameters())
    if name not in FILES_DIFFER:
        assert list_expected(shape) == list_stored(model)


# one with experts in one tensor and a router, one whose head has another name in its
# files, one with matrices the other way round
QUICK = ("qwen2_moe", "gpt_neox", "gpt2")
# of layers that mix tokens without attention, counted from tensors: convolutions,
# Mamba's, recurrences; and one of which transformers can compute no layer again
HYBRIDS = [
    (
        "lfm2",
        {**COMMON, "num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]},
    ),
    ("recurrent_gemma", {**COMMON, "num_hidden_layers": 3, "lru_width": 64}),
    (
        "jamba",
        {**COMMON, "num_experts": 4, "use_mamba_kernels": False}
        | {"attn_layer_period": 2, "attn_layer_offset": 1},
    ),
    ("falcon_h1", {**COMMON, "mamba_d_ssm": 64, "mamba_n_heads": 4}),
    ("qwen3_next", {**COMMON, "num_experts": 4, "num_experts_per_tok": 2}),
    ("gpt_neox_japanese", {**COMMON, "tie_word_embeddings": False}),
]


# without it the class makes a model whose projections do not fit together
NOT_LEFT_OUT = {"helium": ("head_dim",)}
# left out, they make a model of the class's own size, or none
SIZES = ("hidden_size", "n_embd", "vocab_size", "model_type", "pad_token_id")


@pytest.mark.parametrize(("name", "config"), list_configs())
@pytest.mark.soak(part="families")
def test_keys_that_are_left_out_are_the_classs_own(name, config):
    """Older files leave keys out: plan counts what the class then makes, or asks for the
    key."""
    from huggingface_hub.errors import StrictDataclassError

    skipped = (*SIZES, *NOT_LEFT_OUT.get(name, ()))
    for key in config.keys() - set(skipped):
        left = {other: value for other, value in config.items() if other != key}
        try:
            planned = shape_of_config(left).parameters
        except ValueError:
            continue
        try:
            model = make_skeleton(left)
        except (TypeError, ValueError, KeyError, StrictDataclassError):
            continue  # the class makes no model of it
        expected = sum(weight.numel() for weight in model.parameters())
        assert planned == expected, key


def list_targets(model):
    """All roles, and the last part of the name of each module in the model."""
    names = {name.rpartition(".")[2] for name, _module in model.named_modules()}
    return [*ROLES, *sorted(name for name in names if name and not name.isdigit())]


def count_by_plan(shape, target):
    """What plan says is trained; None where it refuses the target."""
    try:
        return count_trained_parameters(shape, LORA | {"targets": [target]})
    except UserError:
        return None


def count_on_node(model, target):
    """How many elements have gradients; None where the node refuses the target."""
    import torch

    from jobs.model.lora import add_adapters

    try:
        with torch.device("meta"):
            add_adapters(model, LORA | {"targets": [target]})
    except UserError:
        return None
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def check_every_target(config, shape):
    """Each role and name that could be a target is counted by plan as the node has it, or
    refused by both."""
    targets = list_targets(make_skeleton(config))
    planned = {target: count_by_plan(shape, target) for target in targets}
    made = {target: count_on_node(make_skeleton(config), target) for target in targets}

    assert planned == made
    assert planned["all"] and planned["attention"]


@pytest.mark.engine
@pytest.mark.parametrize(
    ("name", "config"),
    [
        pytest.param(
            name,
            config,
            marks=[] if name in QUICK else pytest.mark.soak(part="families"),
        )
        for name, config in list_configs()
    ],
)
def test_adapters_are_counted_as_the_model_has_them(name, config):
    """For all of LoRA's targets, in each family: embedding, output layer, routers and
    experts among them."""
    check_every_target(config, shape_of_config(config))


@pytest.mark.engine
@pytest.mark.soak(part="families")
@pytest.mark.parametrize(("name", "config"), HYBRIDS)
def test_adapters_of_a_family_not_known_by_heart_are_counted(name, config):
    """From the names and shapes of its tensors alone: what mixes tokens is of `all`, and
    convolutions are of nothing."""
    config = {"model_type": name, **config}
    model = make_skeleton(config)

    check_every_target(
        config, shape_of_tensors(model.config.to_dict(), list_stored(model))
    )
