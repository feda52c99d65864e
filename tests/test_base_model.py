"""Is the tiny base the same wherever it is made, and is a foreign base refused in words?"""

import json
import warnings
from pathlib import Path

import pytest

from zsg_core.errors import UserError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from jobs.preparing import base_model

BASE = {"kind": "tiny", "hidden": 64, "layers": 2, "heads": 4, "vocab": 400, "context": 128, "seed": 3}
TEXTS = [f"User: count {n} apples and {n * n} pears\nAssistant: {n + n * n}" for n in range(200)]


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
        json.loads((folder / "meta.json").read_text())["digest"] for folder in (made, *sorted(tmp_path.iterdir()))
    ]

    assert digest[0] == digest[1] != digest[2]


def test_the_default_shape_has_a_million_parameters(tmp_path: Path) -> None:
    """`tiny` without further settings has at least 10⁶ parameters."""
    from zsg_core.settings.run import ModelSettings

    base_model.make_tiny(tmp_path / "tiny", {**BASE, **ModelSettings().shape}, TEXTS)

    assert json.loads((tmp_path / "tiny/meta.json").read_text())["parameters"] >= 1_000_000


def test_every_text_survives_the_tokenizer(made: Path) -> None:
    """A byte-level tokenizer knows every text, also what it was not trained on."""
    from transformers import AutoTokenizer

    vocabulary = base_model.load_vocabulary(made)
    text = "Größe ∑ 東京 \x00 </s> <s>\n\ttab"

    assert (
        AutoTokenizer.from_pretrained(made).decode(vocabulary.tokenize("Größe ∑ 東京\n\ttab")) == "Größe ∑ 東京\n\ttab"
    )
    assert vocabulary.eos not in vocabulary.tokenize(text), "a text of the data must not be able to end its example"
    assert vocabulary.bos not in vocabulary.tokenize(text)


def test_another_architecture_is_refused(made: Path, tmp_path: Path) -> None:
    """A folder with another kind of model is a user's error that names it."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))

    with pytest.raises(UserError, match="a 'gpt2' model; zsg trains Llama models"):
        base_model.load_model(tmp_path, "fp32")
