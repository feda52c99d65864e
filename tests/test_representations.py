"""Is what evaluators look at inside a model what the model holds, and does it reach the
journal once?"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.metrics import silhouette_samples

from jobs.contract import evaluations
from jobs.contract.folder import write_json
from jobs.contract.item_losses import read_test_losses
from jobs.evaluating import hidden_state_store
from jobs.evaluating.eval_target import EvalTarget
from jobs.evaluating.representations import draw_items
from launcher.clusters.profiles import Profile
from launcher.submission import job_files
from tests.lib.evaluate_jobs import KEY, fresh_copy, metric_rows, serve
from tests.lib.journal_rows import plain_rows
from tests.lib.planned_runs import a_run
from tests.lib.train_bench import Bench
from zsg_core.errors import UserError
from zsg_core.metrics.keys import INSIDE
from zsg_core.metrics.metrics import RANK_ACCURACY
from zsg_core.metrics.silhouette import compute_silhouettes
from zsg_core.settings.checkpoints import CheckpointSettings

STEPS = [0, 9, 18]
DISTANCE = {"token": "</s>", "words": ["the", "thought experiment"], "layers": [0, 2]}


def settings(**asked: Any) -> CheckpointSettings:
    """The settings of checkpoints that keep every ninth step's weights."""
    return CheckpointSettings.model_validate({"snapshots": 9, **asked})


REPRESENTED = {"layers": [1, 2], "items": 6}
ASKED = settings(
    token_distance=DISTANCE,
    representations=REPRESENTED,
    metrics=["loss", RANK_ACCURACY],
    rank_accuracy={"by": ["sum", "token", "byte"]},
)
ASKED_IN_MEAN = settings(
    representations={**REPRESENTED, "pooling": "mean", "name": "mean"}
)
TEXTS = {  # of three sources: question and answer by number
    "math": ("What is {n} plus {n} plus 7?", "{n}"),
    "code": (
        "Write a function f{n} that returns its argument.",
        "def f{n}(x): return x",
    ),
    "talk": ("Write a letter to my friend number {n}.", "My dear friend {n},"),
}


TASKS = ("card", "letter")  # of talk
# have options
TESTED = [
    "talk/card:0",
    "talk/card:1",
    "talk/letter:0",
    "talk/letter:1",
    "talk/letter:2",
]
# Of the 8 test items of talk, by number; the answer of one stands at its own place
# among them, or nowhere.
OTHERS = {
    40: ["zq zq zq zq zq"],
    41: ["My dear"],
    42: ["Yes"],
    43: ["My dear friend My dear", "zq zq zq zq"],
    44: ["9,"],
}
WITHOUT = {45: None, 46: ["of", "these", "none"]}
TOO_LONG = {47: ["My dear friend " * 60]}


def choices(n: int) -> list[str] | None:
    """What is offered with an item of talk, as published: without the blank that its
    answer begins with."""
    if n in WITHOUT:
        return WITHOUT[n]
    *before, last = (OTHERS | TOO_LONG).get(n, ["No"])
    return [*before, TEXTS["talk"][1].format(n=n), last]


def sources(folder: Path) -> dict[str, Any]:
    """Three sources of which 40 examples are trained on and 8 tested; talk is as P3, of
    two tasks."""
    made = {}
    for name, (asked, said) in TEXTS.items():
        for split, numbers in (("train", range(40)), ("test", range(40, 48))):
            texts = [(n, asked.format(n=n), said.format(n=n)) for n in numbers]
            if name == "talk":
                keys = (
                    "task",
                    "inputs_pretokenized",
                    "targets_pretokenized",
                    "answer_choices",
                )
                rows = [
                    dict(
                        zip(keys, (TASKS[n > 41], q, f" {a}", choices(n)), strict=True)
                    )
                    for n, q, a in texts
                ]
            else:
                rows = [
                    {"instruction": q, "input": "", "output": a} for _, q, a in texts
                ]
            write_json(folder / f"{name}-{split}.json", rows)
        paths = {
            "path": str(folder / f"{name}-train.json"),
            "test_path": str(folder / f"{name}-test.json"),
        }
        made[name] = {"set": "p3" if name == "talk" else "alpaca", **paths}
    return made


@pytest.fixture(scope="module")
def evaluated(bench: Bench) -> Path:
    """A run whose snapshots were looked into, and whose answers were scored."""
    data = {
        "data.sources": sources(bench.folder),
        "data.train_per_task": 40,
        "data.test_per_task": 8,
    }
    folder = bench.make(
        snapshots=9, metrics=["loss", KEY], train={"steps": 18, "epochs": 2}, more=data
    )
    assert bench.jobs.run(folder)["outcome"] == "done"
    record = bench.jobs.run(serve([folder], inside=ASKED.inside | ASKED_IN_MEAN.inside))
    assert (record["outcome"], record["scored"], record["loads"], record["swaps"]) == (
        "done",
        6,
        1,
        2,
    )
    return folder


