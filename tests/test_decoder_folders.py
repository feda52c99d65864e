"""Is a folder of any family taken when it is whole, and refused by name when it is no decoder?"""

import contextlib
import json
import math
import random
from types import SimpleNamespace

import pytest

from launcher.grids import model_folder, model_tensors
from launcher.grids.model_files import read_tensors
from launcher.submission import job_files
from tests.lib.decoder_configs import list_configs
from tests.lib.model_folders import (
    SMALL,
    change,
    list_tensors,
    write_decoder,
    write_llama,
    write_tensors,
    write_tokenizer,
)
from zsg_core.errors import UserError
from zsg_core.families.model_types import BIDIRECTIONAL, DECODERS, HALVES, NESTED
from zsg_core.families.registry import FAMILIES, shape_of_config
from zsg_core.training.decoder import BOUND

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

    shape = model_tensors.compare_with_config(config, tensors).shape

    assert shape.parameters == shape_of_config(SMALL).parameters
    assert shape.body == shape_of_config(SMALL).body
    assert {module.part for module in shape.linear_modules} == {"attention", "mlp"}
    assert any(
        "counted from the tensors" in note for note in model_folder.find_notes(folder)
    )


def write_unknown(folder, config, tensors):
    """A folder of a family that is not known by heart, of these tensors."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"vocab_size": 300} | config))
    write_tensors(folder / "model.safetensors", tensors)
    write_tokenizer(folder)
    return folder


MAMBA = {
    "backbone.embeddings.weight": [300, 32],
    "backbone.layers.0.mixer.in_proj.weight": [128, 32],
    "backbone.layers.0.mixer.A_log": [64, 8],
    "backbone.norm_f.weight": [32],
}
RWKV = {
    "rwkv.embeddings.weight": [300, 32],
    "rwkv.blocks.0.attention.time_decay": [32],
    "rwkv.blocks.0.attention.key.weight": [32, 32],
    "head.weight": [300, 32],
}
GEMMA3N = {
    "model.embed_tokens.weight": [300, 32],
    "model.embed_tokens_per_layer.weight": [300, 64],
    "model.layers.0.mlp.up_proj.weight": [96, 32],
    "model.layers.1.mlp.up_proj.weight": [64, 32],
}
GEMMA4 = {
    "model.embed_tokens.weight": [300, 32],
    "model.layers.0.mlp.up_proj.weight": [96, 32],
}


@pytest.mark.parametrize(
    ("config", "tensors"),
    [
        ({"model_type": "mamba", "hidden_size": 32, "num_hidden_layers": 1}, MAMBA),
        ({"model_type": "rwkv", "hidden_size": 32, "num_hidden_layers": 1}, RWKV),
        (
            {"model_type": "gemma3n_text", "intermediate_size": [96, 64]}
            | {"num_attention_heads": 2, "num_hidden_layers": 2},
            GEMMA3N,
        ),
        (
            {"model_type": "gemma4_text", "num_experts": None, "top_k_experts": None}
            | {"num_attention_heads": 2, "num_hidden_layers": 1},
            GEMMA4,
        ),
    ],
    ids=lambda value: value.get("model_type", ""),
)
def test_what_cannot_be_counted_by_heart_is_taken(tmp_path, config, tensors):
    """Models without heads, with other sizes in each layer, or none of experts: their
    tensors are counted."""
    folder = write_unknown(tmp_path / "model", config, tensors)

    model_folder.check_decoder(folder)

    shape = model_folder.read_shape(folder)
    assert shape.parameters == sum(map(math.prod, tensors.values()))
    assert shape.known == BOUND


def test_a_stored_buffer_is_no_parameter(tmp_path):
    """Of a family that is not known by heart, too; nor is a table of whole numbers a
    quantiser's."""
    buffers = {"model.layers.0.layer_scalar": [1], "model.layers.0.gate.tid2eid": [300]}
    dtype = {"model.layers.0.gate.tid2eid": "I64"}
    config = {"model_type": "gemma4_text", "num_attention_heads": 2}
    folder = write_unknown(tmp_path / "model", config, GEMMA4)
    write_tensors(folder / "model.safetensors", GEMMA4 | buffers, **dtype)

    model_folder.check_decoder(folder)

    shape = model_folder.read_shape(folder)
    assert shape.parameters == sum(map(math.prod, GEMMA4.values()))


def write_with_further_layers(folder, name, **told):
    """A model of 6 layers, with a seventh and a part that predict a further token."""
    config = dict(list_configs())[name]
    write_decoder(folder, config, **told)
    tensors = list_tensors(folder)
    last = "model.layers.5."
    further = {
        other.replace(last, "model.layers.6."): shape
        for other, shape in tensors.items()
        if other.startswith(last)
    }
    further |= {"model.layers.6.eh_proj.weight": [64, 128], "mtp.norm.weight": [64]}
    write_tensors(folder / "model.safetensors", tensors | further)
    return shape_of_config(config), len(further)


