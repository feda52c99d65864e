"""Are the options of a test item compared whole, after the same prompt, and is what cannot be told of?"""

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from jobs.evaluating.choices import Choices
from jobs.training.batches import TokenizedSet
from zsg_core import prompts
from zsg_core.errors import UserError
from zsg_core.examples import Example
from zsg_core.prompts import Template

MOST = 64  # tokens, which are bytes here
TAG = len("\nAssistant: ")


def item(question: str, *options: str, number: int = 0) -> Example:
    """An item whose last option is right."""
    return Example(id=f"t:{number}", task="t", turns=((question, options[-1]),), options=options)


def asked(*items: Example, losses: Any = torch.zeros, truncate: str = "prompt") -> tuple[TokenizedSet, Any]:
    """What a model is asked for the items, and the scores if these are the losses of the options."""

    def within(most: int) -> Any:
        how: dict[str, Any] = {"bos": 1, "eos": 2, "max_length": most, "truncate": truncate}
        return partial(prompts.encode, template=Template("zsg"), tokenize=lambda text: list(text.encode()), **how)

    seen = []

    def loss_of(options: TokenizedSet) -> Any:
        seen.append(options)
        tokens = torch.tensor(options.learnt, dtype=torch.float64)
        return SimpleNamespace(tokens=tokens, measure=lambda: losses(len(options)).double() / tokens)

    found = Choices(items, within, MOST).scores(loss_of)
    return seen[0], found


@pytest.mark.parametrize("question", ["Is it?", "Is it " * 20], ids=["that fits", "that is shortened"])
def test_options_stand_after_the_same_prompt(question: str) -> None:
    """Whole and at most as long as the run allows; the prompt is shortened as before the longest of them."""
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


def test_a_model_that_always_chooses_the_same_is_flagged() -> None:
    """As one that always says the same."""
    items = [item(f"Is it {n}?", *options, number=n) for n, options in enumerate([("Yes", "No"), ("No", "Yes")] * 2)]
    _, scores = asked(*items, losses=lambda count: torch.tensor([1, 2, 2, 1] * (count // 4)))

    assert scores.values == {"rank_accuracy": 50.0}
    assert scores.flags == ["likely broken: all 4 answers are 'Yes'"]


def test_a_test_set_without_options_is_refused() -> None:
    """With what is needed."""
    with pytest.raises(UserError, match="needs test data whose rows have `answer_choices`"):
        asked(Example(id="t:0", task="t", turns=(("Is it?", "No"),)))
