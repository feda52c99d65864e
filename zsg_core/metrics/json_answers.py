"""Scores answers that are to be an object {"thought": …, "hallucination": "yes" or
"no"} (DELIA, TELL).

The published training answers are written with single quotes, as Python writes a dict,
so quotes are repaired before parsing: a text ends at its own quote if a blank, `,`,
`:`, `}` or the end follows, and any other quote in it is text.

TELL's scorer (eval_halu.py) makes every "yes" a "no" before it parses, and divides the
hits by the sum of its five counters, the number of all items among them, so that even a
perfect model has 50 %. Neither is done here.
"""

import json
import re
from collections.abc import Iterable
from typing import Any

from zsg_core.metrics.registry import metric
from zsg_core.metrics.scoring import Answered, ByItem, mean_by_item

KEYS = ("thought", "hallucination")
LABEL = KEYS[1]
LABELS = ("yes", "no")
_END = re.compile(r"\s*(?:[,:}\]]|$)")


@metric("json_valid", "json_accuracy")
def score_answers(answers: Iterable[Answered]) -> dict[str, ByItem]:
    """`json_valid` is 100 for an answer that is such an object and nothing else;
    `json_accuracy` if its label is right.

    An answer without a valid label is wrong. An item whose references have no label,
    `yes`, `no` or an object with one, has no accuracy.
    """
    valid, right = [], []
    for answered in answers:
        label = read_label(answered.answer)
        valid.append((answered.id, 100.0 * (label is not None)))
        right_labels = {
            reference_label
            for reference in answered.references
            if (reference_label := _plain(reference) or read_label(reference))
        }
        if right_labels:
            right.append((answered.id, 100.0 * (label in right_labels)))
    return {"json_valid": mean_by_item(valid), "json_accuracy": mean_by_item(right)}


def read_label(answer: str) -> str | None:
    """The label of a valid answer; None for an answer that is none."""
    parsed = parse_json(answer)
    if (
        not isinstance(parsed, dict)
        or set(parsed) != set(KEYS)
        or not isinstance(parsed[KEYS[0]], str)
    ):
        return None
    return _plain(parsed[LABEL]) if isinstance(parsed[LABEL], str) else None


def parse_json(text: str) -> Any:
    """What a JSON text says, its quotes repaired where it is none as it stands; None
    where that does not help."""
    for attempt in (text, _requoted(text)):
        try:
            # line breaks within texts are common, and harmless
            return json.loads(attempt, strict=False)
        except (ValueError, RecursionError):
            continue
    return None


def _plain(text: str) -> str | None:
    word = text.strip().lower()
    return word if word in LABELS else None


def _requoted(text: str) -> str:
    """The text with each quoted part written as JSON writes it."""
    pieces, at = [], 0
    while at < len(text):
        quote = text[at]
        if quote in "'\"":
            end = _closing(text, at)
            inner = text[at + 1 : end].replace("\\'", "'").replace('\\"', '"')
            pieces.append(json.dumps(_unescaped(inner), ensure_ascii=False))
            at = end
        else:
            pieces.append(quote)
        at += 1
    return "".join(pieces)


def _closing(text: str, start: int) -> int:
    """Where the part ends whose quote stands at `start`; the end of the text if it does not."""
    at = start + 1
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] == text[start] and _END.match(text, at + 1):
            return at
        at += 1
    return len(text)


def _unescaped(text: str) -> str:
    return re.sub(
        r"\\([nt\\])",
        lambda escape: {"n": "\n", "t": "\t", "\\": "\\"}[escape[1]],
        text,
    )
