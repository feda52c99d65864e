"""Is an answer's reward that of the model's head at its last token, whatever else is in
its batch?"""

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.evaluating import reward
from jobs.evaluating.reward import Reward
from jobs.model import base_model
from jobs.model.batch_budget import make_padded_batches
from launcher.grids import model_folder
from zsg_core.errors import UserError
from zsg_core.metrics.scoring import Answered

BASE = {"vocab": 300, "hidden": 32, "layers": 2, "heads": 2, "context": 2048, "seed": 3}
# Of very different lengths, one of them beyond 1024 tokens.
PAIRS = [
    ("Add 2 and 3.", "5"),
    ("Say it.", "it " * 40),
    ("Why?", ""),
    ("Go on.", "on and " * 500),
    ("Say it.", "it"),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models of random weights: as UltraRM, for classification, for classification
    without a padding token."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

    base = tmp_path_factory.mktemp("reward") / "base"
    base_model.make_tiny(base, BASE, ["Human: say it and go on. Assistant: it"])
    tokenizer = AutoTokenizer.from_pretrained(base)
    made = {name: base.parent / name for name in ("ultrarm", "classifier", "chat")}
    config = LlamaConfig.from_pretrained(base)
    torch.manual_seed(5)
    model = reward._with_regression_head()(config)
    model.regression_head.weight.data.normal_()
    model.save_pretrained(made["ultrarm"])
    config.num_labels = 1
    classifier = LlamaForSequenceClassification(config)
    classifier.score.weight.data.normal_()
    for name in ("classifier", "chat"):
        classifier.save_pretrained(made[name])
    for name, folder in made.items():
        if name == "chat":  # a template that ends with what also pads
            tokenizer.chat_template = "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}</s>{% endfor %}"
            tokenizer.pad_token = "</s>"
        tokenizer.save_pretrained(folder)
    return {**made, "base": base}


def alone(folder: Path, instruction: str, answer: str) -> float:
    """The reward of one text by the model's parts, without padding, batches or heads of
    transformers."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoTokenizer, LlamaModel

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if folder.name == "chat":
        text = f"<s>user: {instruction}</s><s>assistant: {answer}</s>"
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    else:
        ids = tokenizer(f"Human: {instruction}\n\nAssistant: {answer}")["input_ids"]
    weights = load_file(folder / "model.safetensors")
    head = weights[
        "regression_head.weight" if folder.name == "ultrarm" else "score.weight"
    ]
    with torch.inference_mode():
        hidden = LlamaModel.from_pretrained(folder)(
            torch.tensor([ids[:1024]])
        ).last_hidden_state
    return float(hidden[0, -1] @ head[0])


@pytest.mark.parametrize("kind", ["ultrarm", "classifier", "chat"])
def test_a_reward_is_that_of_the_text_alone(
    folders: dict[str, Path], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In batches of several lengths, in the order of the answers, cut at 1024 tokens."""
    monkeypatch.setattr(reward, "BATCH_TOKENS", 1500)
    found = Reward(folders[kind], "cpu").rewards(PAIRS)

    assert found == pytest.approx(
        [alone(folders[kind], *pair) for pair in PAIRS], rel=1e-4, abs=1e-5
    )
    assert len(set(found)) == len(PAIRS)


def test_items_have_the_mean_reward_of_their_samples(folders: dict[str, Path]) -> None:
    """By the instruction, not by the prompt in the run's template."""
    model = Reward(folders["ultrarm"], "cpu")
    said = [("a", "5"), ("b", "it"), ("a", "6")]
    answers = [
        Answered(id=item, task="t", prompt="<s>templated", answer=text)
        for item, text in said
    ]
    first, other, second = model.rewards(
        [("Add.", "5"), ("Say it.", "it"), ("Add.", "6")]
    )

    found = model.score(answers, {"a": "Add.", "b": "Say it."})

    assert found["reward"] == {
        "a": pytest.approx((first + second) / 2),
        "b": pytest.approx(other),
    }


@pytest.mark.parametrize(
    ("lengths", "made"),
    [
        ([], []),
        ([5], [[0]]),
        ([3, 10, 4, 9], [[1, 3], [2, 0]]),
        ([30, 1], [[0], [1]]),
        ([2, 2, 2], [[0, 1, 2]]),
    ],
)
def test_batches_hold_rows_of_like_length(
    lengths: list[int], made: list[list[int]]
) -> None:
    """Longest first, at most 20 tokens with padding; a longer row is a batch of its own."""
    assert list(make_padded_batches(lengths, 20)) == made


def changed(folder: Path, target: Path, **config: Any) -> Path:
    """A copy of a model with another config."""
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    held = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(held | config))
    return target


def test_what_is_no_reward_model_is_refused(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """transformers would make up the weights of a head that is not there."""
    two = {"id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}}
    with pytest.raises(UserError, match=r"no weights for regression_head\.weight"):
        Reward(folders["base"])
    with pytest.raises(UserError, match="classifies into 2"):
        Reward(changed(folders["classifier"], tmp_path / "two", **two))
    with pytest.raises(UserError, match=r"no weights for score\.weight"):
        Reward(
            changed(
                folders["base"],
                tmp_path / "none",
                architectures=["LlamaForSequenceClassification"],
                id2label={"0": "reward"},
                label2id={"reward": 0},
            )
        )
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no reward model"):
        Reward(tmp_path / "empty")


def test_a_plan_tells_a_reward_model_from_its_files_alone(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """As the evaluator would when it loads it, hours later."""
    for name in ("ultrarm", "classifier", "chat"):
        model_folder.check_reward("checkpoints.reward_model", folders[name])
    two = {"id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}}
    with pytest.raises(
        UserError, match=r"checkpoints\.reward_model: .*is no reward model"
    ):
        model_folder.check_reward("checkpoints.reward_model", folders["base"])
    with pytest.raises(UserError, match="classifies into 2"):
        model_folder.check_reward(
            "k", changed(folders["classifier"], tmp_path / "two", **two)
        )
