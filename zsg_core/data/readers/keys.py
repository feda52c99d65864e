"""Knows the keys of rows and messages that change what a row means, and what zsg does
where one does.

A reader takes the keys of its format and no others, so a key that says "do not learn
this" would go unseen. Here is the one table of them. What says that an answer is not to
be trained on is refused: zsg trains on every answer alike. What a row has beside what is read
(reasoning, calls of tools, a system text) is counted and told. Every other key is taken
for a label of the row that changes nothing.

Sources of the names: OpenAI's and Mistral's `weight`, axolotl's `train`, `training` and
`train_detail`, torchtune's `masked`, ms-swift's `loss`, NeMo's `mask`, LLaMA-Factory's
`loss_weight` and `kto_tag`, OASST's `deleted`, TRL's `label` of KTO, DeepSeek's and
Qwen's `reasoning_content`, OpenRouter's `reasoning_details`, LiteLLM's `thinking_blocks`,
OpenAI's former `functions`, GSM8K's `solution` of a model beside the right answer.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from zsg_core.data.readers.dialogue import ASSISTANT, SIDES, USER
from zsg_core.data.readers.intake import Intake
from zsg_core.data.readers.names import split_kind

Holds = Callable[[Any], bool]


@dataclass(frozen=True)
class KeyRule:
    """What is done where a key's value `holds`: refused, or counted as `says`. `side`:
    of whose messages, or of all."""

    holds: Holds
    says: str
    is_refused: bool = False
    side: str | None = None


class KeyValue:
    """The value of a key of the tables, of any type."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def _is_there(value: Any) -> bool:
    """Whether there is anything: not null, not false, not an empty text or list."""
    return value not in (None, False, "", [], {}, 0) and not (
        isinstance(value, str) and not value.strip()
    )


def _is_not_whole(value: Any) -> bool:
    """Whether a mark of learning says anything but 'learn this as all others'."""
    return value is not None and value is not True and value != 1


def _is_masked(value: Any) -> bool:
    """Whether a mask may be of target tokens: NeMo's names the side that has none,
    which may be the user's."""
    if isinstance(value, str):
        return bool(value.strip()) and SIDES.get(value.strip().lower()) != USER
    return value is not None and value is not False


def _is_false(value: Any) -> bool:
    return value is False


def _is_nothing(value: Any) -> bool:
    """Whether it is a number or a truth value that says 'none of it'."""
    return isinstance(value, (bool, int, float)) and not value


def _is_other_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and value not in (0, 1)


def _is_no_learning(value: Any) -> bool:
    """Whether a mark of a whole row says that it, or a part of it, is not to be trained on."""
    return _is_nothing(value) or isinstance(value, list)


UNTRAINED = "marks what is not to be trained on, and zsg trains on every answer alike"
REMOVED = "marks what was taken out of the data"
REJECTED = "rejected side of a preference"

_LEARN = (
    "weight",
    "train",
    "training",
    "trainable",
    "learn",
    "loss",
    "loss_mask",
    "loss_weight",
)
_MASK = ("mask", "masked", "ignore", "train_detail")
_REMOVED = ("deleted", "is_deleted", "removed")
_REASONING = (
    "reasoning_content",
    "reasoning_details",
    "reasoning",
    "thinking",
    "thinking_blocks",
    "thought",
    "thoughts",
    "chain_of_thought",
    "cot",
)
_MEDIA = ("images", "image", "audios", "audio", "videos", "video")

MESSAGE: dict[str, tuple[KeyRule, ...]] = {
    **{
        key: (
            KeyRule(_is_not_whole, UNTRAINED, is_refused=True, side=ASSISTANT),
            KeyRule(
                _is_there,
                f"`{key}` of a user's message, of which nothing is learnt",
                side=USER,
            ),
        )
        for key in _LEARN
    },
    **{
        key: (KeyRule(_is_masked, UNTRAINED, is_refused=True, side=ASSISTANT),)
        for key in _MASK
    },
    **{key: (KeyRule(_is_there, REMOVED, is_refused=True),) for key in _REMOVED},
    "prefix": (
        KeyRule(
            _is_there,
            "marks the beginning of an answer, not one",
            is_refused=True,
            side=ASSISTANT,
        ),
    ),
    "tool_calls": (
        KeyRule(
            _is_there,
            "is a part of the answer that is not read; write it as text",
            is_refused=True,
        ),
    ),
    "function_call": (
        KeyRule(
            _is_there,
            "is a part of the answer that is not read; write it as text",
            is_refused=True,
        ),
    ),
    "children": (
        KeyRule(
            _is_there,
            "makes a tree of the dialogue; write each path as a row",
            is_refused=True,
        ),
    ),
    "replies": (
        KeyRule(
            _is_there,
            "makes a tree of the dialogue; write each path as a row",
            is_refused=True,
        ),
    ),
    **{
        key: (KeyRule(_is_there, f"`{key}` beside a message's content"),)
        for key in (*_REASONING, *_MEDIA)
    },
    "name": (KeyRule(_is_there, "`name` of a message's speaker"),),
    "label": (KeyRule(_is_there, "`label` of a message"),),
}

