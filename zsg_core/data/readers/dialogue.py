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
    system: list[str] = []
    made: list[Turn] = []
    asked: str | None = None
    for role, text in messages:
        side = SIDES.get(role)
        if side is None:
            raise Malformed(f"unknown role {role!r}; known: {', '.join(SIDES)}")
        if side == SYSTEM:
            if made or asked is not None:
                raise Malformed("a system message stands after the dialogue has begun")
            system.append(text)
        elif side == USER:
            if asked is not None:
                raise Malformed(
                    f"{role!r} speaks although the message before it has no answer yet"
                )
            asked = text
        elif asked is not None:
            made.append((asked, text))
            asked = None
        elif made:
            raise Malformed(
                f"{role!r} speaks although nothing was asked since the last answer"
            )
        else:
            intake.note("opening of the assistant")
    if not made:
        raise Malformed("no message of a user is answered by the assistant")
    if asked is not None:
        intake.note("last message without an answer")
    return "\n".join(system), tuple(made)
