"""Does a model have just the weights of its folder, wherever they are put, and is it
never whole where it need not be?"""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from zsg_core.errors import UserError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    from jobs.model import weight_loading
    from jobs.model.base_model import load_model

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 88,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 128,
}
ROPES = {
    "default": {"rope_type": "default", "rope_theta": 50_000.0},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 500_000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "yarn": {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 2.0},
    "linear": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0},
}
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def write(folder: Path, dtype: str = "fp16", **changes: Any) -> Path:
    """A folder of a small random Llama; `shards` of so many bytes where it is told."""
    shard = changes.pop("shards", "1GB")
    torch.manual_seed(4)
    model = LlamaForCausalLM(LlamaConfig(**(SMALL | changes))).to(DTYPES[dtype])
    model.save_pretrained(folder, max_shard_size=shard)
    return folder


def as_pickle(folder: Path, **how: Any) -> Path:
    """The folder with torch's own files in place of safetensors."""
    tensors = load_file(folder / "model.safetensors")
    torch.save(tensors, folder / "pytorch_model.bin", **how)
    (folder / "model.safetensors").unlink()
    return folder


def contents(llama: Any) -> dict[str, torch.Tensor]:
    """All tensors of a model, those that no file has, too."""
    parameters = llama.named_parameters(remove_duplicate=False)
    return {**dict(parameters), **dict(llama.named_buffers())}


def by_transformers(folder: Path, precision: str) -> Any:
    """The model as transformers loads it."""
    return LlamaForCausalLM.from_pretrained(folder, dtype=DTYPES[precision])


FOLDERS = {
    "shards": {"shards": "40KB"},
    "tied": {"tie_word_embeddings": True},
    "biases": {"attention_bias": True, "mlp_bias": True},
    **{f"rope {name}": {"rope_parameters": rope} for name, rope in ROPES.items()},
}


@pytest.mark.parametrize("changes", FOLDERS.values(), ids=FOLDERS)
@pytest.mark.parametrize(("dtype", "precision"), [("fp16", "bf16"), ("bf16", "bf16")])
def test_a_model_is_what_transformers_loads(
    tmp_path: Path, dtype: str, precision: str, changes: dict[str, Any]
) -> None:
    """To the bit, with what is computed from the config, and with tied tensors one."""
    folder = write(tmp_path / "m", dtype, **changes)
    found, expected = load_model(folder, precision), by_transformers(folder, precision)

    theirs = contents(expected)
    assert contents(found).keys() == theirs.keys()
    for name, tensor in contents(found).items():
        assert tensor.dtype == theirs[name].dtype, name
        assert torch.equal(tensor, theirs[name]), name
    is_tied = found.lm_head.weight is found.model.embed_tokens.weight
    assert is_tied == bool(changes.get("tie_word_embeddings"))
    assert not found.training and all(p.requires_grad for p in found.parameters())
    assert found.config.dtype == expected.config.dtype


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_torch_are_read_too(tmp_path: Path, zipped: bool) -> None:
    """Also those of before 1.6, and without the model's own prefix."""
    folder = write(tmp_path / "m", tie_word_embeddings=True)
    expected = contents(by_transformers(folder, "fp32"))
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {name.removeprefix("model."): held.clone() for name, held in tensors.items()},
        folder / "model.safetensors",
    )
    as_pickle(folder, _use_new_zipfile_serialization=zipped)
    found = contents(load_model(folder, "fp32"))

    assert all(torch.equal(found[name], expected[name]) for name in expected)


def change(folder: Path, changes: dict[str, Any]) -> None:
    """The folder's tensors, some of them others or left out (None)."""
    # copies: the file that they are mapped from is written over
    there = load_file(folder / "model.safetensors").items()
    tensors = {**{name: tensor.clone() for name, tensor in there}, **changes}
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


WRONG = [
    pytest.param({"model.norm.weight": None}, "lack 1 tensors", id="missing"),
    pytest.param({"model.norm.weight": torch.ones(31)}, "shape", id="another shape"),
    pytest.param(
        {"model.norm.weight": torch.ones(32, dtype=torch.int8)}, "I8", id="no floats"
    ),
]


