"""Turns a list of messages into a system text and (user, assistant) turns.

A dialogue alternates. What cannot be a turn at its ends is left out and counted: an
assistant's opening that answers nothing (FastChat's rule), and a last question without
an answer (the papers': "an odd trailing turn is dropped"). Anything else that does not
alternate is malformed.
"""

from collections.abc import Iterable

from zsg_core.data.examples import Turn
from zsg_core.data.readers.intake import Intake, Malformed

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
# What a tool answers is given to the assistant, as the user's words are; a call of a
# tool is the assistant's.
SIDES = {
    "system": SYSTEM,
    "developer": SYSTEM,
    "user": USER,
    "human": USER,
    "tool": USER,
    "observation": USER,
    "function_response": USER,
    "function": USER,
    "assistant": ASSISTANT,
    "gpt": ASSISTANT,
    "chatgpt": ASSISTANT,
    "bing": ASSISTANT,
    "bard": ASSISTANT,
    "model": ASSISTANT,
    "function_call": ASSISTANT,
    "tool_call": ASSISTANT,
}


def pair_turns(
    messages: Iterable[tuple[str, str]], intake: Intake
) -> tuple[str, tuple[Turn, ...]]:
    """The system text and the turns of (role, text) messages. Malformed if they do not
    alternate or answer nothing."""
    dialogue = _Dialogue(intake)
    for role, text in messages:
        dialogue.add(role, text)
    if not dialogue.pairs:
        raise Malformed("no message of a user is answered by the assistant")
    if dialogue.question is not None:
        intake.note("last message without an answer")
    return "\n".join(dialogue.system), tuple(dialogue.pairs)


class _Dialogue:
    """The turns of the messages so far, and the question that has no answer yet."""

    def __init__(self, intake: Intake) -> None:
        self.system: list[str] = []
        self.pairs: list[Turn] = []
        self.question: str | None = None
        self._intake = intake

    def add(self, role: str, text: str) -> None:
        """Takes the next message. Malformed where it cannot stand there."""
        side = SIDES.get(role)
        if side is None:
            raise Malformed(f"unknown role {role!r}; known: {', '.join(SIDES)}")
        if side == SYSTEM:
            self._add_system(text)
        elif side == USER:
            self._add_question(role, text)
        else:
            self._add_answer(role, text)

    def _add_system(self, text: str) -> None:
        if self.pairs or self.question is not None:
            raise Malformed("a system message stands after the dialogue has begun")
        self.system.append(text)

    def _add_question(self, role: str, text: str) -> None:
        if self.question is not None:
            raise Malformed(
                f"{role!r} speaks although the message before it has no answer yet"
            )
        self.question = text

    def _add_answer(self, role: str, text: str) -> None:
        if self.question is not None:
            self.pairs.append((self.question, text))
            self.question = None
        elif self.pairs:
            raise Malformed(
                f"{role!r} speaks although nothing was asked since the last answer"
            )
        else:
            self._intake.note("opening of the assistant")