def plain_states(folder: Path, texts: list[list[int]]) -> list[list[np.ndarray]]:
    """(layers + 1) hidden states of each text, (T, H), by transformers alone."""
    import torch
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32
    ).eval()
    with torch.no_grad():
        outs = [
            model(
                input_ids=torch.tensor([text]), output_hidden_states=True
            ).hidden_states
            for text in texts
        ]
    return [[layer[0].numpy() for layer in out] for out in outs]


def test_a_distance_is_that_of_plain_transformers(evaluated: Path) -> None:
    """Between the token and the mean of a word's tokens, each alone after `<s>`; in the
    embedding and a layer."""
    from transformers import AutoTokenizer

    folder = evaluated / "snapshots/18"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    words = [
        tokenizer(word, add_special_tokens=False)["input_ids"]
        for word in DISTANCE["words"]
    ]
    assert len(words[1]) > 1
    texts = [
        [tokenizer.bos_token_id, *ids] for ids in ([tokenizer.eos_token_id], *words)
    ]
    token, *of_words = (
        [layer[1:].mean(0) for layer in of_text]
        for of_text in plain_states(folder, texts)
    )
    [row] = [
        row for row in metric_rows(evaluated, "token_distance/the") if row["step"] == 18
    ]
    for word, states in zip(("the", "thought_experiment"), of_words, strict=True):
        for layer, key in (
            (0, f"token_distance/{word}"),
            (2, f"token_distance/{word}/layer_2"),
        ):
            assert row["data"][key] == pytest.approx(
                np.linalg.norm(token[layer] - states[layer]), rel=1e-5
            )


def test_a_step_is_scored_and_looked_into_at_once(evaluated: Path) -> None:
    """All that is taken inside the model is one row, the base's too; weights were put
    in once for that and answers."""
    assert [row["step"] for row in metric_rows(evaluated)] == STEPS
    rows = metric_rows(evaluated, "token_distance/the")
    assert [row["step"] for row in rows] == STEPS
    assert all(ASKED.inside.keys() <= row["data"].keys() for row in rows)
    assert len({row["data"]["token_distance/the"] for row in rows}) == 3
    assert evaluations.collect_key_ways(evaluated).items() >= ASKED.inside.items()


def test_a_token_that_the_vocabulary_lacks_is_named(
    bench: Bench, evaluated: Path, tmp_path: Path
) -> None:
    """The job says which, and where it was asked for."""
    copy = fresh_copy(evaluated, 18, tmp_path)
    asked = settings(token_distance={"token": "<sep>", "words": ["the"]})
    record = bench.jobs.run(serve([copy], keys=[], inside=asked.inside))

    assert record["outcome"] == "failed"
    assert (
        "checkpoints.token_distance: the model's vocabulary has no token '<sep>'"
        in record["evidence"]
    )


@pytest.mark.parametrize(("name", "begin"), [("", -1), (".mean", 0)])
def test_hidden_states_are_those_of_plain_transformers(
    evaluated: Path, name: str, begin: int
) -> None:
    """Of the last token of each prompt, or the mean of all, in every layer asked for;
    the file says of which items."""
    served = EvalTarget(evaluated, ())
    tokens, _ = served.test
    for layer in (1, 2):
        kept = hidden_state_store.read_states(
            evaluated / f"representations/18.layer_{layer}{name}.safetensors"
        )
        prompts = [tokens.encoded[tokens.ids.index(item)].prompt for item in kept.ids]
        plain = [
            states[layer][begin:].mean(0)
            for states in plain_states(evaluated / "snapshots/18", prompts)
        ]

        np.testing.assert_allclose(kept.states, plain, rtol=1e-3, atol=1e-4)
        assert sorted(kept.groups) == [
            group for group in ("code", "math", "talk") for _ in range(6)
        ]
        assert kept.groups == [item.partition("/")[0] for item in kept.ids]


def test_the_items_are_the_same_at_every_checkpoint(evaluated: Path) -> None:
    """Whatever is asked of them; the files are in the journal."""
    files = hidden_state_store.find_state_files(evaluated)
    of_layers = {
        path.name.removesuffix(".safetensors").partition(".")[2] for path in files
    }

    assert of_layers == {"layer_1", "layer_2", "layer_1.mean", "layer_2.mean"}
    assert len({tuple(hidden_state_store.read_states(path).ids) for path in files}) == 1
    told = [
        row["data"]["files"]
        for row in plain_rows(evaluated)
        if row["data"].get("event") == INSIDE
    ]
    assert sorted(name for names in told for name in names) == sorted(
        f"representations/{path.name}" for path in files
    )
    assert len(files) == 4 * len(STEPS)