@pytest.mark.parametrize(("changes", "said"), WRONG)
def test_weights_that_are_not_the_configs_are_refused(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    """transformers would fill what is missing with random numbers."""
    folder = write(tmp_path / "m")
    change(folder, changes)

    with pytest.raises(UserError, match=said) as error:
        load_model(folder, "bf16")
    assert "model.norm.weight" in str(error.value) and str(folder) in str(error.value)


def test_weights_that_are_tied_and_differ_are_refused(tmp_path: Path) -> None:
    """What is one parameter has one value."""
    folder = write(tmp_path / "m", tie_word_embeddings=True)
    table = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    rows = table.clone()
    change(folder, {"lm_head.weight": rows.clone()})
    load_model(folder, "bf16")
    change(folder, {"lm_head.weight": rows + 1})

    with pytest.raises(UserError, match="tie_word_embeddings, but"):
        load_model(folder, "bf16")


@pytest.mark.parametrize("text", [b"", b"{}", b"garbage" * 9])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_file_that_is_no_weights_is_named(
    tmp_path: Path, name: str, text: bytes
) -> None:
    """Whoever cut it, and whatever reads it."""
    folder = write(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(text)

    with pytest.raises(UserError, match=f"{name} cannot be read as weights"):
        load_model(folder, "bf16")


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ('{"weight_map": {"a": "../b.safetensors"}}', "lies elsewhere"),
        ('{"weight_map": 3}', "lack"),
        ("[]", "no weight_map"),
        ("{", "no weight_map"),
    ],
)
def test_an_index_names_files_of_its_own_folder(
    tmp_path: Path, index: str, said: str
) -> None:
    """It comes from wherever the model comes from."""
    folder = write(tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "b.safetensors")
    (folder / "model.safetensors.index.json").write_text(index)

    with pytest.raises(UserError, match=said):
        load_model(folder, "bf16")


def test_weights_of_the_same_type_stay_mapped_and_others_are_cast_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU the ranks of a node share them until they are trained; no tensor is read
    before the one before it is in its place."""
    folder = write(tmp_path / "m")
    order: list[str] = []
    get = weight_loading._make_parameter

    def make(like: Any, source: Any, device: Any) -> Any:
        order.append("read")
        made = get(like, source, device)
        order.append("there")
        return made

    monkeypatch.setattr(weight_loading, "_make_parameter", make)
    mapped, cast = load_model(folder, "fp16"), load_model(folder, "bf16")

    size = (folder / "model.safetensors").stat().st_size
    assert mapped.model.norm.weight.untyped_storage().nbytes() <= size
    assert cast.model.norm.weight.untyped_storage().nbytes() == 2 * 32
    assert order == ["read", "there"] * (len(order) // 2)


def test_parts_of_a_model_are_loaded_where_they_belong(tmp_path: Path) -> None:
    """Of a model on several GPUs the host holds no more than of one on one."""
    folder = write(tmp_path / "m", tie_word_embeddings=True)
    parts = ["model.embed_tokens", "model.rotary_emb", "model.norm", "lm_head"]
    places = {**dict.fromkeys(parts, "cpu"), "model.layers.0": "cpu"}
    model = load_model(folder, "bf16", places | {"model.layers.1": "meta"})

    on_meta = {name for name, held in contents(model).items() if held.is_meta}
    layer = {name for name in contents(model) if name.startswith("model.layers.1.")}
    assert on_meta == layer and len(layer) == 9


def test_under_zero_3_no_rank_holds_the_model_and_training_is_the_same(
    tmp_path: Path,
) -> None:
    """Rank 0 alone reads; at no moment is more than one module whole; the weights and
    losses of two ranks are, to the bit, those of models that were loaded whole, with
    a second copy and without. What rank 0 cannot read both raise, with its cause."""
    untied = write(tmp_path / "untied", shards="40KB")
    tied = write(tmp_path / "tied", "bf16", tie_word_embeddings=True)
    cases = [
        [untied, "bf16", "full", 0],
        [untied, "bf16", "lora", 0],
        [tied, "fp32", "full", 2],  # the last: DeepSpeed keeps its groups
    ]
    script = Path(__file__).with_name("lib") / "divided_ranks.py"
    (tmp_path / "meeting").mkdir()
    done = subprocess.run(
        [
            sys.executable,
            script,
            tmp_path / "meeting",
            "2",
            json.dumps([[str(folder), *how] for folder, *how in cases]),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "SLURM_JOB_ID": "7"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    failed, *rows = [
        json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")
    ]

    cause = "the fifth tensor from OSError(5, 'no such sector')"
    assert failed == {"raised": [cause, cause]}
    assert len(rows) == len(cases)
    for row in rows:
        assert row["divided"] == row["whole"]
        assert row["whole"][0] != row["whole"][-1]
        first, second = row["ranks"]
        assert first["reads"] >= 20 and second["reads"] == 0
        for rank in (first, second):
            assert rank["most"] <= SMALL["hidden_size"] * SMALL["vocab_size"]
            assert all(
                (whole, share) == (0, -(-count // 2))
                for whole, share, count in rank["shares"]
            )
