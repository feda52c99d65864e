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


@pytest.mark.parametrize(("name", "config"), list_configs())
def test_parameters_are_counted_as_the_model_has_them(name, config):
    """Each family's count is numel, and its names and shapes those of its files."""
    model = make_skeleton(config)
    shape = shape_of_config(config)

    assert type(model).__name__ == FAMILIES[name].architecture
    assert shape.parameters == sum(weight.numel() for weight in model.parameters())
    if name not in FILES_DIFFER:
        assert list_expected(shape) == list_stored(model)
