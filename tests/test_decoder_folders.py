"""Is a folder of any family taken when it is whole, and refused by name when it is no decoder?"""

import contextlib
import json
import random
from types import SimpleNamespace

import pytest

from launcher.grids import model_folder
from launcher.grids.model_files import read_tensors
from launcher.submission import job_files
from tests.lib.decoder_configs import list_configs
from tests.lib.model_folders import (
    SMALL,
    write_decoder,
    write_llama,
    write_tensors,
)
from zsg_core.errors import UserError
from zsg_core.families.model_types import BIDIRECTIONAL, DECODERS, HALVES, NESTED
from zsg_core.families.registry import FAMILIES, shape_of_config

QWEN3 = {**SMALL, "model_type": "qwen3", "head_dim": 16, "num_key_value_heads": 2}
QWEN3["architectures"] = ["Qwen3ForCausalLM"]
GPT2 = {
    "model_type": "gpt2",
    "vocab_size": 300,
    "n_embd": 32,
    "n_layer": 1,
    "n_head": 2,
}


@pytest.mark.parametrize(("name", "config"), list_configs())
def test_a_whole_folder_of_each_family_is_taken(tmp_path, name, config):
    """Names, shapes and sizes of the family's own files."""
    model_folder.check_decoder(write_decoder(tmp_path / "model", config))


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"model_type": "gemma3", "text_config": {}}, "of several parts"),
        ({"model_type": "mistral3", "vision_config": {}}, "has vision_config"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "an encoder-decoder"),
        ({"model_type": "bert"}, "made to see what comes after"),
        ({"model_type": "qwen33"}, "which transformers does not have"),
        ({"model_type": ["qwen3"]}, "model_type is ['qwen3'], not a name"),
        ({"quantization_config": {"quant_method": "mxfp4"}}, "quantised (mxfp4"),
        (
            {"auto_map": {"AutoModelForCausalLM": "own.Model"}},
            "code of its own ('own.Model')",
        ),
        (
            {"architectures": ["Qwen3ForSequenceClassification"]},
            "zsg trains Qwen3ForCausalLM",
        ),
        ({"architectures": "Qwen3ForCausalLM"}, "not a list of names"),
        ({"hidden_size": None}, "hidden_size is None, not a count"),
        ({"num_attention_heads": 3}, "no multiple of 2"),
        ({"num_hidden_layers": 10**6}, "less than 10000"),
        ({"layer_types": [1]}, "not a list of names"),
        ({"hidden_act": "own"}, "none that transformers has"),
        ({"rope_parameters": 3}, "rope_parameters is 3, not an object"),
        ({"eos_token_id": 300}, "eos_token_id is 300, but vocab_size is 300"),
        ({"num_hidden_layers": 2}, "lack 11 tensors, the first model.layers.1"),
        ({"attention_bias": True}, "lack 4 tensors"),
        ({"head_dim": 24}, "another shape than config.json says"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_decoder_is_refused_by_name(tmp_path, told, said):
    """One clear sentence each, from the files alone."""
    folder = write_decoder(tmp_path / "model", QWEN3, **told)

    with pytest.raises(UserError) as refused:
        model_folder.check_decoder(folder)

    assert said in str(refused.value)


# what may stand in a config.json that anybody wrote
STRANGE = [
    None,
    0,
    -1,
    3,
    2**70,
    1.5,
    float("nan"),
    True,
    "",
    [],
    ["a"],
    [[1]],
    {},
    {"a": 1},
]
OPTIONAL_KEYS = [
    "layer_types",
    "sliding_window",
    "sliding_window_pattern",
    "mlp_only_layers",
    "decoder_sparse_step",
    "attention_layers",
    "num_experts",
    "head_dim",
    "first_k_dense_replace",
    "hidden_dropout",
    "max_position_embeddings",
    "q_lora_rank",
    "tie_word_embeddings",
]


def test_a_strange_value_is_taken_or_refused(tmp_path):
    """Whatever stands under a key of a config.json is a UserError or is well."""
    drawn = random.Random(0)
    for _, config in list_configs():
        folder = write_decoder(tmp_path / "model", config)
        for _ in range(8):
            key = drawn.choice([*config, *OPTIONAL_KEYS])
            (folder / "config.json").write_text(
                json.dumps({**config, key: drawn.choice(STRANGE)})
            )
            with contextlib.suppress(UserError):
                model_folder.check_decoder(folder)
                model_folder.read_shape(folder)
                model_folder.check_length("train.max_length", 8, folder)


def test_names_without_what_stands_before_the_body_are_taken(tmp_path):
    """As GPT-2's published files have them, with the masks that older ones keep."""
    folder = write_decoder(tmp_path / "model", GPT2)
    path = folder / "model.safetensors"
    shaped = {
        name.removeprefix("transformer."): list(tensor.shape)
        for name, tensor in (read_tensors(path) or {}).items()
    }
    write_tensors(
        path, shaped | {"h.0.attn.bias": [1, 1, 8, 8]}, **{"h.0.attn.bias": "U8"}
    )

    model_folder.check_decoder(folder)


def test_a_family_that_is_not_known_by_heart_is_counted_from_its_tensors(tmp_path):
    """Its parameters are exact, and it is told that the rest is bounded."""
    told = {"model_type": "diffllama", "architectures": ["DiffLlamaForCausalLM"]}
    folder = write_llama(tmp_path / "model", **told)
    model_folder.check_decoder(folder)
    tensors = read_tensors(folder / "model.safetensors") or {}
    config = json.loads((folder / "config.json").read_text())

    shape = model_folder.describe_shape(config, tensors)

    assert shape.parameters == shape_of_config(SMALL).parameters
    assert shape.body == shape_of_config(SMALL).body
    assert {module.part for module in shape.linear_modules} == {"attention", "mlp"}
    assert any(
        "counted from the tensors" in note for note in model_folder.find_notes(folder)
    )


def test_dropouts_of_a_class_are_told(tmp_path):
    """GPT-2's are 0.1 where config.json says nothing of them."""
    folder = write_decoder(tmp_path / "model", GPT2)

    notes = " ".join(model_folder.find_notes(folder))

    assert "attn_pdrop 0.1, embd_pdrop 0.1, resid_pdrop 0.1" in notes

    notes = " ".join(
        model_folder.find_notes(write_llama(tmp_path / "llama", attention_dropout=0.1))
    )

    assert "attention_dropout 0.1 of its class or config.json is set to 0" in notes


def test_a_missing_tie_is_the_classs_own(tmp_path):
    """Older Gemma files leave it out: without an output layer they are whole."""
    gemma = {**QWEN3, "model_type": "gemma", "architectures": ["GemmaForCausalLM"]}
    folder = write_decoder(tmp_path / "model", gemma)

    model_folder.check_decoder(folder)

    assert model_folder.is_tied(folder)


@pytest.mark.engine
def test_the_model_types_are_those_of_transformers():
    """Each causal language model that transformers has is judged, and no other."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    )

    judged = DECODERS | NESTED | HALVES | BIDIRECTIONAL

    assert judged == set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    assert set(FAMILIES) <= DECODERS


@pytest.mark.parametrize(
    ("family", "method", "is_refused"),
    [
        ("gpt2", "bitfit", False),
        ("qwen2", "bitfit", False),
        ("llama", "bitfit", True),
        ("olmo", "ln", True),
        ("olmo2", "ln", False),
    ],
)
def test_a_tuning_of_what_a_model_lacks_is_refused_before_the_queue(
    tmp_path, family, method, is_refused
):
    """By the model's own biases and norms, whatever the keys of its config are called."""
    configs = dict(reversed(list_configs()))  # the first of a family
    (tmp_path / "config.json").write_text(json.dumps(configs[family]))
    run = SimpleNamespace(base=tmp_path)

    refused = pytest.raises(UserError, match="nothing would be trained")
    with refused if is_refused else contextlib.nullcontext():
        job_files._refuse_nothing_to_train(run, method)
