"""Does loading an embedding model, a base or a reward model run no code that its folder brings?"""

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.preparing import embed, embedding_code
from launcher.grids import inputs, model_folder
from tests.lib.model_folders import change, write_llama
from zsg_core.errors import UserError

TYPES = ("Transformer", "Pooling", "Normalize")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An embedding model as published, without its weights."""
    made = tmp_path / "emb"
    rows = [
        {
            "idx": number,
            "name": str(number),
            "path": f"{number}_{name}" if number else "",
        }
        | {"type": f"sentence_transformers.models.{name}"}
        for number, name in enumerate(TYPES)
    ]
    for row in rows:
        (made / row["path"]).mkdir(parents=True, exist_ok=True)
    (made / "modules.json").write_text(json.dumps(rows))
    (made / "config.json").write_text('{"model_type": "bert"}')
    (made / "sentence_bert_config.json").write_text(
        '{"max_seq_length": 256, "do_lower_case": false}'
    )
    (made / "1_Pooling/config.json").write_text('{"pooling_mode_mean_tokens": true}')
    return made


def modules(**changed: Any) -> Any:
    """Another row in modules.json."""

    def do(folder: Path) -> None:
        rows = json.loads((folder / "modules.json").read_text())
        rows[1] |= changed
        (folder / "modules.json").write_text(json.dumps(rows))

    return do


def written(name: str, **told: Any) -> Any:
    """Other values in one of the folder's files."""
    return lambda folder: change(folder / name, **told)


RUNS_CODE = {
    "a class of the folder": (
        modules(type="evil.Evil"),
        r"modules\.json: names a module of type 'evil\.Evil'",
    ),
    "a class of another package": (
        modules(type="os.system"),
        r"modules\.json: .*'os\.system'",
    ),
    "what begins like the package": (
        modules(type="sentence_transformers_evil.Pooling"),
        r"modules\.json: names",
    ),
    "what is no module of it": (
        modules(type="sentence_transformers.util.http_get"),
        r"modules\.json: names",
    ),
    "a module that lies outside": (
        modules(path="../other"),
        r"modules\.json: has a module outside of the folder",
    ),
    "a module without a type": (
        modules(type=None),
        r"modules\.json: has a module without a type",
    ),
    "pickles as they are": (
        written("sentence_bert_config.json", model_args={"weights_only": False}),
        r"sentence_bert_config\.json: model_args sets 'weights_only'",
    ),
    "kernels of the hub": (
        written("sentence_bert_config.json", model_kwargs={"use_kernels": True}),
        r"sentence_bert_config\.json: model_kwargs sets 'use_kernels'",
    ),
    "a tokenizer's own code": (
        written(
            "sentence_bert_config.json", tokenizer_args={"trust_remote_code": True}
        ),
        r"tokenizer_args sets 'trust_remote_code'",
    ),
    "attention of the hub": (
        written(
            "sentence_bert_config.json",
            model_args={"attn_implementation": "someone/kernel"},
        ),
        r"attn_implementation names code of the hub \('someone/kernel'\)",
    ),
    "attention of the hub in the config": (
        written("config.json", attn_implementation={"": "someone/kernel"}),
        r"config\.json: attn_implementation names code of the hub",
    ),
    "a model's own code": (
        written("config.json", auto_map={"AutoModel": "modeling.Own"}),
        r"config\.json: auto_map names code of its own \('modeling\.Own'\)",
    ),
    "the same of a module": (
        written("1_Pooling/config.json", auto_map={"AutoProcessor": "m.Own"}),
        r"1_Pooling/config\.json: auto_map names code of its own",
    ),
    "classes of a router": (
        written("1_Pooling/router_config.json", types={"query": "evil.Evil"}),
        r"1_Pooling/router_config\.json: names a class of other code, 'evil\.Evil'",
    ),
    "a tokenizer of word vectors": (
        written("1_Pooling/wordembedding_config.json", tokenizer_class="evil.Evil"),
        r"names a class of other code, 'evil\.Evil'",
    ),
}


@pytest.mark.parametrize("name", RUNS_CODE)
def test_an_embedding_folder_that_would_run_code_is_refused(
    folder: Path, name: str
) -> None:
    """By plan, with the file's name, and again where it is loaded."""
    do, said = RUNS_CODE[name]
    do(folder)

    with pytest.raises(UserError, match=rf"k: {folder}: .*{said}"):
        model_folder.check_embedding("k", folder)
    with pytest.raises(UserError, match=said):
        embed.make_encoder(folder)(["x"])


def test_what_is_published_is_let_pass(folder: Path) -> None:
    """The modules of sentence-transformers under their older and newer names, and
    arguments that load nothing."""
    modules(type="sentence_transformers.sentence_transformer.modules.pooling.Pooling")(
        folder
    )
    written(
        "sentence_bert_config.json",
        model_args={"add_pooling_layer": False, "attn_implementation": "sdpa"},
    )(folder)
    model_folder.check_embedding("k", folder)
    spec = importlib.util.find_spec(inputs.MINILM_PACKAGE)

    assert spec is not None and spec.origin is not None
    assert [*embedding_code.find_faults(Path(spec.origin).parent / "model")] == []


def test_an_adapter_of_a_module_is_refused(folder: Path) -> None:
    """transformers would put it on top of the weights; it may name a model elsewhere."""
    (folder / "1_Pooling/adapter_config.json").write_text("{}")

    with pytest.raises(UserError, match=r"1_Pooling/adapter_config\.json: an adapter"):
        model_folder.check_embedding("k", folder)


def test_a_sentence_transformers_that_runs_code_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before version 6 a class of a local folder is imported without being asked for."""
    monkeypatch.setitem(
        sys.modules, "sentence_transformers", SimpleNamespace(__version__="5.1.2")
    )

    with pytest.raises(
        UserError,
        match=r"sentence-transformers 5\.1\.2 is installed, which runs code.*needs 6",
    ):
        embed.make_encoder(folder)(["x"])


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (
            {"_attn_implementation": "someone/kernel"},
            "_attn_implementation is .someone/kernel., which transformers does not have",
        ),
        (
            {"transformers_weights": "other.safetensors"},
            "transformers would load other files than zsg has judged",
        ),
    ],
)
def test_a_base_that_names_code_or_other_weights_is_refused(
    tmp_path: Path, told: dict[str, str], said: str
) -> None:
    """A reward model is, too, where it names code."""
    folder = write_llama(tmp_path / "model", **told)
    with pytest.raises(UserError, match=said):
        model_folder.check_decoder(folder)
    if "attn" in said:
        change(
            folder / "config.json",
            architectures=["LlamaForSequenceClassification"],
            num_labels=1,
        )
        with pytest.raises(UserError, match=said):
            model_folder.check_reward("k", folder)
