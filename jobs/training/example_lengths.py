"""Counts how many tokens examples have as a model would get them, and what max_length
would take of each, before anything is prepared: only a tokenizer is needed."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from jobs.model.vocabulary import load_vocabulary
from jobs.training.learnt_texts import Loss, measure_loss
from jobs.training.train_sets import UNLIMITED, make_encoder
from zsg_core.data.examples import Example
from zsg_core.data.prompts import Template
from zsg_core.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Writing:
    """How examples are written and cut. `tokenizer`: the folder that it is read from;
    `base`: the model's part of a recipe, None of one that stands in none."""

    tokenizer: Path
    base: Recipe | None
    template: Template
    max_length: int
    truncate: str = "prompt"


class ExampleLength(NamedTuple):
    """An example in tokens. `prompt` and `answer` are those of the whole example;
    `loss` is what max_length takes of it, None where it fits."""

    prompt: int
    answer: int
    loss: Loss | None
    lost_question: bool

    @property
    def whole(self) -> int:
        """All of its tokens."""
        return self.prompt + self.answer


class LengthCounter:
    """Measures examples with one tokenizer and template."""

    def __init__(self, writing: Writing) -> None:
        """UserError for a tokenizer that cannot be used."""
        vocabulary = load_vocabulary(writing.tokenizer, writing.base)
        self.max_length = writing.max_length
        self._encode = make_encoder(
            vocabulary, writing.template, writing.max_length, writing.truncate
        )
        self._encode_whole = make_encoder(
            vocabulary, writing.template, UNLIMITED, writing.truncate
        )

    def measure(self, example: Example) -> ExampleLength:
        """The tokens of an example, and what it loses."""
        whole = self._encode_whole(example)
        answer = whole.answer_tokens
        prompt = len(whole.ids) - answer
        longest = max(end - begin for begin, end in whole.bounds)
        if longest <= self.max_length:
            return ExampleLength(prompt, answer, None, False)
        limited = self._encode(example)
        loss = measure_loss(limited, whole)
        return ExampleLength(prompt, answer, loss, limited.lost_question)
