"""Is the tiny base the same wherever it is made, and is a foreign base refused in words?"""

import json
import shutil
import warnings
from pathlib import Path

import pytest

from tests.lib.model_folders import write_llama, write_tokenizer
from tests.lib.tiny_base import BASE, TEXTS
from zsg_core.errors import UserError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from jobs.model import base_model
    from jobs.model.vocabulary import (
        Vocabulary,
        count_rows,
        load_vocabulary,
        refuse_lossy,
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base."""
    folder = tmp_path_factory.mktemp("bases") / "one"
    base_model.make_tiny(folder, BASE, TEXTS)
    return folder


def test_the_same_recipe_gives_the_same_bytes(made: Path, tmp_path: Path) -> None:
    """Made twice, weights and tokenizer have the same digest; another seed has another."""
    base_model.make_tiny(tmp_path / "again", BASE, TEXTS)
    base_model.make_tiny(tmp_path / "other", {**BASE, "seed": 4}, TEXTS)
    digest = [
        json.loads((folder / "meta.json").read_text())["digest"]
        for folder in (made, *sorted(tmp_path.iterdir()))
    ]

    assert digest[0] == digest[1] != digest[2]


def test_the_default_shape_has_a_million_parameters(tmp_path: Path) -> None:
    """`tiny` without further settings has at least 10⁶ parameters."""
    from zsg_core.settings.run import ModelSettings

    base_model.make_tiny(tmp_path / "tiny", {**BASE, **ModelSettings().shape}, TEXTS)

    assert (
        json.loads((tmp_path / "tiny/meta.json").read_text())["parameters"] >= 1_000_000
    )


def test_every_text_survives_the_tokenizer(made: Path) -> None:
    """A byte-level tokenizer knows every text, also what it was not trained on."""
    from transformers import AutoTokenizer

    vocabulary = load_vocabulary(made)
    text = "Größe ∑ 東京 \x00 </s> <s>\n\ttab"

    assert (
        AutoTokenizer.from_pretrained(made).decode(
            vocabulary.tokenize("Größe ∑ 東京\n\ttab")
        )
        == "Größe ∑ 東京\n\ttab"
    )
    assert vocabulary.eos not in vocabulary.tokenize(text), (
        "a text of the data must not be able to end its example"
    )
    assert vocabulary.bos not in vocabulary.tokenize(text)


def test_another_architecture_is_refused(made: Path, tmp_path: Path) -> None:
    """A folder with another kind of model is a user's error that names it."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))

    with pytest.raises(UserError, match="a 't5' model has an encoder and a decoder"):
        base_model.load_model(tmp_path, "fp32")


@pytest.mark.parametrize("config", ["{}", '{"model_type": "none"}', "[]", "{", "3"])
def test_a_config_that_transformers_does_not_take_is_named(
    tmp_path: Path, config: str
) -> None:
    """Whatever it says."""
    (tmp_path / "config.json").write_text(config)

    with pytest.raises(UserError, match="transformers does not take its config"):
        base_model.load_model(tmp_path, "fp32")


def test_rows_that_a_config_leaves_out_are_those_of_its_class(tmp_path: Path) -> None:
    """As older files do; a folder of adapters has no config, and nothing is known."""
    folder = write_llama(tmp_path / "model")

    assert count_rows(folder) == 300
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    assert count_rows(folder) == 50257
    (folder / "config.json").unlink()
    assert count_rows(folder) is None


def test_a_tokenizer_may_begin_with_nothing_and_must_end(tmp_path: Path) -> None:
    """Qwen's have no beginning of sequence; an answer needs an end."""
    folder = write_llama(tmp_path / "model")
    write_tokenizer(folder, bos_token=None)
    vocabulary = load_vocabulary(folder)

    assert (vocabulary.bos, vocabulary.beginning, vocabulary.eos) == (None, [], 1)
    write_tokenizer(folder, eos_token=None)
    with pytest.raises(UserError, match="no EOS token, with which answers end; set"):
        load_vocabulary(folder)


def test_a_token_without_a_row_is_told_with_its_text(tmp_path: Path) -> None:
    """On a GPU it would be an assertion of CUDA on every rank, without a word of the cause."""
    folder = write_llama(tmp_path / "model", vocab_size=258)
    write_tokenizer(folder, {"note": 258})
    as_token = {"added": {"tokens": ["note"]}, "added_tokens": "split"}
    vocabulary = load_vocabulary(folder, as_token)

    # n, o, d: the letters begin with ! as 2
    assert vocabulary.tokenize("nod") == [79, 80, 69]
    with pytest.raises(
        UserError, match="writes 'note' as 258, but the embedding has 258 rows"
    ):
        vocabulary.tokenize("a note")


TEXTS_BACK = {
    "as they are": ("Say two\n words", "Say two\n words", True),
    "blanks at the ends": (" Say two\n", "Say two", True),
    "a letter in another form": ("½ e\u0301", "1⁄2 é", True),
    "without its blanks": ("Say two\n words", "Saytwowords", False),
    "without its line ends": ("Say two\n words", "Say two words", False),
    "small": ("Say", "say", False),
}


@pytest.mark.parametrize(
    ("text", "back", "is_fine"), TEXTS_BACK.values(), ids=TEXTS_BACK.keys()
)
def test_a_tokenizer_that_loses_text_is_refused(
    text: str, back: str, is_fine: bool
) -> None:
    """As transformers 5.3 to 5.21 lost the blanks of byte-level tokenizers that are
    called Llama's."""
    vocabulary = Vocabulary(lambda text: [3], 0, 1, lambda ids: back, unknown=2)
    if is_fine:
        refuse_lossy(Path("model"), vocabulary, [text])
    else:
        with pytest.raises(
            UserError,
            match="model: the tokenizer does not give a text of the data back",
        ):
            refuse_lossy(Path("model"), vocabulary, ["", text])


def test_a_letter_that_a_tokenizer_has_not_is_no_loss() -> None:
    """A text with a token for what is unknown says nothing of the others."""
    vocabulary = Vocabulary(lambda text: [2, 3], 0, 1, lambda ids: "", unknown=2)

    refuse_lossy(Path("model"), vocabulary, ["東京"])


def test_a_byte_level_tokenizer_called_llamas_gives_text_back(
    made: Path, tmp_path: Path
) -> None:
    """DeepSeek's distilled Llamas are such folders; what the floor of transformers is for."""
    folder = tmp_path / "distilled"
    shutil.copytree(made, folder)
    told = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps(told | {"tokenizer_class": "LlamaTokenizerFast"})
    )
    vocabulary = load_vocabulary(folder)

    assert (
        vocabulary.text(vocabulary.tokenize("hello big world\n x"))
        == "hello big world\n x"
    )
