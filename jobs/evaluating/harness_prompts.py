"""Turns what lm-evaluation-harness asks a model into token ids: whole texts as the
harness reads them, or dialogues as the run itself was trained on them.

`chat: none` and `chat: model` make one text of a prompt, which is cut into tokens as the
harness cuts it: blanks at the end of a context belong to what follows. `chat: run` has
dialogues written by the run's own template, piece by piece and option by option as its
test loss reads them (jobs.evaluating.items); the harness is given a text that names the
dialogue.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jobs.evaluating.items import UNCUT, Asker
from jobs.model.whole_texts import WholeTexts
from zsg_core.data import prompts
from zsg_core.data.examples import Example
from zsg_core.data.prompts import EncodedExample
from zsg_core.errors import UserError
from zsg_core.settings.lm_eval import BY_RUN

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
Ids = Sequence[int]
Message = Mapping[str, str]
LOST_SYSTEM = (
    "the chat template takes no system message: a task's description is left out, as"
    " lm-evaluation-harness does"
)


@dataclass
class PromptWriter:
    """How a run's model is asked. `chat`: see LmEvalSettings.chat. `flags`: sentences on
    what was left out."""

    chat: str
    asker: Asker
    texts: WholeTexts
    flags: list[str] = field(default_factory=list[str])
    _dialogues: dict[str, Example] = field(default_factory=dict[str, Example])

    def write_dialogue(self, messages: Sequence[Message], asks: bool = True) -> str:
        """A dialogue as a text that stands for it; with what opens an answer where it
        `asks` for one, else with its last message left open. UserError where the
        template cannot write it."""
        if self.chat != BY_RUN:
            return self._write_by_model(messages, asks)
        if not asks:
            raise UserError(
                "checkpoints.suites.lm_eval.chat: run does not open answers with a"
                " `gen_prefix`, as this task does; take chat: model or none"
            )
        rows = [[message["role"], message["content"]] for message in messages]
        name = json.dumps(rows, ensure_ascii=False)
        self._dialogues[name] = _make_example(messages)
        return name

    def encode_pairs(
        self, pairs: Sequence[tuple[str, str]]
    ) -> list[tuple[list[int], list[int]]]:
        """The ids of contexts and of what follows each of them, in their order.

        A context that stands for a dialogue is encoded as the run is trained on it; an
        empty one is the beginning of sequence; of any other the whole text is encoded,
        and what follows is what is behind the context's own tokens.
        """
        encoded: list[tuple[list[int], list[int]]] = [([], [])] * len(pairs)
        texts: list[int] = []
        for number, (context, continuation) in enumerate(pairs):
            dialogue = self._dialogues.get(context)
            if dialogue is not None:
                encoded[number] = self._encode_answer(dialogue, continuation)
            elif context:
                texts.append(number)
            else:
                encoded[number] = self._encode_without_context(continuation)
        moved = [_move_blanks(*pairs[number]) for number in texts]
        wholes = self.texts.encode([before + after for before, after in moved])
        contexts = self.texts.encode([before for before, _ in moved])
        for number, whole, context in zip(texts, wholes, contexts, strict=True):
            encoded[number] = context, whole[len(context) :]
        return encoded

    def encode_prompts(self, contexts: Sequence[str]) -> list[list[int]]:
        """The ids of contexts that are to be answered, in their order.

        A dialogue is asked as the run's own test items are; any other text is encoded
        with what the tokenizer puts around one.
        """
        encoded: list[list[int]] = [[]] * len(contexts)
        texts: list[int] = []
        for number, context in enumerate(contexts):
            dialogue = self._dialogues.get(context)
            if dialogue is None:
                texts.append(number)
            else:
                encoded[number] = self.asker.prompt(dialogue)
        whole = self.texts.encode([contexts[number] for number in texts])
        for number, ids in zip(texts, whole, strict=True):
            encoded[number] = ids
        return encoded

    def add_ends(self, decoding: Mapping[str, Any]) -> Mapping[str, Any]:
        """A way of answering, with where an answer ends beside it: in the run's own
        template, at its next turn."""
        if self.chat != BY_RUN:
            return decoding
        turn = prompts.next_turn(self.asker.template.name)
        stops = [*decoding["stops"], turn] if turn else decoding["stops"]
        return self.asker.add_ends({**decoding, "stops": stops})

    def encode_rolling(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of texts of which every token is scored: without a beginning."""
        return self.texts.encode_alone(texts)

    def _write_by_model(self, messages: Sequence[Message], asks: bool) -> str:
        """By the chat template of the model; without the system message where the
        template refuses it."""
        try:
            return self.texts.write_chat(messages, asks, {})
        except ValueError as error:
            without = [each for each in messages if each["role"] != SYSTEM]
            if len(without) == len(messages):
                raise _refuse(error) from None
        try:
            written = self.texts.write_chat(without, asks, {})
        except ValueError as error:
            raise _refuse(error) from None
        if LOST_SYSTEM not in self.flags:
            self.flags.append(LOST_SYSTEM)
        return written

    def _encode_without_context(self, continuation: str) -> tuple[list[int], list[int]]:
        """What follows nothing follows the beginning of sequence."""
        [ids] = self.texts.encode_alone([continuation])
        if ids and ids[0] == self.texts.first:
            return ids[:1], ids[1:]
        return [self.texts.first], ids

    def _encode_answer(
        self, dialogue: Example, answer: str
    ) -> tuple[list[int], list[int]]:
        """A dialogue with an answer as the run would be trained on it: the ids before the
        answer, and those of the answer.

        What closes the answer, an end of sequence or of turn, is no part of it: an
        option's likelihood is that of its text.
        """
        encoded = self._encode(dialogue.answering(answer)).last
        start, stop = encoded.spans[-1]
        ids = list(map(int, encoded.ids))
        closing = self._list_closing()
        while stop - start > 1 and ids[stop - 1] in closing:
            stop -= 1
        return ids[:start], ids[start:stop]

    def _encode(self, example: Example) -> EncodedExample:
        asker, words = self.asker, self.asker.vocabulary
        if asker.template.name == prompts.CHAT:
            return words.open_chat(asker.template).encode(example, UNCUT)
        return prompts.encode_example(
            example,
            template=asker.template,
            tokenize=words.tokenize,
            bos=words.bos,
            eos=words.eos,
            max_length=UNCUT,
        )

    def _list_closing(self) -> set[int]:
        """The tokens that close an answer."""
        return set(self.asker.add_ends({"ends": [self.texts.eos]})["ends"])


def _move_blanks(context: str, continuation: str) -> tuple[str, str]:
    """Blanks at the end of a context go to what follows it."""
    before = context.rstrip()
    return before, context[len(before) :] + continuation


def _make_example(messages: Sequence[Message]) -> Example:
    """A dialogue whose last answer is yet to be given.

    System messages are one text. A message of the assistant answers the user's last; one
    before any question is left out, as no template of zsg's begins with an answer.
    """
    system = "\n\n".join(each["content"] for each in messages if each["role"] == SYSTEM)
    turns: list[tuple[str, str]] = []
    for message in messages:
        if message["role"] == USER:
            turns.append((message["content"], ""))
        elif message["role"] == ASSISTANT and turns:
            turns[-1] = (turns[-1][0], message["content"])
    return Example(id="", task="", turns=tuple(turns), system=system)


def _refuse(error: ValueError) -> UserError:
    return UserError(
        f"checkpoints.suites.lm_eval.chat: the model's chat template refuses a prompt:"
        f" {error}"
    )
