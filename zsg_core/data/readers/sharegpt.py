"""Reads ShareGPT dialogues in the dialects in use: `conversations` or `items` of
{from|role, value|content|text}.

A call of a tool is the assistant's and is learnt; what the tool answers is not. A
`system` text may stand beside the dialogue; the declared `tools` are left aside, and
counted.
"""

import msgspec

from zsg_core.data.examples import Example
from zsg_core.data.readers.dialogue import pair_turns
from zsg_core.data.readers.format import row_reader
from zsg_core.data.readers.intake import Intake, Malformed
from zsg_core.data.readers.keys import MessageKeys, RowKeys

TASK = "sharegpt"


class ShareGptMessage(MessageKeys, gc=False):
    """One message; each dialect has its own names."""

    from_: str | None = msgspec.field(name="from", default=None)
    value: str | None = None
    role: str | None = None
    content: str | None = None
    text: str | None = None

    def pair(self) -> tuple[str, str]:
        """Role and text. Malformed without them."""
        role = self.from_ if self.from_ is not None else self.role
        text = next(
            (
                text
                for text in (self.value, self.content, self.text)
                if text is not None
            ),
            None,
        )
        if role is None or text is None:
            raise Malformed(
                "a message needs `from` or `role`, and `value`, `content` or `text`"
            )
        return role, text


class ShareGptRow(RowKeys, gc=False):
    """One dialogue."""

    conversations: list[ShareGptMessage] | None = None
    items: list[ShareGptMessage] | None = None
    system: str | None = None


@row_reader(
    "sharegpt",
    "ShareGPT dialogues: a JSON array or JSON lines of conversations",
    ShareGptRow,
    (".json", ".jsonl"),
)
def parse_row(row: ShareGptRow, name: str, intake: Intake) -> list[Example]:
    """One example. Malformed if the messages are no dialogue."""
    messages = row.conversations if row.conversations is not None else row.items
    if messages is None:
        raise Malformed("needs `conversations` or `items`")
    system, pairs = pair_turns((message.pair() for message in messages), intake)
    return [
        Example(
            id=intake.next_id(TASK),
            task=TASK,
            turns=pairs,
            system=system or row.system or "",
        )
    ]
