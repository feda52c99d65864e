"""Is it counted which items were not asked, and which answers were not over, and is it told?"""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.evaluating import asking
from jobs.evaluating.asking import Asking
from jobs.evaluating.items import Asker, OwnTestSet
from jobs.training.batches import TokenizedSet
from tests.lib.character_tokens import WORDS
from zsg_core.data.examples import Example
from zsg_core.data.prompts import Template
from zsg_core.metrics import exact_match
from zsg_core.metrics.scoring import aggregate_scores

HOW = {"decoding": "greedy", "max_new_tokens": 4, "items": None, "stops": ["\nUser:"]}
POSITIONS = 44


class Echo:
    """A generator that answers `red`; `redd`, which is cut off, after a prompt with `long`."""

    def __init__(self, how: Mapping[str, Any]) -> None:
        self.how, self.budget = how, SimpleNamespace(halved=0)

    def fits(self, prompt: Sequence[int]) -> bool:
        return len(prompt) < POSITIONS

    def answers(
        self, prompts: Sequence[Sequence[int]], names: Sequence[str]
    ) -> list[list[int]]:
        return [
            WORDS.tokenize("redd" if "long" in WORDS.text(prompt) else "red")
            for prompt in prompts
        ]

    def is_cut(self, prompt: Sequence[int], answer: Sequence[int]) -> bool:
        return len(answer) >= self.how["max_new_tokens"]


def items(*questions: str) -> OwnTestSet:
    """Test items of a turn each whose answer is `red`, and one whose last turn does not fit."""
    made = [
        Example(id=f"t:{n}", task="t", turns=((one, "red"),))
        for n, one in enumerate(questions)
    ]
    made.append(
        Example(
            id="t:x", task="t", turns=(("say red", "red"), ("now blue " * 9, "blue"))
        )
    )
    test = TokenizedSet([one.id for one in made], [], ["t"] * len(made)), made
    return OwnTestSet(HOW, test, Asker(Template("zsg"), WORDS, 60))


def test_what_was_not_asked_and_what_was_not_over_is_counted_and_told() -> None:
    """An item without an answer takes no part in any mean: no 0 is made of it."""
    asked, ask = items("say", "say long", "say it " * 4), Asking(Echo)  # type: ignore[arg-type]
    answered = asked.answer(ask)
    told = ask.summarize(asked, answered)
    found = aggregate_scores(exact_match.score_answers(answered), answered)

    assert [one.id for one in answered] == ["t:0", "t:1"]
    assert found.by_item["exact_match"] == {"t:0": 100, "t:1": 0} and found.values == {
        "exact_match": 50
    }
    assert told == {
        "items": 4,
        "unanswered": 2,
        "beyond_positions": 1,
        "answers": 2,
        "at_limit": 1,
        "turns_left_out": 1,
        "prompts_cut": 0,
    }
    assert ask.tokens == 7
    assert asking.list_flags(told, HOW) == [
        (
            "2 of 4 items were not asked and have no score: of 1 train.max_length leaves out the"
            " turn that is asked and 1 prompts leave no position of the model's for an answer"
        ),
        "1 of 2 answers were not over after max_new_tokens, 4, or at the model's last position",
    ]


@pytest.mark.parametrize(
    "told",
    [{}, {"items": 3, "unanswered": 0, "answers": 3, "at_limit": 0, "prompts_cut": 0}],
)
def test_nothing_is_told_where_all_was_asked_and_over(told: dict[str, int]) -> None:
    """Nor of answers that an older zsg has counted nothing of."""
    assert asking.list_flags(told, HOW) == []
