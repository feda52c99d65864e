"""Reads `messages` lists (No Robots, DELIA): the content a text, or a list of parts.

Parts are joined by a newline in their order: reasoning, text, calls of tools. Of a
preference row the chosen side is read, and that is counted. `category`, where there is
one, is the task.
"""

import msgspec

from zsg_core.data.examples import Example
from zsg_core.data.readers.dialogue import ASSISTANT, SIDES, pair_turns
from zsg_core.data.readers.format import Parse, row_reader
from zsg_core.data.readers.intake import Intake, Malformed
from zsg_core.data.readers.keys import MessageKeys, RowKeys

TEXTS = ("text", "reasoning", "tool_call")


class ContentPart(msgspec.Struct, gc=False):
    """A part of a message: {type, value}, or {type, text}."""

    type: str
    value: str | None = None
    text: str | None = None


class RoleMessage(MessageKeys, gc=False, kw_only=True):
    """One message."""

    role: str
    content: str | list[ContentPart]
    loss_weight: float | None = None


class MessagesRow(RowKeys, gc=False):
    """One dialogue, or a preferred and a rejected one."""

    messages: list[RoleMessage] | None = None
    chosen_messages: list[RoleMessage] | None = None
    category: str | None = None


def make_parser(task: str) -> Parse[MessagesRow]:
    """Parses rows whose task is `task` unless they name a category."""

    def parse(row: MessagesRow, name: str, intake: Intake) -> list[Example]:
        messages = row.messages
        if messages is None and row.chosen_messages is not None:
            messages = row.chosen_messages
        if messages is None:
            raise Malformed("needs `messages` or `chosen_messages`")
        system, pairs = pair_turns(
            [(message.role, _text(message)) for message in messages], intake
        )
        row_task = row.category or task
        return [
            Example(
                id=intake.next_id(row_task), task=row_task, turns=pairs, system=system
            )
        ]

    return parse


def _text(message: RoleMessage) -> str:
    if message.loss_weight not in (None, 1.0) and SIDES.get(message.role) == ASSISTANT:
        raise Malformed(
            f"loss_weight {message.loss_weight} of an assistant's message; zsg learns all of them"
            " alike"
        )
    if isinstance(message.content, str):
        return message.content
    return "\n".join(_part(content_part) for content_part in message.content)


def _part(content_part: ContentPart) -> str:
    text = content_part.value if content_part.value is not None else content_part.text
    if content_part.type not in TEXTS or text is None:
        raise Malformed(
            f"a part of type {content_part.type!r} with no text; known: {', '.join(TEXTS)}"
        )
    return text


row_reader(
    "messages",
    "lists of messages with roles (No Robots): JSON lines or a JSON array",
    MessagesRow,
)(make_parser("messages"))
row_reader("delia", "DELIA's formatted-text rows: lists of messages", MessagesRow)(
    make_parser("delia")
)
