"""Is whatever may stand under a key of a model's config.json planned, or refused in one
sentence, in little memory?

A few values of each family in the suite, a thousand in `make soak`.
"""

import json
import random
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from launcher.grids import model_folder
from launcher.planning.memory_fit import Layout, Load, explain_misfit, smallest_change
from tests.lib import fuzz
from tests.lib.decoder_configs import list_configs
from tests.lib.model_folders import (
    SMALL,
    change,
    list_tensors,
    write_decoder,
    write_llama,
)
from zsg_core.errors import UserError
from zsg_core.families.registry import FAMILIES
from zsg_core.training import estimate
from zsg_core.training.evaluation_memory import EvaluationLoad

FEW, MANY = 12, 1000
MEMORY = 100 << 20  # bytes more than before, of a process that judges a small model
LONGEST = 2000  # characters of an error
VALUES: list[Any] = [
    None,
    True,
    False,
    -(2**70),
    -1,
    0,
    1,
    3,
    7.5,
    float("nan"),
    float("inf"),
    20_000,
    5_000_000,
    10**9 - 1,
    2**63,
    10**400,
    "",
    "7",
    "a\x1b[31m\nb",
    [],
    [7] * 3,
    [10**400] * 6,
    [["global", "local"], 10**9],
    list(range(50_000)),
    {},
    {"a": {"b": 1}},
]
OTHER_KEYS = (
    "architectures",
    "attention_layers",
    "dtype",
    "eos_token_id",
    "hidden_act",
    "layer_types",
    "mlp_only_layers",
    "model_type",
    "num_experts",
    "num_nextn_predict_layers",
    "quantization_config",
    "rope_parameters",
    "sliding_window",
    "tie_word_embeddings",
    "use_sliding_window",
    "max_window_layers",
)
CONFIGS = [("llama", SMALL), *list_configs()]
NAMES = [f"{number}-{name}" for number, (name, _) in enumerate(CONFIGS)]


def list_keys(config: Mapping[str, Any]) -> list[str]:
    """The keys that may say something of a family."""
    family = FAMILIES[config["model_type"]]
    other_names = [name for names in family.keys.values() for name in names]
    return sorted({*config, *family.defaults, *other_names, *OTHER_KEYS})


def change_value(corpus: Sequence[bytes], number: int) -> bytes:
    """A config.json with one or two hostile values, by a number."""
    rng = random.Random(number)
    config = json.loads(corpus[0])
    keys = list_keys(config)
    for _ in range(rng.choice((1, 1, 1, 2))):
        config[rng.choice(keys)] = rng.choice(VALUES)
    return json.dumps(config).encode()


def plan(folder: Path) -> None:
    """What plan computes of a model that it has taken."""
    shape = model_folder.read_shape(folder)
    load = Load(
        shape=shape,
        trained=shape.parameters,
        precision="bf16",
        batch=8,
        max_length=64,
        budget=4096,
    )
    layout = Layout(zero_stage=2, nodes=1, ranks_per_node=2)
    explain_misfit(load, layout, 80, "A", 8)
    smallest_change(load, layout, 80, 8)
    estimate.training_flops(shape, 1000, 64_000)
    EvaluationLoad(shape=shape, precision="bf16", row=64).rows_at_once(1, 80e9)


def judge(path: Path) -> str | None:
    """Judges and plans a folder, whole and without its weights; what is wrong with an
    error that says why not."""
    folder, bare = path.parent, path.parent / "bare"
    bare.mkdir(exist_ok=True)
    (bare / "config.json").write_bytes(path.read_bytes())
    for check, model in (
        (model_folder.check_decoder, folder),
        (model_folder.check_config, bare),
    ):
        try:
            check(model)
            plan(model)
            model_folder.check_length("train.max_length", 8, model)
            model_folder.find_notes(model)
        except UserError as error:
            said = str(error)
            if len(said) > LONGEST or not said.isprintable():
                return f"an error of {len(said)} characters: {said[:LONGEST]!r}"
    return None


def find_faults(folder: Path, name: str, numbers: range) -> str:
    """What is wrong with hostile configs of a family, in words; empty where nothing is."""
    family, config = CONFIGS[NAMES.index(name)]
    write_decoder(folder, config, model_type=family)
    good = (folder / "config.json").read_bytes()
    assert judge(folder / "config.json") is None
    model_folder.check_decoder(folder)
    found = fuzz.faults(
        folder,
        "config.json",
        [good],
        judge,
        (),
        numbers,
        fuzz.Limits(change_value, MEMORY),
    )
    return "\n".join(f"config {one.number} of {name}: {one.what}" for one in found)