@pytest.mark.parametrize("name", ["deepseek_v3", "glm4_moe"])
def test_layers_that_predict_further_tokens_are_told(tmp_path, name):
    """As published: transformers leaves them out. Without the key that says so they have
    no place."""
    key = {"num_nextn_predict_layers": 1}
    known, count = write_with_further_layers(tmp_path / "model", name, **key)

    model_folder.check_decoder(tmp_path / "model")

    assert model_folder.read_shape(tmp_path / "model").parameters == known.parameters
    notes = " ".join(model_folder.find_notes(tmp_path / "model"))
    assert f"{count} tensors, the first 'model.layers.6." in notes
    assert "predict tokens beyond the next one; transformers leaves them out" in notes
    assert "no part of" not in notes

    change(tmp_path / "model/config.json", num_nextn_predict_layers=0)
    with pytest.raises(UserError, match=r"have no place .* num_hidden_layers is 6"):
        model_folder.check_decoder(tmp_path / "model")


def test_layers_that_predict_further_tokens_are_not_counted_as_bounds(tmp_path):
    """Of a family that is not known by heart, either."""
    further = {"model.layers.1.mlp.up_proj.weight": [96, 32], "mtp.0.x": [7]}
    config = {"model_type": "gemma4_text", "num_attention_heads": 2}
    config |= {"num_hidden_layers": 1, "num_nextn_predict_layers": 1}
    folder = write_unknown(tmp_path / "model", config, GEMMA4 | further)

    model_folder.check_decoder(folder)

    shape = model_folder.read_shape(folder)
    assert shape.parameters == sum(map(math.prod, GEMMA4.values()))
    assert shape.layers == 1


def join_experts(tensors, experts):
    """The shapes of a Mixtral as transformers has them in memory."""
    joined = {}
    for name, shape in tensors.items():
        layer, _, rest = name.partition(".block_sparse_moe.")
        if rest == "gate.weight":
            joined[f"{layer}.mlp.gate.weight"] = shape
        elif rest == "experts.0.w1.weight":
            rows, columns = shape
            whole = [experts, 2 * rows, columns]
            joined[f"{layer}.mlp.experts.gate_up_proj"] = whole
        elif rest == "experts.0.w2.weight":
            joined[f"{layer}.mlp.experts.down_proj"] = [experts, *shape]
        elif not rest:
            joined[name] = shape
    return joined


@pytest.mark.parametrize(
    ("name", "spoil", "said"),
    [
        ("mixtral", {}, None),
        (
            "mixtral",
            {"model.layers.0.mlp.experts.down_proj": None},
            "lack 1 tensors, the first model.layers.0.mlp.experts.down_proj",
        ),
        (
            "mixtral",
            {"model.layers.1.mlp.experts.down_proj": [3, 64, 96]},
            "3 × 64 × 96",
        ),
        ("mixtral", {"model.layers.0.mlp.x.weight": [3]}, "1 tensors have no place"),
        ("gpt_oss", {}, None),
        (
            "gpt_oss",
            {"model.layers.0.mlp.experts.gate_up_proj_bias": None},
            "lack 1 tensors",
        ),
        ("gpt_oss", {"model.layers.0.self_attn.sinks": [9]}, "another shape"),
        ("gpt_oss", {"model.layers.7.self_attn.sinks": [4]}, "have no place"),
    ],
)
def test_experts_in_one_tensor_are_judged(tmp_path, name, spoil, said):
    """As gpt-oss has them in its files, and other families where a tool has written what
    was in memory."""
    config = dict(list_configs())[name]
    folder = write_decoder(tmp_path / "model", config)
    tensors = list_tensors(folder)
    if name == "mixtral":
        tensors = join_experts(tensors, config["num_local_experts"])
    spoilt = tensors | spoil
    kept = {name: shape for name, shape in spoilt.items() if shape is not None}
    write_tensors(folder / "model.safetensors", kept)

    refused = pytest.raises(UserError, match=said)
    with refused if said else contextlib.nullcontext():
        model_folder.check_decoder(folder)


def test_a_tied_model_without_its_embedding_is_refused(tmp_path):
    """By name, though its output layer is there."""
    folder = write_llama(tmp_path / "model")
    change(folder / "config.json", tie_word_embeddings=True)
    tensors = list_tensors(folder)
    del tensors["model.embed_tokens.weight"]
    write_tensors(folder / "model.safetensors", tensors)

    with pytest.raises(UserError, match=r"the first model\.embed_tokens\.weight"):
        model_folder.check_decoder(folder)


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