def test_a_silhouette_is_that_of_the_kept_states(evaluated: Path) -> None:
    """Of all, of each source, and of each item, for tables and intervals."""
    kept = hidden_state_store.read_states(
        evaluated / "representations/9.layer_2.safetensors"
    )
    apart = silhouette_samples(kept.states, kept.groups)
    [row] = [
        row["data"]
        for row in metric_rows(evaluated, "silhouette/layer_2")
        if row["step"] == 9
    ]

    assert row["silhouette/layer_2"] == pytest.approx(apart.mean(), abs=1e-5)
    for name in TEXTS:
        of_source = [
            value
            for value, group in zip(apart, kept.groups, strict=True)
            if group == name
        ]
        assert row[f"silhouette/layer_2/{name}"] == pytest.approx(
            np.mean(of_source), abs=1e-5
        )
    items = read_test_losses(evaluated, "silhouette/layer_2")
    assert (items.steps, items.ids) == (STEPS, kept.ids)
    np.testing.assert_allclose(items.losses[1], apart, atol=1e-5)
    assert apart.mean() > 0.3, "three kinds of questions lie apart"


def plain_losses(folder: Path, question: str, answer: str) -> list[float]:
    """−log p of each token of an answer and of its `</s>`, in the template zsg, by
    transformers alone."""
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    asked, tag, said = (
        tokenizer(text, add_special_tokens=False)["input_ids"]
        for text in (f"User: {question}", "\nAssistant: ", answer)
    )
    ids = [tokenizer.bos_token_id, *asked, *tag, *said, tokenizer.eos_token_id]
    with torch.no_grad():
        chances = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    return [
        -float(chances[place - 1, ids[place]])
        for place in range(len(ids) - len(said) - 1, len(ids))
    ]


def test_rank_accuracy_is_that_of_a_plain_loop(evaluated: Path) -> None:
    """The option is chosen whose tokens have the least sum of −log p; the mean of two
    tasks counts each once."""
    items = read_test_losses(evaluated, RANK_ACCURACY)
    for step in (9, 18):
        plain, by_mean = {}, []
        for n in OTHERS:
            question, offered = TEXTS["talk"][0].format(n=n), choices(n) or []
            losses = [
                plain_losses(evaluated / f"snapshots/{step}", question, option)
                for option in offered
            ]
            right = len(offered) - 2
            plain[n] = 100.0 * (int(np.argmin([sum(one) for one in losses])) == right)
            by_mean.append(
                100.0 * (int(np.argmin([np.mean(one) for one in losses])) == right)
            )
        found = dict(
            zip(items.ids, items.losses[items.steps.index(step)].tolist(), strict=True)
        )
        [row] = [
            row["data"]
            for row in metric_rows(evaluated, RANK_ACCURACY)
            if row["step"] == step
        ]

        assert [found[item] for item in TESTED] == list(plain.values())
        of_tasks = [
            np.mean([score for n, score in plain.items() if (n > 41) == late])
            for late in (False, True)
        ]
        assert row[RANK_ACCURACY] == pytest.approx(np.mean(of_tasks))
        assert row[f"{RANK_ACCURACY}_stderr"] == pytest.approx(
            np.std(of_tasks, ddof=1) / 2**0.5
        )
        assert len({*plain.values()}) == 2 and by_mean != list(plain.values()), (
            "not the mean over an option's tokens"
        )


@pytest.mark.parametrize("rule", ["token", "byte"])
def test_the_length_of_an_option_is_taken_out_as_in_a_plain_loop(
    evaluated: Path, rule: str
) -> None:
    """The option is chosen whose −log p per token, its end counted, or per byte of its
    text is least."""
    items = read_test_losses(evaluated, f"{RANK_ACCURACY}/{rule}")
    expected = []
    for n in OTHERS:
        question, offered = TEXTS["talk"][0].format(n=n), choices(n) or []
        relative_losses = []
        for option in offered:
            losses = plain_losses(evaluated / "snapshots/18", question, option)
            length = len(losses) if rule == "token" else len(option.encode())
            relative_losses.append(sum(losses) / length)
        chosen = int(np.argmin(relative_losses))
        expected.append(100.0 * (chosen == len(offered) - 2))
    at_step = items.losses[items.steps.index(18)].tolist()
    found = dict(zip(items.ids, at_step, strict=True))

    assert [found[item] for item in TESTED] == expected


