"""Turns examples into token ids by a model's own chat template, within a number of tokens.

What a longer one loses is what it loses under zsg's own templates (zsg_core.data.
prompts): later turns that do not fit whole, positive examples, the tail of the
question, and the tail of an answer that is too long alone. Whatever is shorter is
written by the template anew, so that a dialogue that was cut is one that the template
could have written.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import TypeVar

from msgspec import structs

from jobs.model.chat import (
    ASSISTANT,
    SYSTEM,
    USER,
    ChatFault,
    ChatSequence,
    ChatWriter,
    EncodedDialogue,
    Message,
)
from zsg_core.data import prompts
from zsg_core.data.examples import Example
from zsg_core.data.prompts import CUT_SYSTEM, HEAD, EncodedExample, Template
from zsg_core.errors import UserError

# how a system text is written: as the template has it, before the first question, or
# not at all
AS_SYSTEM, PREPEND, DROP = "template", "prepend", "drop"


@dataclass(frozen=True)
class Prompt:
    """The token ids that a model is asked with; None where the turn that is asked does
    not fit. `is_cut`: whether they are less than all."""

    ids: list[int] | None
    is_cut: bool


Made = TypeVar("Made")


class ChatEncoder:
    """Turns examples into token ids by the chat template of a tokenizer.

    `rows`: of the embedding; a token beyond them is refused.
    """

    def __init__(
        self, writer: ChatWriter, template: Template, rows: int | None = None
    ) -> None:
        """UserError where the tokenizer's template is not that of the recipe."""
        self._writer, self._template, self._rows = writer, template, rows
        digest = prompts.digest_chat_template(writer.source)
        if template.digest and template.digest != digest:
            raise UserError(
                "the model's chat template has changed since this was submitted; zsg submit again"
                " makes runs of what it is now"
            )

    @cached_property
    def end_of_turn(self) -> int | None:
        """The token with which the template closes an answer; None where that cannot be
        told."""
        return self._writer.find_end_of_turn()

    def encode(
        self, example: Example, max_length: int, truncate: str = prompts.CUT_PROMPT
    ) -> EncodedExample:
        """The token ids of an example; each of its texts has at most `max_length`.

        UserError, which names the example, for what the template cannot write or what
        cannot be learnt of it.
        """
        with_name = _NamedFaults(example)
        whole = with_name.try_to(lambda: self._encode_turns(example))
        if _fits(whole, max_length):
            return self._finish(whole, 0)
        size = _count_tokens(whole)
        if truncate == HEAD:
            head = _take_head(whole, max_length)
            return self._finish(head, size - _count_tokens(head))
        turns = self._count_fitting(example, whole, max_length)
        if turns:
            shorter = _take_turns(example, turns)
            encoded = with_name.try_to(lambda: self._encode_turns(shorter))
            return self._finish(encoded, size - _count_tokens(encoded))
        first = _take_turns(example, 1)
        encoded, is_lost = with_name.try_to(
            lambda: self._shorten(first, max_length, truncate)
        )
        return self._finish(encoded, max(1, size - _count_tokens(encoded)), is_lost)

    def encode_prompt(
        self,
        example: Example,
        max_length: int,
        truncate: str = prompts.CUT_PROMPT,
    ) -> Prompt:
        """What a model is asked with for the example's last answer, in at most
        `max_length` tokens. It is the same whatever that answer is."""
        with_name = _NamedFaults(example)
        ids = with_name.try_to(lambda: self._encode_asked(example))
        if len(ids) <= max_length:
            return Prompt(ids, False)
        if truncate == HEAD:
            return Prompt(ids[:max_length], True)
        if len(example.turns) > 1:
            return Prompt(None, True)
        return with_name.try_to(
            lambda: self._shorten_prompt(example, max_length, truncate)
        )

    def _encode_turns(
        self, example: Example, question: str | None = None
    ) -> EncodedDialogue:
        return self._writer.encode(self._list_messages(example, question))

    def _encode_asked(self, example: Example, question: str | None = None) -> list[int]:
        messages = self._list_messages(example, question)[:-1]
        return self._writer.encode_prompt(messages)[0]

    def _list_messages(
        self, example: Example, first_question: str | None = None
    ) -> list[Message]:
        """What is said; `first_question` in place of the first one's text."""
        first = first_question
        if first is None:
            first = prompts.build_question(example, self._template.shots)
        messages: list[Message] = []
        system = example.system.strip()
        if system and self._template.system == AS_SYSTEM:
            messages.append(Message(SYSTEM, example.system))
        if system and self._template.system == PREPEND:
            first = f"{system}\n\n{first}"
        for number, (question, answer) in enumerate(example.turns):
            messages.append(Message(USER, question if number else first))
            messages.append(Message(ASSISTANT, answer))
        return messages

    def _count_fitting(
        self, example: Example, whole: EncodedDialogue, max_length: int
    ) -> int:
        """How many turns fit whole, the first ones: of which each text does."""
        if len(whole.sequences) > 1:
            sizes = [len(sequence.ids) for sequence in whole.sequences]
        else:
            sizes = [stop for _, stop in whole.sequences[0].spans]
        fitting = 0
        while fitting < len(sizes) and sizes[fitting] <= max_length:
            fitting += 1
        while fitting and not _fits(
            self._encode_turns(_take_turns(example, fitting)), max_length
        ):
            fitting -= 1
        return fitting

    def _shorten(
        self, example: Example, max_length: int, truncate: str
    ) -> tuple[EncodedDialogue, bool]:
        """The only turn of an example within `max_length`, and whether nothing of the
        question is left."""

        def measure(shorter: Example, question: str) -> int:
            return _count_tokens(self._encode_turns(shorter, question))

        shorter, question = self._cut_prompt(example, max_length, truncate, measure)
        answer = example.answer
        while (over := measure(shorter, question) - max_length) > 0:
            if not answer.strip():
                raise ChatFault(
                    f"the chat template alone writes {max_length + over} tokens, more than"
                    f" train.max_length, {max_length}; raise it"
                )
            answer = self._cut_tail(answer, over)
            self._refuse_cut_thought(example.answer, answer)
            shorter = shorter.answering(answer)
        is_lost = bool(example.input.strip()) and not question.strip()
        return self._encode_turns(shorter, question), is_lost

    def _shorten_prompt(
        self, example: Example, max_length: int, truncate: str
    ) -> Prompt:
        """What asks for the only answer of an example, within `max_length`."""

        def measure(shorter: Example, question: str) -> int:
            return len(self._encode_asked(shorter, question))

        shorter, question = self._cut_prompt(example, max_length, truncate, measure)
        ids = self._encode_asked(shorter, question)
        return Prompt(ids if len(ids) <= max_length else None, True)

    def _refuse_cut_thought(self, whole: str, shorter: str) -> None:
        """ChatFault where an answer would lose words that the template looks for: it would
        then be written as another answer, a thought as one that was never closed."""
        lost = [
            word
            for word in self._writer.sought_words
            if word in whole and word not in shorter
        ]
        if lost:
            raise ChatFault(
                f"train.max_length would cut its answer before {min(lost)!r}, which the chat"
                " template looks for, so that another answer would be learnt; raise it, or leave"
                " the example out"
            )

    def _cut_prompt(
        self,
        example: Example,
        max_length: int,
        truncate: str,
        measure: Callable[[Example, str], int],
    ) -> tuple[Example, str]:
        """The example with a shorter system text, if that is to be cut first, and its
        question without positive examples that do not fit, cut at its tail."""
        question = prompts.build_question(
            example,
            self._template.shots,
            lambda text: measure(example, text) <= max_length,
        )
        cuts_system = truncate == CUT_SYSTEM
        while (over := measure(example, question) - max_length) > 0:
            if cuts_system and example.system.strip():
                system = self._cut_tail(example.system, over)
                example = structs.replace(example, system=system)
            elif question.strip():
                question = self._cut_tail(question, over)
            else:
                break
        return example, question

    def _cut_tail(self, text: str, count: int) -> str:
        """A text without its last `count` tokens."""
        stops = self._writer.list_token_ends(text)
        if count >= len(stops):
            return ""
        last = len(stops) - count - 1
        # the tokens of one character all end behind it, and less must be left each time
        return text[: min(stops[last], len(text) - 1)]

    def _finish(
        self, encoded: EncodedDialogue, cut: int, lost_question: bool = False
    ) -> EncodedExample:
        """The token ids of all texts, one after the other."""
        sequences = encoded.sequences
        ids = [token for sequence in sequences for token in sequence.ids]
        self._refuse_beyond(ids)
        lengths = [len(sequence.ids) for sequence in sequences]
        begins = [0, *accumulate(lengths[:-1])]
        spans = [
            (begin + start, begin + stop)
            for begin, sequence in zip(begins, sequences, strict=True)
            for start, stop in sequence.spans
        ]
        return EncodedExample(
            ids,
            tuple(spans),
            max(0, cut),
            lost_question,
            tuple(lengths) if len(lengths) > 1 else (),
            bool(encoded.apart),
            encoded.control,
        )

    def _refuse_beyond(self, ids: Sequence[int]) -> None:
        if self._rows is not None and ids and max(ids) >= self._rows:
            raise UserError(
                f"the chat template writes the token {max(ids)}, but the embedding has"
                f" {self._rows} rows (vocab_size in config.json); take the tokenizer that belongs"
                " to the weights"
            )