ROW: dict[str, tuple[KeyRule, ...]] = {
    "weight": (
        KeyRule(_is_no_learning, UNTRAINED, is_refused=True),
        KeyRule(_is_other_number, "`weight` of a row, and all rows count alike"),
    ),
    **{
        key: (KeyRule(_is_no_learning, UNTRAINED, is_refused=True),)
        for key in _LEARN
        if key != "weight"
    },
    **{
        key: (KeyRule(_is_masked, UNTRAINED, is_refused=True),)
        for key in ("mask", "masked", "ignore")
    },
    **{
        key: (KeyRule(lambda value: value is True, REMOVED, is_refused=True),)
        for key in _REMOVED
    },
    "label": (
        KeyRule(_is_false, "marks an answer that is not wanted (KTO)", is_refused=True),
    ),
    "kto_tag": (
        KeyRule(_is_false, "marks an answer that is not wanted (KTO)", is_refused=True),
    ),
    "chosen": (
        KeyRule(_is_false, "marks an answer that is not wanted", is_refused=True),
    ),
    **{
        key: (
            KeyRule(
                _is_false, f"row with `{key}: false`, which is learnt as any other"
            ),
        )
        for key in ("is_correct", "correct", "is_valid", "accepted", "passed")
    },
    **{
        key: (KeyRule(_is_there, REJECTED),)
        for key in ("rejected", "rejected_response", "rejected_messages")
    },
    **{
        key: (KeyRule(_is_there, f"`{key}` beside what is read of a row"),)
        for key in (
            "system",
            "system_prompt",
            "system_message",
            "tools",
            "functions",
            *_REASONING,
            *_MEDIA,
        )
    },
}

# What a question may need to be answered, beside rows of one question and one answer.
QUESTION: dict[str, tuple[KeyRule, ...]] = {
    key: (KeyRule(_is_there, f"`{key}` beside a question"),)
    for key in (
        "context",
        "passage",
        "input",
        "history",
        "choices",
        "options",
        "rationale",
        "solution",
    )
}
SPLIT = "split"
_DIALOGUES = ("messages", "chosen_messages", "conversations", "items")


if TYPE_CHECKING:

    class RowKeys(msgspec.Struct, gc=False, kw_only=True):
        """A row with the keys of ROW."""

    class QuestionKeys(msgspec.Struct, gc=False, kw_only=True):
        """A row of a question and an answer, with the keys of ROW and of QUESTION."""

    class MessageKeys(msgspec.Struct, gc=False, kw_only=True):
        """A message with the keys of MESSAGE."""

else:

    def _struct(name: str, keys: Iterable[str]) -> type[msgspec.Struct]:
        """A type of rows with these keys, each a `KeyValue` or None where a row has not
        the key. Its objects are outside of garbage collection, which would walk through
        millions of them; they hold no cycles."""
        fields = [(key, KeyValue | None, None) for key in keys]
        return msgspec.defstruct(name, fields, gc=False, kw_only=True, module=__name__)

    RowKeys = _struct("RowKeys", (*ROW, SPLIT))
    QuestionKeys = _struct("QuestionKeys", (*ROW, *QUESTION, SPLIT))
    MessageKeys = _struct("MessageKeys", MESSAGE)


class UnsupportedRow(Exception):
    """A row that asks for what zsg does not do. It is no bad row: passing it over would
    change the study, too."""


def make_decode_hook(intake: Intake) -> Callable[[type, Any], KeyValue]:
    """What a decoder calls for a key of the tables where it is there: rows without one
    cost nothing."""

    def found(kind: type, value: Any) -> KeyValue:
        intake.met_key = True
        return KeyValue(value)

    return found


def check_keys(row: Any, intake: Intake) -> None:
    """Counts what a row has beside what is read. UnsupportedRow for what cannot
    be read as it is meant."""
    for key, rules in _OF_ROWS.items():
        value = getattr(row, key, None)
        if isinstance(value, KeyValue):
            _apply(f"`{key}: {_shown(value.value)}`", value.value, rules, None, intake)
    for name in _DIALOGUES:
        for number, message in enumerate(getattr(row, name, None) or ()):
            _check_message(f"{name}[{number}]", message, intake)
    split = getattr(row, SPLIT, None)
    if (
        isinstance(split, KeyValue)
        and isinstance(split.value, str)
        and split_kind(split.value)
    ):
        intake.splits[split.value] += 1


_OF_ROWS = {**ROW, **QUESTION}


def _check_message(location: str, message: Any, intake: Intake) -> None:
    role = getattr(message, "from_", None) or getattr(message, "role", None) or ""
    side = SIDES.get(role)
    for key, rules in MESSAGE.items():
        value = getattr(message, key, None)
        if not isinstance(value, KeyValue) or (
            key == "name" and role not in ("user", "assistant", "human", "gpt")
        ):
            # what answers is named in a tool's message, and that changes nothing
            continue
        _apply(
            f"{location}: `{key}: {_shown(value.value)}`",
            value.value,
            rules,
            side,
            intake,
        )


def check_message_values(
    location: str, role: str, values: Mapping[str, Any], intake: Intake
) -> None:
    """The same of a message whose keys are none of a format's: `values` are all that it
    has beside who speaks and what."""
    side = SIDES.get(role)
    for key in MESSAGE.keys() & values.keys():
        value = values[key]
        if key == "name" and side not in (USER, ASSISTANT):
            continue
        place = f"{location}: `{key}: {_shown(value)}`"
        _apply(place, value, MESSAGE[key], side, intake)


def _apply(
    location: str,
    value: Any,
    rules: tuple[KeyRule, ...],
    side: str | None,
    intake: Intake,
) -> None:
    for rule in rules:
        if rule.side not in (None, side) or not rule.holds(value):
            continue
        if rule.is_refused:
            raise UnsupportedRow(f"{location} {rule.says}")
        intake.note(rule.says)


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode("utf-8", "replace")
    return text if len(text) <= 40 else f"{text[:39]}…"