def test_an_item_without_a_choice_has_no_rank_accuracy(evaluated: Path) -> None:
    """Without options it is not asked; one of whose options is too long for the model
    is told of, and has none."""
    items = read_test_losses(evaluated, RANK_ACCURACY)
    scored = [
        item
        for item, of in zip(items.ids, np.isfinite(items.losses).T, strict=True)
        if of.all()
    ]
    flags = [
        row["data"]["flags"]
        for row in plain_rows(evaluated)
        if row["data"].get("event") == INSIDE
    ]

    assert sorted(scored) == TESTED
    assert (
        all(
            told.count("rank_accuracy: 1 of 6 items have no score") == 1
            for told in flags
        )
        and len(flags) == 3
    )


@pytest.mark.parametrize(
    ("vectors", "groups"),
    [
        pytest.param([[0.0], [1.0]], ["a", "a"], id="one group"),
        pytest.param([[0.0], [1.0]], ["a", "b"], id="groups of one"),
        pytest.param(
            [[0.0], [np.nan], [1.0]], ["a", "a", "b"], id="a model that has diverged"
        ),
    ],
)
def test_what_has_no_silhouette_has_none(
    vectors: list[list[float]], groups: list[str]
) -> None:
    """It is no number, and no error either: the other metrics of the step are taken."""
    assert np.isnan(compute_silhouettes(np.array(vectors), groups)).all()


def test_few_items_of_each_group_are_drawn() -> None:
    """A group with fewer gives all it has; the same are drawn again."""
    groups = ["a"] * 50 + ["b"] * 3
    places = draw_items(groups, 10)

    assert [groups[place] for place in places] == ["a"] * 10 + ["b"] * 3
    assert places == draw_items(groups, 10) == sorted(set(places)) and draw_items(
        groups, None
    ) == list(range(53))


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("thought", "thought"),
        (" thought", "_thought"),
        ('"thought"', "_thought_"),
        ("a/b", "a_b"),
        ("…", "_"),
    ],
)
def test_a_word_stands_in_a_key_as_mlflow_takes_it(word: str, key: str) -> None:
    """All but letters, digits and a few marks stand as _."""
    assert list(
        settings(token_distance={"token": "<sep>", "words": [word]}).inside
    ) == [f"token_distance/{key}"]


def test_a_name_gives_keys_of_their_own() -> None:
    """So that another token can be looked at in the same runs."""
    asked = settings(
        token_distance={"token": "<sep>", "words": ["thought"], "name": "again"}
    )

    assert (asked.scored, asked.named_by(asked.scored[0])) == (
        ["token_distance/again/thought"],
        "token_distance",
    )


BAD = {
    "stands there twice": {"representations": {"layers": [1, 1]}},
    "share a key": {"token_distance": {"token": "a", "words": ["a b", "a_b"]}},
    "share a key ": {
        "token_distance": {"token": "a", "words": ["a"], "layers": [1, 1]}
    },
    "none are kept": {
        "token_distance": {"token": "a", "words": ["a"]},
        "snapshots": None,
    },
}


@pytest.mark.parametrize("why", BAD)
def test_what_cannot_be_looked_at_is_refused(why: str) -> None:
    """When the grid is read."""
    with pytest.raises(ValidationError, match=why.strip()):
        settings(**BAD[why])


def test_by_source_needs_sources() -> None:
    """A grid of one data set is told apart by task."""
    with pytest.raises(ValidationError, match=r"say by: task"):
        a_run(
            checkpoints={
                "snapshots": 9,
                "representations": {"layers": [1], "by": "source"},
            }
        )


def test_rank_accuracy_needs_test_data_that_may_have_options() -> None:
    """What cannot have any is refused by its format; the test's counts, not what is
    trained on, and no id changes."""
    wanted = {"checkpoints": {"snapshots": 9, "metrics": [RANK_ACCURACY]}}
    p3 = {"set": "alpaca", "test_set": "p3", "test_path": "/p3"}
    with pytest.raises(
        ValidationError,
        match=r"none are in data of format niv2; it needs test data of huggingface or p3",
    ):
        a_run(**wanted)
    with pytest.raises(ValidationError, match=r"of format alpaca"):
        a_run(**wanted, data={"set": "p3", "test_set": "alpaca", "test_path": "/a"})

    assert a_run(**wanted, data=p3).checkpoints.scored == [RANK_ACCURACY]
    assert a_run(**wanted, data=p3).id == a_run(data=p3).id


def test_a_layer_that_the_model_lacks_is_refused_before_anything_is_submitted() -> None:
    """A tiny model has four."""
    wanted = {
        "snapshots": 9,
        "token_distance": {"token": "a", "words": ["b"], "layers": [5]},
    }
    with pytest.raises(
        UserError,
        match=r"token_distance/b/layer_5 is of layer 5, but model tiny has the layers 0, .* to 4",
    ):
        job_files.check_run(a_run(checkpoints=wanted), Profile(name="p", kind="local"))
    assert a_run(checkpoints=wanted).id == a_run().id
