"""Is what evaluators look at inside a model what the model holds, and does it reach the journal once?"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluated import KEY, fresh_copy, metric_rows, serve
from pydantic import ValidationError
from test_plan import a_run
from train_bench import Bench

from jobs.evaluating import evaluations
from launcher.clusters.profiles import Profile
from launcher.submission import job_files
from zsg_core.errors import UserError
from zsg_core.settings.checkpoints import CheckpointSettings

STEPS = [0, 9, 18]
DISTANCE = {"token": "</s>", "words": ["the", "thought experiment"], "layers": [0, 2]}


def settings(**asked: Any) -> CheckpointSettings:
    """The settings of checkpoints that keep every ninth step's weights."""
    return CheckpointSettings.model_validate({"snapshots": 9, **asked})


ASKED = settings(token_distance=DISTANCE)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """One bench for all: its jobs' imports are the dear part."""
    made = Bench(tmp_path_factory.mktemp("representations"))
    yield made
    made.jobs.stop()


@pytest.fixture(scope="module")
def evaluated(bench: Bench) -> Path:
    """A run whose snapshots were looked into, and whose answers were scored."""
    folder = bench.make(snapshots=9, metrics=["loss", KEY])
    assert bench.jobs.run(folder)["outcome"] == "done"
    record = bench.jobs.run(serve([folder], inside=ASKED.inside))
    assert (record["outcome"], record["scored"], record["loads"], record["swaps"]) == ("done", 3, 1, 2)
    return folder


def plain_states(folder: Path, texts: list[list[int]]) -> list[list[np.ndarray]]:
    """(layers + 1) hidden states of each text, (T, H), by transformers alone."""
    import torch
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    with torch.no_grad():
        outs = [model(input_ids=torch.tensor([text]), output_hidden_states=True).hidden_states for text in texts]
    return [[layer[0].numpy() for layer in out] for out in outs]


def test_a_distance_is_that_of_plain_transformers(evaluated: Path) -> None:
    """Between the token and the mean of a word's tokens, each alone after `<s>`; in the embedding and a layer."""
    from transformers import AutoTokenizer

    folder = evaluated / "snapshots/18"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    words = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in DISTANCE["words"]]
    assert len(words[1]) > 1
    texts = [[tokenizer.bos_token_id, *ids] for ids in ([tokenizer.eos_token_id], *words)]
    token, *of_words = ([layer[1:].mean(0) for layer in of_text] for of_text in plain_states(folder, texts))
    [row] = [row for row in metric_rows(evaluated, "token_distance/the") if row["step"] == 18]
    for word, states in zip(("the", "thought_experiment"), of_words, strict=True):
        for layer, key in ((0, f"token_distance/{word}"), (2, f"token_distance/{word}/layer_2")):
            assert row["data"][key] == pytest.approx(np.linalg.norm(token[layer] - states[layer]), rel=1e-5)


def test_a_step_is_scored_and_looked_into_at_once(evaluated: Path) -> None:
    """All metrics of a step are one row, the base's too, and the weights were put in once for all of them."""
    rows = metric_rows(evaluated)
    assert [row["step"] for row in rows] == STEPS
    assert all(ASKED.inside.keys() <= row["data"].keys() for row in rows)
    assert len({row["data"]["token_distance/the"] for row in rows}) == 3
    assert evaluations.ways(evaluated).items() >= ASKED.inside.items()


def test_a_token_that_the_vocabulary_lacks_is_named(bench: Bench, evaluated: Path, tmp_path: Path) -> None:
    """The job says which, and where it was asked for."""
    copy = fresh_copy(evaluated, 18, tmp_path)
    asked = settings(token_distance={"token": "<sep>", "words": ["the"]})
    record = bench.jobs.run(serve([copy], keys=[], inside=asked.inside))

    assert record["outcome"] == "failed"
    assert "checkpoints.token_distance: the model's vocabulary has no token '<sep>'" in record["evidence"]


@pytest.mark.parametrize(
    ("word", "key"),
    [("thought", "thought"), (" thought", "_thought"), ('"thought"', "_thought_"), ("a/b", "a_b"), ("…", "_")],
)
def test_a_word_stands_in_a_key_as_mlflow_takes_it(word: str, key: str) -> None:
    """All but letters, digits and a few marks stand as _."""
    assert list(settings(token_distance={"token": "<sep>", "words": [word]}).inside) == [f"token_distance/{key}"]


def test_a_name_gives_keys_of_their_own() -> None:
    """So that another token can be looked at in the same runs."""
    asked = settings(token_distance={"token": "<sep>", "words": ["thought"], "name": "again"})

    assert (asked.scored, asked.named_by(asked.scored[0])) == (["token_distance/again/thought"], "token_distance")


BAD = {
    "share a key": {"token_distance": {"token": "a", "words": ["a b", "a_b"]}},
    "share a key ": {"token_distance": {"token": "a", "words": ["a"], "layers": [1, 1]}},
    "none are kept": {"token_distance": {"token": "a", "words": ["a"]}, "snapshots": None},
}


@pytest.mark.parametrize("why", BAD)
def test_what_cannot_be_looked_at_is_refused(why: str) -> None:
    """When the grid is read."""
    with pytest.raises(ValidationError, match=why.strip()):
        settings(**BAD[why])


def test_a_layer_that_the_model_lacks_is_refused_before_anything_is_submitted() -> None:
    """A tiny model has four."""
    wanted = {"snapshots": 9, "token_distance": {"token": "a", "words": ["b"], "layers": [5]}}
    with pytest.raises(
        UserError, match=r"token_distance/b/layer_5 is of layer 5, but model tiny has the layers 0, .* to 4"
    ):
        job_files.check(a_run(checkpoints=wanted), Profile(name="p", kind="local"))
    assert a_run(checkpoints=wanted).id == a_run().id
