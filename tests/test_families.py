"""What a config.json of each family says of its model, against the model that transformers makes of
it."""

import pytest

from tests.lib.decoder_configs import list_configs
from zsg_core.families.registry import FAMILIES, shape_of_config

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


@pytest.mark.parametrize("role", ["attention", "mlp", "all", "experts", "routers"])
@pytest.mark.parametrize(("name", "config"), list_configs())
@pytest.mark.soak(part="models")
def test_adapters_are_counted_as_the_model_has_them(name, config, role):
    """Plan's count for a role of LoRA's is that of the modules which have the role, in each
    family; where plan finds none the model has none."""
    from jobs.model.lora_targets import find_targets
    from zsg_core.errors import UserError
    from zsg_core.training.tuning import count_trained_parameters

    tuning = {"method": "lora", "r": 4, "targets": [role]}
    model = make_skeleton(config)
    try:
        planned = count_trained_parameters(shape_of_config(config), tuning)
    except UserError:
        with pytest.raises(UserError):
            find_targets(model, [role])
        return
    found = find_targets(model, [role])
    shapes = [model.get_submodule(module).weight.shape for module in found.modules]
    shapes += [model.get_parameter(tensor).shape for tensor in found.tensors]

    # of experts one factor each: (experts, in, out)
    ends = [sum(shape[-2:]) * (shape[0] if len(shape) == 3 else 1) for shape in shapes]
    assert planned == 4 * sum(ends), name
