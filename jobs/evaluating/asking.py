"""Puts prompts to a generator and counts what became of them: asked, beyond the model's
reach, over or cut off.

An answer that is cut off says nothing of what a model knows, and an item that cannot be
asked has no score; both are told with the scores, as a number that nobody doubts else.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.evaluating.items import Items, OwnTestSet
from jobs.model.generate import Generator, Ids
from zsg_core.metrics.scoring import Answered


@dataclass
class Asking:
    """What `Items.answer` asks with; `generator` makes one for a way of answering."""

    generator: Callable[[Mapping[str, Any]], Generator]
    answers: int = 0
    tokens: int = 0
    beyond: int = 0  # prompts that leave the model no position for an answer
    at_limit: int = 0  # answers that were not over where they had to end

    def __call__(
        self, how: Mapping[str, Any], prompts: Sequence[Ids], names: Sequence[str]
    ) -> Sequence[list[int] | None]:
        """The tokens of each answer; None for a prompt that leaves no room for one."""
        generator = self.generator(how)
        fitting = [
            place for place, prompt in enumerate(prompts) if generator.fits(prompt)
        ]
        made = generator.answers(
            [prompts[place] for place in fitting], [names[place] for place in fitting]
        )
        self.answers += len(made)
        self.tokens += sum(map(len, made))
        self.beyond += len(prompts) - len(fitting)
        found: list[list[int] | None] = [None] * len(prompts)
        for place, answer in zip(fitting, made, strict=True):
            self.at_limit += generator.is_cut(prompts[place], answer)
            found[place] = answer
        return found

    def told(self, items: Items, answered: Iterable[Answered]) -> dict[str, int]:
        """What is kept beside the answers to a suite's items."""
        unanswered = len(items.places) - len({one.id for one in answered})
        told = {
            "items": len(items.places),
            "unanswered": unanswered,
            "beyond_positions": self.beyond,
        }
        told |= {"answers": self.answers, "at_limit": self.at_limit}
        return told | (items.told if isinstance(items, OwnTestSet) else {})


def list_flags(told: Mapping[str, int], how: Mapping[str, Any]) -> list[str]:
    """Sentences on what `Asking.told` has counted; none where all items were asked and
    all answers were over."""
    made = []
    if told.get("unanswered"):
        beyond, turns = told.get("beyond_positions", 0), told.get("turns_left_out", 0)
        reasons = (
            [f"of {turns} train.max_length leaves out the turn that is asked"]
            if turns
            else []
        )
        reasons += (
            [f"{beyond} prompts leave no position of the model's for an answer"]
            if beyond
            else []
        )
        made.append(
            f"{told['unanswered']} of {told['items']} items were not asked and have no score:"
            f" {' and '.join(reasons)}"
        )
    if told.get("prompts_cut"):
        made.append(
            f"{told['prompts_cut']} of {told['items']} prompts were cut to train.max_length"
        )
    if told.get("at_limit"):
        made.append(
            f"{told['at_limit']} of {told['answers']} answers were not over after max_new_tokens, "
            f"{how['max_new_tokens']}, or at the model's last position"
        )
    return made
