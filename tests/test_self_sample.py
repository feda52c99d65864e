"""Are a model's own answers made once for what they depend on, of prompts as published,
and cut as it is told?"""

from pathlib import Path
from typing import Any

import pytest

from jobs.model.vocabulary import Vocabulary
from jobs.preparing import self_sample
from tests.lib.character_tokens import BOS, EOS, characters, text
from zsg_core import recipe as recipes
from zsg_core.data.examples import Example
from zsg_core.recipe import InputDigests, SourceDigests
from zsg_core.settings.run import Settings

VOCABULARY = Vocabulary(characters, BOS, EOS, text)
TASK = {"set": "delia", "path": "t", "test_path": "e"}


def settings(
    data: dict[str, Any] | None = None,
    sample: dict[str, Any] | None = None,
    **others: Any,
) -> Settings:
    """A run of DELIA: twice as many answers of the model as examples of the task."""
    own = {
        "set": "messages",
        "path": "q",
        "self_sample": sample or {},
        "ratio": 2,
        "ratio_to": "task",
    }
    given = {
        "sources": {"task": TASK, "diverse": {**own, **(data or {})}},
        "template": "llama2",
    }
    return Settings.model_validate(
        {"data": given, "model": {"name": "chat", "path": "m"}, **others}
    )


def recipe(wanted: Settings, model: str = "m", queries: str = "q") -> dict[str, Any]:
    """Its recipe."""
    sources = {
        "task": SourceDigests(data="t", test="e"),
        "diverse": SourceDigests(data=queries),
    }
    return recipes.make_recipe(wanted, InputDigests(sources=sources, model=model))


def answers(wanted: Settings, **digests: str) -> str:
    """The id of its answers."""
    return recipes.find_self_sampled(recipe(wanted, **digests)["stages"][-1]["data"])[
        "diverse"
    ]


SAME = [
    settings(data={"ratio": 7}),
    settings(data={"train_per_task": 3}),
    settings(model={"name": "chat", "path": "m", "add_tokens": ["<sep>"]}),
    settings(seed=5),
    settings(train={"lr": 1.0}),
    settings(arrangement={"order": "cluster"}),
]
OTHER = [
    settings(sample={"cut": 0}),
    settings(sample={"temperature": 0.8}),
    settings(sample={"top_p": 0.9}),
    settings(sample={"max_new_tokens": 100}),
    settings(sample={"seed": 1}),
    settings(sample={"items": 10}),
    settings(sample={"system": "Be brief."}),
    settings(train={"precision": "fp32"}),
]


def test_answers_are_kept_by_all_that_they_depend_on_and_nothing_else() -> None:
    """Model, questions, and how they were made; not how many are used, nor what is
    trained with them."""
    one = answers(settings())

    assert {answers(other) for other in SAME} == {one}
    assert (
        len(
            {
                one,
                answers(settings(), model="n"),
                answers(settings(), queries="r"),
                *map(answers, OTHER),
            }
        )
        == 11
    )


def test_a_run_that_trains_on_none_of_them_needs_none() -> None:
    """Ratio 0 is plain instruction tuning: the run of a grid that has no such source at
    all, but for its name."""
    none = recipe(settings(data={"ratio": 0}))["stages"][-1]["data"]

    assert list(none["sources"]) == ["task"]
    assert recipes.find_self_sampled(none) == {}


def test_a_tiny_model_learns_its_tokens_from_the_other_sources() -> None:
    """So that it is there before the answers, and the same whatever the ratio."""
    bases = [
        recipe(settings(data={"ratio": ratio}, model={"name": "tiny"}))["base"]
        for ratio in (0, 2)
    ]

    assert bases[0] == bases[1]
    assert list(bases[0]["tokenizer"]["text"]["sources"]) == ["task"]


def rule(**sample: Any) -> dict[str, Any]:
    """How answers are made, as a sample job reads it."""
    return recipe(settings(sample=sample))["stages"][-1]["data"]["sources"]["diverse"][
        "self_sample"
    ]


def question(number: int, asked: str, answered: str) -> Example:
    """A question with the data's answer, and a turn that is not used."""
    return Example(id=str(number), task="t", turns=((asked, answered), ("and?", "so")))


def test_the_model_sees_question_answer_and_question_again() -> None:
    """Under the published system text, up to where its second answer begins; what
    leaves no room is passed over."""
    made = self_sample.encode_questions(
        [question(0, "Why?", "So."), question(1, "Why? " * 99, "So.")],
        rule(),
        VOCABULARY,
        700,
    )

    assert [text(prompt) for prompt in made.prompts] == [
        "<s>[INST] <<SYS>>\nYou are a helpful AI assistant.\n<</SYS>>\n\nWhy? [/INST] So."
        " </s><s>[INST] Why? [/INST]"
    ]
    assert ([example.id for example in made.examples], made.too_long) == (["0"], 1)


def test_published_settings_are_the_defaults() -> None:
    """Temperature 0.7, top-p 0.95, 512 tokens, two characters cut."""
    made = rule()

    assert made["how"] == {
        "decoding": "fast_nucleus",
        "top_p": 0.95,
        "temperature": 0.7,
        "seed": 0,
        "max_new_tokens": 512,
    }
    assert made["cut"] == 2


def test_a_torn_line_is_taken_away(tmp_path: Path) -> None:
    """What a kill has cut off counts for nothing, and what is whole is kept."""
    path = tmp_path / "answers.jsonl"
    path.write_text('[["a", "  x"]]\n[["b", "')

    assert self_sample.read_answers(path) == {"a": "  x"}
    assert path.read_text() == '[["a", "  x"]]\n'


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {
                "sources": {
                    "own": {
                        "path": "q",
                        "set": "messages",
                        "self_sample": {},
                        "test_path": "e",
                    }
                }
            },
            "train on",
        ),
        (
            {"path": "q", "set": "messages", "self_sample": {}},
            "one among several `sources`",
        ),
        (
            {
                "sources": {
                    "t": TASK,
                    "own": {
                        "path": "q",
                        "set": "messages",
                        "self_sample": {"top_p": 0},
                    },
                }
            },
            "greater",
        ),
        (
            {
                "sources": {
                    "t": TASK,
                    "own": {"path": "q", "set": "messages", "self_sample": {"topp": 1}},
                }
            },
            "topp",
        ),
    ],
)
def test_what_cannot_be_sampled_is_refused(given: dict[str, Any], said: str) -> None:
    """With the reason, before anything is planned."""
    with pytest.raises(ValueError, match=said):
        Settings.model_validate({"data": given})