class _NamedFaults:
    """Tells what is wrong with an example together with its name."""

    def __init__(self, example: Example) -> None:
        self._name = example.id

    def try_to(self, make: Callable[[], Made]) -> Made:
        """What is made. UserError in place of a ChatFault."""
        try:
            return make()
        except ChatFault as fault:
            advice = ""
            if "the template refuses it" in str(fault):
                advice = (
                    ". Of a template without system texts, data.chat_system: prepend writes them"
                    " before the first question, and drop leaves them out"
                )
            raise UserError(f"example {self._name}: {fault}{advice}") from None


def _take_turns(example: Example, turns: int) -> Example:
    """An example of its first turns alone."""
    return structs.replace(example, turns=example.turns[:turns])


def _take_head(encoded: EncodedDialogue, max_length: int) -> EncodedDialogue:
    """The first tokens of each text."""
    sequences: list[ChatSequence] = []
    for sequence in encoded.sequences:
        spans = [
            (start, min(stop, max_length))
            for start, stop in sequence.spans
            if start < max_length
        ]
        sequences.append(ChatSequence(sequence.ids[:max_length], tuple(spans)))
    return replace(encoded, sequences=sequences)


def _count_tokens(encoded: EncodedDialogue) -> int:
    return sum(len(sequence.ids) for sequence in encoded.sequences)


def _fits(encoded: EncodedDialogue, max_length: int) -> bool:
    return all(len(sequence.ids) <= max_length for sequence in encoded.sequences)
