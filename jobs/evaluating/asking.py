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
    halved: int = 0  # batches that were too much for a GPU's memory

    def __call__(
        self, how: Mapping[str, Any], prompts: Sequence[Ids], names: Sequence[str]
    ) -> Sequence[list[int] | None]:
        """The tokens of each answer; None for a prompt that leaves no room for one."""
        generator = self.generator(how)
        halved_before = generator.budget.halved
        fitting = [
            number for number, prompt in enumerate(prompts) if generator.fits(prompt)
        ]
        fitting_answers = generator.answers(
            [prompts[number] for number in fitting],
            [names[number] for number in fitting],
        )
        self.halved += generator.budget.halved - halved_before
        self.answers += len(fitting_answers)
        self.tokens += sum(map(len, fitting_answers))
        self.beyond += len(prompts) - len(fitting)
        answers: list[list[int] | None] = [None] * len(prompts)
        for number, answer in zip(fitting, fitting_answers, strict=True):
            self.at_limit += generator.is_cut(prompts[number], answer)
            answers[number] = answer
        return answers

    def summarize(self, items: Items, answered: Iterable[Answered]) -> dict[str, int]:
        """What is kept beside the answers to a suite's items."""
        answered_ids = {answer.id for answer in answered}
        counts = {
            "items": len(items.places),
            "unanswered": len(items.places) - len(answered_ids),
            "beyond_positions": self.beyond,
            "answers": self.answers,
            "at_limit": self.at_limit,
        }
        if self.halved:
            counts["halved"] = self.halved
        return counts | (items.shortened if isinstance(items, OwnTestSet) else {})


def list_flags(counts: Mapping[str, int], how: Mapping[str, Any]) -> list[str]:
    """Sentences on what `Asking.summarize` has counted; none where all items were asked
    and all answers were over."""
    flags = []
    if counts.get("unanswered"):
        flags.append(
            f"{counts['unanswered']} of {counts['items']} items were not asked and have no score:"
            f" {' and '.join(_list_reasons(counts))}"
        )
    if counts.get("prompts_cut"):
        flags.append(
            f"{counts['prompts_cut']} of {counts['items']} prompts were cut to train.max_length"
        )
    if counts.get("at_limit"):
        flags.append(
            f"{counts['at_limit']} of {counts['answers']} answers were not over after"
            f" max_new_tokens, {how['max_new_tokens']}, or at the model's last position"
        )
    if counts.get("halved"):
        flags.append(
            f"the GPU ran out of memory {counts['halved']} times, and batches were halved; answers"
            " differ by rounding at most"
        )
    return flags


def _list_reasons(counts: Mapping[str, int]) -> list[str]:
    """Why items were not asked."""
    reasons = []
    if turns := counts.get("turns_left_out", 0):
        reasons.append(f"of {turns} train.max_length leaves out the turn that is asked")
    if beyond := counts.get("beyond_positions", 0):
        reasons.append(
            f"{beyond} prompts leave no position of the model's for an answer"
        )
    return reasons
