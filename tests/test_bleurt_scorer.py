"""Is the example of a scorer elsewhere BLEURT's own arithmetic, and are its scores ones
that zsg takes in?"""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from msgspec import to_builtins

from tests.lib.shipped_grids import ROOT
from zsg_core.metrics import external_scores, metrics
from zsg_core.metrics.scoring import Answered
from zsg_core.plugins import entries, loading
from zsg_core.plugins.declarations import read_plugins

SCRIPT = ROOT / "templates/scorers/bleurt.py"
SIZES = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def scorer() -> dict[str, Any]:
    """What the script defines."""
    return runpy.run_path(str(SCRIPT))


class Letters:
    """Stands for SentencePiece: a token for each letter, as BLEURT lays out a pair."""

    def __call__(
        self, first: list[str], second: list[str], **told: Any
    ) -> "Letters.Batch":
        import torch

        rows = [
            [1, *_ids(one), 2, *_ids(other), 2]
            for one, other in zip(first, second, strict=True)
        ]
        longest = max(map(len, rows))
        padded = [row + [0] * (longest - len(row)) for row in rows]
        mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
        return self.Batch(
            input_ids=torch.tensor(padded), attention_mask=torch.tensor(mask)
        )

    class Batch(dict[str, Any]):
        def to(self, device: str) -> "Letters.Batch":
            return self


def _ids(text: str) -> list[int]:
    return [3 + ord(letter) % 40 for letter in text[:20]]


def make_port() -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """A small RemBERT, and its config and weights under the port's names."""
    import torch
    from transformers import RemBertConfig, RemBertForSequenceClassification

    torch.manual_seed(0)
    config = RemBertConfig(**SIZES, input_embedding_size=8, num_labels=1)
    model = RemBertForSequenceClassification(config).eval()
    weights = {
        name.replace("rembert.", "bleurt.").replace(
            "embedding_hidden_mapping_in", "embedding_projection"
        ): tensor
        for name, tensor in model.state_dict().items()
    }
    weights["bleurt.embeddings.position_ids"] = torch.arange(64)
    return model, {**SIZES, "embedding_size": 8}, weights


def test_a_port_of_bleurt_is_the_model_that_it_was_made_of(
    scorer: dict[str, Any],
) -> None:
    """To the bit, whatever its weights are called; one that lacks a weight is refused."""
    model, config, weights = make_port()
    loaded = scorer["make_model"](config, weights)
    pairs = [("tala", "er tala"), ("ein", "tveir")]

    given = Letters()([one for one, _ in pairs], [other for _, other in pairs])
    expected = model(**given).logits.squeeze(-1).tolist()
    assert scorer["score_pairs"](loaded, Letters(), pairs, "cpu") == expected
    del weights["classifier.weight"]
    with pytest.raises(RuntimeError, match=r"classifier\.weight"):
        scorer["make_model"](config, weights)


def test_its_scores_are_ones_that_zsg_reads(
    scorer: dict[str, Any], tmp_path: Path
) -> None:
    """Each answer with references has two, without the preamble and with it, and the
    best reference counts."""
    _, config, weights = make_port()
    model = scorer["make_model"](config, weights)
    answers = [
        Answered(
            id="tell:0",
            task="tell",
            prompt="p",
            references=("Sure, here it is: \n\n tala", "sex"),
            answer="Sure, here you are:\n tala",
        ),
        Answered(id="tell:1", task="tell", prompt="p", answer="no"),
    ]
    lines = external_scores.format_answers("abc", 3, "test_set", answers)
    exported = [json.loads(line) for line in lines]
    rows = list(scorer["score_answers"](exported, model, Letters(), "cpu"))
    (tmp_path / "scores.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows)
    )
    [by_metric] = external_scores.read_scores(tmp_path / "scores.jsonl").values()

    def best(*pairs: tuple[str, str]) -> float:
        return max(scorer["score_pairs"](model, Letters(), pairs, "cpu"))

    assert by_metric.keys() == {"bleurt", "bleurt/whole"}
    [(item, score)] = by_metric["bleurt"].items()
    assert item == "tell:0"
    assert score == pytest.approx(best(("tala", "tala"), ("sex", "tala")))
    whole = [(one, answers[0].answer) for one in answers[0].references]
    assert by_metric["bleurt/whole"]["tell:0"] == pytest.approx(best(*whole))


def test_a_plugin_scores_as_the_script_does(
    scorer: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a metric of every checkpoint, by a model that it loads once."""
    import torch
    import transformers

    _, config, weights = make_port()
    (folder := tmp_path / "port").mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(weights, folder / "pytorch_model.bin")
    opened: list[object] = []

    def open_letters(*given: object, **_options: object) -> Letters:
        opened.append(given)
        return Letters()

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", open_letters)
    text = SCRIPT.with_name("bleurt_metric.py").read_text()
    text = text.replace('"/models/BLEURT-20"', repr(str(folder)))
    contents = {"bleurt_metric.py": text.encode(), "bleurt.py": SCRIPT.read_bytes()}
    for plugin in read_plugins(contents):
        copy = tmp_path / "code" / loading.name_copy(plugin)
        copy.parent.mkdir(parents=True)
        copy.write_bytes(plugin.content)
    [plugin] = [one for one in entries.enter_copies(tmp_path / "code") if one.declared]
    answers = [
        Answered(
            id=f"tell:{number}",
            task="tell",
            prompt="p",
            references=("Sure, here it is:\ntala", "sex"),
            answer=f"Sure, here you are:\ntala {number}",
        )
        for number in range(3)
    ]
    definitions = {one.name: {"plugin": one.digest} for one in plugin.declared}
    scores = metrics.score_answers(("bleurt", "bleurt_whole"), answers, definitions)
    model = scorer["make_model"](config, weights)
    rows = scorer["score_answers"](
        [
            {**to_builtins(one), "run": "r", "step": 1, "suite": "test_set"}
            for one in answers
        ],
        model,
        Letters(),
        "cpu",
    )
    by_script = {(row["metric"], row["id"]): row["score"] for row in rows}

    assert len(opened) == 1
    for key, name in (("bleurt", "bleurt"), ("bleurt_whole", "bleurt/whole")):
        by_plugin = scores.by_item[key]
        expected = {
            item: score for (named, item), score in by_script.items() if named == name
        }
        assert by_plugin == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("Sure, here is the Icelandic translation: \n\n LEIKDAGUR: x", "LEIKDAGUR: x"),
        ("sure! Here it is:\ntext: more", "text: more"),
        ("Surely this: stays\nx", "Surely this: stays\nx"),
        ("Sure, no colon and no line", "Sure, no colon and no line"),
        ("Sure, here it is:", ""),
    ],
)
def test_only_a_preamble_is_cut(scorer: dict[str, Any], text: str, cut: str) -> None:
    """A first line that announces the text, and nothing of the text."""
    assert scorer["cut_preamble"](text) == cut
