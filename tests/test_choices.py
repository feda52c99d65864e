"""Are the options of a test item compared whole, after the same prompt, and is what
cannot be told of?"""

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from jobs.evaluating.choices import Choices
from jobs.training.batches import TokenizedSet
from zsg_core.data import prompts
from zsg_core.data.examples import Example
from zsg_core.data.prompts import Template
from zsg_core.errors import UserError

MOST = 64  # tokens, which are bytes here
TAG = len("\nAssistant: ")


def item(question: str, *options: str, number: int = 0) -> Example:
    """An item whose last option is right."""
    return Example(
        id=f"t:{number}", task="t", turns=((question, options[-1]),), options=options
    )


def bytewise(text: str) -> list[int]:
    """A token for each byte."""
    return list(text.encode())


def asked(
    *items: Example,
    losses: Any = torch.zeros,
    truncate: str = "prompt",
    template: Template = Template("zsg"),
    tokenize: Any = bytewise,
) -> tuple[TokenizedSet, Any]:
    """What a model is asked for the items, and the scores if these are the losses of
    the options."""

    def within(most: int) -> Any:
        how: dict[str, Any] = {
            "bos": 1,
            "eos": 2,
            "max_length": most,
            "truncate": truncate,
        }
        return partial(
            prompts.encode_example, template=template, tokenize=tokenize, **how
        )

    seen = []

    def loss_of(options: TokenizedSet) -> Any:
        seen.append(options)
        tokens = torch.tensor(options.learnt, dtype=torch.float64)
        return SimpleNamespace(
            tokens=tokens, measure=lambda: losses(len(options)).double() / tokens
        )

    choices = Choices(items, within, MOST)
    measured = choices.measure(loss_of, ["rank_accuracy"])
    return seen[0], choices.score_by_rule(measured, "rank_accuracy", "sum")


@pytest.mark.parametrize(
    "question", ["Is it?", "Is it " * 20], ids=["that fits", "that is shortened"]
)
def test_options_stand_after_the_same_prompt(question: str) -> None:
    """Whole and at most as long as the run allows; the prompt is shortened as before
    the longest of them."""
    options, _ = asked(item(question, "No", "Yes, that is what it is"))

    short, long = options.encoded
    assert short.prompt == long.prompt and options.learnt == [3, 24]
    assert len(long.ids) == min(MOST, len(f"<User: {question.strip()}") + TAG + 24)


@pytest.mark.parametrize("truncate", ["prompt", "head"])
def test_an_item_has_no_score_where_an_option_does_not_fit(truncate: str) -> None:
    """It is not asked, and counted; the others are scored."""
    too_long = item("Is it?", "No", "Yes, it is " * 9, number=1)
    options, scores = asked(item("Is it?", "No", "Yes"), too_long, truncate=truncate)

    assert options.ids == ["t:0#0", "t:0#1"]
    assert "rank_accuracy: 1 of 2 items have no score" in scores.flags
    assert scores.by_item["rank_accuracy"].keys() == {"t:0"}


JOINED = ord("@")  # a token of the blank and the n after it


def joining(text: str) -> list[int]:
    """A token for each byte, but that a blank and an n are one: as the pieces of words
    are in any BPE."""
    return list(text.replace(" n", "@").encode())


@pytest.mark.parametrize("length", [1, 3], ids=["that fits", "that is shortened"])
def test_the_blank_before_an_option_is_its_own(length: int) -> None:
    """Where the prompt ends in one and a tokenizer joins it to some options; as in
    lm-evaluation-harness."""
    question = "How many are left of them? " * length + "Output: "
    options, _ = asked(
        item(question, "none", "12"), template=Template("plain"), tokenize=joining
    )

    none, twelve = (encoded.ids[encoded.spans[-1][0] :] for encoded in options.encoded)
    assert (none, twelve) == ([JOINED, *b"one", 2], [*b" 12", 2])
    assert options.encoded[0].prompt == options.encoded[1].prompt
    assert max(len(encoded.ids) for encoded in options.encoded) <= MOST


def test_a_prompt_that_does_not_end_in_a_blank_stays_as_it_was() -> None:
    """What is scored of each option are its own tokens and the end of sequence."""
    options, _ = asked(
        item("How many?\n", "none", "12"), template=Template("plain"), tokenize=joining
    )

    assert options.learnt == [5, 3]


def test_options_stand_after_the_same_examples() -> None:
    """As many positive examples as leave room for the longest option, before each of them."""
    shown = (("1 1", "2"), ("1 2", "3"))
    one = Example(
        id="t:0",
        task="t",
        turns=(("2 2", "four"),),
        definition="Add.",
        shots=shown,
        options=("4", "four"),
    )
    shown = set()
    for most in range(120, 260):
        found = asked_within(most, one)
        if found.ids:
            short, long = found.encoded
            assert short.prompt == long.prompt
            shown.add(len(short.prompt))

    assert len(shown) == 3  # with none, one and two of the examples


def asked_within(most: int, one: Example) -> TokenizedSet:
    """What a model is asked for an item with two positive examples, within so many tokens."""

    def within(longest: int) -> Any:
        how: dict[str, Any] = {"bos": 1, "eos": 2, "max_length": longest}
        return partial(
            prompts.encode_example,
            template=Template("zsg", shots=2),
            tokenize=bytewise,
            **how,
        )

    seen = []

    def loss_of(options: TokenizedSet) -> Any:
        seen.append(options)
        return SimpleNamespace(
            tokens=torch.ones(len(options)), measure=lambda: torch.zeros(len(options))
        )

    Choices([one], within, most).measure(loss_of, ["rank_accuracy"])
    return seen[0]


def test_a_model_that_always_chooses_the_same_is_flagged() -> None:
    """As one that always says the same."""
    items = [
        item(f"Is it {n}?", *options, number=n)
        for n, options in enumerate([("Yes", "No"), ("No", "Yes")] * 2)
    ]
    _, scores = asked(
        *items, losses=lambda count: torch.tensor([1, 2, 2, 1] * (count // 4))
    )

    assert scores.values == {"rank_accuracy": 50.0}
    assert scores.flags == ["likely broken: all 4 answers are 'Yes'"]


def test_a_test_set_without_options_is_refused() -> None:
    """With what is needed."""
    with pytest.raises(
        UserError, match="needs test data whose rows have `answer_choices`"
    ):
        asked(Example(id="t:0", task="t", turns=(("Is it?", "No"),)))
