"""Does a folder of weights tell its readers where answers end, and what not to do with adapters?"""

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from peft import LoraConfig, inject_adapter_in_model
from transformers import AutoConfig, GenerationConfig, LlamaConfig, LlamaForCausalLM

from jobs.contract import removal
from jobs.contract.folder import read_json, write_json
from jobs.model import weights
from jobs.training.reader_notes import (
    list_adapter_notes,
    name_end,
    name_end_in_file,
)
from jobs.training.weight_folders import Base, WeightFolders

SHAPE = {
    "vocab_size": 32,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


@pytest.mark.parametrize(
    ("named", "ends"),
    [
        pytest.param(7, 7, id="the one that is named"),
        pytest.param([2, 7], [2, 7], id="among those that are named"),
        pytest.param(2, [7, 2], id="another is named"),
        pytest.param([2, 3], [7, 2, 3], id="others are named"),
        pytest.param(None, 7, id="none is named"),
    ],
)
def test_the_end_that_was_trained_is_named(named: Any, ends: Any) -> None:
    """First, with the ends that the base names; a config that names it stays as it is."""
    settings = {"a": 1} | ({} if named is None else {"eos_token_id": named})

    assert name_end(settings, 7) == {"a": 1, "eos_token_id": ends}
    assert name_end(settings, None) == settings


def complete(base: Base, draft: Path, engine: Any = None) -> None:
    """Adds to a draft of weights what makes it a folder that loads."""
    draft.mkdir()
    folders = SimpleNamespace(
        _base=base,
        _is_adapter=engine is not None,
        _dtype="float32",
        _class="LlamaForCausalLM",
        _engine=engine,
    )
    WeightFolders._complete(folders, draft, [], 0, is_start=False)  # type: ignore[arg-type]


def test_generation_stops_at_the_end_that_was_trained(tmp_path: Path) -> None:
    """As transformers, vLLM and others read the folder; where the base says so already,
    its files stay to the byte."""
    base = tmp_path / "base"
    LlamaConfig(**SHAPE, eos_token_id=2).save_pretrained(base)
    GenerationConfig(eos_token_id=2, temperature=0.6, do_sample=True).save_pretrained(
        base
    )

    complete(Base(base, "d", eos=7), tmp_path / "chat")
    complete(Base(base, "d", eos=2), tmp_path / "plain")
    (base / "generation_config.json").unlink()
    complete(Base(base, "d", eos=7), tmp_path / "without")

    generation = GenerationConfig.from_pretrained(tmp_path / "chat")
    assert (generation.eos_token_id, generation.temperature) == ([7, 2], 0.6)
    assert AutoConfig.from_pretrained(tmp_path / "chat").eos_token_id == [7, 2]
    assert AutoConfig.from_pretrained(tmp_path / "plain").eos_token_id == 2
    plain = read_json(tmp_path / "plain/generation_config.json")
    assert plain["eos_token_id"] == 2
    assert not (tmp_path / "without/generation_config.json").exists()
    assert AutoConfig.from_pretrained(tmp_path / "without").eos_token_id == [7, 2]


def adapted(base: Path, targets: list[str]) -> Any:
    """An engine of a model with adapters on some modules, as far as it is looked at."""
    llama = LlamaForCausalLM(AutoConfig.from_pretrained(base))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's own of tied embeddings
        inject_adapter_in_model(LoraConfig(r=2, target_modules=targets), llama)
    return SimpleNamespace(module=SimpleNamespace(model=llama))


@pytest.mark.parametrize(
    ("tied", "targets", "warns"),
    [
        (True, ["embed_tokens", "q_proj"], True),
        (True, ["lm_head"], True),
        (True, ["q_proj"], False),
        (False, ["embed_tokens"], False),
    ],
)
def test_adapters_that_must_not_be_merged_say_so(
    tmp_path: Path, tied: bool, targets: list[str], warns: bool
) -> None:
    """In the README of a snapshot whose adapters are on a table that is the output layer, too."""
    base = tmp_path / "base"
    LlamaConfig(**SHAPE, tie_word_embeddings=tied).save_pretrained(base)
    engine = adapted(base, targets)

    complete(Base(base, "d", eos=2), tmp_path / "snapshot", engine)

    readme = tmp_path / "snapshot/README.md"
    assert readme.exists() == warns
    assert not warns or "Do not merge these adapters" in readme.read_text()
    assert "README.md" in removal.IN_WEIGHTS
    settings = weights.adapter_settings(engine, base)
    assert read_json(tmp_path / "snapshot/adapter_config.json") == settings


def test_adapters_tell_of_an_end_that_their_base_does_not_name() -> None:
    """The base's config is all that generation from adapters reads."""
    notes = list_adapter_notes({"eos_token_id": 2}, None, 7)

    assert len(notes) == 1 and "eos_token_id=7" in notes[0]
    assert list_adapter_notes({"eos_token_id": [2, 7]}, None, 7) == []


def test_a_file_that_names_the_end_stays_to_the_byte(tmp_path: Path) -> None:
    """Its order and blanks are the base's."""
    base = tmp_path / "base"
    base.mkdir()
    write_json(base / "config.json", SHAPE | {"model_type": "llama", "eos_token_id": 2})
    text = '{"top_p": 0.9,   "eos_token_id": [3, 2]}'
    (base / "generation_config.json").write_text(text)

    complete(Base(base, "d", eos=2), tmp_path / "snapshot")

    assert (tmp_path / "snapshot/generation_config.json").read_text() == text


@pytest.mark.parametrize("text", ['{"a": 1,}', "", "[7]"])
def test_a_generation_config_that_cannot_be_read_stays_as_the_base_has_it(
    tmp_path: Path, text: str, logged: list[str]
) -> None:
    """A base that loads without it ends no run at its first snapshot; told is which."""
    path = tmp_path / "generation_config.json"
    path.write_text(text)
    name_end_in_file(path, 7)

    assert path.read_text() == text
    assert all("it stays as the base has it" in line for line in logged)
    assert bool(logged) == (text != "[7]")
