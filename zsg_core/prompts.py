"""Turns an example into token ids and says which of them are learnt.

Text: `<s>User: {source}\\nAssistant: {answer}</s>`, each piece tokenised separately without special tokens and
concatenated; only the answer's tokens and the closing `</s>` carry loss (Dynamics of Zero-Shot Generalization,
training code). The source follows Tk-Instruct: definition, up to two positive examples, the input.
"""

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from zsg_core.examples import Example

Tokenize = Callable[[str], list[int]]


@dataclass(frozen=True)
class Encoded:
    """Token ids of one example; those from `answer_start` on are learnt. `cut` counts tokens left out."""

    ids: list[int]
    answer_start: int
    cut: int = 0

    @property
    def answer_tokens(self) -> int:
        return len(self.ids) - self.answer_start


def source(example: Example, shots: int, fits: Callable[[str], bool] = lambda text: True) -> str:
    """The Tk-Instruct prompt of an example with up to `shots` positive examples.

    A positive example after which the prompt no longer `fits` is left out, and so are all after it.
    """
    head = f"Definition: {_stop(example.definition.strip())}\n\n"
    tail = f"Now complete the following example -\nInput: {_stop(example.input.strip())}\nOutput: "
    body = ""
    for number, (given, wanted) in enumerate(example.shots[:shots], start=1):
        block = f" Positive Example {number} -\nInput: {_stop(given.strip())}\n Output: {_stop(wanted.strip())}\n\n"
        if not fits(head + body + block + tail):
            break
        body += block
    return head + body + tail


def encode(example: Example, *, shots: int, tokenize: Tokenize, bos: int, eos: int, max_length: int) -> Encoded:
    """The token ids of an example, at most `max_length`, the prompt shortened before the answer.

    First positive examples are dropped, then the source is cut at its tail; an answer is cut only when it
    alone is too long, and keeps its `</s>`. `max_length` must leave room for the fixed pieces (16 or more).
    """
    tag = tokenize("\nAssistant: ")
    answer = tokenize(example.answer.strip())
    fixed = 1 + len(tag) + 1
    answer_room = max_length - fixed
    room = max(0, answer_room - len(answer))
    text = source(example, shots, lambda prompt: len(tokenize(f"User: {prompt}")) <= room)
    prompt = tokenize(f"User: {text}")
    cut = max(0, len(prompt) - room) + max(0, len(answer) - answer_room)
    head = [bos, *prompt[:room], *tag]
    return Encoded([*head, *answer[:answer_room], eos], len(head), cut)


def embedding_text(example: Example, shots: int) -> str:
    """What similarity is measured on: the whole prompt and the answer, joined by one space (WSD scripts)."""
    return f"{source(example, shots).strip()} {example.answer.strip()}"


def training_texts(examples: Sequence[Example], shots: int) -> list[str]:
    """What a tokenizer of our own is trained on: each example as the model will see it."""
    return [f"User: {source(e, shots)}\nAssistant: {e.answer.strip()}" for e in examples]


def _stop(text: str) -> str:
    return text if text and text[-1] in string.punctuation else text + "."
