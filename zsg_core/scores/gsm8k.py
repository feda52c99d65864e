"""Scores answers to GSM8K by their final number."""

import re
from collections.abc import Iterable

from zsg_core.errors import BadData
from zsg_core.scores.scoring import Answered, ByItem, mean_by_item

# The patterns of lm-evaluation-harness's task gsm8k, version 3; the strict one is also that of gsm8k-ScRel.
STRICT = re.compile(r"#### (-?[0-9.,]+)")
ANY_NUMBER = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")
TOLERANCE = 1e-4  # of gsm8k-ScRel


def strict(text: str) -> float | None:
    """The number after the first `#### `; None where there is no such mark or no number after it."""
    found = STRICT.search(text)
    return _number(found.group(1)) if found else None


def flexible(text: str) -> float | None:
    """The last number, whatever stands before it; None without one."""
    found = ANY_NUMBER.findall(text)
    return _number(found[-1]) if found else None


def score(answers: Iterable[Answered]) -> dict[str, ByItem]:
    """100 where an answer's final number is that of the reference, else 0, read strictly and flexibly.

    Numbers are compared, not texts: 18, 18.0 and $18.00 are equal, as for gsm8k-ScRel (|a − b| < 1e-4), where
    lm-evaluation-harness would call only the first right. BadData for a reference that holds no number.
    """
    listed = list(answers)
    return {
        f"gsm8k/{name}": mean_by_item((one.id, 100.0 * _is_right(read(one.answer), _gold(one))) for one in listed)
        for name, read in (("strict", strict), ("flexible", flexible))
    }


def _gold(one: Answered) -> float:
    """The reference's number: after `####`, or the last, as in published model solutions that end in `A: 18`."""
    text = one.references[0] if one.references else ""
    gold = strict(text) if STRICT.search(text) else flexible(text)
    if gold is None:
        raise BadData(f"{one.id}: its reference holds no final number, such as `#### 18`: {text[-40:]!r}")
    return gold


def _is_right(found: float | None, gold: float) -> bool:
    return found is not None and abs(found - gold) < TOLERANCE


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", "").replace("$", "").rstrip("."))
    except ValueError:
        return None