@pytest.mark.parametrize("name", NAMES)
def test_a_few_hostile_configs_of_each_family(tmp_path: Path, name: str) -> None:
    """A plan, or one sentence that a terminal can show."""
    assert find_faults(tmp_path / "model", name, range(FEW)) == ""


@pytest.mark.soak(part="trials")
@pytest.mark.parametrize("name", NAMES)
def test_a_thousand_hostile_configs_of_each_family(tmp_path: Path, name: str) -> None:
    """Each within twenty seconds and a hundred megabytes."""
    numbers = range(FEW, FEW + MANY)
    assert find_faults(tmp_path / "model", name, numbers) == ""


@pytest.mark.parametrize(
    ("name", "told", "said"),
    [
        ("mixtral", {"num_local_experts": 5_000_000}, "tensors; zsg reads models of"),
        ("mixtral", {"num_local_experts": 10_000}, "there are 180,"),
        ("mixtral", {"num_experts_per_tok": 5}, "5 experts are chosen for each token"),
        ("gpt_oss", {"num_experts_per_tok": 5}, "and there are 4"),
        ("deepseek_v3", {"n_routed_experts": True}, "True, not a count"),
        ("deepseek_v3", {"kv_lora_rank": 10**400}, "more than any model has"),
        ("llama", {"hidden_size": 10**400}, "more than any model has"),
        ("gpt2", {"n_layer": 10_000}, "less than 10000"),
        ("falcon", {"new_decoder_architecture": "yes"}, "neither true nor false"),
        ("bloom", {"n_head": [4]}, "[4], not a count"),
    ],
)
def test_sizes_that_no_model_has_are_named(
    tmp_path: Path, name: str, told: dict[str, Any], said: str
) -> None:
    """In one sentence, with or without weights."""
    folder = write_decoder(tmp_path / "model", dict(list_configs())[name], **told)

    with pytest.raises(UserError) as refused:
        model_folder.check_decoder(folder)
    assert said in str(refused.value)

    (folder / "model.safetensors").unlink()
    if "there are 180" not in said:
        with pytest.raises(UserError) as refused:
            model_folder.check_config(folder)
        assert said in str(refused.value)


def write_header(folder: Path, header: bytes, size: int) -> None:
    """Weights with a header as it stands, and so many bytes behind it."""
    text = struct.pack("<Q", len(header)) + header + bytes(size)
    (folder / "model.safetensors").write_bytes(text)


def test_a_header_of_too_many_values_is_not_read(tmp_path: Path) -> None:
    """It would be gigabytes of objects before anything is judged."""
    folder = write_llama(tmp_path / "model")
    write_header(folder, b'{"a":[' + b"[]," * 2_500_000 + b"[]]}", 0)

    with pytest.raises(UserError, match="zsg reads JSON of up to 4,000,000"):
        model_folder.check_decoder(folder)


def test_a_name_without_end_is_not_searched(tmp_path: Path) -> None:
    """What looks for a quantiser's names in it would take for ever."""
    folder = write_llama(tmp_path / "model")
    name = ".quant_state.x" * 100_000
    row = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    write_header(folder, json.dumps({name: row}).encode(), 4)

    with pytest.raises(UserError, match="name has more than 1000 characters"):
        model_folder.check_decoder(folder)


def test_many_tensors_without_a_place_are_told_in_time(tmp_path: Path) -> None:
    """Within the model and beside it: each is looked up once."""
    folder = write_llama(tmp_path / "model")
    tensors = list_tensors(folder)
    names = [f"model.layers.0.x{n}" if n % 2 else f"z{n}" for n in range(40_000)]
    end = 0
    header: dict[str, Any] = {}
    for name, shape in [*tensors.items(), *((name, [1]) for name in names)]:
        elements = 1
        for size in shape:
            elements *= size
        begin, end = end, end + 2 * elements
        row = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
        header[name] = row
    write_header(folder, json.dumps(header).encode(), end)

    with pytest.raises(UserError, match="20000 tensors have no place in the Llama"):
        model_folder.check_decoder(folder)


def test_an_index_of_wrong_values_is_refused(tmp_path: Path) -> None:
    """As any JSON beside the weights."""
    folder = write_llama(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    for value in (None, 3, ["a"], {"a": 3}, {"a": ["b"]}, {"a": "../b.safetensors"}):
        change(folder / "model.safetensors.index.json", weight_map=value)
        with pytest.raises(UserError):
            model_folder.check_decoder(folder)
